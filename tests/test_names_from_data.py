"""Names from data steer neither a terminal nor a page: in lines, tables, cards, reports."""

import json
import re

import numpy as np
import pytest

from kerasdl import cli
from kerasdl.cli.arguments import table
from kerasdl.columns import PARTS, DataInfo
from kerasdl.data import summary
from kerasdl.export import card
from kerasdl.inference import explaining, predict
from kerasdl.report import page
from kerasdl.store import runs
from kerasdl.system import terminal
from kerasdl.system.names import few, nearest

LONG = "x" * 10_000
NAMES = (
    "\x1b[31mred\x1b[0m",
    "a|b",
    "<script>alert(1)</script>",
    "two\nlines",
    "\u202egnp.exe",
    "[link](http://x) `code` *bold*",
    "\x9b2J\r\x07",
    "\ud800half",
    LONG,
    "Grüße, 数字",
)
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def lines_of(text, count):
    """The lines of a text, which steer nothing and are `count`, none without end."""
    assert not STEERS.search(text)
    lines = text.split("\n")
    assert len(lines) == count and max(map(len, lines)) < 4500
    return lines


def test_a_name_is_one_line_and_says_what_it_hides():
    assert terminal.printable("\x1b[31m\n\u202e") == r"\x1b[31m\n\u202e"
    assert terminal.printable(LONG) == "x" * 80 + "... (10,000 characters)"
    assert terminal.printable("Grüße, 数字") == "Grüße, 数字"
    assert terminal.printable_text("a\n\tb\x1b") == "a\n\tb\\x1b"


def test_lines_of_training():
    said = []
    say = terminal.lines(said.append)
    for name in (*NAMES, "y" * 10**6):
        say(f"note: {name}")
    lines_of("\n".join(said), len(NAMES) + 1)


def test_what_a_data_set_holds():
    counts = {name: dict.fromkeys(PARTS, 1) for name in NAMES}
    lines_of(summary.line({"classes": counts, "objects": counts}), 1)
    lines_of(table(["class"], [[terminal.printable(name)] for name in NAMES]), len(NAMES) + 1)
    assert r"a\|b" in table(["class"], [["a|b"]], markdown=True)
    lines_of(few(NAMES), 1)
    lines_of(nearest(LONG + "y", [LONG]), 1)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_lines_of_predict_and_explain(name):
    box = {"class_name": name, "score": 0.5, "box": [0.0, 0.0, 1.0, 1.0]}
    for result in (
        {"file": "a.png", "class_name": name, "probability": 0.5},
        {"file": f"{name}.png", "mask": {name: 0.5}},
        {"file": "a.png", "objects": [box]},
        {"file": "a.png", "class_names": [name[:100]]},
    ):
        lines_of(predict.line(result), 1)
    shown = {"file": name, "class_name": name, "probability": 1.0, "peak": (0.0, 0.0)}
    lines_of(explaining.line(shown), 1)


def test_whatever_a_command_prints(monkeypatch, capsys):
    """Also where nobody thought of it; and errors."""

    def dispatch(argv):
        print("a\x1b[2J\nb")
        with cli.arguments.notes_to_stderr():
            print("note \x1b]0;title\x07")
        raise cli.UsageError(f"no such class \x1b[31m {LONG}")

    monkeypatch.setattr(cli, "dispatch", dispatch)
    assert cli.main(["list"]) == 2
    out, err = capsys.readouterr()
    assert out == "a\\x1b[2J\nb\n"
    note, error, _ = lines_of(err, 3)
    assert note == r"note \x1b]0;title\x07" and error.startswith(r"error: no such class \x1b[31m")


@pytest.fixture
def described():
    """A card of classes with those names."""
    spec = {"dtype": "float32", "shape": [None, 2]}
    file = {"bytes": 5, "max_difference": 0.0, "test": None, "latency_ms": 1.0}
    info = DataInfo.of_images((8, 8, 1), NAMES)
    return {
        **dict(name="net", version=1, model="linear", paper="x", task="classify", seed=0),
        **dict(dataset=f"folder:{NAMES[1]}`{NAMES[2]}", trainable_parameters=5, batch="dynamic"),
        **dict(versions={}, commit=None, omitted={}, metrics={"test": {f"f1 {NAMES[1]}": 0.5}}),
        "data": json.loads(info.to_json()),
        "artifacts": {"savedmodel": file},
        "interface": {"context": None, "savedmodel": {}, "tflite": {}},
        "signatures": {"serving_default": {"inputs": {"image": spec}, "outputs": {"y": spec}}},
    }


def test_card(described):
    text = card.markdown(described)
    line = next(one for one in text.split("\n") if one.startswith("- Classes"))
    assert not STEERS.search(text) and "<script" not in line and "&lt;script" in line
    assert r"a\|b" in line and r"\[link\](http://x) \`code\` \*bold\*" in line
    assert len(line) < 1000 and "Grüße, 数字" in line
    trained = next(one for one in text.split("\n") if "trained on" in one)
    assert trained.count("`") == 6  # the model's, the task's and the data's names
    assert next(one for one in text.split("\n") if "| test f1" in one).count(" | ") == 1


def test_report(tmp_path):
    classes = {name: {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 1} for name in NAMES}
    counts = {name: {"training": 1} for name in NAMES}
    metrics = {"test": {"top1": 0.5}, "classes": classes, "dataset": f"folder:{NAMES[2]}"}
    metrics |= {"confusion": np.eye(len(NAMES))[::-1].tolist(), "groups": {NAMES[2]: 0.5}}
    metrics |= {"data": {"classes": counts, "notes": list(NAMES)}}
    info = DataInfo.of_images((8, 8, 1), NAMES)
    (tmp_path / runs.ARGS).write_text("model: linear")
    (tmp_path / runs.METRICS).write_text(json.dumps(metrics))
    model = {"arguments": {}, "info": json.loads(info.to_json())}
    (tmp_path / runs.MODEL).write_text(json.dumps(model))
    text = page.write(tmp_path).read_text()
    assert not STEERS.search(text)
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert r"\x1b[31mred" in text and "Grüße, 数字" in text
    assert len(re.findall("x{81,}", text)) == 2  # the note, and the list of settings, alone


def test_pages_of_commands_take_plain_names_alone(described, tmp_path, capsys):
    folder = tmp_path / "models; touch x" / "1"
    (folder / "assets.extra" / "requests").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    where = folder / "assets.extra" / "card.json"
    where.write_text(json.dumps(described))
    assert cli.main(["show", "--serving", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "models/models%3B%20touch%20x:predict" in out and not STEERS.search(out)
    sides = described["signatures"]["serving_default"]
    for name in (*NAMES[:-2], "x\nrm -rf /\n", "$(touch x)", "../x"):
        where.write_text(json.dumps(described | {"signatures": {name: sides}}))
        assert cli.main(["show", "--serving", str(folder)]) == 2
        err = capsys.readouterr().err
        assert "card.json cannot be used" in err
        lines_of(err, 2)
    for damaged in ({}, [], 5, None, {"a": 5}, {"a": {"inputs": 5, "outputs": {}}}):
        where.write_text(json.dumps(described | {"signatures": damaged}))
        assert cli.main(["show", "--serving", str(folder)]) == 2
        assert "card.json cannot be used" in capsys.readouterr().err
