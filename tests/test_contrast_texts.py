"""Images and captions: the loss against loops, prompts, and what is done to texts."""

import json
import math

import keras
import numpy as np
import pytest

from kerasdl.columns import Column, DataInfo
from kerasdl.data.text import tokenizer as tokenizers
from kerasdl.errors import UserError
from kerasdl.models.multimodal.clip import TINY, clip_small
from kerasdl.ops.losses import image_text, unit
from kerasdl.recipe import Recipe
from kerasdl.tasks.contrast_texts import ContrastTexts
from tests.variants import build, letters

CLASSES = ("bc", "d", "ee")


def pairs(rng, n, dim=4):
    return [np.array(unit(rng.normal(size=(n, dim)))) for _ in range(2)]


def by_loops(image, text, scale):
    """Figure 3 of the paper, pair by pair: losses and how often the pair's own is nearest."""
    losses, nearest = np.zeros((len(image), 2)), np.zeros((len(image), 2))
    for way, (rows, columns) in enumerate(((image, text), (text, image))):
        for i, row in enumerate(rows):
            scores = [scale * row @ column for column in columns]
            total = sum(math.exp(s) for s in scores)
            losses[i, way] = -math.log(math.exp(scores[i]) / total)
            nearest[i, way] = max(s for k, s in enumerate(scores) if k != i) < scores[i]
    return losses.mean(1), nearest.mean(1)


def test_the_loss_is_figure_3(rng):
    image, text = pairs(rng, 7)
    loss, top1 = image_text(image, text, image, text, 3.0)
    expected, nearest = by_loops(image, text, 3.0)
    np.testing.assert_allclose(loss, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(top1, nearest)
    for rows in (slice(0, 3), slice(3, 7)):  # of replicas
        part, _ = image_text(image[rows], text[rows], image, text, 3.0, rows.start)
        np.testing.assert_allclose(part, expected[rows], rtol=0, atol=1e-12)
    weight = np.array([1.0, 1, 1, 1, 1, 0, 0])
    part, _ = image_text(image, text, image, text, 3.0, weight=weight)
    np.testing.assert_allclose(part[:5], by_loops(image[:5], text[:5], 3.0)[0], rtol=0, atol=1e-12)


def test_equal_embeddings_cost_the_logarithm_of_the_batch(rng):
    row = np.ones((5, 3)) / np.sqrt(3)
    loss, top1 = image_text(row, row, row, row, 1 / 0.07)
    np.testing.assert_allclose(loss, math.log(5), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(top1, 0.0)


def test_a_caption_that_repeats_is_a_target_shared_equally(rng):
    """As `image_text` says of them: texts to images, the sum is that of equal targets."""
    image, text = pairs(rng, 6)
    text[1] = text[4] = text[0]
    same = np.all(text[:, None] == text[None], axis=-1)
    loss, top1 = image_text(image, text, image, text, 2.0, same=same)
    log_p = np.asarray(keras.ops.log_softmax(2.0 * text @ image.T, axis=-1))
    shared = -np.sum(same / same.sum(1, keepdims=True) * log_p, axis=-1)
    back = np.asarray(keras.ops.log_softmax(2.0 * image @ text.T, axis=-1)).diagonal()
    np.testing.assert_allclose(np.sum(loss), (shared.sum() - back.sum()) / 2, rtol=1e-12)
    perfect = np.asarray(text)
    _, top1 = image_text(perfect, text, perfect, text, 2.0, same=same)
    np.testing.assert_array_equal(top1, 1.0)  # any of the equal ones is right


@pytest.fixture(scope="module")
def named():
    """A model and its task, of data with classes and a tokenizer."""
    sizes = TINY["clip_small"]
    columns = {
        "image": Column("image", sizes["image_shape"]),
        "caption_ids": Column("tokens", ("N",), tokenizer="text", max_length=sizes["max_length"]),
        "label": Column("label", (), CLASSES),
    }
    info = DataInfo(columns, {"text": letters(sizes["vocab_size"])})
    recipe = Recipe(model="clip_small", task_kwargs={"templates": ["{}", "a {} a", "{}{}{}{}{}"]})
    task = tokenizers.give_texts(ContrastTexts(info, recipe))
    keras.utils.set_random_seed(0)
    return clip_small(**{**sizes, "text_drop_rate": 0.0}), task


def test_classes_are_the_mean_of_their_prompts(named, rng):
    model, task = named
    assert task.texts[3:6] == ("d", "a d a", "ddddd") and len(task.texts) == 9
    embeds = np.asarray(task.class_embeds(model))
    np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1.0, rtol=1e-6)
    tokenizer = tokenizers.Tokenizer.from_json(task.info.tokenizer)
    rows = [[1, *ids[:6], 2] for ids in tokenizer.encode(task.texts[3:6])]
    mean = sum(np.asarray(model.encode_text(np.array([row]))) for row in rows)[0]
    np.testing.assert_allclose(embeds[1], mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6)
    image = rng.random((2, *model.backbone.image_shape)).astype("float32")
    batch = {"image": image, "caption_ids": np.array([[1, 4, 2], [1, 5, 2]])}
    outputs = task.predict(model, batch)
    cosines = np.asarray(model.encode_image(image)) @ embeds.T
    np.testing.assert_array_equal(outputs["label"], cosines.argmax(1))
    expected = keras.ops.softmax(np.exp(model.logit_scale) * cosines)
    np.testing.assert_allclose(outputs["probabilities"], expected, rtol=1e-4)


def test_texts_are_begun_and_ended_once(named):
    _, task = named
    ids = np.array([[5, 6, 7, 0], [1, 5, 9, 9], [5, 2, 8, 8], [1, 5, 6, 2], [4, 4, 4, 4]])
    framed = task.framed(ids, np.array([3, 2, 2, 4, 4]))
    expected = [[1, 5, 6, 7, 2, 0], [1, 5, 2, 0, 0, 0], [1, 5, 2, 0, 0, 0], [1, 5, 6, 2, 0, 0]]
    np.testing.assert_array_equal(framed, [*expected, [1, 4, 4, 4, 4, 2]])


def test_what_stands_behind_the_end_changes_nothing(named):
    model, _ = named
    ids = np.array([[1, 5, 6, 2, 0, 0], [1, 5, 6, 2, 7, 2]])
    first, second = np.asarray(model.encode_text(ids))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.encode_text(ids[:1, :4])[0], first, rtol=1e-5, atol=1e-6)


