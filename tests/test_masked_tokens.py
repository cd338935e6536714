"""Masked language modeling: which tokens are chosen, what becomes of them, what counts."""

import json

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasdl.columns import ABSENT, DataInfo
from kerasdl.data.sources import open_source
from kerasdl.data.text import tokenizer as tokenizers
from kerasdl.errors import UserError
from kerasdl.metrics import exported
from kerasdl.ops.noise import keys
from kerasdl.ops.text import PAD, SPECIAL
from kerasdl.recipe import Recipe
from kerasdl.tasks.masked_tokens import MaskedTokens

V = 24
MASK = V - 1
PIECES = ["", "", "", "?", *(chr(ord("a") + i) for i in range(V - SPECIAL - 1)), "[MASK]"]
TOKENIZER = json.dumps({"kind": "char", "pieces": PIECES, "mask": MASK})


def make_task(length=40, **settings):
    return MaskedTokens(DataInfo.of_texts(TOKENIZER, length), Recipe(task_kwargs=settings))


def batch(rng, size=200, length=40):
    ids = rng.integers(SPECIAL, MASK, (size, length + 1)).astype("int32")
    return {"token_ids": tf.constant(ids), "key": keys(0, 0, np.arange(size))}


def prepared(task, given):
    result = task.prepare(given)
    arrays = [np.asarray(result[name]) for name in ("token_ids", "masked_ids", "chosen")]
    return arrays[0][:, : task.info.max_length], *arrays[1:]


def test_fifteen_percent_of_each_example_and_eighty_ten_ten(rng):
    ids, masked, chosen = prepared(make_task(), batch(rng))
    assert ids.shape == masked.shape == chosen.shape == (200, 40)
    assert (chosen.sum(-1) == 6).all()  # 15 % of 40
    assert (masked == ids)[~chosen].all()
    total = chosen.sum()
    assert 0.76 < (masked[chosen] == MASK).mean() < 0.84
    other = (masked != ids) & (masked != MASK)
    # One in 19 that are replaced happens to stay.
    assert 0.07 < other.sum() / total < 0.13
    assert masked[other].min() >= SPECIAL and masked[other].max() < MASK
    assert len(np.unique(masked[other])) > 12
    places = chosen.mean(0)
    assert places.min() > 0.05 and places.max() < 0.28  # everywhere


def test_the_key_of_an_example_alone_decides(rng):
    task, given = make_task(), batch(rng, 6)
    whole = prepared(task, given)
    alone = prepared(task, {k: v[4:5] for k, v in given.items()})
    for one, all_of_them in zip(alone, whole, strict=True):
        np.testing.assert_array_equal(one[0], all_of_them[4])
    again = prepared(task, task.prepare(given))  # is not done twice
    for one, other in zip(again, whole, strict=True):
        np.testing.assert_array_equal(one, other)
    later = prepared(task, {**given, "key": keys(0, 1, np.arange(6))})
    assert (later[2] != whole[2]).any()


def test_special_tokens_are_never_chosen_and_one_token_is_at_the_minimum(rng):
    ids = np.full((4, 10), PAD, "int32")
    ids[0, :3], ids[1, :1], ids[2] = 5, 5, 2
    given = {"token_ids": tf.constant(ids), "key": keys(0, 0, np.arange(4))}
    _, masked, chosen = prepared(make_task(10), given)
    assert chosen.sum(-1).tolist() == [1, 1, 0, 0]
    assert (masked == ids)[2:].all() and not chosen[ids < SPECIAL].any()


@pytest.mark.parametrize("rate", [0.4, 0.001])
def test_the_rate_is_a_setting(rate, rng):
    _, _, chosen = prepared(make_task(mask_rate=rate), batch(rng, 8))
    assert (chosen.sum(-1) == max(1, round(40 * rate))).all()


class Right:
    """Scores the true tokens of a batch, but for the places in `wrong`."""

    context = 40

    def __init__(self, ids, wrong):
        self.logits = 50.0 * np.eye(V)[np.where(wrong, (ids - SPECIAL + 1) % 19 + SPECIAL, ids)]

    def __call__(self, x, training=False):
        return ops.convert_to_tensor(self.logits.astype("float32"))


