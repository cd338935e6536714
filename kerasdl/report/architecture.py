"""A model described in text: paper, arguments, settings, size, work, layers. Makes no weights but
where effective receptive fields are asked for."""

import functools
import importlib
import inspect
import math
from dataclasses import dataclass, replace

import keras
import tensorflow as tf

from kerasdl import catalog
from kerasdl.errors import UserError
from kerasdl.recipe import flag
from kerasdl.report import receptive
from kerasdl.store.weightless import no_weights

CONVOLUTIONS = ("Conv2D", "Conv3D", "DepthwiseConv2dNative")
TOKENS = 64  # of an example of text
EXAMPLE = "example"  # name of the operation that gives what a model takes
LOOPS = ("While", "StatelessWhile")
HIDDEN = ("name", "trainable", "dtype")  # what every Keras model takes


@dataclass(frozen=True)
class Block:
    """A line of the layer table.

    Attributes:
        path: Its name below the model.
        shape: Shape of its output for one example, without the batch, or None.
        parameters: All of them.
        multiply_adds: For one example, or None where they cannot be counted.
        field: Height and width of its receptive field in pixels of the image, `inf` where that is
            all of it; None where the model takes no image.
        effective: Side of its effective receptive field in pixels; None if not measured.
    """

    path: str
    shape: tuple | None
    parameters: int
    multiply_adds: int | None
    field: tuple | None = None
    effective: float | None = None


def describe(name: str, image_size=None, effective: bool = False) -> str:
    """What `show` prints of a model; allocates no weights, so the largest takes seconds.

    Args:
        name: Of the catalogue.
        image_size: A side, or `(height, width)`; the builder's default if None.
        effective: Whether to measure effective receptive fields, for which it is made as it starts.

    Raises:
        UserError: An unknown model, an image size that it does not take, or a model of no images
            whose effective receptive fields are asked for.
    """
    row = catalog.row(name)
    module = catalog.module_of(name)
    given = _given(name, getattr(module, name), image_size)
    with no_weights():
        model = catalog.build(name, **given)
        blocks, work = layer_table(model)
        trainable, fixed = _count(model.trainable_weights), _count(model.non_trainable_weights)
        arguments = {k: v for k, v in model.get_config().items() if k not in HIDDEN}
    if effective:
        if not any(b.field for b in blocks):
            raise UserError(f"--effective: {name} does not take an image alone")
        sides = effective_fields(catalog.build(name, **given), given["image_shape"])
        blocks = [replace(b, effective=sides.get(b.path)) for b in blocks]
    task = importlib.import_module(f"kerasdl.tasks.{row.task}").TASK
    settings = {**task.recipe, **catalog.settings_of(name)}
    one = f"one {'x'.join(map(str, given['image_shape']))} image" if given else f"{TOKENS} tokens"
    metadata = [
        ("task", row.task),
        ("data set", row.dataset),
        ("parameters", f"{trainable:,} trainable, {fixed:,} not"),
        (
            "multiply-adds",
            f"{short(work)} for {one}" if work is not None else "not counted: it loops",
        ),
    ]
    if row.limits:
        metadata.append(("limits", row.limits))
    lines = [f"{name} ({row.paper})", "", *_head(module), "", *_columns(metadata)]
    lines += ["", "Arguments (--model-kwargs)", *_indent(_columns(arguments.items()))]
    lines += ["", "Settings where they differ from the defaults"]
    flags = [(f"--{flag(k)}", _plain(v)) for k, v in settings.items()]
    lines += _indent(_columns(flags) or ["none"])
    if task.settings:
        own = {**task.settings, **settings.get("task_kwargs", {})}
        lines += ["", "Settings of the task (--task-kwargs)"]
        lines += _indent(_columns((k, _plain(v)) for k, v in own.items()))
    lines += ["", "Layers", *_indent(_table(blocks))]
    return "\n".join(line.rstrip() for line in lines)


def multiply_adds(model, inputs=None) -> int | None:
    """Multiply-adds of the forward pass of one example: those of matrix products and convolutions.

    Args:
        model: A Keras model.
        inputs: A `keras.Input`, or several, of what it takes; what a model of the catalogue says
            by itself if None. A free axis counts as `TOKENS`.

    Returns:
        Their number; None if the model has a loop, whose passes a graph does not tell.
    """
    return _sum(_trace(model, inputs))


