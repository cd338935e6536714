"""What data are: columns by kind. A batch is a dict of columns; all that touches data goes by kind.

| kind | one example |
|---|---|
| `image` | `(H, W, C)` uint8, or float in [0, 1] |
| `video` | `(T, H, W, C)` likewise |
| `mask` | `(H, W)` int32 class of each pixel, `VOID` where it is not labeled |
| `instances` | `(M, H, W)` uint8, 1 where an object is |
| `boxes` | `(M, 4)` float `ymin xmin ymax xmax` in [0, 1] |
| `regions` | `(R, 4)` float likewise: where an object may be; 0 where there is none |
| `valid` | bool `(M,)`, whether there is an object |
| `label` | int32 `()` or `(M,)`, a class; `ABSENT` where there is none |
| `tokens` | int32 `(N,)` of a named tokenizer, padded at its end |
| `audio` | `(N,)` float in [-1, 1] at a stated rate |
| `vector`, `number` | `(D,)`, `()` float, with its unit |
| `text` | a string that no model is given: a caption, say |
"""

import dataclasses
import json
from dataclasses import dataclass, field, replace

VOID = 255  # the class of a pixel that is not labeled
ABSENT = -1  # the label of an object that is not there: of a place that only fills up `(M,)`
KINDS = tuple(
    "image video mask instances boxes regions valid label tokens audio vector number text".split()
)
PARTS = ("train", "validation", "test")  # of a data set
PIXELS = ("image", "video")  # floats in [0, 1] once they are read
RANGES = {  # of floats by their kind
    **dict.fromkeys((*PIXELS, "boxes", "regions"), (0.0, 1.0)),
    "audio": (-1.0, 1.0),
}

_TEXT, _COUNT = str | None, int | None
TYPES = {  # of the fields of a column, and of each value where they hold several
    "kind": (str, str),
    "shape": (tuple, int | str | None),
    "class_names": (tuple, str),
    "mean": (tuple, int | float),
    "std": (tuple, int | float),
    "tokenizer": (_TEXT, str),
    "vocab_size": (_COUNT, int),
    "max_length": (_COUNT, int),
    "tokens_per_character": (dict, str),
    "specials": (dict, str),
    "rate": (_COUNT, int),
    "unit": (str, str),
}


@dataclass(frozen=True)
class Spec:
    """What one named tensor of a task or a signature is.

    Attributes:
        shape: Without the batch; a letter is a free axis.
        dtype: Of its numbers.
        kind: One of `KINDS`.
        batched: False where the tensor has no batch axis.
        min: The smallest number that it may hold; None is what its kind says.
        max: The largest one, likewise.
    """

    shape: tuple
    dtype: str
    kind: str = "number"
    batched: bool = True
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class Column:
    """What one column of a data set is.

    Attributes:
        kind: One of `KINDS`.
        shape: Of one example; a letter is a free axis.
        class_names: Of labels and masks, one per class, in the order of the numbers.
        mean: Of images and videos in [0, 1], per channel; what the model subtracts.
        std: Per channel; what the model divides by.
        tokenizer: Of tokens, its name in `DataInfo.tokenizers`; None where only ids are known.
        vocab_size: Of tokens without a tokenizer, how many ids there are.
        max_length: Of tokens, at most so many.
        tokens_per_character: Of tokens, `{part: ratio}`; what bits per character are computed with.
        specials: Of tokens without a tokenizer, `kerasdl.ops.text.Specials` as a dict; those of
            this project's tokenizers if empty.
        rate: Of audio, samples per second.
        unit: Of vectors and numbers.
    """

    kind: str
    shape: tuple = ()
    class_names: tuple = ()
    mean: tuple = ()
    std: tuple = ()
    tokenizer: str | None = None
    vocab_size: int | None = None
    max_length: int | None = None
    tokens_per_character: dict = field(default_factory=dict)
    specials: dict = field(default_factory=dict)
    rate: int | None = None
    unit: str = ""