def test_loss_and_accuracy_are_of_the_chosen_alone(rng):
    task, given = make_task(), batch(rng, 3)
    given = task.prepare(given)
    ids, _, chosen = prepared(task, given)
    wrong = ~chosen
    (loss, number), metrics = task.losses(Right(ids, wrong), given)
    assert np.asarray(number).tolist() == [6, 6, 6] and np.abs(loss).max() < 1e-5
    assert np.asarray(metrics["accuracy"][0]).tolist() == [6, 6, 6]
    wrong[0, np.flatnonzero(chosen[0])[0]] = True
    (loss, _), metrics = task.losses(Right(ids, wrong), given)
    assert np.asarray(metrics["accuracy"][0]).tolist() == [5, 6, 6]
    assert np.asarray(loss).tolist() == pytest.approx([50, 0, 0], abs=1e-4)


def test_masks_are_filled_in_with_text_and_all_else_stays(rng):
    class Special:  # likes the mask best, then EOS, then the letter c
        def __call__(self, x, training=False):
            return (
                ops.one_hot(x * 0 + MASK, V) * 9
                + ops.one_hot(x * 0 + 2, V) * 8
                + (ops.one_hot(x * 0 + 6, V) * 7)
            )

    ids = np.array([[5, MASK, 7, MASK, PAD]], "int32")
    assert np.asarray(make_task().fill(Special(), ids)).tolist() == [[5, 6, 7, 6, PAD]]


def test_exported_files_are_evaluated_by_the_chosen_tokens(rng):
    task, given = make_task(), batch(rng, 7)
    served = task.served({"token_ids": np.asarray(given["token_ids"])})
    assert served["label"].shape == served["token_ids"].shape == (7, 40)
    assert ((served["label"] != ABSENT).sum(-1) == 6).all()
    assert served["text"][0].count(b"[MASK]") == (served["token_ids"][0] == MASK).sum()
    columns = {"token_ids": np.asarray(given["token_ids"])[4:], "number": np.arange(4, 7)}
    np.testing.assert_array_equal(task.served(columns)["token_ids"], served["token_ids"][4:])
    logits = rng.normal(size=(7, 40, V)).astype("float32")
    counted = served["label"] >= 0
    expected = exported.metrics(logits[counted], served["label"][counted])

    class Artifact:
        def answer(self, signature, inputs):
            (row,) = np.flatnonzero((served["token_ids"] == inputs["token_ids"][0]).all(-1))
            return {"logits": logits[row : row + len(inputs["token_ids"])]}

    batches = exported.split({k: served[k] for k in ("token_ids", "label")}, 3)
    result = exported.evaluate(Artifact(), batches, task.evaluated_by("savedmodel"))
    assert result["examples"] == 7
    assert result["loss"] == pytest.approx(expected["loss"])
    assert result["top1"] == pytest.approx(expected["top1"])


TEXTS = ["the quick brown fox jumps over the lazy dog. " * 3, "a [MASK] b c"]


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_every_tokenizer_can_have_a_mask_token(kind):
    size = {"bpe": 290, "wordpiece": 100, "sentencepiece": 340}.get(kind)
    plain = tokenizers.train(kind, TEXTS, size)
    masked = tokenizers.with_mask(plain)
    assert masked.vocab_size == plain.vocab_size + 1
    mask = plain.vocab_size
    texts = ["the fox", "the [MASK] fox", "[MASK]", "", "[MASK][MASK] dog", "x"]
    ids = [row.tolist() for row in masked.encode(texts)]
    assert ids[0] == plain.encode(["the fox"])[0].tolist()
    assert ids[2:4] == [[mask], []] and ids[4][:2] == [mask] * 2
    assert ids[1].count(mask) == 1
    assert masked.decode(ids[2]) == "[MASK]" and "[MASK]" in masked.decode(ids[1])
    lengths = masked.ids(tf.constant(texts))[1].numpy().tolist()
    assert lengths == [len(row) for row in ids]
    again = tokenizers.Tokenizer.from_json(masked.to_json())
    assert again.encode(texts)[1].tolist() == ids[1]
    assert tokenizers.with_mask(masked) is masked
    assert masked.unknown("the [MASK]") == []


def test_data_for_the_task_have_a_mask_token(tmp_path):
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.txt").write_text("abcab" * 40)
    source = open_source(f"text:{tmp_path}", task=MaskedTokens, max_length=8)
    metadata = json.loads(source.info.tokenizer)
    assert metadata["pieces"][metadata["mask"]] == "[MASK]"
    assert source.baseline() == {"name": "the most frequent token", "accuracy": 0.4}
    plain = open_source(f"text:{tmp_path}", max_length=8)
    assert "mask" not in json.loads(plain.info.tokenizer)
    assert "bits_per_character" in plain.baseline()
    with pytest.raises(UserError, match="the tokenizer has no mask token"):
        MaskedTokens(plain.info, Recipe())
