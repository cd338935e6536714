"""What the tests of exports export: small models of real digits."""

import numpy as np


def digits():
    """Training and test digits: `{"image": float32 (N, 8, 8, 1) in [0, 1], "label": (N,)}`."""
    from kerasdl.data.images import to_float
    from kerasdl.data.sources import open_source

    source = open_source("digits")
    batches = (split.read(range(len(split))) for split in (source.train, source.test))
    return [{"image": np.asarray(to_float(b["image"])), "label": b["label"]} for b in batches]


def made_up(model_name, max_length, tokenizer=None):
    """Facts, and training and test examples, of texts for a model's task."""
    from kerasdl import catalog, tasks
    from kerasdl.data.sources import open_source

    task = tasks.get(catalog.row(model_name).task)
    source = open_source("synthetic", task=task, max_length=max_length, tokenizer=tokenizer)
    return source.info, [s.read(range(min(40, len(s)))) for s in (source.train, source.test)]


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
    from tests.variants import examples, info_of

    keras.utils.set_random_seed(0)
    if "vocab_size" in arguments:
        info, parts = made_up(model_name, arguments["max_length"], tokenizer)
        task = tasks.get(catalog.row(model_name).task)(info, Recipe(model=model_name))
        return _parts(model_name, task, {**arguments, **task.arguments()}, *parts)
    kind = tasks.get(catalog.row(model_name).task)
    statistics = (0.3,) * image_shape[-1], (0.37,) * image_shape[-1]
    own = catalog.settings_of(model_name).get("task_kwargs", {})
    settings = {**own, **(task_kwargs or {})}
    recipe = Recipe(model=model_name, dataset="digits", task_kwargs=settings)
    if {*kind.inputs, *kind.targets} - {"image", "label"}:
        arguments |= {"image_shape": image_shape}
        task = kind(info_of(kind, arguments).with_input_stats(*statistics), recipe)
        rng = np.random.default_rng(0)
        parts = [examples(task, 40, rng) for _ in range(2)]
        return _parts(model_name, task, {**arguments, **task.arguments()}, *parts)
    train, test = digits()
    if image_shape != (8, 8, 1):
        rng = np.random.default_rng(0)
        for part in (train, test):
            part["label"] = part["label"][:40]
            part["image"] = rng.random((40, *image_shape), "float32")
    info = DataInfo.of_images(image_shape, "0123456789", *statistics)
    task = kind(info, recipe)
    arguments = {**arguments, **task.arguments()}
    model = kerasdl.create_model(model_name, **arguments)
    if epochs:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(3e-3), loss)
        model.fit(train["image"], train["label"], batch_size=64, epochs=epochs, verbose=0)
    return _parts(model_name, task, arguments, train, test, model)


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


def quiet(line):
    """Takes a line of progress and says nothing."""
