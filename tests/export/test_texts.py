"""Language models and translators as artifacts: texts in, texts out, bad ones refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasdl import cli
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.errors import UserError
from kerasdl.export.exporter import export
from kerasdl.inference import texts
from kerasdl.models.sequence import gpt
from kerasdl.ops.text import SPECIAL
from tests.export.conftest import SIZES
from tests.export.examples import make_parts, quiet

ROOT = Path(__file__).parents[2]
FILES = {"saved_model": "", "keras": "assets.extra/model.keras", "tflite": "tflite/float32.tflite"}


@pytest.fixture(scope="module")
def some(writer):
    """Some letters of the vocabulary."""
    from kerasdl.store import load

    tokenizer = Tokenizer.from_json(load.load_info(writer).info.tokenizer)
    return tokenizer.decode(range(4, 10))


@pytest.fixture(scope="module")
def serve(writer):
    return tf.saved_model.load(str(writer)).signatures["serving_default"]


def ask(serve, text, new=6, temperature=1.0, top_k=0, seed=0):
    """The continuation of each text; numbers may be one for all, or one per text."""
    outputs = serve(
        text=tf.constant(text),
        max_new_tokens=tf.constant(new),
        temperature=tf.constant(temperature),
        top_k=tf.constant(top_k),
        seed=tf.constant(seed),
    )
    return [t.decode() for t in outputs["text"].numpy()]


def test_texts_go_on_from_what_was_given(serve, some):
    batch = [some, some[:2], some[3]]
    result = ask(serve, batch)
    for text, longer in zip(batch, result, strict=True):
        assert longer.startswith(text) and len(longer) == len(text) + 6
    assert ask(serve, batch, new=[0, 1, 2]) == [
        longer[: len(text) + n] for text, longer, n in zip(batch, result, (0, 1, 2), strict=True)
    ]


def test_an_answer_depends_on_its_own_text_and_seed_alone(serve, some):
    batch = [some, some[:2], some[:2]]
    one = ask(serve, batch, new=12, temperature=3.0, seed=[5, 6, 7])
    assert ask(serve, batch[::-1], new=12, temperature=3.0, seed=[7, 6, 5]) == one[::-1]
    assert ask(serve, [some[:2]], new=12, temperature=3.0, seed=6) == [one[1]]
    assert one[1] != one[2]
    greedy = ask(serve, batch, temperature=0.0, seed=[1, 2, 3])
    assert greedy == ask(serve, batch, temperature=2.0, top_k=1, seed=9)


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("", {}, "text is empty"),
        (None, {"new": 22}, "more than the context of 24 tokens"),
        (None, {"new": -1}, "max_new_tokens must be"),
        (None, {"top_k": -1}, "top_k must be"),
        (None, {"temperature": -1.0}, "temperature must be"),
    ],
)
def test_what_cannot_be_answered_is_refused(serve, some, text, settings, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        ask(serve, [some, some if text is None else text], **settings)


def test_invalid_utf8_is_refused(serve):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid formatting"):
        ask(serve, [b"\xff\xfe"])


def test_the_next_token_follows_from_the_last_of_the_context(writer, rng):
    ids = rng.integers(4, 10, (3, 40)).astype("int32")
    saved = texts.open_artifact(writer)
    expected = saved.answer("next_token", {"token_ids": ids[:, -24:]})["logits"]
    result = saved.answer("next_token", {"token_ids": ids})["logits"]
    np.testing.assert_allclose(result, expected, atol=1e-5)


def after(artifact, token_ids):
    """Logits of what follows tokens; a TFLite file is given their number too."""
    length = {"token_ids_length": np.full(len(token_ids), token_ids.shape[1], "int32")}
    inputs = {"token_ids": token_ids} | (length if artifact.kind == "tflite" else {})
    return artifact.answer("next_token", inputs)["logits"]


def test_a_tflite_file_takes_so_many_tokens_and_as_many_of_them_as_count(writer, rng):
    lite = texts.open_artifact(writer / FILES["tflite"])
    saved = texts.open_artifact(writer)
    for count in (1, 7, 24):
        ids = rng.integers(4, 10, (3, count)).astype("int32")
        np.testing.assert_allclose(after(lite, ids), after(saved, ids), atol=1e-5)
    with pytest.raises(UserError, match=r"token_ids has the shape \(25\); this file takes \(24\)"):
        after(lite, rng.integers(4, 10, (3, 25)).astype("int32"))


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_every_format_writes_the_same(writer, some, file):
    lite = file.endswith("tflite")
    settings = {} if lite else {"temperature": 0.0, "max_new_tokens": 20}
    result = texts.predict_texts(writer / file, [some[:4]], settings)
    expected = texts.predict_texts(writer, [some[:4]], {"temperature": 0.0, "max_new_tokens": 20})
    assert result == expected
    assert result[0]["output"].startswith(some[:4]) and len(result[0]["output"]) == 24


def test_bad_texts_and_settings_are_named(writer, translator, some):
    for line, inputs, settings in [
        ("text 2: text is empty", [some, ""], {"max_new_tokens": 2}),
        ("context of 24", [some], {"max_new_tokens": 20, "long_prompts": "refuse"}),
        ("context of 24", [some * 9], {"long_prompts": "refuse"}),
        ("text 2: text is empty", [some, ""], {"max_new_tokens": 30}),
        ("text 1: max_new_tokens must be 0 or more", [some * 9], {"max_new_tokens": -1}),
        ("text 1: temperature must be 0 or more", [some * 9], {"temperature": -1.0}),
        ("--long-prompts cut: not one of slide, refuse", [some], {"long_prompts": "cut"}),
        ("--seed 9999999999: must be below", [some], {"seed": 9999999999}),
        ("text 1: top_k must be 0 or more", [some], {"top_k": -2}),
        ("--top-k does not apply to a TFLite file", [some], {"top_k": 3}),
    ]:
        file = writer / FILES["tflite"] if "TFLite" in line else writer
        with pytest.raises(ValueError, match=line):
            texts.predict_texts(file, inputs, settings)
    with pytest.raises(ValueError, match="text 1: source has more than"):
        texts.predict_texts(translator, [some * 20])
    with pytest.raises(ValueError, match="text 1: source is empty"):
        texts.predict_texts(translator, [""])
    for name, value in (("seed", 1), ("long_prompts", "slide")):
        line = f"--{name.replace('_', '-')} does not apply to transformer_small"
        with pytest.raises(ValueError, match=line):
            texts.predict_texts(translator, [some], {name: value})
    missing = texts.predict_texts(writer, [some[:2] + "é"], {"max_new_tokens": 1})[0]
    assert missing["unknown"] == ["é"]
    assert missing["output"].startswith(some[:2] + "\ufffd")


def by_hand(artifact, tokenizer, text, new):
    """A greedy continuation, one window of the last 24 tokens after another."""
    (ids,) = tokenizer.encode([text])
    ids = ids.tolist()
    for _ in range(new):
        window = np.array([ids[-24:]], "int32")
        logits = after(artifact, window)[0]
        logits[:SPECIAL] = -np.inf
        ids.append(int(np.argmax(logits)))
    return tokenizer.decode(ids)


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_beyond_the_context_the_window_slides(writer, some, file):
    artifact = texts.open_artifact(writer / file)
    tokenizer = Tokenizer.from_json(artifact.interface.info.tokenizer)
    lite = file.endswith("tflite")
    settings = {} if lite else {"temperature": 0.0, "max_new_tokens": 32}
    long = some * 7  # 42 tokens
    for text in (long, long[:24], long[-25:]):
        (result,) = texts.predict_texts(artifact, [text], settings)
        assert result["output"] == by_hand(artifact, tokenizer, text, 32)
        assert len(result["output"]) == len(text) + 32
        assert (
            f"{len(text)} tokens and 32 new ones are more than the context of 24"
            in (result["note"])
        )
    assert "note" not in texts.predict_texts(artifact, [some])[0]
    if not lite:
        (short,) = texts.predict_texts(artifact, [some], settings)
        assert short["output"] == by_hand(artifact, tokenizer, some, 32) and short["note"]
        (none,) = texts.predict_texts(artifact, [long], {"max_new_tokens": 0})
        assert none["output"] == long
        assert len(texts.predict_texts(artifact, [long])[0]["output"]) == 42 + 100


def test_a_sliding_window_samples_as_the_signature_does(writer, some):
    settings = {"temperature": 1.5, "top_k": 5, "seed": -7}
    kept, slid = (
        texts.predict_texts(writer, [some], {**settings, "max_new_tokens": n})[0]["output"]
        for n in (18, 40)
    )
    assert len(kept) == 24 and slid.startswith(kept) and len(slid) == 46
    again = texts.predict_texts(writer, [some], {**settings, "seed": 8, "max_new_tokens": 40})
    assert again[0]["output"] != slid


def test_without_a_number_it_writes_to_the_end_of_the_context(writer, some):
    assert [len(one["output"]) for one in texts.predict_texts(writer, [some, some[:1]])] == [24, 24]


def test_translators_take_and_give_texts(translator):
    loaded = tf.saved_model.load(str(translator)).signatures["serving_default"]
    outputs = loaded(source=tf.constant(["ab", "b"]))
    assert outputs["target"].dtype == tf.string and outputs["score"].dtype == tf.float32
    assert np.isfinite(outputs["score"]).all() and (np.asarray(outputs["score"]) < 0).all()
    alone = loaded(source=tf.constant(["b"]))
    assert alone["target"][0] == outputs["target"][1]
    np.testing.assert_allclose(alone["score"][0], outputs["score"][1], rtol=1e-4)
    by_keras = texts.predict_texts(translator / FILES["keras"], ["ab", "b"])
    assert [one["output"] for one in by_keras] == [t.decode() for t in outputs["target"].numpy()]
    with pytest.raises(tf.errors.InvalidArgumentError, match="source is empty"):
        loaded(source=tf.constant(["ab", ""]))


def test_where_a_translation_looks_is_shown(translator, writer, tmp_path, capsys):
    output = tmp_path / "seen.png"
    words = ["explain", "--saved-model", str(translator), "--text", "ab", "b"]
    assert cli.main([*words, "--json", "--output", str(output)]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["source"] == ["a", "b", "<end>"] and second["source"] == ["b", "<end>"]
    weights = np.array(first["weights"])
    assert weights.shape == (len(first["target"]), 3)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    (answer, _) = texts.predict_texts(translator / FILES["keras"], ["ab", "b"])
    assert answer["output"] == first["output"]
    assert "".join(t for t in first["target"] if t != "<end>") == first["output"]
    with Image.open(output) as picture:
        width, height = picture.size
    assert width > 3 * 22 and height > 22 * (len(first["target"]) + len(second["target"]))
    assert cli.main(words) == 0 and "looks at" in capsys.readouterr().out
    for folder, more, line in (
        (writer, (), "--text: gpt2_small does not translate by attention"),
        (translator, ("--method", "gradcam"), "--method gradcam does not apply to --text"),
        (translator, ("--label", "x"), "--text takes --method attention"),
    ):
        words = ["explain", "--saved-model", str(folder), "--text", "ab"]
        assert cli.main([*words, *more]) == 2 and line in capsys.readouterr().err
    long = ["explain", "--saved-model", str(translator), "--text", "ab", "ab" * 40, ""]
    assert (
        cli.main(long) == 2 and "text 2: has 80 tokens; must have 1 to" in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "sentencepiece"])
def test_every_tokenizer_is_in_the_artifact(kind, tmp_path):
    sizes = {**gpt.TINY["gpt2_small"], **SIZES, "max_length": 24}
    parts = make_parts("gpt2_small", tokenizer=kind, **sizes)
    export(parts, (), tmp_path, None, quiet)
    (text,) = parts.test["text"][:1]
    # A process that has imported nothing of tensorflow-text yet.
    code = (
        "import sys; from kerasdl.inference import artifact\n"
        "import numpy as np; n = np.array([3], 'int32')\n"
        f"found = artifact.open_artifact({str(tmp_path / 'gpt2_small')!r}).answer(\n"
        f"    'serving_default', {{'text': np.array([{text!r}], object), 'max_new_tokens': n,\n"
        "    'temperature': np.float32(0), 'top_k': n, 'seed': n})\n"
        "print(found['text'][0].decode())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(text.decode().rstrip()) and len(done.stdout) > len(text)
