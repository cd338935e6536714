"""The signatures of a task as they are served: checked, with encoded images and texts."""

from dataclasses import dataclass, replace

import tensorflow as tf

from kerasdl.columns import ABSENT, DataInfo
from kerasdl.data import headers, images
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.inference import explain, requests
from kerasdl.tasks import bounds


@dataclass(frozen=True)
class Endpoint:
    """A signature as it is served.

    Attributes:
        function: Of positional tensors; returns `{output name: tensor}`.
        specs: Its `TensorSpec`s; their names are the inputs'.
        description: JSON of its inputs and outputs; see `interface`.
    """

    function: object
    specs: list
    description: dict


class _TracedOnce:
    """A model whose calls are one function in all graphs, traced for the first of them.

    Args:
        model: The Keras model.
    """

    def __init__(self, model):
        self.wrapped = model
        self._traced = tf.function(model.__call__, autograph=False)

    def __call__(self, *args, **kwargs):
        return self._traced(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.wrapped, name)


def tokenizer_of(task):
    """The `Tokenizer` of a task's data, or None."""
    return Tokenizer.from_json(task.info.tokenizer) if task.info.tokenizer else None


def functions(task, model, target: str, tokenizer=None, batch: int | None = 1, only=()) -> dict:
    """What is served: `{signature: (function of positional tensors, [TensorSpec])}`.

    The SavedModel's also name the classes, take encoded images as `serve_bytes`, and take and give
    texts for token ids.

    Args:
        task: The task; its `signatures(model)` are served.
        model: The Keras model.
        target: "savedmodel" or "tflite".
        tokenizer: A `Tokenizer`; needed where a signature has texts.
        batch: Examples that a TFLite file takes at once; None is any, and as many tokens, too.
        only: Names of the requested signatures; all but `explain` if empty.

    Returns:
        Functions that return `{output name: tensor}`; the specs' names are the inputs'. Two names
        of one signature have the same pair.
    """
    served = _endpoints(task, _TracedOnce(model), target, tokenizer, batch, only)
    pairs = {id(one): (one.function, one.specs) for one in served.values()}
    return {name: pairs[id(one)] for name, one in served.items()}


def interface(task, model, only=(), batch: int | None = 1) -> dict:
    """The inputs and outputs of a model, as JSON: all that inference needs.

    Args:
        task: Its task.
        model: The Keras model.
        only: Names of the signatures that are written; all if empty.
        batch: Of TFLite files, see `functions`.

    Returns:
        `context`, the maximum of tokens that it reads, or None; `resize` and `crop_fraction`, how
        images come to its size; and `savedmodel` and `tflite`, each
        `{signature: {"inputs", "outputs", "limits"}}`, of a SavedModel with the `bounds` of
        `kerasdl.tasks.bounds.of_request` besides. An input has `kind`, `shape`, `dtype` and
        `batched`; where it is a file's bytes or a text `encoded`, and of texts `ids`, the name of
        their token ids; the `min` and `max` of its numbers, where a SavedModel checks them; and the
        `noise` that it is made of. An output has a `kind`, and its `class_names`; it lists only
        outputs that are shown by their kind. A limit has the attributes of
        `kerasdl.tasks.task.Limit`.
    """
    described = {
        target: {
            name: endpoint.description
            for name, endpoint in _endpoints(task, model, target, None, batch, only).items()
        }
        for target in ("savedmodel", "tflite")
    }
    fit = fit_of(task)
    more = {"resize": fit.mode, "crop_fraction": fit.fraction}
    return {"context": getattr(model, "context", None), **more, **described}


def class_names_of(info: DataInfo, name: str, kind: str) -> tuple:
    """Names of the classes of a label, of boxes' labels or of a mask: those of the column that is
    called so, or else of the first of its kind, or of all."""
    column = info.columns.get(name)
    if column is None or not column.class_names:
        column = info.first(kind)
    return column.class_names if column and column.class_names else info.class_names


def decode_batch(image_bytes, shape, fit=images.SQUASH):
    """Decode and resize encoded images.

    No more than `bounds.MAX_PIXELS` of one are decoded, and two at a time.

    Args:
        image_bytes: string `(B,)`, each a PNG, JPEG, WebP, GIF or BMP of any size and channels.
        shape: `(H, W, C)`.
        fit: How they come to that size.

    Returns:
        float32 `(B, H, W, C)` in [0, 1].
    """

    return images.to_float(
        _of_each(
            lambda content: images.read(content, shape, fit),
            image_bytes,
            tf.TensorSpec(shape, tf.uint8),
        )
    )


