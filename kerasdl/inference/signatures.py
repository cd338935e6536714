"""What a task's signatures are outside: checked, with encoded images and texts where there are."""

import tensorflow as tf

from kerasdl.data import images
from kerasdl.data.text.tokenizer import Tokenizer


def tokenizer_of(task):
    """The `Tokenizer` of a task's data, or None."""
    return Tokenizer.from_json(task.info.tokenizer) if task.info.tokenizer else None


def functions(task, model, target: str, tokenizer=None, batch: int | None = None, only=()) -> dict:
    """What is served: `{signature: (function of positional tensors, [TensorSpec])}`.

    The SavedModel's also name the class, take encoded images as `serve_bytes`, and take and give
    texts for token ids.

    Args:
        task: The task; its `signatures(model)` says what is served.
        model: The Keras model.
        target: "savedmodel" or "tflite".
        tokenizer: A `Tokenizer`; needed where a signature has texts.
        batch: Of the inputs; None is any.
        only: Names of the signatures that are wanted; all if empty.

    Returns:
        Functions that return `{output name: tensor}`; the specs' names are the inputs'.
    """
    served = {}
    for signature in task.signatures(model):
        if target not in signature.formats:
            continue
        names, specs = list(signature.inputs), dict(signature.inputs)
        if target == "savedmodel" and signature.text_inputs:
            served[signature.name] = _with_texts(signature, tokenizer)
            continue
        function = _named(signature.function, names)
        if target == "savedmodel":
            function = _with_class_name(function, task.info.class_names)
            if signature.requires:
                function = _with_checks(function, names, signature.requires)
        served[signature.name] = (function, [_tensor_spec(n, specs[n], batch) for n in names])
        image = signature.bytes_input
        # Of other images than gray and color there are no encoded files.
        if target == "savedmodel" and image and specs[image].shape[-1] in (1, 3):
            encoded = tf.TensorSpec((None,), tf.string, name=f"{image}_bytes")
            served["serve_bytes"] = (
                _from_bytes(function, names.index(image), specs[image].shape),
                [encoded if n == image else _tensor_spec(n, specs[n]) for n in names],
            )
    served = {name: result for name, result in served.items() if not only or name in only}
    if target == "savedmodel" and served:  # what a server asks where no name is given
        served.setdefault("serving_default", next(iter(served.values())))
    return served


def decode_batch(image_bytes, shape):
    """Decode and resize encoded images.

    Args:
        image_bytes: string `(B,)`, each a PNG, JPEG, GIF or BMP of any size and channels.
        shape: `(H, W, C)`.

    Returns:
        float32 `(B, H, W, C)` in [0, 1].
    """

    def one(encoded):
        image = images.fit(images.decode(encoded, shape[-1]), shape[:2])
        return tf.ensure_shape(image, shape)

    return tf.map_fn(one, image_bytes, fn_output_signature=tf.TensorSpec(shape, tf.float32))


def _tensor_spec(name, spec, batch=None):
    free = [None if isinstance(n, str) else n for n in spec.shape]
    return tf.TensorSpec((batch, *free) if spec.batched else free, spec.dtype, name=name)


def _named(function, names):
    return lambda *tensors: dict(function(**dict(zip(names, tensors, strict=True))))


def _with_class_name(function, class_names):
    def served(*tensors):
        outputs = function(*tensors)
        if class_names and "label" in outputs:
            outputs["class_name"] = tf.gather(tf.constant(list(class_names)), outputs["label"])
        return outputs

    return served


def _with_checks(function, names, requires):
    def served(*tensors):
        return function(*checked(dict(zip(names, tensors, strict=True)), requires).values())

    return served


def checked(inputs, requires):
    """The same tensors, given only where what `requires` says of them holds."""
    checks = requires(**inputs) if requires else ()
    asserts = [tf.debugging.Assert(tf.reduce_all(right), [message]) for right, message in checks]
    with tf.control_dependencies(asserts):
        return {name: tf.identity(value) for name, value in inputs.items()}


def _from_bytes(function, position, shape):
    def served(*tensors):
        tensors = list(tensors)
        tensors[position] = decode_batch(tensors[position], tuple(shape))
        return function(*tensors)

    return served


def _with_texts(signature, tokenizer):
    """A signature whose token ids are texts outside; its numbers may be one for all texts."""
    names = [signature.text_inputs.get(name, name) for name in signature.inputs]
    specs = []
    for name, spec in signature.inputs.items():
        if name in signature.text_inputs:
            specs.append(tf.TensorSpec((None,), tf.string, name=signature.text_inputs[name]))
        else:  # of any rank: a number, or one per text
            specs.append(tf.TensorSpec(None, spec.dtype, name=name))

    def served(*tensors):
        given = dict(zip(names, tensors, strict=True))
        inputs = {}
        for ids, text in signature.text_inputs.items():
            strings = given.pop(text)
            inputs[ids], inputs[f"{ids}_length"] = tokenizer.ids(strings)
            count = tf.shape(strings)[:1]
        for name, value in given.items():
            inputs[name] = tf.ensure_shape(
                tf.broadcast_to(tf.reshape(value, (-1,)), count), (None,)
            )
        outputs = dict(signature.function(**checked(inputs, signature.requires)))
        for ids, text in signature.text_outputs.items():
            outputs[text] = tokenizer.text(outputs.pop(ids))
        return outputs

    return served, specs