@dataclass(frozen=True)
class DataInfo:
    """What a model and its users need to know of a data set; JSON both ways.

    The properties are those of its first column of a kind: most data sets have one.

    Attributes:
        columns: `{name: Column}`.
        tokenizers: `{name: a tokenizer of kerasdl.data.text.tokenizer, as JSON}`.
    """

    columns: dict = field(default_factory=dict)
    tokenizers: dict = field(default_factory=dict)

    @classmethod
    def of_images(cls, shape, class_names=(), mean=(), std=()) -> "DataInfo":
        """Images `(H, W, C)`, each with a label where there are classes."""
        columns = {"image": Column("image", tuple(shape), mean=tuple(mean), std=tuple(std))}
        if class_names:
            columns["label"] = Column("label", (), tuple(map(str, class_names)))
        return cls(columns)

    @classmethod
    def of_texts(
        cls, tokenizer=None, max_length=None, names=("token_ids",), class_names=(), **more
    ) -> "DataInfo":
        """Texts of one tokenizer.

        Args:
            tokenizer: As JSON.
            max_length: Of tokens.
            names: Of the columns.
            class_names: Of the column `group`, if there are groups.
            **more: Fields of the columns.
        """
        named = {"tokenizer": "text" if tokenizer else None, "max_length": max_length}
        columns = {name: Column("tokens", ("N",), **named, **more) for name in names}
        if class_names:
            columns["group"] = Column("label", (), tuple(map(str, class_names)))
        return cls(columns, {"text": tokenizer} if tokenizer else {})

    def first(self, *kinds) -> Column | None:
        """The first column of one of the kinds, or None."""
        return next((c for c in self.columns.values() if c.kind in kinds), None)

    def named(self, kind) -> dict:
        """`{name: Column}` of one kind."""
        return {name: column for name, column in self.columns.items() if column.kind == kind}

    @property
    def image_shape(self) -> tuple | None:
        """`(H, W, C)` of the images, or None."""
        column = self.first("image")
        return column and column.shape

    @property
    def class_names(self) -> tuple:
        """Of the labels, or else of the masks; empty where there are none."""
        column = self.first("label") or self.first("mask")
        return column.class_names if column else ()

    @property
    def input_mean(self) -> tuple:
        """Per channel, of images or videos in [0, 1]."""
        column = self.first(*PIXELS)
        return column.mean if column else ()

    @property
    def input_std(self) -> tuple:
        """Per channel, of images or videos in [0, 1]."""
        column = self.first(*PIXELS)
        return column.std if column else ()

    @property
    def tokenizer(self) -> str | None:
        """The tokenizer of the first text, as JSON, or None."""
        column = self.first("tokens")
        return self.tokenizers.get(column.tokenizer) if column else None

    @property
    def max_length(self) -> int | None:
        """Tokens per example of the first text, or None."""
        column = self.first("tokens")
        return column and column.max_length

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary, 0 where there is none."""
        if self.tokenizer:
            return len(json.loads(self.tokenizer)["pieces"])
        column = self.first("tokens")
        return column.vocab_size or 0 if column else 0

    def with_input_stats(self, mean=(), std=()) -> "DataInfo":
        """The same with other statistics of its images and videos."""
        columns = {
            name: replace(c, mean=tuple(mean), std=tuple(std)) if c.kind in PIXELS else c
            for name, c in self.columns.items()
        }
        return replace(self, columns=columns)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "DataInfo":
        """The inverse of `to_json`."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, values: dict) -> "DataInfo":
        """Of the values that stand in a JSON file."""

        columns = {name: _column(c) for name, c in values["columns"].items()}
        tokenizers = dict(values.get("tokenizers", {}))
        if not all(isinstance(text, str) for text in (*columns, *tokenizers, *tokenizers.values())):
            raise TypeError("names and tokenizers must be texts")
        for text in tokenizers.values():
            pieces = json.loads(text)["pieces"]
            if not isinstance(pieces, list) or not all(isinstance(p, str) for p in pieces):
                raise TypeError("the pieces of a tokenizer must be texts")
        return cls(columns, tokenizers)


def _column(values: dict) -> Column:
    """The column that JSON values describe; TypeError or ValueError where they describe none."""
    column = Column(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    if column.kind not in KINDS:
        raise ValueError(f"{column.kind!r} is no kind of a column")
    for name, (kind, of_each) in TYPES.items():
        value = getattr(column, name)
        each = value if isinstance(value, tuple) else ()
        if not isinstance(value, kind) or not all(isinstance(one, of_each) for one in each):
            raise TypeError(f"{name} {str(value)[:80]!r} of a column is of a wrong type")
    if any(isinstance(n, int) and n < 0 for n in column.shape):
        raise ValueError(f"shape {column.shape} of a column must not be below 0")
    return column
