"""The models: one row each, and how to build one by name."""

import difflib
import importlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One model of the catalogue.

    Attributes:
        name: The builder function's name, the `--model` of the command line.
        module: Its module below `kerasdl.models`.
        task: The kind of supervision, a module below `kerasdl.tasks`.
        parameters: Trainable parameters with default arguments.
        paper: Authors and year.
        dataset: What it trains on where `--dataset` is not given.
        image_size: Side that the images of that data set are enlarged to, or None.
        no_tflite: Why it has no TFLite file, or None.
        no_lite_batch: Why its TFLite files take one example at a time, or None.
        starved: Pairs (regex of weight paths, why they get no gradient in the first steps).
    """

    name: str
    module: str
    task: str
    parameters: int
    paper: str
    dataset: str = "digits"
    image_size: int | None = None
    no_tflite: str | None = None
    no_lite_batch: str | None = None
    starved: tuple = ()

    @property
    def limits(self) -> str:
        """What it cannot do, and why; an empty text where there is nothing."""
        limits = {"no TFLite": self.no_tflite, "TFLite at batch 1": self.no_lite_batch}
        return "; ".join(f"{what}: {why}" for what, why in limits.items() if why)


KEY_BIAS = (("cross/key/bias$", "adds the same to all scores of a query: softmax is blind to it"),)
LOOP = "its loop over time converts at a batch of one alone"

ROWS = (
    Row("linear", "cnn.linear", "classify", 30_730, "Weston and Watkins 1999"),
    Row("mlp", "cnn.mlp", "classify", 855_050, "Rumelhart et al. 1986"),
    Row("resnet18", "cnn.resnet", "classify", 11_689_512, "He et al. 2015", image_size=32),
    Row("resnet34", "cnn.resnet", "classify", 21_797_672, "He et al. 2015", image_size=32),
    Row("resnet50", "cnn.resnet", "classify", 25_557_032, "He et al. 2015", image_size=32),
    Row("resnet101", "cnn.resnet", "classify", 44_549_160, "He et al. 2015", image_size=32),
    Row("resnet152", "cnn.resnet", "classify", 60_192_808, "He et al. 2015", image_size=32),
    Row("resnet20", "cnn.resnet", "classify", 269_722, "He et al. 2015"),
    Row("resnet32", "cnn.resnet", "classify", 464_154, "He et al. 2015"),
    Row("resnet44", "cnn.resnet", "classify", 658_586, "He et al. 2015"),
    Row("resnet56", "cnn.resnet", "classify", 853_018, "He et al. 2015"),
    Row("resnet110", "cnn.resnet", "classify", 1_727_962, "He et al. 2015"),
    Row("densenet121", "cnn.densenet", "classify", 7_978_856, "Huang et al. 2016", image_size=32),
    Row("densenet169", "cnn.densenet", "classify", 14_149_480, "Huang et al. 2016", image_size=32),
    Row("densenet201", "cnn.densenet", "classify", 20_013_928, "Huang et al. 2016", image_size=32),
    Row("densenet264", "cnn.densenet", "classify", 33_337_704, "Huang et al. 2016", image_size=32),
    Row("densenet_bc_100_12", "cnn.densenet", "classify", 769_162, "Huang et al. 2016"),
    Row("densenet_bc_40_12", "cnn.densenet", "classify", 176_122, "Huang et al. 2016"),
    Row("vgg11", "cnn.vgg", "classify", 132_863_336, "Simonyan and Zisserman 2014", image_size=32),
    Row("vgg13", "cnn.vgg", "classify", 133_047_848, "Simonyan and Zisserman 2014", image_size=32),
    Row("vgg16", "cnn.vgg", "classify", 138_357_544, "Simonyan and Zisserman 2014", image_size=32),
    Row("vgg19", "cnn.vgg", "classify", 143_667_240, "Simonyan and Zisserman 2014", image_size=32),
    Row(
        "vgg11_bn", "cnn.vgg", "classify", 132_868_840, "Simonyan and Zisserman 2014", image_size=32
    ),
    Row(
        "vgg13_bn", "cnn.vgg", "classify", 133_053_736, "Simonyan and Zisserman 2014", image_size=32
    ),
    Row(
        "vgg16_bn", "cnn.vgg", "classify", 138_365_992, "Simonyan and Zisserman 2014", image_size=32
    ),
    Row(
        "vgg19_bn", "cnn.vgg", "classify", 143_678_248, "Simonyan and Zisserman 2014", image_size=32
    ),
    Row("vgg_small", "cnn.vgg", "classify", 567_978, "Simonyan and Zisserman 2014"),
    Row("googlenet", "cnn.googlenet", "classify", 13_378_280, "Szegedy et al. 2014", image_size=96),
    Row("googlenet_small", "cnn.googlenet", "classify", 206_370, "Szegedy et al. 2014"),
    Row(
        "vit_ti16",
        "vision_transformer.vit",
        "classify",
        5_717_416,
        "Dosovitskiy et al. 2020",
        image_size=32,
    ),
    Row(
        "vit_s16",
        "vision_transformer.vit",
        "classify",
        22_050_664,
        "Dosovitskiy et al. 2020",
        image_size=32,
    ),
    Row(
        "vit_b16",
        "vision_transformer.vit",
        "classify",
        86_567_656,
        "Dosovitskiy et al. 2020",
        image_size=32,
    ),
    Row(
        "vit_l16",
        "vision_transformer.vit",
        "classify",
        304_326_632,
        "Dosovitskiy et al. 2020",
        image_size=32,
    ),
    Row("vit_digits", "vision_transformer.vit", "classify", 136_138, "Dosovitskiy et al. 2020"),
    Row(
        "rnn_classifier",
        "sequence.rnn_classifier",
        "classify",
        21_386,
        "Elman 1990",
        dataset="digit_rows",
    ),
    Row(
        "lstm_classifier",
        "sequence.rnn_classifier",
        "classify",
        81_674,
        "Hochreiter and Schmidhuber 1997",
        dataset="digit_rows",
    ),
    Row(
        "gru_classifier",
        "sequence.rnn_classifier",
        "classify",
        61_962,
        "Cho et al. 2014",
        dataset="digit_rows",
    ),
    Row(
        "bilstm_classifier",
        "sequence.rnn_classifier",
        "classify",
        163_338,
        "Schuster and Paliwal 1997",
        dataset="digit_rows",
    ),
    Row(
        "char_rnn",
        "sequence.char_rnn",
        "generate_text",
        254_592,
        "Mikolov et al. 2010",
        dataset="python_docs",
        no_lite_batch=LOOP,
    ),
    Row(
        "char_lstm",
        "sequence.char_rnn",
        "generate_text",
        895_104,
        "Graves 2013",
        dataset="python_docs",
        no_lite_batch=LOOP,
    ),
    Row(
        "char_gru",
        "sequence.char_rnn",
        "generate_text",
        683_136,
        "Cho et al. 2014",
        dataset="python_docs",
        no_lite_batch=LOOP,
    ),
    Row(
        "gpt2_small",
        "sequence.gpt",
        "generate_text",
        124_439_808,
        "Radford et al. 2019",
        dataset="python_docs",
    ),
    Row(
        "char_gpt",
        "sequence.gpt",
        "generate_text",
        808_064,
        "Radford et al. 2019",
        dataset="python_docs",
    ),
    Row(
        "transformer_base",
        "sequence.transformer",
        "translate",
        63_082_496,
        "Vaswani et al. 2017",
        dataset="dates",
        starved=KEY_BIAS,
    ),
    Row(
        "transformer_big",
        "sequence.transformer",
        "translate",
        214_245_376,
        "Vaswani et al. 2017",
        dataset="dates",
        starved=KEY_BIAS,
    ),
    Row(
        "transformer_small",
        "sequence.transformer",
        "translate",
        942_592,
        "Vaswani et al. 2017",
        dataset="dates",
        starved=KEY_BIAS,
    ),
    Row(
        "autoencoder",
        "generative.autoencoder",
        "reconstruct",
        2_837_314,
        "Hinton and Salakhutdinov 2006",
    ),
    Row("vae_mlp", "generative.vae", "reconstruct", 815_824, "Kingma and Welling 2013"),
    Row("vae", "generative.vae", "reconstruct", 1_696_097, "Kingma and Welling 2013"),
    Row("gan_mlp", "generative.gan", "adversarial", 3_735_425, "Goodfellow et al. 2014"),
    Row("dcgan", "generative.dcgan", "adversarial", 6_342_272, "Radford et al. 2015"),
    Row("ddpm_unet", "generative.ddpm", "denoise", 35_746_307, "Ho et al. 2020", image_size=32),
    Row("ddpm_unet_small", "generative.ddpm", "denoise", 1_063_905, "Ho et al. 2020"),
)
MODELS = {row.name: row for row in ROWS}


def nearest(name: str, names) -> str:
    """` (did you mean X?)` for the nearest of `names`, or an empty string."""
    close = difflib.get_close_matches(str(name), [str(n) for n in names], 1, 0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def nearest_multiples(value: int, part: int) -> list[str]:
    """The multiples of `part` next to `value`, which is none: one below, if above 0, one above."""
    low = value // part * part
    return [str(low), str(low + part)] if low else [str(part)]


def row(name: str) -> Row:
    """The row of a model; ValueError with the nearest valid name where there is none."""
    if name not in MODELS:
        raise ValueError(
            f"unknown model {name!r}{nearest(name, MODELS)}; `list` prints all {len(MODELS)}"
        )
    return MODELS[name]


def module_of(name: str):
    """The imported module that defines the model `name`."""
    return importlib.import_module(f"kerasdl.models.{row(name).module}")


def settings_of(name: str) -> dict:
    """The training settings that suit the model `name` better than its task's."""
    return getattr(module_of(name), "RECIPE", {}).get(name, {})


def build(name: str, **kwargs):
    """The model `name` with its weights made: an ordinary Keras model.

    Args:
        name: A name of the catalogue.
        **kwargs: Arguments of its builder, such as `image_shape` and `num_classes`;
            `features=True` gives the backbone alone.

    Raises:
        ValueError: An unknown name or argument, or one the architecture does not allow.
    """
    return getattr(module_of(name), name)(**kwargs)


def list_models(task: str | None = None, text: str | None = None) -> list[str]:
    """Names of the catalogue, filtered by task and by a text in name or paper."""
    return [
        r.name
        for r in ROWS
        if (task is None or r.task == task)
        and (text is None or text.lower() in f"{r.name} {r.paper} {r.module}".lower())
    ]
