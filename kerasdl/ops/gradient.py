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
