"""Our loop against Keras' `fit`, for the default model of every task.

Both take the same steps: `fit` runs the `train_step` of the same kind of trainer.
"""

import tempfile
from pathlib import Path

import tensorflow as tf

STEPS = 40  # of one measurement
MODELS = {
    "classify": "resnet20",
    "generate_text": "char_gpt",
    "translate": "transformer_small",
    "reconstruct": "vae",
    "adversarial": "dcgan",
    "denoise": "ddpm_unet_small",
}


def cases():
    """`(name, steps)` of each task for `paired.compare`."""
    for task, name in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            yield f"{STEPS} steps of {name} ({task})", sides(name, folder)


def sides(name: str, folder, **settings) -> dict:
    """The steps of a model by the loop and by `fit`, each on its own weights and pipeline.

    Args:
        name: Of the catalogue.
        folder: For the runs.
        **settings: Of the training, besides the model's own.
    """
    ours, peer = (_session(name, Path(folder) / side, settings) for side in ("ours", "peer"))
    loop = ours.loop
    iterator = iter(ours._batches(0, 1 << 30))
    count, word = tf.constant(STEPS), tf.constant([0, 0])
    endless = peer._batches(0, 1 << 30)

    def by_loop():
        loop._run(iterator, count, word)[0].numpy()

    def by_fit():
        peer.trainer.fit(endless, steps_per_epoch=STEPS, verbose=0, shuffle=False)

    return {("ours", False): by_loop, ("peer", False): by_fit}


def _session(name, folder, settings):
    from kerasdl.store.settings import resolve
    from kerasdl.training import session

    given = {"model": name, "strategy": "one_device", "log": (), "export": (), **settings}
    recipe = resolve({**given, "output": str(folder)})
    return session.Session(recipe, folder, lambda line: None)
