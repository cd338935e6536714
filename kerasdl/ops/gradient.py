"""The derivative that `keras.ops` lacks, for penalties on a network's gradient."""

import sys

import keras


def gradient(function, x):
    """The gradient of `sum(function(x))` with respect to `x`; it can be differentiated again.

    Args:
        function: Takes a tensor like `x`, returns a float tensor of any shape.
        x: float, any shape.

    Returns:
        float, the shape of `x`; zeros where `function` does not depend on it.

    Raises:
        NotImplementedError: The backend is neither TensorFlow nor JAX.
    """
    return value_and_gradient(function, x)[1]


def value_and_gradient(function, x):
    """`function(x)`, and what `gradient` returns, for one evaluation of the function."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        tf = sys.modules[backend]  # Keras has imported it
        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x, unconnected_gradients="zero")
    if backend == "jax":
        jax = sys.modules[backend]
        y, pull_back = jax.vjp(function, x)
        return y, pull_back(jax.numpy.ones_like(y))[0]
    raise NotImplementedError(f"no gradients on the {backend} backend")


def recomputed(function, tensors):
    """`function(tensors)`, for whose gradient `tensors` alone are kept: the rest is computed again.

    In TensorFlow it saves memory within a `tf.function` alone, and not under XLA, which does not
    wait for the gradient before it computes again.

    Args:
        function: Takes a list of tensors and returns one. It reads no variable besides, and a
            second call must do what the first one did.
        tensors: A list of tensors, or variables.

    Returns:
        A list of tensors.

    Raises:
        NotImplementedError: The backend is neither TensorFlow nor JAX.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        tf = sys.modules[backend]
        tensors = [tf.convert_to_tensor(x) for x in tensors]  # read now, if they are variables
        return tf.custom_gradient(_with_pull_back(function))(*tensors)
    if backend == "jax":
        return sys.modules[backend].checkpoint(function)(tensors)
    raise NotImplementedError(f"no gradients on the {backend} backend")


def _with_pull_back(function):
    tf = sys.modules["tensorflow"]

    def run(*tensors):
        def pull_back(*upstream):
            with tf.control_dependencies(upstream):  # else it would all be computed at once
                again = [tf.identity(x) for x in tensors]
            floats = [x for x in again if x.dtype.is_floating]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(floats)
                outputs = function(again)
            pairs = zip(outputs, upstream, strict=True)
            outputs, upstream = zip(*(p for p in pairs if p[0].dtype.is_floating), strict=True)
            gradients = tape.gradient(outputs, floats, upstream)
            # All of them before what comes next: a weight's, put off, would keep the values for it.
            with tf.control_dependencies([g for g in gradients if g is not None]):
                gradients = iter([g if g is None else tf.identity(g) for g in gradients])
            return [next(gradients) if x.dtype.is_floating else None for x in again]

        return function(list(tensors)), pull_back

    return run
