"""What the tests of exports export: small models of real digits."""

import dataclasses

import numpy as np


def digits():
    """Training and test digits: `{"image": float32 (N, 8, 8, 1) in [0, 1], "label": (N,)}`."""
    from kerasdl.data.images import to_float
    from kerasdl.data.sources import open_source

    source = open_source("digits")
    batches = (split.read(range(len(split))) for split in (source.train, source.test))
    return [{"image": np.asarray(to_float(b["image"])), "label": b["label"]} for b in batches]


def made_up(model_name, max_length, tokenizer=None, image_shape=None):
    """Facts, and training and test examples, of texts for a model's task, which may want images."""
    from kerasdl import catalog, tasks
    from kerasdl.data.images import to_float
    from kerasdl.data.sources import open_source

    task = tasks.get(catalog.row(model_name).task)
    size = image_shape[:2] if "image" in task.inputs else ()
    source = open_source(
        "synthetic", task=task, image_size=size, max_length=max_length, tokenizer=tokenizer
    )
    parts = [s.read(range(min(40, len(s)))) for s in (source.train, source.test)]
    for part in parts:
        part |= {"image": np.asarray(to_float(part["image"]))} if size else {}
    return source.info, parts


def make_parts(
    model_name="resnet20",
    epochs=0,
    image_shape=(8, 8, 1),
    tokenizer=None,
    task_kwargs=None,
    **arguments,
):
    """What `export` takes: a model of digits (noise of another shape), and the examples."""
    import keras

    import kerasdl
    from kerasdl import catalog, tasks
    from kerasdl.columns import DataInfo
    from kerasdl.recipe import Recipe

    keras.utils.set_random_seed(0)
    if "vocab_size" in arguments:
        info, parts = made_up(model_name, arguments["max_length"], tokenizer, image_shape)
        task = tasks.get(catalog.row(model_name).task)(info, Recipe(model=model_name))
        return _parts(model_name, task, {**arguments, **task.arguments()}, *parts)
    train, test = digits()
    if image_shape != (8, 8, 1):
        rng = np.random.default_rng(0)
        for part in (train, test):
            part["label"] = part["label"][:40]
            part["image"] = rng.random((40, *image_shape), "float32")
    statistics = (0.3,) * image_shape[-1], (0.37,) * image_shape[-1]
    info = DataInfo.of_images(image_shape, "0123456789", *statistics)
    kind_of_task = tasks.get(catalog.row(model_name).task)
    if "mask" in kind_of_task.targets:
        info = with_masks(info, arguments["num_classes"], train, test)
    if "boxes" in kind_of_task.targets:
        info = with_objects(info, arguments["num_classes"], train, test)
    if "instances" in kind_of_task.targets:
        info = with_instances(info, train, test)
    own = catalog.settings_of(model_name).get("task_kwargs", {})
    settings = {**own, **(task_kwargs or {})}
    if "proposals" in kind_of_task.inputs:
        info = with_proposals(info, train, test)
    recipe = Recipe(model=model_name, dataset="digits", task_kwargs=settings)
    task = kind_of_task(info, recipe)
    arguments = {**arguments, **task.arguments()}
    model = kerasdl.create_model(model_name, **arguments)
    if epochs:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(3e-3), loss)
        model.fit(train["image"], train["label"], batch_size=64, epochs=epochs, verbose=0)
    return _parts(model_name, task, arguments, train, test, model)


def with_masks(info, num_classes, *parts):
    """Add masks of random classes to examples; returns their facts with the column."""
    from kerasdl.columns import VOID, Column

    rng = np.random.default_rng(0)
    for part in parts:
        mask = rng.integers(0, num_classes, part["image"].shape[:3])
        part["mask"] = np.where(rng.random(mask.shape) < 0.1, VOID, mask).astype("int32")
    names = tuple(f"class {k}" for k in range(num_classes))
    mask = Column("mask", info.image_shape[:2], names)
    return dataclasses.replace(info, columns={**info.columns, "mask": mask})


def with_objects(info, num_classes, *parts):
    """Add up to three objects of random classes to examples; returns the facts with the columns."""
    from kerasdl.columns import ABSENT, Column

    rng = np.random.default_rng(0)
    for part in parts:
        low = 0.5 * rng.random((len(part["image"]), 3, 2))
        valid = rng.random(low.shape[:2]) < 0.6
        boxes = np.concatenate([low, low + 0.1 + 0.4 * rng.random(low.shape)], -1)
        part["boxes"] = (boxes * valid[..., None]).astype("float32")
        part["labels"] = np.where(valid, rng.integers(0, num_classes, valid.shape), ABSENT)
        part["valid"] = valid
    names = tuple(f"class {k}" for k in range(num_classes))
    columns = {"boxes": Column("boxes", (3, 4)), "labels": Column("label", (3,), names)}
    columns |= {"valid": Column("valid", (3,)), "image": info.columns["image"]}
    return dataclasses.replace(info, columns=columns)


def with_instances(info, *parts):
    """Add the pixels in the boxes of objects to examples; returns the facts with the column."""
    from kerasdl.columns import Column

    height, width = info.image_shape[:2]
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    for part in parts:
        ymin, xmin, ymax, xmax = (part["boxes"][..., i, None] for i in range(4))
        rows, columns = (y >= ymin) & (y < ymax), (x >= xmin) & (x < xmax)
        part["instances"] = (rows[..., None] & columns[..., None, :]).astype("uint8")
    column = Column("instances", part["instances"].shape[1:])
    return dataclasses.replace(info, columns={**info.columns, "instances": column})


def _parts(model_name, task, arguments, train, test, model=None):
    import kerasdl
    from kerasdl.export.parts import Parts

    return Parts(
        model=model or kerasdl.create_model(model_name, **arguments),
        model_name=model_name,
        task=task,
        info=task.info,
        recipe=task.run_recipe,
        train=task.served(train),
        test=task.served(test),
        model_arguments=arguments,
        metrics={"model": model_name, "test": {"top1": 0.5}},
    )


def with_proposals(info, *parts):
    """Add four regions to examples, or fewer; returns the facts with the column."""
    from kerasdl.columns import Column

    rng = np.random.default_rng(0)
    for part in parts:
        low = 0.5 * rng.random((len(part["image"]), 4, 2))
        regions = np.concatenate([low, low + 0.1 + 0.4 * rng.random(low.shape)], -1)
        part["proposals"] = (regions * (rng.random((*low.shape[:2], 1)) < 0.8)).astype("float32")
    columns = {**info.columns, "proposals": Column("regions", (4, 4))}
    return dataclasses.replace(info, columns=columns)


def quiet(line):
    """Takes a line of progress and says nothing."""