def work_of(function) -> int | None:
    """Multiply-adds of all that a function computes; None if it has a loop."""
    return _sum(_operations(function))


def layer_table(model) -> tuple[list[Block], int | None]:
    """The blocks of a model, two levels below it, and the multiply-adds of the whole.

    Args:
        model: A model of the catalogue, not used again: its layers are listened to.

    Returns:
        One `Block` for each layer with weights, or if it holds layers, for each of those; then
        one named `(rest)` where the model has weights or work outside them.
    """
    layers = {path: layer for path, layer in _blocks(model) if layer.weights}
    calls = {path: [] for path in layers}  # (first operation, operation after the last, output)
    for path, layer in layers.items():
        _listen(layer, calls[path])
    operations = _trace(model)
    whole = _sum(operations)
    blocks, fields = [], _fields(operations)
    for path, layer in layers.items():
        work = _sum([op for first, last, _ in calls[path] for op in operations[first:last]])
        output = calls[path][-1][2] if calls[path] else None
        shape = None if output is None else tuple(output.shape[1:])
        field = None if output is None else fields.get(output.name)
        blocks.append(Block(path, shape, _count(layer.weights), work, field))
    rest = _count(model.weights) - sum(b.parameters for b in blocks)
    more = None
    if whole is not None:
        more = whole - sum(b.multiply_adds for b in blocks)
    if rest or more:
        blocks.append(Block("(rest)", None, rest, more))
    return blocks, whole


def effective_fields(model, image_shape) -> dict:
    """The effective receptive fields of a model's blocks that give maps: `{path: side}` in pixels.

    Args:
        model: A model of the catalogue that takes an image alone; not used again.
        image_shape: `(H, W, C)`.
    """
    calls = {path: [] for path, layer in _blocks(model) if layer.weights}
    for path, layer in _blocks(model):
        if path in calls:
            _listen(layer, calls[path])

    def maps(x):
        for made in calls.values():
            made.clear()
        model(x, training=False)
        given = {path: made[-1][2] for path, made in calls.items() if made}
        return {path: y for path, y in given.items() if y is not None and y.shape.rank == 4}

    return receptive.effective(maps, image_shape)


