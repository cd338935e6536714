"""What a repository of weights says about its images: statistics, size, crop and class names.

Source: `pretrained_cfg` of timm, https://huggingface.co/docs/timm/reference/data,
        `preprocessor_config.json` of transformers,
        https://huggingface.co/docs/transformers/main_classes/image_processor, and
        `image_converter.json` of KerasHub,
        https://keras.io/keras_hub/api/preprocessing_layers/image_converter.
"""

from kerasdl.errors import UserError
from kerasdl.system.names import few
from kerasdl.system.terminal import printable
from kerasdl.weights.configs import MISSING, Config

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: timm's own defaults
RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
MAX_CLASSES = 10**6
WARPED = 384  # from this size on, ConvNeXt's processor warps the whole picture and crops nothing


def of_timm(config) -> dict:
    """The facts in a `config.json` of timm.

    Args:
        config: A `Config`.

    Returns:
        `{"input_mean", "input_std", "image_size", "crop_fraction", "interpolation",
        "class_names"}`: floats per channel, of images in [0, 1]; `(H, W)`; the centered part of
        each side that is kept; how images come to that size; and names, or None.

    Raises:
        UserError: A value is of another kind, no statistics of images, or names of other classes
            than there are.
    """
    given, size = _pretrained(config), _input_size(config)
    names = config.get("label_names", given.get("label_names", None, (list, dict)), (list, dict))
    crop = given.get("crop_pct", 0.875, float)
    return {
        **_statistics(
            config, given.get("mean", MEAN, (list, tuple)), given.get("std", STD, (list, tuple))
        ),
        "image_size": size[1:],
        "crop_fraction": min(1.0, float(crop)) if crop > 0 else 1.0,
        "interpolation": given.get("interpolation", "bicubic", str),
        "class_names": _names(config, names, _classes(config)),
    }