def _places(image_bytes, shape, fit):
    """`Fit.place` of encoded images: float32 `(B, 4)`."""
    spec = tf.TensorSpec((4,), tf.float32)
    return _of_each(lambda content: fit.place(content, shape[:2]), image_bytes, spec)


def _of_each(function, image_bytes, spec):
    """`function` of each encoded image that has no more pixels than are allowed."""

    def one(content):
        checks, count = requests.Checks(), headers.pixels(content)
        message = f"an encoded image must have at most {bounds.MAX_PIXELS:,} pixels, but has"
        checks.check(count <= bounds.MAX_PIXELS, message, count)
        return function(checks.after({"content": content})["content"])

    return tf.map_fn(one, image_bytes, fn_output_signature=spec, parallel_iterations=2)


def fit_of(task) -> images.Fit:
    """How images come to the size of the model of a task, as in its run."""
    recipe = getattr(task, "run_recipe", None)
    return images.Fit.from_recipe(recipe) if recipe else images.SQUASH


def _endpoints(task, model, target, tokenizer=None, batch=1, only=()) -> dict:
    """`{signature: Endpoint}`."""
    served, signatures = {}, list(task.signatures(model))
    if "explain" in only and explain.applies(task):  # on request
        signatures.append(explain.signature(task, getattr(model, "wrapped", model)))
    if not task.info.tokenizer:
        signatures = [signature.of_ids() for signature in signatures]
    for signature in signatures:
        if target not in signature.formats:
            continue
        if target == "tflite":
            sizes = {} if batch is None else task.sizes()
            served[signature.name] = _plain(signature, task.info, batch, sizes)
            continue
        fit = fit_of(task)
        served[signature.name] = _rich(signature, task.info, fit, tokenizer)
        # Of other images than gray and color there are no encoded files.
        encoded = [
            name
            for name, spec in signature.inputs.items()
            if spec.kind == "image" and spec.batched and spec.shape[-1] in (1, 3)
        ]
        if encoded:
            rich = _rich(signature, task.info, fit, tokenizer, encoded)
            served.setdefault("serve_bytes", rich)
    served = {name: one for name, one in served.items() if not only or name in only}
    if target == "savedmodel" and served:  # what a server runs where no name is given
        served.setdefault("serving_default", next(iter(served.values())))
    return served


def _plain(signature, info, batch, sizes):
    """An endpoint of tensors as devices take them.

    Their free axes have a size where `sizes` says so, there are no scalars, and whole numbers have
    32 or 8 bits.
    """
    device = replace(
        signature,
        inputs={
            name: replace(spec, shape=tuple(sizes.get(n, n) for n in spec.shape))
            if spec.batched or spec.shape
            else replace(spec, shape=(1,))
            for name, spec in signature.inputs.items()
        },
    )
    scalars = [
        name for name, spec in signature.inputs.items() if not spec.batched and not spec.shape
    ]

    def served(*tensors):
        inputs = dict(zip(device.inputs, tensors, strict=True))
        inputs |= {name: inputs[name][0] for name in scalars}
        result = signature.function(**inputs)
        return {
            name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
            for name, value in result.items()
        }

    specs = [_tensor_spec(name, spec, batch) for name, spec in device.inputs.items()]
    return Endpoint(served, specs, _description(device, info))


