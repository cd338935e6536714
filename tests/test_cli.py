"""The command line: how fast it answers, what it takes, and its one line for bad input."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from kerasdl import catalog, cli
from kerasdl.cli import list as listing
from kerasdl.cli.train import parse_settings
from kerasdl.errors import UserError
from kerasdl.export import results
from kerasdl.recipe import Recipe, from_dict, to_dict

ROOT = Path(__file__).parents[1]


def seconds(*command):
    """The shortest of three runs."""
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
        best = min(best, time.perf_counter() - began)
    return best


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list"],
        ["list", "--markdown"],
        ["list", "--results"],
        ["list", "--update-readme", "nowhere.md"],
        ["list", "-h"],
        ["launch", "-h"],
        ["export", "-h"],
        ["predict", "-h"],
        ["launch", "--hosts", "a,b", "--", "--batch-size", "4"],
    ],
)
def test_help_and_list_import_no_framework(words):
    code = (
        "import sys; from kerasdl.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'sklearn', 'jax'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("word", ["--help", "list"])
def test_help_and_list_answer_at_once(word):
    assert seconds("train.py", word) - seconds("-c", "pass") < 0.5


@pytest.mark.parametrize(
    "words, line",
    [
        (["--modle", "x"], "unknown flag --modle (did you mean --model?)"),
        (["trian"], "unknown command 'trian' (did you mean train?)"),
        (["--opt", "adamm"], "--opt adamm: not one of sgd"),
        (["--opt", "adamm"], "(did you mean adam?)"),
        (["--epochs", "x"], "--epochs x: must be a whole number"),
        (["--lr", "fast"], "--lr fast: must be a number"),
        (["--lr"], "--lr needs a value"),
        (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--mixup", "-1"], "--mixup -1"),
        (["--label-smoothing", "2"], "--label-smoothing 2: must be at least 0 and below 1"),
        (["--augment", "shfit"], "--augment shfit: not one of shift"),
        (["--class-weight", "cat"], "--class-weight cat: must be balanced or none alone, or NAME="),
        (["--class-weight", "2"], "--class-weight 2: must be balanced or none alone"),
        (["--model", "resnt20"], "unknown model 'resnt20' (did you mean resnet20?)"),
        (["--model-kwargs", "depths"], "--model-kwargs depths: must be name=value"),
        (["list", "--task", "clasify"], "(did you mean classify?)"),
        (["list", "vgg", "--update-readme"], "--update-readme writes all models"),
        (["show", "resnet"], "unknown model 'resnet'"),
        (["show", "resnet20", "--imagesize", "8"], "(did you mean --image-size?)"),
        (["evaluate", "--run", "nowhere"], "nowhere"),
        (["predict", "--saved-model", "nowhere", "x.png"], "nowhere"),
        (["predict", "--run", "nowhere"], "give image files or texts, or --output"),
        (["predict", "--run", "nowhere", "--output", "a.gif"], "must end in .png"),
        (["bench", "recurent"], "recurent"),
        (["bench", "--rounds", "0"], "must be at least 1"),
        (["export", "--run", "nowhere", "--export", "onnx"], "onnx"),
        (["export", "--run", "nowhere", "--quantize", "int9"], "int9"),
        (["export", "--run", "nowhere", "--version", "last"], "must be a whole number, or next"),
        (
            ["export", "--run", "nowhere", "--tflite-batch", "0"],
            "whole number from 1 to 1024, or dyn",
        ),
        (
            ["export", "--run", "nowhere", "--tflite-batch", "all"],
            "--tflite-batch all: must be a whole",
        ),
        (["show"], "give the name of a model, --run and"),
        (["show", "--serving", "nowhere"], "nowhere: is not there"),
        (["show", "resnet20", "--web", "x"], "give the name of a model, --run and"),
        (["show", "--web", "nowhere"], "nowhere: is not there"),
        (["show", "--web", "x", "--file", "int9"], "--file int9: not one of float32"),
        (["show", "--web", "x", "--effective"], "--effective applies to the name of a model"),
        (["show", "--serving", "x", "--serve"], "--serve applies to --web, not to --serving"),
        (["show", "resnet20", "--runtime", "cdn"], "--runtime applies to --web, not to the name"),
        (["show", "--run", "nowhere"], "nowhere is no run folder"),
        (["show", "--run", "x", "--serve"], "--serve applies to --web, not to --run"),
        (["probe", "--run", "nowhere"], "nowhere is no run folder"),
        (["probe", "--run", "x", "--labels", "5/clas"], "--labels 5/clas: must be a number, a"),
        (["probe", "--run", "x", "--labels", "0"], "--labels 0: must be a number, a number and"),
        (["probe", "--run", "x", "--method", "lienar"], "(did you mean linear?)"),
        (["probe", "--run", "x", "--seeds", "0"], "--seeds 0: must be at least 1"),
        (["probe", "--run", "x", "--temperature", "0"], "--temperature 0.0: must be above 0"),
        (["word"], "unknown command"),
        (["--no-resume=true"], "--no-resume takes no value"),
        (["--image-size", "3.5"], "--image-size [3.5]: must be a list, each a whole number"),
        (["--lr", ""], "--lr None: must be a number"),
        (["--momentum", "2"], "--momentum 2: must be at least 0 and below 1"),
        (["--clip-grad", "0"], "--clip-grad 0: must be above 0"),
        (["--seed", "5000000000"], "--seed 5000000000"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, line, capsys):
    assert cli.main(words) == 2
    result = capsys.readouterr()
    assert line in result.err and result.err.count("\n") == 1
    assert result.err.startswith("error: ") and not result.out


def test_flags_are_written_with_either_dash_and_every_type_is_read():
    given = parse_settings(
        "--batch_size=32 --lr 1e-3 --no-resume --tiny --augment shift flip --image-size 28 "
        "--model-kwargs depths=[1,2] option=a --export none --clip-grad 1 --dataset 3".split()
    )
    assert given == {
        "batch_size": 32,
        "lr": 0.001,
        "resume": False,
        "tiny": True,
        "augment": ["shift", "flip"],
        "image_size": [28],
        "model_kwargs": {"depths": [1, 2], "option": "a"},
        "export": [],
        "clip_grad": 1,
        "dataset": "3",
    }


def test_flags_win_over_the_config_and_its_mistakes_are_named(tmp_path, capsys):
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(to_dict(Recipe(lr=0.5, epochs=3))))
    given = parse_settings(["--config", str(path), "--epochs", "4"])
    assert (given["lr"], given["epochs"]) == (0.5, 4)
    assert from_dict(given) == Recipe(lr=0.5, epochs=4)
    path.write_text("epochz: 3")
    assert cli.main(["--config", str(path)]) == 2
    assert "unknown key 'epochz' (did you mean epochs?)" in capsys.readouterr().err
    path.write_text("epochs: many")
    assert cli.main(["--config", str(path)]) == 2
    assert "--epochs many: must be a whole number" in capsys.readouterr().err
    for line in ('epochs: "5"', "epochs: null", "augment: null", 'tiny: "false"'):
        path.write_text(line)
        assert cli.main(["--config", str(path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    path.write_text("lr: 1e-3")
    assert parse_settings(["--config", str(path)]) == {"lr": 0.001}
    assert cli.main(["--config", "nowhere.yaml"]) == 2
    assert "No such file" in capsys.readouterr().err


def test_list_filters_and_prints_json(capsys):
    assert cli.main(["list", "densenet", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows and all("densenet" in row["name"] for row in rows)


def between(page, marker):
    """What stands in a page between a marker and the next end."""
    return page.split(f"{marker}\n")[1].split(f"\n{listing.END}")[0]


@pytest.mark.slow
def test_the_readmes_table_of_weights_is_what_list_prints(capsys):
    assert cli.main(["list", "--weights", "--markdown"]) == 0
    table = capsys.readouterr().out.strip()
    assert table == between((ROOT / "README.md").read_text(), listing.WEIGHTS)


def test_the_readmes_table_is_what_list_prints(capsys):
    assert cli.main(["list", "--markdown"]) == 0
    table = capsys.readouterr().out.removesuffix("\n")
    assert table == between((ROOT / "README.md").read_text(), listing.MODELS)
    lines = [line for line in table.splitlines() if line.startswith("| [")]
    assert len(lines) == len({(c, p.link) for c, ps in catalog.CHAPTERS.items() for p in ps})
    assert sorted(re.findall(r"`(\w+)` [\d.]+[KMB]", table)) == sorted(catalog.MODELS)


def test_a_paper_with_models_of_two_tasks_is_one_line(capsys):
    assert cli.main(["list", "Cho et al.", "--markdown"]) == 0
    table = capsys.readouterr().out
    assert table.count("](") == 1 and " classify, generate_text " in table
    assert "| `char_gru`: TFLite at batch 1: " in table and "(2 models, 1 paper)" in table
    assert cli.main(["list", "--task", "segment", "--markdown"]) == 0
    assert capsys.readouterr().out.count("<details") == 1


@pytest.mark.parametrize(
    "number, text",
    [
        (650, "650"),
        (999, "999"),
        (1000, "1K"),
        (30_730, "30.7K"),
        (269_722, "270K"),
        (999_499, "999K"),
        (999_501, "1M"),
        (1_727_962, "1.73M"),
        (304_326_632, "304M"),
        (7_241_732_096, "7.24B"),
    ],
)
def test_compact_numbers(number, text):
    assert listing.compact(number) == text


def test_update_readme_writes_between_the_markers_alone(tmp_path, capsys, monkeypatch):
    page = "before\n\n{}\n{}\n{}\nafter\n{}\nresults\n{}\n"
    marks = (listing.MODELS, listing.END, listing.RESULTS, listing.END)
    page = page.format(marks[0], "{}", *marks[1:])
    readme = tmp_path / "README.md"
    readme.write_text(page.format("old"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["list", "--update-readme"]) == 0
    assert capsys.readouterr().out == "README.md\n"
    assert cli.main(["list", "--markdown"]) == 0
    table = capsys.readouterr().out.removesuffix("\n")
    assert readme.read_text() == page.format(table)
    write_card(tmp_path / "saved_models", "net", 1, 0.97)
    assert cli.main(["list", "--results", "--update-readme", str(readme)]) == 0
    assert "| net | digits |" in between(readme.read_text(), listing.RESULTS)
    assert between(readme.read_text(), listing.MODELS) == table
    assert [p.name for p in tmp_path.glob("*READ*")] == ["README.md"]  # no temporary file is left


@pytest.mark.parametrize(
    "page",
    [
        None,
        "no marker",
        f"{listing.MODELS}\nno end",
        f"{listing.MODELS}\n{listing.RESULTS}\n{listing.END}\n",
        f"{listing.MODELS}\n{listing.END}\n{listing.MODELS}\n{listing.END}\n",
        f"{listing.END}\n{listing.MODELS}\n",
    ],
)
def test_a_readme_without_its_markers_stays_as_it_is(page, tmp_path, capsys):
    readme = tmp_path / "page.md"
    if page is not None:
        readme.write_text(page)
    assert cli.main(["list", "--update-readme", str(readme)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --update-readme {readme}: ") and error.count("\n") == 1
    assert (readme.read_text() if readme.exists() else None) == page


def write_card(folder, name, version, top1):
    """A card as far as the results table reads it."""
    extra = folder / name / str(version) / "assets.extra"
    extra.mkdir(parents=True)
    file = {"bytes": 2048, "test": {"top1": top1 - 0.01, "examples": 9}}
    card = {
        "name": name,
        "model": "resnet20",
        "dataset": "digits",
        "trainable_parameters": 269434,
        "metrics": {"test": {"loss": 0.2, "top1": top1}},
        "artifacts": {
            "savedmodel": {**file, "latency_ms": 1.25},
            "tflite/int8": {
                **file,
                "latency_ms": {"1": 0.5, "2": 0.4},
                "compiled_model": {"latency_ms": {"1": 0.6, "2": 0.7}},
            },
        },
    }
    (extra / "card.json").write_text(json.dumps(card))
    (extra / results.BROWSER).write_text(json.dumps({"tflite/int8": 3.0}))


def test_the_readmes_results_are_of_the_catalogue():
    table = between((ROOT / "README.md").read_text(), listing.RESULTS)
    rows = [line for line in table.splitlines() if re.match(r"\| \w+ ", line)]
    heads = [row for row in rows if row == f"| {' | '.join(results.HEADS)} |"]
    assert len(heads) == table.count("<details>")
    rows = [row for row in rows if row not in heads]
    names = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert len(names) >= 10 and set(names) <= set(catalog.MODELS)
    for row in rows:
        name, _, parameters, test, *_ = row.removeprefix("| ").split(" | ")
        assert test and int(parameters.replace(",", "")) > 0, name


def test_results_are_those_of_the_newest_cards(tmp_path, capsys):
    assert cli.main(["list", "--results", "--export-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("there is no exported model\n")
    for version, top1 in ((9, 0.5), (10, 0.97)):
        write_card(tmp_path, "net", version, top1)
    words = ["list", "--results", "--export-dir", str(tmp_path)]
    assert cli.main([*words, "--markdown"]) == 0
    folded = capsys.readouterr().out.splitlines()
    assert folded[0] == "<details><summary>Classifiers (1 model)</summary>"
    assert folded[4:] == [
        "| net | digits | 269,434 | top1 0.9700 | 2 KiB, 0.9600, 1.25 ms |  |  |  "
        "| 2 KiB, 0.50, 0.40; 0.60, 0.70; 3.00 ms |",  # its metric is the SavedModel's
        "",
        "</details>",
    ]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["net", "digits", "269,434"]
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["metrics"]["test"]["top1"] == 0.97


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a b", "-x", "", "x\ny"])
def test_names_of_runs_are_as_strict_as_those_of_exports(name, tmp_path):
    from kerasdl import app

    for setting in ("experiment", "export_name"):
        given = {"model": "linear", "output": str(tmp_path / "runs"), setting: name, "epochs": 1}
        given |= {"export_dir": str(tmp_path / "saved")}
        with pytest.raises(UserError, match="must hold only letters, digits, _, - and"):
            app.train(given)
    assert not list(tmp_path.iterdir())


def test_results_stand_alone_on_the_standard_output(monkeypatch, capsys):
    from kerasdl.inference import artifact

    def evaluate(*args):
        print("a damaged checkpoint was passed over")
        return {"top1": 1.0}

    monkeypatch.setattr(artifact, "evaluate_artifact", evaluate)
    assert cli.main(["evaluate", "--run", "x"]) == 0
    result = capsys.readouterr()
    assert json.loads(result.out) == {"checkpoint": {"top1": 1.0}}
    assert result.err == "a damaged checkpoint was passed over\n"


@pytest.mark.parametrize("module", ["kerasdl", "kerasdl.cli"])
def test_modules_that_run(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()[0].isdigit()
