"""What a `config.json` of another library says, option by option."""

from kerasdl.errors import UserError
from kerasdl.system.terminal import printable

MISSING = object()
# Names of activations in transformers and timm; ours are those of `kerasdl.layers.activation`
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "quickgelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}


class Config:
    """A `config.json`: what is read of it, and what is refused.

    Args:
        name: Where it is from, for messages.
        values: The JSON object.
    """

    def __init__(self, name: str, values: dict):
        self.name = name
        self.values = values

    def get(self, key, default=MISSING, kind=None):
        """The value of an option.

        Args:
            key: Its name, or a tuple of names of which the first that is there counts.
            default: Where it is not there, or null; without one it must be there.
            kind: Of the value: int, float, bool, str, list, or a tuple of them.

        Raises:
            UserError: It is not there, or of another kind.
        """
        keys = (key,) if isinstance(key, str) else key
        value = next((self.values[k] for k in keys if self.values.get(k) is not None), None)
        if value is None:
            if default is MISSING:
                raise UserError(f"{self.name}: no {' or '.join(keys)} in its config")
            return default
        if kind is None and default not in (MISSING, None):
            kind = type(default)
        if kind is float:
            kind = (float, int)
        if kind is not None and (
            not isinstance(value, kind) or (kind is int and isinstance(value, bool))
        ):
            raise UserError(f"{self.name}: {keys[0]} cannot be {printable(repr(value))[:80]}")
        return value

    def activation(self, key, default="gelu"):
        """Our name of the activation that an option names.

        Raises:
            UserError: No layer of ours has it.
        """
        name = self.get(key, default, str)
        self.only(**{key: (None, *ACTIVATIONS)})
        return ACTIVATIONS[name]

    def only(self, **allowed):
        """Refuse options that change the mathematics and that no model of ours has.

        Args:
            **allowed: `name=value` or `name=(value, value, ...)`: what it may be, if it is there.

        Raises:
            UserError: Names the option, its value, and what is allowed.
        """
        for key, values in allowed.items():
            values = values if isinstance(values, tuple) else (values,)
            value = self.values.get(key, values[0])
            if not any(value == v and type(value) is type(v) for v in values):
                known = ", ".join(map(repr, values))
                raise UserError(
                    f"{self.name}: {key} is {printable(repr(value))[:80]} in its config; "
                    f"here it can only be {known}"
                )
