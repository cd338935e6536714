"""Language modeling and translation as tasks: what is a target, how it is judged."""

import json
import math

import numpy as np
import pytest
import sacrebleu
from keras import ops

from kerasdl.columns import DataInfo
from kerasdl.metrics.translation import Translations
from kerasdl.ops.losses import cross_entropy, token_cross_entropy
from kerasdl.ops.text import BOS, EOS, PAD, Pieces
from kerasdl.recipe import Recipe
from kerasdl.tasks.generate_text import GenerateText
from kerasdl.tasks.translate import Translate

LETTERS = [chr(ord("a") + i) for i in range(9)]
TOKENIZER = json.dumps({"kind": "char", "pieces": ["", "", "", "?", *LETTERS]})
SPACED = json.dumps({"kind": "char", "pieces": ["", "", "", "?", *LETTERS[:1], " ", *LETTERS[1:]]})
V = 13
INFO = DataInfo.of_texts(TOKENIZER, 6, tokens_per_character={"test": 0.5})


def ids(text, tokenizer=TOKENIZER):
    pieces = json.loads(tokenizer)["pieces"]
    return [pieces.index(character) for character in text]


class Copier:
    """Scores so that each token is followed by the next one of the alphabet."""

    context = None

    def __call__(self, x, training=False):
        x = x["target_ids"] if isinstance(x, dict) else x
        return 50.0 * ops.one_hot(x + 1, V)


def test_the_target_is_the_next_token():
    task = GenerateText(INFO, Recipe())
    batch = {"token_ids": np.array([ids("abcdef"), ids("aacddd")], "int32")}
    loss, metrics = task.losses(Copier(), batch)
    assert np.asarray(metrics["accuracy"]).tolist() == pytest.approx([1, 1 / 5])
    assert np.asarray(loss).tolist() == pytest.approx([0, 50 * 4 / 5], abs=1e-4)
    assert task.info.vocab_size == V == task.arguments()["vocab_size"]


def test_a_translation_begins_after_bos_and_ends_in_eos():
    task = Translate(INFO, Recipe())
    target = np.array([[BOS, *ids("abc"), EOS, PAD], [BOS, *ids("b"), EOS, PAD, PAD]][:1], "int32")
    batch = {"source_ids": np.array([[*ids("ab"), EOS]], "int32"), "target_ids": target}
    inputs = task.model_inputs(None, batch)["target_ids"]
    assert inputs.tolist() == [[BOS, *ids("abc"), EOS]]
    loss, metrics = task.losses(Copier(), batch)
    # a after BOS and EOS after c are wrong, b and c right; what follows EOS does not count.
    right, count = metrics["token_accuracy"]
    assert (float(right[0]), float(count[0])) == (2, 4)
    assert float(loss[0][0]) == pytest.approx(50 * 2, rel=1e-5) and float(loss[1][0]) == 4


def test_equal_scores_cost_ln_v():
    class Flat:
        def __call__(self, x, training=False):
            x = x["target_ids"] if isinstance(x, dict) else x
            return ops.zeros((*x.shape, V))

    batch = {"token_ids": np.array([ids("abcd")], "int32")}
    loss, _ = GenerateText(INFO, Recipe()).losses(Flat(), batch)
    assert float(loss[0]) == pytest.approx(math.log(V), rel=1e-6)
    pair = {
        "source_ids": np.array([ids("ab")], "int32"),
        "target_ids": np.array([[BOS, *ids("ab"), EOS]], "int32"),
    }
    loss, _ = Translate(INFO, Recipe(label_smoothing=0.1)).losses(Flat(), pair, training=True)
    assert float(loss[0][0] / loss[1][0]) == pytest.approx(math.log(V), rel=1e-6)


def test_bits_count_characters_not_tokens():
    result = GenerateText(INFO, Recipe()).summarize(
        {"loss": 2 * math.log(2), "accuracy": 0.5}, "test"
    )
    assert result["bits_per_character"] == pytest.approx(1.0)  # two bits a token of two characters
    assert result["perplexity"] == pytest.approx(4.0)


def test_sparse_labels_give_the_same_loss(rng):
    logits = rng.normal(size=(2, 3, V)).astype("float32")
    label = rng.integers(0, V, (2, 3)).astype("int32")
    for smoothing in (0.0, 0.2):
        expected = cross_entropy(np.eye(V, dtype="float32")[label], logits, smoothing)
        np.testing.assert_allclose(
            token_cross_entropy(label, logits, smoothing), expected, rtol=1e-5
        )


def evaluated(pairs, groups=None, tokenizer=TOKENIZER):
    """What two evaluators found that saw every other pair, merged by a third one."""
    made = [Translations(Pieces(tokenizer), ("even", "odd") if groups else ()) for _ in range(3)]
    for i, (target, reference) in enumerate(pairs):
        batch = {
            "index": np.array([i, 0]),
            "weight": np.array([1.0, 0.0]),
            "source_ids": np.array([ids("a", tokenizer)] * 2),
            "target_ids": np.array([[BOS, *ids(reference, tokenizer), EOS]] * 2),
        }
        if groups:
            batch["group"] = np.array([groups[i]] * 2)
        outputs = {"target_ids": np.array([[*ids(target, tokenizer), EOS]] * 2)}
        made[i % 2].update(outputs, batch)
    for one in made[:2]:
        made[2].merge(one.state())
    return made[2].result()


def test_exact_matches_by_group_and_examples_without_weight():
    result = evaluated([("abc", "abc"), ("abc", "abd"), ("b", "b")], groups=[0, 1, 1])
    assert result["test"]["exact_match"] == pytest.approx(2 / 3)
    assert result["groups"] == {"even": 1.0, "odd": 0.5}
    assert len(result["translations"]) == 3
    assert result["translations"][0] == {"source": "a", "translation": "abc", "reference": "abd"}


def test_bleu():
    assert evaluated([("abcde", "abcde")] * 2)["test"]["bleu"] == pytest.approx(100)
    assert evaluated([("abcde", "edcba")] * 2)["test"]["bleu"] == pytest.approx(0)
    pairs = [(text, f"{text} {text}") for text in ("abc", "def")]
    assert evaluated(pairs, tokenizer=SPACED)["test"]["bleu"] == pytest.approx(
        0
    )  # no pair of words
    short = sacrebleu.corpus_bleu(["a b c d e"], [["a b c d e f"]])
    assert short.bp == pytest.approx(math.exp(1 - 6 / 5), abs=1e-9)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (GenerateText, {"top_p": 0}, "top_p=0: must be a number from 1e-06 to 1"),
        (GenerateText, {"temperature": -1}, "temperature=-1: must be a number from 0"),
        (GenerateText, {"temperature": "hot"}, "temperature=hot: must be a number"),
        (GenerateText, {"temperatur": 1}, "did you mean temperature"),
        (Translate, {"beam_width": 0}, "beam_width=0"),
        (Translate, {"length_penalty": -1}, "length_penalty=-1"),
        (Translate, {"length_penalty": float("nan")}, "length_penalty=nan"),
        (GenerateText, {"top_k": 2.5}, "top_k=2.5: must be a whole number"),
    ],
)
def test_bad_settings(task, settings, message):
    with pytest.raises(ValueError, match=message):
        task(INFO, Recipe(task_kwargs=settings))