def test_the_scale_starts_at_the_papers_and_is_kept_below_100():
    model, task = build("clip_small")
    assert abs(float(model.logit_scale) - 2.659260036932778) < 1e-6
    task.after_update(model, {})
    assert abs(float(model.logit_scale) - 2.659260036932778) < 1e-6
    model.logit_scale.assign(7.0)
    task.after_update(model, {})
    assert abs(float(model.logit_scale) - math.log(100)) < 1e-6


@pytest.mark.parametrize("templates", [["a {}", "a"], [], "a photo", [3]])
def test_templates_have_a_place_for_the_name(named, templates):
    info = named[1].info
    with pytest.raises(UserError, match=r"--task-kwargs templates.*\{\}"):
        ContrastTexts(info, Recipe(model="clip_small", task_kwargs={"templates": templates}))


def test_without_a_tokenizer_or_classes_there_are_no_prompts(named):
    _, task = named
    columns = {k: v for k, v in task.info.columns.items() if k != "label"}
    assert ContrastTexts(DataInfo(columns, task.info.tokenizers), task.run_recipe).texts == ()
    ids = Column("tokens", ("N",), vocab_size=13, max_length=8)
    bare = ContrastTexts(DataInfo({**task.info.columns, "caption_ids": ids}), task.run_recipe)
    assert bare.texts == () and len(bare.evaluators()) == 1
    assert json.loads(task.info.tokenizer)["kind"] == "char"
