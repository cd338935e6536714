"""The SavedModel answers to encoded images as the model does to their pixels."""

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.bench import native
from kerasdl.data import images


@pytest.fixture(scope="module")
def signatures(exported):
    loaded = tf.saved_model.load(exported["folder"])
    return loaded, loaded.signatures  # a signature dies with what it was loaded from


KINDS = "gray gray_alpha color rgba larger smaller jpeg gray_jpeg".split()


@pytest.mark.parametrize("kind", KINDS)
def test_equals_decode_and_fit(kind, signatures, parts, pictures):
    outputs = signatures[1]["serve_bytes"](image_bytes=tf.constant([pictures[kind]]))
    image = images.resize(images.decode(pictures[kind], 1), (8, 8))[None]
    expected = parts.task.predict(parts.model, {"image": image})
    for name in ("logits", "probabilities"):
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-5, atol=1e-5)
    label = int(expected["label"][0])
    assert outputs["label"].numpy() == [label]
    assert outputs["class_name"].numpy() == [parts.info.class_names[label].encode()]


def test_a_batch_of_all_kinds_equals_them_one_by_one(signatures, pictures):
    serve = signatures[1]["serve_bytes"]
    together = serve(image_bytes=tf.constant(list(pictures.values())))["logits"]
    alone = [serve(image_bytes=tf.constant([p]))["logits"][0] for p in pictures.values()]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("content", [b"no image", b"", b"\x89PNG\r\n\x1a\n"])
def test_undecodable_bytes_are_refused_and_the_next_request_answered(content, signatures, pictures):
    serve = signatures[1]["serve_bytes"]
    before = serve(image_bytes=tf.constant([pictures["rgba"]]))["logits"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        serve(image_bytes=tf.constant([pictures["rgba"], content]))
    after = serve(image_bytes=tf.constant([pictures["rgba"]]))["logits"]
    np.testing.assert_array_equal(before, after)


def test_a_server_goes_on_after_bytes_that_are_no_image(exported, pictures, replay, tmp_path):
    good, bad = [{"image_bytes": np.array([b], object)} for b in (pictures["jpeg"], b"no image")]
    requested = [("serve_bytes", inputs) for inputs in (good, bad, good)]
    before, refused, after = native.replay(replay, exported["folder"], requested, tmp_path)
    assert "Unknown image file format" in refused
    np.testing.assert_array_equal(before["logits"], after["logits"])