def arguments_of_timm(config) -> dict:
    """Arguments that every image classifier has, of a `config.json` of timm.

    Returns:
        `{"image_shape", "num_classes", "input_mean", "input_std"}`, and `features` of a backbone
        alone, which has 0 classes.

    Raises:
        UserError: As `of_timm`; or statistics of another number of channels.
    """
    facts, channels = of_timm(config), _input_size(config)[0]
    classes = _classes(config)
    if classes < 0:
        raise UserError(f"{config.name}: num_classes cannot be {classes}")
    result = {"image_shape": (*facts["image_size"], channels), "num_classes": max(1, classes)}
    if not classes:  # the backbone alone
        result["features"] = True
    for key in ("input_mean", "input_std"):
        if len(facts[key]) not in (1, channels):
            raise UserError(
                f"{config.name}: its images have {channels} channels and {len(facts[key])} numbers "
                f"of {key.removeprefix('input_')}"
            )
        result[key] = facts[key] * (channels // len(facts[key]))
    return result


def of_preprocessor(values, name="preprocessor_config.json") -> dict:
    """The facts in a `preprocessor_config.json` of transformers.

    Args:
        values: The JSON object.
        name: Of the file, for messages.

    Returns:
        As `of_timm`; `image_size` is None where it says none, `class_names` always.

    Raises:
        UserError: A value is of another kind, or no statistics of images.
    """
    config = Config(name, values)
    mean, std = [0.0], [1.0]
    if config.get("do_normalize", True, bool):
        mean = config.get("image_mean", [0.5], (list, float, int))
        std = config.get("image_std", [0.5], (list, float, int))
    # Theirs: 255 x factor, minus mean, over std, of x in [0, 1]
    scale = 1.0
    if not config.get("do_rescale", True, bool):
        scale = 255.0
    elif (factor := config.get("rescale_factor", 1 / 255, float)) > 0:
        scale = 255.0 * factor
    resized = _size(config, "size") if config.get("do_resize", True, bool) else None
    size, crop = resized, 1.0
    if resized and (ratio := config.get("crop_pct", 0, float)):
        crop = float(ratio) if min(resized) < WARPED else 1.0
    elif config.get("do_center_crop", False, bool) and (cropped := _size(config, "crop_size")):
        size, crop = cropped, 1.0
        if resized:
            crop = min(1.0, *(c / r for c, r in zip(cropped, resized, strict=True)))
    resample = config.get("resample", 2, int)
    return {
        **_statistics(config, mean, std, scale),
        "image_size": size,
        "crop_fraction": crop,
        "interpolation": RESAMPLE[resample] if 0 <= resample < len(RESAMPLE) else "bilinear",
        "class_names": None,
    }


def of_image_converter(config, channels: int) -> dict:
    """The facts in an `image_converter.json` of KerasHub.

    Args:
        config: A `Config` of its arguments.
        channels: Of the images.

    Returns:
        As `of_preprocessor`, and `resize`, the way to the size as `kerasdl.recipe` names it.

    Raises:
        UserError: As `of_preprocessor`.
    """
    config.only(mean=None, variance=None)  # of earlier versions
    scale = _channels(config, "scale", 1.0, channels)
    offset = _channels(config, "offset", 0.0, channels)
    if min(scale) <= 0:
        raise UserError(f"{config.name}: scale must be above 0, not {min(scale)}")
    resize = "crop" if config.get("crop_to_aspect_ratio", True) else "squash"
    if config.get("pad_to_aspect_ratio", False):
        resize = "pad"
    # Theirs: x scale + offset, of x in [0, 255]
    mean = [-o / s for s, o in zip(scale, offset, strict=True)]
    return {
        **_statistics(config, mean, [1 / s for s in scale], 255.0),
        "image_size": _size(config, "image_size"),
        "crop_fraction": 1.0,
        "resize": resize,
        "interpolation": config.get("interpolation", "bilinear", str),
        "class_names": None,
    }


def _channels(config, key, default, channels) -> list:
    """An option that is a number, or a list of one for each channel."""
    values = _numbers(config, key, config.get(key, default, (int, float, list)))
    if len(values) not in (1, channels):
        raise UserError(
            f"{config.name}: its images have {channels} channels and {len(values)} numbers of {key}"
        )
    return values * (channels // len(values))


def _numbers(config, key, values) -> list:
    """Floats of a number or a list of them; refuses others, and too large ones."""
    values = values if isinstance(values, list | tuple) else [values]
    if not values or not all(
        isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e6 for v in values
    ):
        raise UserError(f"{config.name}: {key} cannot be {printable(str(values))[:80]}")
    return list(map(float, values))


def labels(config) -> tuple:
    """`(number of classes, their names or None)` of a `config.json` of transformers.

    Names that only count, `LABEL_0` on, are none.

    Raises:
        UserError: Names of other classes than there are.
    """
    by_number = config.get("id2label", None, dict)
    count = config.get("num_labels", len(by_number or "12"), int)
    names = _names(config, by_number or None, count)
    counted = all(name == f"LABEL_{i}" for i, name in enumerate(names or ()))
    return count, None if counted else names


def check_options(config, known=()) -> Config:
    """The `model_args` of a timm config, of which only some are known.

    Args:
        config: A `Config`.
        known: Names that the caller reads, besides those of every model.

    Raises:
        UserError: Names one that is not known, and those that are; or another pooling.
    """
    options = _options(config)
    for owner in (config, options):
        owner.only(global_pool=("avg", None))
    of_all = ("num_classes", "in_chans", "img_size", "global_pool", "drop_rate")
    known = (*of_all, *known)
    # Of training alone; null is what it would be without
    free = ("drop_path_rate", "zero_init_last", "memory_efficient")
    for key, value in options.values.items():
        if key not in (*known, *free) and value is not None:
            raise UserError(
                f"{config.name}: model_args holds {printable(key)[:80]} = "
                f"{printable(repr(value))[:80]}; here it can only hold {', '.join(known)}"
            )
    return options


def _pretrained(config) -> Config:
    """`pretrained_cfg`; older files have its fields at the top."""
    return Config(config.name, config.get("pretrained_cfg", config.values, dict))


def _options(config) -> Config:
    return Config(f"{config.name}: model_args", config.get("model_args", {}, dict))


def _input_size(config) -> tuple:
    """`(C, H, W)`."""
    given, options = _pretrained(config), _options(config)
    size = given.get("input_size", (3, 224, 224), (list, tuple))
    if len(size) != 3 or not all(_is_count(n) for n in size):
        raise UserError(f"{config.name}: input_size cannot be {printable(str(size))[:80]}")
    channels = options.get("in_chans", given.get("in_chans", size[0], int), int)
    sides = options.get("img_size", tuple(size[1:]), (int, list, tuple))
    sides = (sides, sides) if isinstance(sides, int) else tuple(sides)
    if len(sides) != 2 or not all(_is_count(n) for n in (channels, *sides)):
        raise UserError(f"{config.name}: its images cannot be {(channels, *sides)}")
    return (channels, *sides)


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**16


def _statistics(config, mean, std, scale=1.0) -> dict:
    """`input_mean` and `input_std` of images in [0, 1], of those of images in [0, scale]."""
    result = {}
    for key, values in (("mean", mean), ("std", std)):
        values = _numbers(config, key, values)
        if key == "std" and min(values) <= 0:
            raise UserError(f"{config.name}: std must be above 0, not {min(values)}")
        # 255 / 255 is 1 at once: so values stay what the file says
        result[f"input_{key}"] = tuple(float(v) / scale for v in values)
    return result


def _classes(config) -> int:
    given = _pretrained(config).get("num_classes", 1000, int)
    return _options(config).get("num_classes", config.get("num_classes", given, int), int)


def _names(config, values, count):
    """`count` names of a list, or of a dict by number, whose gaps are named by it; or None."""
    if values is None:
        return None
    if isinstance(values, dict):
        values = list(({str(i): str(i) for i in range(min(count, MAX_CLASSES))} | values).values())
    if len(values) != count:
        raise UserError(f"{config.name}: {count} classes, but other names: {few(values, 3)}")
    return tuple(map(str, values))


def _size(config, key):
    """`(H, W)` of `size` or `crop_size`: a number, the shorter side, or both; None for others."""
    value = config.get(key, None, (int, dict, list))
    if isinstance(value, dict):
        side = value.get("shortest_edge")
        value = [value.get("height", side), value.get("width", side)]
    elif isinstance(value, int):
        value = [value, value]
    if value is None or len(value) != 2 or not all(map(_is_count, value)):
        return None
    return tuple(value)


def sizes(config, key, default=None):
    """A tuple of an option that is a list of numbers from 1 on.

    Raises:
        UserError: It is none.
    """
    value = config.get(key, default, (list, tuple))
    if value is not None and not (value and all(map(_is_count, value))):
        raise UserError(f"{config.name}: {key} cannot be {printable(str(value))[:80]}")
    return value and tuple(value)


def sides(config, key, default=MISSING) -> tuple:
    """Height and width of an option that is a number or a list of two, from 1 on.

    Raises:
        UserError: It is none, or is not there and has no default.
    """
    value = config.get(key, default, (int, list))
    result = (value, value) if isinstance(value, int) else tuple(value)
    if len(result) != 2 or not all(map(_is_count, result)):
        raise UserError(f"{config.name}: {key} cannot be {printable(repr(value))[:80]}")
    return result


def drop_rate(options) -> dict:
    """The argument `drop_rate`, where there is one."""
    rate = options.get("drop_rate", None, float)
    return {} if rate is None else {"drop_rate": float(rate)}
