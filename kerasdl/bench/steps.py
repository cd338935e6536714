"""Training steps to be measured."""

import keras
import numpy as np
import tensorflow as tf


def noise(shape):
    """A batch of normal numbers, float32."""
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def training_step(layer, x, xla: bool, call=None):
    """A function that trains a layer one step on a batch, and returns when it is done.

    Forward, backward and Adam's update, of the mean of the squared outputs.

    Args:
        layer: A Keras layer; of several outputs the first counts.
        x: The batch, an array.
        xla: Whether it is compiled.
        call: `(layer, x) -> outputs`; `layer(x, training=True)` if None.
    """
    call = call or (lambda layer, x: layer(x, training=True))
    x = tf.constant(x)
    call(layer, x)  # makes the weights
    weights = layer.trainable_variables
    optimizer = keras.optimizers.Adam()
    optimizer.build(weights)

    @tf.function(jit_compile=xla)
    def step(x):
        with tf.GradientTape() as tape:
            outputs = keras.tree.flatten(call(layer, x))[0]
            loss = keras.ops.mean(keras.ops.square(outputs))
        gradients = tape.gradient(loss, [w.value for w in weights])
        optimizer.apply(gradients, weights)
        return loss

    return lambda: float(step(x))


def paired_steps(ours, peer, x, call_peer=None) -> dict:
    """The training steps of two layers for `paired.compare`.

    Args:
        ours, peer: Functions that make a layer.
        x: The batch, an array.
        call_peer: As `call` of `training_step`, for the peer.

    Returns:
        `{(side, xla): function}`.
    """
    steps = {}
    for xla in (False, True):
        steps["ours", xla] = training_step(ours(), x, xla)
        steps["peer", xla] = training_step(peer(), x, xla, call_peer)
    return steps
