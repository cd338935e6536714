"""Texts in the page of an exported model: its tokenizers are Python's, and it writes `greedy`."""

import json

import numpy as np
import pytest

from kerasdl.data.text.tokenizer import KINDS, Tokenizer, train
from kerasdl.inference.texts import predict_texts
from kerasdl.store import load
from kerasdl.tasks.generate_text import GREEDY_TOKENS
from tests.data.test_tokenizer import ODD, TEXTS, VOCAB_SIZE
from tests.export.examples import make_parts, quiet
from tests.export.pages import functions, html_of, opened

ALPHABETS = (
    "".join(sorted(set("".join(TEXTS)))),
    "abcdef ABC,.'-\n\t 0123",
    "éßñ\u0301\u00a0\u2028\u3000\u200b\u00ad\ufeff\u2581 日本語カナ한국\u0661½Ⅷ",
    "😀👩\u200d👩\u200d👧🏽🇩🇪𝔘𝔫 \x00\x1f\x7f\x85",
)


def random_texts(count):
    """Strings of up to 60 characters, of one alphabet or of all."""
    rng = np.random.default_rng(0)
    alphabets = [*ALPHABETS, "".join(ALPHABETS)]
    return [
        "".join(rng.choice(list(alphabets[i % len(alphabets)]), rng.integers(60)))
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def tools(chromium_or_none):
    if chromium_or_none is None:
        pytest.skip("needs a browser")
    with functions(chromium_or_none, "runtime.js", "texts.js") as tab:
        yield tab


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_are_those_of_python(tools, kind):
    tokenizer = train(kind, TEXTS, VOCAB_SIZE[kind])
    texts = [*TEXTS, *ODD, *random_texts(300)]
    encoded = [ids.tolist() for ids in tokenizer.encode(texts)]
    rng = np.random.default_rng(1)
    ids = [rng.integers(0, tokenizer.vocab_size, 20).tolist() for _ in range(200)] + encoded
    result, decoded, unknown = tools.evaluate(
        "([metadata, texts, ids]) => { const one = tokenizerOf(metadata);"
        " return [texts.map(one.encode), ids.map(one.decode), texts.map(one.unknown)]; }",
        [json.loads(tokenizer.to_json()), texts, ids],
    )
    for text, given, expected in zip(texts, result, encoded, strict=True):
        assert given == expected, repr(text)
    assert decoded == [tokenizer.decode(one) for one in ids]
    assert unknown == [tokenizer.unknown(text) for text in texts]
    if kind in ("char", "wordpiece"):
        assert sum(3 in one for one in encoded) > 50  # some are unknown, in both


def test_a_tokenizer_that_is_not_there(tools):
    message = tools.evaluate(
        "() => { try { tokenizerOf({kind: 'other', pieces: []}); } catch (e) { return e.message; }}"
    )
    assert message == "The tokenizer other is not in this page."


def test_the_choice_of_a_token(tools):
    logits = [9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 2.0, 0.0, -1.0]
    choose = "([logits, t, k, u]) => u.map((r) => chooseToken(Float32Array.from(logits), t, k, r))"
    assert tools.evaluate(choose, [logits, 0, 0, [0.0, 0.99]]) == [5, 5]  # the first; no special
    numbers = ((np.arange(2000) + 0.5) / 2000).tolist()
    for temperature, top_k, kept in ((1.0, 0, 5), (0.5, 3, 3), (2.0, 1, 2), (1.0, 99, 5)):
        values = np.array(logits[4:])
        weights = np.exp(values / temperature) * (values >= np.sort(values)[-min(top_k or 5, 5)])
        assert (weights > 0).sum() == kept  # of equal ones all
        tokens = tools.evaluate(choose, [logits, temperature, top_k, numbers])
        counts = np.bincount(tokens, minlength=9)[4:] / len(tokens)
        np.testing.assert_allclose(counts, weights / weights.sum(), atol=1e-3)


def some_text(version, count):
    """A text of some tokens of the vocabulary."""
    tokenizer = Tokenizer.from_json(load.load_info(version).info.tokenizer)
    text = tokenizer.decode(range(4, 4 + count))
    return text, len(tokenizer.encode([text])[0])


def finished(tab):
    """Waits until a panel may be used again."""
    tab.wait_for_function("!document.querySelector('section button.main').disabled")
    assert tab.is_hidden("section > [role=alert]"), tab.inner_text("section > [role=alert]")


def write(tab, text, **settings):
    """What the page writes."""
    tab.fill("#prompt", text)
    for name, value in settings.items():
        tab.get_by_label(name.replace("_", " ")).fill(str(value))
    tab.click("button.main")
    finished(tab)
    return tab.locator("output.written").text_content()


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    """The folder of a small recurrent language model, whose file takes 10 tokens."""
    from kerasdl import catalog
    from kerasdl.export.exporter import export

    sizes = catalog.module_of("char_rnn").TINY["char_rnn"] | {"max_length": 10}
    parts = make_parts("char_rnn", **sizes)
    folder = tmp_path_factory.mktemp("recurrent")
    return load.find(export(parts, ("tflite",), folder, None, quiet)["folder"])[1]


def test_at_temperature_0_a_transformer_writes_greedy(chromium, writer):
    text, length = some_text(writer, 6)
    (expected,) = predict_texts(writer / "tflite/float32.tflite", [text])
    with opened(chromium, html_of(writer)) as tab:
        new = min(GREEDY_TOKENS, 24 - length)
        greedy = write(tab, text, Tokens=new, Temperature=0)
        assert greedy == expected["output"] and greedy.startswith(text) and len(greedy) > len(text)
        warm = [write(tab, text, Tokens=new, Temperature=5, Seed=seed) for seed in (1, 2, 1)]
        assert warm[0] == warm[2] != warm[1]
        assert len(write(tab, text, Tokens=40)) > len(greedy)  # beyond the context
        assert not tab.errors


def test_at_temperature_0_a_recurrent_model_writes_greedy(chromium, recurrent):
    text, length = some_text(recurrent, 6)
    (expected,) = predict_texts(recurrent / "tflite/float32.tflite", [text])
    with opened(chromium, html_of(recurrent)) as tab:
        assert write(tab, text, Tokens=GREEDY_TOKENS, Temperature=0) == expected["output"]
        some = write(tab, text, Tokens=3, Temperature=0)
        assert expected["output"].startswith(some) and len(some) < len(expected["output"])


def test_writing_stops_and_bad_settings_get_a_sentence(chromium, writer):
    with opened(chromium, html_of(writer)) as tab:
        alert = tab.locator("section > [role=alert]")
        for name, value, message in (
            ("Tokens", "0", "Tokens: must be a whole number of at least 1 and at most 10000."),
            ("Temperature", "-1", "Temperature: must be a number of at least 0 and at most 10."),
            ("Seed", "", "Seed: must be a whole number of at least 0 and at most 4294967295."),
        ):
            before = tab.get_by_label(name).input_value()
            tab.get_by_label(name).fill(value)
            tab.click("button.main")
            assert alert.inner_text() == message
            tab.get_by_label(name).fill(before)
        tab.fill("#prompt", "")
        tab.click("button.main")
        assert alert.inner_text() == "The prompt is empty; write at least one character."
        tab.fill("#prompt", "a")
        tab.get_by_label("Tokens").fill("10000")
        tab.focus("button.main")
        tab.keyboard.press("Enter")
        tab.wait_for_function("document.querySelector('output.written').textContent.length > 3")
        assert tab.evaluate("document.activeElement.textContent") == "Stop"
        tab.keyboard.press("Enter")
        tab.wait_for_function("document.querySelector('section [role=status]').textContent")
        assert 1 < int(tab.inner_text("section [role=status]").split()[0]) < 10000
        assert tab.evaluate("document.activeElement.textContent") == "Write"
        assert alert.is_hidden() and not tab.errors
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_translation_is_greedy(chromium, translator):
    text, _ = some_text(translator, 3)
    (expected,) = predict_texts(translator / "tflite/float32.tflite", [text])
    with opened(chromium, html_of(translator)) as tab:
        tab.fill("#source", text)
        tab.click("button.main")
        finished(tab)
        assert tab.locator("output.written").text_content() == expected["output"]
        for given, message in (("", "The text is empty"), (text * 99, "The text has ")):
            tab.fill("#source", given)
            tab.click("button.main")
            assert tab.inner_text("section > [role=alert]").startswith(message)
        assert not tab.errors
