"""Training steps to be measured."""

import keras
import numpy as np
import tensorflow as tf


def training_step(layer, shape, xla: bool):
    """A function that trains `layer` one step, on one batch of noise, and returns when it is done.

    Forward, backward and Adam's update, of the mean of the squared outputs.

    Args:
        layer: Called as `layer(x)`, with its weights in `layer.trainable_variables`.
        shape: Of the batch.
        xla: Whether it is compiled.
    """
    x = tf.constant(np.random.default_rng(0).normal(size=shape), "float32")
    layer(x)
    weights = layer.trainable_variables
    optimizer = keras.optimizers.Adam()
    optimizer.build(weights)

    @tf.function(jit_compile=xla)
    def step(x):
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(layer(x)))
        gradients = tape.gradient(loss, [w.value for w in weights])
        optimizer.apply(gradients, weights)
        return loss

    return lambda: step(x).numpy()
