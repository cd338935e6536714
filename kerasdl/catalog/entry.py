"""What the catalogue says of a paper and of each of its models."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One model of the catalogue.

    Attributes:
        name: The builder function's name, the `--model` of the command line.
        module: Its module below `kerasdl.models`.
        task: The kind of supervision, a module below `kerasdl.tasks`.
        parameters: Trainable parameters with default arguments.
        paper: Authors and year.
        link: Where the paper is.
        dataset: What it trains on where `--dataset` is not given.
        image_size: Side that the images of that data set are resized to, or None.
        no_tflite: Why it has no TFLite file, or None.
        tflite_static_batch: Why its TFLite files take one example at a time, or None.
        expected_zero_grad: Pairs (regex of weight paths, why they get no gradient in the first
            steps).
    """

    name: str
    module: str
    task: str
    parameters: int
    paper: str
    link: str
    dataset: str = "digits"
    image_size: int | None = None
    no_tflite: str | None = None
    tflite_static_batch: str | None = None
    expected_zero_grad: tuple = ()

    @property
    def limits(self) -> str:
        """What it cannot do, and why; an empty text where there is nothing."""
        limits = {"no TFLite": self.no_tflite, "TFLite at batch 1": self.tflite_static_batch}
        return "; ".join(f"{what}: {why}" for what, why in limits.items() if why)


@dataclass(frozen=True)
class Paper:
    """One paper: where its models are, and their sizes.

    Attributes:
        module: Below `kerasdl.models`.
        task: A module below `kerasdl.tasks`.
        authors: And the year.
        link: Where it is.
        rows: `{name of the builder: trainable parameters with default arguments}`.
        dataset: What its models train on where `--dataset` is not given.
        image_sizes: `{name: side that the images of that data set are resized to}`.
        limits: Fields of `Row` that hold for all its rows: a known limit with its reason.
    """

    module: str
    task: str
    authors: str
    link: str
    rows: dict
    dataset: str = "digits"
    image_sizes: dict = field(default_factory=dict)
    limits: dict = field(default_factory=dict)

    def models(self):
        """Its rows."""
        for name, parameters in self.rows.items():
            yield Row(
                name,
                self.module,
                self.task,
                parameters,
                self.authors,
                self.link,
                self.dataset,
                self.image_sizes.get(name),
                **self.limits,
            )
