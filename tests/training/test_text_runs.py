"""Runs of language models and translators, from their data to their report and the command line."""

import json

import pytest

from kerasdl import cli

WORDS = "the quick brown fox jumps over the lazy dog and walks home again in the rain"
COMMON = "--tiny --epochs 2 --limit-batches 3 --batch-size 8 --export none".split()


def train(folder, model, *words):
    """Train in this process; returns the run's folder."""
    argv = [*COMMON, "--model", model, "--output", str(folder), "--experiment", model, *words]
    assert cli.main(argv) == 0
    return folder / model


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "book.txt").write_text("\n".join(f"{i}: {WORDS}" for i in range(100)))
    words = "--dataset", f"text:{folder / 'book.txt'}", "--max-length", "24"
    return train(folder, "gpt2_small", *words)


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    rows = [f"{w} {i}\t{i} {w[::-1]}" for i in range(20) for w in WORDS.split()]
    (folder / "pairs.tsv").write_text("\n".join(rows))
    words = "--dataset", f"pairs:{folder / 'pairs.tsv'}", "--tokenizer", "char"
    return train(folder, "transformer_small", *words)


def test_a_language_models_figures_and_samples(writer):
    metrics = json.loads((writer / "metrics.json").read_text())
    assert {"loss", "accuracy", "perplexity", "bits_per_character"} == set(metrics["test"])
    assert metrics["baseline"]["name"] == "5-gram, Witten-Bell"
    assert 0 < metrics["baseline"]["bits_per_character"] < metrics["test"]["bits_per_character"]
    samples = (writer / "pictures" / "samples.txt").read_text()
    assert samples.count("== epoch 2, sample") == 4
    header = (writer / "summary.csv").read_text().splitlines()[0]
    assert "val_bits_per_character" in header
    page = (writer / "report.html").read_text()
    assert "== epoch 2, sample 1" in page and "5-gram, Witten-Bell" in page


def test_a_translators_figures(translator):
    metrics = json.loads((translator / "metrics.json").read_text())
    assert {"loss", "token_accuracy", "bleu", "exact_match"} == set(metrics["test"])
    assert metrics["translations"][0].keys() == {"source", "translation", "reference"}
    page = (translator / "report.html").read_text()
    assert "Translations" in page and metrics["translations"][0]["reference"] in page


def test_predict_and_evaluate(writer, translator, capsys):
    argv = ["predict", "--run", str(writer), "--max-new-tokens", "5", "--json", "the ", "fox é"]
    assert cli.main(argv) == 0
    answer = capsys.readouterr()
    result = json.loads(answer.out)
    assert result[0]["output"].startswith("the ") and len(result[0]["output"]) == 9
    assert "text 2: not in the vocabulary: 'é'" in answer.err
    assert cli.main(["predict", "--run", str(writer), "--max-new-tokens", "3", WORDS]) == 0
    answer = capsys.readouterr()
    assert answer.out.startswith(WORDS) and len(answer.out) == len(WORDS) + 4
    line = f"note: text 1: {len(WORDS)} tokens and 3 new ones are more than the context of 24: each"
    assert answer.err.startswith(line)
    assert cli.main(["predict", "--run", str(translator), "fox 3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert cli.main(["evaluate", "--run", str(writer), "--split", "val"]) == 0
    metrics = json.loads(capsys.readouterr().out)["checkpoint"]
    assert metrics["bits_per_character"] > 0 and metrics["examples"] > 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["predict", ""], "text 1: text is empty"),
        (
            ["predict", WORDS, "--long-prompts", "refuse"],
            "text 1: text and max_new_tokens are more than the context of 24",
        ),
        (["--input-stats", "dataset"], "applies to image data only"),
        (["--tokenizer", "byte", "--vocab-size", "20"], "byte always has 260 ids"),
        (["--model-kwargs", "depth=0"], "depth 0: must be a whole number from 1 on"),
        (["--tokenizer", "bype"], "did you mean"),
        (["--max-length", "9999"], "one window needs"),
        (["--augment", "shift"], "apply to image data only"),
        (["--task-kwargs", "top_k=-1"], "top_k=-1: must be a whole number from 0"),
        (["--model-kwargs", "num_heads=3"], "num_heads 3: must divide"),
        (["--dataset", "digits"], "digits"),
    ],
)
def test_bad_input_is_one_line(writer, tmp_path, words, line, capsys):
    if words[0] == "predict":
        argv = ["predict", "--run", str(writer), *words[1:]]
    else:
        book = f"text:{writer.parent / 'book.txt'}"
        argv = [*COMMON, "--model", "gpt2_small", "--output", str(tmp_path), "--dataset", book]
        argv += words
    assert cli.main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and line in error and "\n" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_run_goes_on_with_its_vocabulary_only(writer, capsys):
    book = f"text:{writer.parent / 'book.txt'}"
    argv = [*COMMON, "--model", "gpt2_small", "--output", str(writer.parent)]
    argv += ["--experiment", writer.name, "--dataset", book, "--max-length", "24"]
    assert cli.main(argv) == 0
    assert "is finished: test loss" in capsys.readouterr().out
    assert cli.main([*argv, "--tokenizer", "byte"]) == 2
    assert "--tokenizer was auto, is byte" in capsys.readouterr().err
