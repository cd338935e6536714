"""PyTorch's `nn.RNN`, `nn.LSTM`, `nn.GRU` and their cells in our recurrent layers.

PyTorch adds two biases. A layer with `biases=2` holds both, as a `GRU` always does, and is written
as it was read, bit by bit; one with a single bias takes their sum, which is written as
`bias_ih`, with zeros as `bias_hh`; one with `biases=0` is that of `bias=False`.

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html, and of `GRU` and `RNN`;
        the gates of an LSTM stand in the order i, f, g, o, as ours do, those of a GRU r, z, n.
"""

from kerasdl.weights.rename import Family, Rule, by_path

# Of RecurrentStack, of a Bidirectional layer, and of a layer alone: {our layer: the end of theirs}
LAYERS = {
    "layer{i+1}/": ("_l{i}",),
    "layer{i+1}/forward/": ("_l{i}",),
    "layer{i+1}/backward/": ("_l{i}_reverse",),
    "forward/": ("_l0",),
    "backward/": ("_l0_reverse",),
    "": ("_l0", ""),  # a cell has no number
}


def rules(model):
    """The rules of a layer: the shapes of its weights say how many gates and biases it has."""
    weights = by_path(model) if model is not None else {}
    shapes = {path.rpartition("/")[2]: tuple(v.shape) for path, v in weights.items()}
    units, width = shapes.get("recurrent_kernel", (1, 1))
    gru, two = width == 3 * units, len(shapes.get("bias", ())) == 2
    kernel, bias = ("gates", "stack_gates") if gru else ("kernel", "stack" if two else "add")
    return [
        rule
        for ours, ends in LAYERS.items()
        for end in ends
        for rule in (
            Rule(f"weight_ih{end}", f"{ours}kernel", kernel),
            Rule(f"weight_hh{end}", f"{ours}recurrent_kernel", kernel),
            Rule((f"bias_ih{end}", f"bias_hh{end}"), f"{ours}bias", bias),
        )
    ]


def accepts(model):
    """Whether PyTorch has such layers: its GRUs reset after the product."""
    return all(getattr(layer, "reset_after", True) for layer in model._flatten_layers())


FAMILIES = (
    Family(name="torch RNN, LSTM, GRU", module="layers.recurrent", rules=rules, accepts=accepts),
)