def _rich(signature, info, fit, tokenizer, encoded=()):
    """An endpoint that checks, decodes `encoded` images, takes and gives texts, names classes."""
    texts, names = signature.text_inputs, list(signature.inputs)
    allowed = bounds.of_request(signature, encoded, info.max_length)

    def served(*tensors):
        inputs, count, checks = {}, None, requests.Checks()
        tensors = dict(zip(names, tensors, strict=True))
        tensors = requests.shaped(checks, tensors, specs, signature, allowed)
        for name, tensor in tensors.items():
            if name in texts:
                inputs[name], inputs[f"{name}_length"] = tokenizer.ids(tensor)
                count = tf.shape(tensor)[:1] if signature.inputs[name].batched else count
            elif name in encoded:
                inputs[name] = decode_batch(tensor, tuple(signature.inputs[name].shape), fit)
            else:
                inputs[name] = tensor
        for name, spec in signature.inputs.items():
            if count is not None and _number(spec):
                value = tf.broadcast_to(tf.reshape(inputs[name], (-1,)), count)
                inputs[name] = tf.ensure_shape(value, (None,))
        inputs = requests.checked(checks, inputs, (*texts, *encoded), signature, info)
        outputs = dict(signature.function(**inputs))
        boxes, masks = (
            [n for n, spec in signature.outputs.items() if spec.kind == kind]
            for kind in ("boxes", "instances")
        )
        if encoded and boxes and fit != images.SQUASH:
            (image,) = encoded  # whose boxes they are
            place = _places(tensors[image], signature.inputs[image].shape, fit)
            for name in masks:
                outputs[name] = images.masks_in_whole(outputs[name], place)
            for name in boxes:
                shape = (-1, *[1] * (outputs[name].shape.rank - 2), 4)
                outputs[name] = images.in_whole(outputs[name], tf.reshape(place, shape))
        for ids, text in signature.text_outputs.items():
            outputs[text] = tokenizer.text(outputs.pop(ids))
        for name, spec in signature.outputs.items():
            if spec.kind == "label":
                outputs[name] = tf.cast(outputs[name], spec.dtype)
        for name, label in _class_names(signature, info).items():
            outputs[name] = _names(outputs[label], class_names_of(info, label, "label"))
        return outputs

    specs = []
    for name, spec in signature.inputs.items():
        if name in texts:
            specs.append(tf.TensorSpec((None,), tf.string, name=texts[name]))
        elif name in encoded:
            specs.append(tf.TensorSpec((None,), tf.string, name=f"{name}_bytes"))
        elif texts and _number(spec):  # of any rank: a number, or one per text
            specs.append(tf.TensorSpec(None, spec.dtype, name=name))
        else:
            specs.append(_tensor_spec(name, spec))
    return Endpoint(served, specs, _description(signature, info, True, encoded))


def _number(spec):
    return spec.batched and not spec.shape


def _tensor_spec(name, spec, batch=None):
    free = [None if isinstance(n, str) else n for n in spec.shape]
    return tf.TensorSpec((batch, *free) if spec.batched else free, spec.dtype, name=name)


def _class_names(signature, info):
    """`{output: the output of labels whose classes it names}`."""
    labels = [
        name
        for name, spec in signature.outputs.items()
        if spec.kind == "label" and class_names_of(info, name, "label")
    ]
    return {f"{name}_class_name" if i else "class_name": name for i, name in enumerate(labels)}


def _names(label, class_names):
    """The names of labels, empty of what is absent."""
    names = tf.gather(tf.constant(list(class_names)), tf.maximum(label, 0))
    return tf.where(label == ABSENT, "", names)


def _description(signature, info, rich=False, encoded=()):
    """See `interface`."""
    inputs = {}
    for name, spec in signature.inputs.items():
        one = {
            "kind": spec.kind,
            "shape": list(spec.shape),
            "dtype": spec.dtype,
            "batched": spec.batched,
        }
        low, high = requests.range_of(spec, info)
        if rich and low is not None:
            one |= {"min": low, "max": high}
        if name in signature.noise:
            noise = signature.noise[name]
            one["noise"] = {"distribution": noise.distribution, "stream": noise.stream}
        if rich and name in signature.text_inputs:
            inputs[signature.text_inputs[name]] = one | {"encoded": True, "ids": name}
        elif name in encoded:
            inputs[f"{name}_bytes"] = one | {"encoded": True}
        else:
            inputs[name] = one
    outputs = {}
    for name, spec in signature.outputs.items():
        outputs[name] = {"kind": spec.kind}
        if spec.kind in ("label", "mask"):
            outputs[name]["class_names"] = list(class_names_of(info, name, spec.kind))
    if rich:
        for text in signature.text_outputs.values():
            outputs[text] = {"kind": "tokens", "encoded": True}
        outputs |= {name: {"kind": "text"} for name in _class_names(signature, info)}
    limits = [
        {"inputs": list(limit.inputs), "message": limit.message, "min": limit.min, "max": limit.max}
        | ({"together": True} if limit.together else {})
        for limit in signature.limits
    ]
    result = {"inputs": inputs, "outputs": outputs, "limits": limits}
    return result | (
        {"bounds": bounds.of_request(signature, encoded, info.max_length)} if rich else {}
    )
