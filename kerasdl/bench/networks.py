"""Whole networks against those of the same paper in `keras.applications` and `keras_hub`."""

import keras
import numpy as np
import tensorflow as tf

from kerasdl import catalog, tasks
from kerasdl.bench.steps import noise, training_step
from kerasdl.columns import DataInfo
from kerasdl.ops.text import SPECIAL
from kerasdl.recipe import Recipe

CNN = {"batch": 8, "side": 96, "classes": 1000}
PEERS = {"resnet50": "ResNet50", "densenet121": "DenseNet121"}
GPT2 = {"vocab_size": 5000, "max_length": 128, "dim": 256, "depth": 4, "num_heads": 4}
TEXT = {"batch": 8, "tokens": 64}


def _cnns(name, side, classes):
    """Both sides: ours, and that of `keras.applications`."""
    shape = (side, side, 3)
    peer = getattr(keras.applications, PEERS[name])
    return {
        "ours": catalog.build(name, image_shape=shape, num_classes=classes),
        "peer": peer(weights=None, input_shape=shape, classes=classes, classifier_activation=None),
    }


def cnn_training(size=None, names=PEERS):
    """Yield `(name, steps)` for `paired.compare`: training steps.

    Args:
        size: `{"batch", "side", "classes"}`; `CNN` if None.
        names: Of `PEERS`.
    """
    batch, side, classes = (size or CNN).values()
    x = noise((batch, side, side, 3))
    for name in names:
        case = f"A training step of {name}, {batch} images of {side} x {side} / {PEERS[name]}"
        models = _cnns(name, side, classes)
        yield case, {(s, False): training_step(m, x, False) for s, m in models.items()}


def cnn_inference(size=None, names=PEERS):
    """Yield `(name, steps)` for `paired.compare`: answers to one image and to a batch.

    Args:
        size: `{"batch", "side", "classes"}`; `CNN` if None.
        names: Of `PEERS`.
    """
    batch, side, classes = (size or CNN).values()
    for name in names:
        models = _cnns(name, side, classes)
        for count in (1, batch):
            x = noise((count, side, side, 3))
            case = f"{name}, {count} images of {side} x {side} / {PEERS[name]}"
            yield case, {(s, False): _answer(m, x) for s, m in models.items()}


def _answer(model, x):
    x, answer = tf.constant(x), tf.function(lambda x: model(x, training=False), autograph=False)
    return lambda: answer(x).numpy()


def _gpt2s(vocab_size, max_length, dim, depth, num_heads):
    """Ours, and that of `keras_hub` with a head."""
    import keras_hub

    ours = catalog.build(
        "gpt2_small",
        vocab_size=vocab_size,
        max_length=max_length,
        dim=dim,
        depth=depth,
        num_heads=num_heads,
        mlp_dim=4 * dim,
    )
    backbone = keras_hub.models.GPT2Backbone(
        vocab_size, depth, num_heads, dim, 4 * dim, max_sequence_length=max_length
    )
    return ours, keras_hub.models.GPT2CausalLM(backbone)


def gpt2_training(size=None, arguments=None):
    """Yield `(name, steps)` for `paired.compare`: training steps of GPT-2.

    Args:
        size: `{"batch", "tokens"}`; `TEXT` if None.
        arguments: Of the model; `GPT2` if None.
    """
    batch, tokens = (size or TEXT).values()
    arguments = arguments or GPT2
    ours, peer = _gpt2s(**arguments)
    ids = np.random.default_rng(0).integers(SPECIAL, arguments["vocab_size"], (batch, tokens))

    def call_peer(model, x):
        return model({"token_ids": x, "padding_mask": tf.ones_like(x)}, training=True)

    ids, (depth, dim) = ids.astype("int32"), (arguments["depth"], arguments["dim"])
    yield (
        f"A training step of GPT-2 ({depth} blocks, {dim} channels), {batch} texts of {tokens} "
        "tokens / keras_hub.models.GPT2CausalLM",
        {
            ("ours", False): training_step(ours, ids, False),
            ("peer", False): training_step(peer, ids, False, call_peer),
        },
    )


def gpt2_writing(size=None, arguments=None):
    """Yield `(name, steps)` for `paired.compare`: GPT-2 writes as many tokens as it read.

    Args:
        size: `{"batch", "tokens"}` of the prompts; `TEXT` if None.
        arguments: Of the model; `GPT2` if None.
    """
    batch, tokens = (size or TEXT).values()
    arguments = arguments or GPT2
    ours, peer = _gpt2s(**arguments)
    info = DataInfo.of_texts(max_length=arguments["max_length"])
    task = tasks.get("generate_text")(info, Recipe(model="gpt2_small"))
    peer.compile(sampler="greedy")

    @tf.function(autograph=False)
    def generate(prompt):
        filled = tf.zeros_like(prompt[:, 0])
        return task.generate(
            ours,
            prompt,
            token_ids_length=filled + tokens,
            max_new_tokens=filled + tokens,
            temperature=tf.zeros_like(filled, tf.float32),
            top_k=filled,
            seed=filled,
        )["token_ids"]

    for count in (1, batch):
        ids = np.full((count, 2 * tokens), SPECIAL, "int32")
        read = np.broadcast_to(np.arange(2 * tokens) < tokens, ids.shape)
        given = {"token_ids": ids, "padding_mask": read.astype("int32")}
        prompt = tf.constant(ids[:, :tokens])
        yield (
            f"{tokens} tokens by GPT-2 after {tokens}, batch {count} / keras_hub's generate",
            {
                ("ours", False): lambda prompt=prompt: generate(prompt).numpy(),
                ("peer", False): lambda given=given: peer.generate(given, stop_token_ids=None),
            },
        )
