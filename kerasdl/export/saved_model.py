"""Write a task's signatures as a SavedModel."""

import keras
import tensorflow as tf

from kerasdl.data import images


def write(model, signatures: dict, folder) -> None:
    """Write a SavedModel.

    Args:
        model: The Keras model whose weights the signatures use.
        signatures: `{name: (function of positional tensors, [TensorSpec])}`, as of `functions`.
        folder: Where to; may exist.
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, (function, specs) in signatures.items():
        archive.add_endpoint(name, function, input_signature=specs)
    archive.write_out(str(folder), verbose=False)


def functions(task, model, target: str) -> dict:
    """What is served: `{signature: (function of positional tensors, [TensorSpec])}`.

    The SavedModel's also name the class, and take encoded images as `serve_bytes`.

    Args:
        task: The task; its `signatures(model)` says what is served.
        model: The Keras model.
        target: "savedmodel" or "tflite".

    Returns:
        Functions that return `{output name: tensor}`; the specs' names are the inputs'.
    """
    served = {}
    for signature in task.signatures(model):
        if target not in signature.formats:
            continue
        names, specs = list(signature.inputs), dict(signature.inputs)
        function = _named(signature.function, names)
        if target == "savedmodel":
            function = _with_class_name(function, task.info.class_names)
        served[signature.name] = (function, [_tensor_spec(n, specs[n]) for n in names])
        image = signature.bytes_input
        # Of other images than grey and colour there are no encoded files.
        if target == "savedmodel" and image and specs[image].shape[-1] in (1, 3):
            encoded = tf.TensorSpec((None,), tf.string, name=f"{image}_bytes")
            served["serve_bytes"] = (
                _from_bytes(function, names.index(image), specs[image].shape),
                [encoded if n == image else _tensor_spec(n, specs[n]) for n in names],
            )
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


def _tensor_spec(name, spec):
    free = [None if isinstance(n, str) else n for n in spec.shape]
    return tf.TensorSpec((None, *free), spec.dtype, name=name)


def _named(function, names):
    return lambda *tensors: dict(function(**dict(zip(names, tensors, strict=True))))


def _with_class_name(function, class_names):
    def served(*tensors):
        outputs = function(*tensors)
        if class_names and "label" in outputs:
            outputs["class_name"] = tf.gather(tf.constant(list(class_names)), outputs["label"])
        return outputs

    return served


def _from_bytes(function, position, shape):
    def served(*tensors):
        tensors = list(tensors)
        tensors[position] = decode_batch(tensors[position], tuple(shape))
        return function(*tensors)

    return served