def short(number: float) -> str:
    """A count with three digits and `k`, `M`, `G` or `T`."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            digits = max(0, 2 - int(math.log10(number / size)))
            return f"{number / size:.{digits}f} {unit}"
    return f"{number:.0f}"


# -- tracing --------------------------------------------------------------------------------------


def _trace(model, inputs=None) -> list:
    """The operations of the forward pass of one example, in order."""

    def one(x):
        shape = [1, *(TOKENS if n is None else n for n in x.shape[1:])]
        return tf.identity(tf.ones(shape, x.dtype), name=EXAMPLE)  # of tokens, no padding

    def forward():
        given = inputs if inputs is not None else model.symbolic_inputs()
        model(keras.tree.map_structure(one, given), training=False)

    return _operations(forward)


def _operations(function) -> list:
    """What a function puts into a graph, in order."""
    graph = tf.__internal__.FuncGraph("forward")
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)  # functions within, such as Keras' own, stand inline
    try:
        with graph.as_default():
            function()
    finally:
        tf.config.run_functions_eagerly(eagerly)
    return graph.get_operations()


def _fields(operations) -> dict:
    """`{tensor name: receptive field}` of a model that takes an image and nothing else."""
    given = [op.outputs[0] for op in operations if op.name.split("/")[-1].startswith(EXAMPLE)]
    image = [x for x in given if x.shape.rank == 4]
    return receptive.fields(operations, image[0].name) if len(given) == len(image) == 1 else {}


def _listen(layer, calls):
    """Note the operations and the last output of every call of a layer."""
    call = layer.call

    @functools.wraps(call)
    def listening(*args, **kwargs):
        graph = tf.compat.v1.get_default_graph()
        first = len(graph.get_operations())
        outputs = call(*args, **kwargs)
        tensors = [t for t in tf.nest.flatten(outputs) if hasattr(t, "shape")]
        calls.append((first, len(graph.get_operations()), tensors[-1] if tensors else None))
        return outputs

    layer.call = listening


def _blocks(model):
    """`(path, layer)` of what stands in the table."""
    for child in model._flatten_layers(include_self=False, recursive=False):
        below = [g for g in child._flatten_layers(include_self=False, recursive=False) if g.weights]
        if not below:
            yield child.name, child
        for layer in below:
            yield f"{child.name}/{layer.name}", layer


def _sum(operations) -> int | None:
    """Multiply-adds of operations."""
    if any(op.type in LOOPS for op in operations):
        return None
    return sum(_multiply_adds(op) for op in operations)


def _multiply_adds(op) -> int:
    if op.type in CONVOLUTIONS:
        kernel = tuple(op.inputs[1].shape)  # the last axis is the output's
        one = kernel[:2] if op.type == "DepthwiseConv2dNative" else kernel[:-1]
        return _size(op.outputs[0].shape) * math.prod(one)
    if op.type in ("Conv2DBackpropInput", "Conv3DBackpropInputV2"):  # transposed
        return _size(op.inputs[2].shape) * math.prod(tuple(op.inputs[1].shape)[:-1])
    if op.type == "MatMul":
        inner = op.inputs[0].shape[0 if op.get_attr("transpose_a") else 1]
        return _size(op.outputs[0].shape) * inner
    if op.type.startswith("BatchMatMul"):
        inner = op.inputs[0].shape[-2 if op.get_attr("adj_x") else -1]
        return _size(op.outputs[0].shape) * inner
    if op.type in ("Einsum", "XlaEinsum") and len(op.inputs) == 2:
        terms = op.get_attr("equation").decode().split("->")[0].split(",")
        sizes = {}
        for term, x in zip(terms, op.inputs, strict=True):
            sizes |= zip(term, x.shape, strict=True)
        return math.prod(sizes.values())
    return 0


def _size(shape) -> int:
    return math.prod(tuple(shape))


def _count(weights) -> int:
    return sum(math.prod(v.shape) for v in weights)


# -- text -----------------------------------------------------------------------------------------


def _given(name, builder, image_size) -> dict:
    """`{"image_shape": ...}` of a model of images, else an empty dict."""
    parameter = inspect.signature(builder).parameters.get("image_shape")
    if parameter is None:
        if image_size:
            raise UserError(f"--image-size: {name} is no model of images")
        return {}
    shape = tuple(parameter.default)
    if not image_size:
        return {"image_shape": shape}
    size = (image_size,) if isinstance(image_size, int) else tuple(image_size)
    if len(size) > 2 or min(size) < 1:
        given = " ".join(map(str, size))
        raise UserError(f"--image-size {given}: must be a side, or height and width")
    return {"image_shape": (size[0], size[-1], *shape[2:])}


def _head(module) -> list[str]:
    return inspect.getdoc(module).splitlines()


def _plain(value):
    """A setting as it is typed."""
    if isinstance(value, dict):
        return " ".join(f"{k}={_plain(v)}" for k, v in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _columns(pairs) -> list[str]:
    pairs = [(str(k), str(v)) for k, v in pairs]
    width = max((len(k) for k, _ in pairs), default=0)
    return [f"{k:{width}}  {v}" for k, v in pairs]


def _table(blocks) -> list[str]:
    head = ("", "output", "parameters", "multiply-adds", "receptive field")
    cells = [
        (
            b.path,
            "x".join(map(str, b.shape)) if b.shape else "",
            f"{b.parameters:,}",
            "" if b.multiply_adds is None else short(b.multiply_adds),
            _field(b.field),
        )
        for b in blocks
    ]
    if not any(b.field for b in blocks):  # no model of images
        head, cells = head[:-1], [row[:-1] for row in cells]
    if any(b.effective is not None for b in blocks):
        sides = ["" if b.effective is None else f"{b.effective:.1f}" for b in blocks]
        head = (*head, "effective")
        cells = [(*row, side) for row, side in zip(cells, sides, strict=True)]
    widths = [max(len(row[i]) for row in (head, *cells)) for i in range(len(head))]
    first, second, *numbers = widths
    return [
        "  ".join(
            [r[0].ljust(first), r[1].ljust(second)]
            + [c.rjust(w) for c, w in zip(r[2:], numbers, strict=True)]
        )
        for r in (head, *cells)
    ]


def _field(field) -> str:
    if field is None:
        return ""
    return "the image" if math.inf in field else "x".join(map(str, field))


def _indent(lines) -> list[str]:
    return [f"  {line}" for line in lines]
