"""The page of a run."""

import base64
import csv
import json
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from contextlib import nullcontext
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image, ImageSequence

from kerasdl.columns import DataInfo
from kerasdl.recipe import Recipe, to_dict
from kerasdl.report import page, plots
from kerasdl.store import pictures
from kerasdl.training import callbacks

VOID = {"meta", "img", "br"}
CARD = {
    "folder": "saved_models/resnet20/3",
    "artifacts": {
        "savedmodel": {
            "bytes": 20 * 2**20,
            "max_difference": 2.5e-7,
            "latency_ms": 1.75,
            "test": {"loss": 0.1, "top1": 0.96875, "examples": 360},
        },
        "tflite/int8": {
            "bytes": 3072,
            "max_difference": 0.03,
            "latency_ms": {"1": 0.5, "2": 0.25},
            "test": {"loss": 0.2, "top1": 0.9, "examples": 360},
        },
    },
}


class Page(HTMLParser):
    """Checks that tags are closed in order and addresses are of the page itself."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags = [], [], []
        self.feed(text)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                assert value.startswith(("data:image/png;base64,", "data:image/gif;base64,"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)


def write_run(folder, metrics=None, rows=(), names=(), settings=None):
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**to_dict(Recipe()), "dataset": "digits", **(settings or {})}
    (folder / "args.yaml").write_text(yaml.safe_dump(settings))
    info = json.loads(DataInfo.of_images((8, 8, 1), names).to_json())
    metadata = {"model": "resnet20", "arguments": {"num_classes": len(names)}, "info": info}
    (folder / "model.json").write_text(json.dumps(metadata))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    if rows:
        with open(folder / "summary.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[-1]))
            writer.writeheader()
            writer.writerows(rows)
    return folder


def page_of(folder, card=None):
    path = page.write(folder, card)
    assert path == folder / "report.html"
    return Page(path.read_text())


def metrics_of(k, **more):
    confusion = np.diag(np.full(k, 9))
    confusion[0, 1] = 2
    mistakes = [
        {"confidence": 0.9876, "index": 41, "true": 0, "predicted": 1},
        {"confidence": 0.5, "index": 7, "true": 0, "predicted": 1},
    ]
    return {
        "model": "resnet20",
        "dataset": "digits",
        "test": {"loss": 0.0625, "top1": 0.96875},
        "trainable_parameters": 269722,
        "steps": 1900,
        "epochs": 20,
        "examples_per_second": 1234.5,
        "train_seconds": 75.0,
        "seed": 3,
        "best_epoch": 2,
        "confusion": confusion.tolist(),
        "mistakes": mistakes,
        **more,
    }


def rows_of(epochs):
    return [
        {
            "epoch": e,
            "step": 10 * e,
            "lr": 0.1 / e,
            "loss": 2.0 / e**3,
            "top1": 1 - 0.5 / e,
            "val_loss": 3.0 / e**2,
            "val_top1": 1 - 0.6 / e,
        }
        for e in range(1, epochs + 1)
    ]


def test_a_whole_run(tmp_path):
    names = ("zero", "one", "two")
    folder = write_run(tmp_path / "a-run", metrics_of(3), rows_of(5), names, {"lr": 0.125})
    (folder / "pictures").mkdir()
    grid = plots.png(np.full((50, 400, 4), 200, np.uint8))
    (folder / "pictures" / "mistakes.png").write_bytes(grid)
    (folder / "pictures" / "samples.png").write_bytes(grid)
    norms = {"weights/m/head/kernel": 2.5, "gradients/m/head/kernel": 0.125}
    (folder / "norms.json").write_text(json.dumps(norms))
    page = page_of(folder, CARD)
    for part in (
        "a-run resnet20 on digits · 269,722 trainable parameters · seed 3",
        "0.9688 test top1 0.0625 test loss 2 of 20 best epoch",
        "1:15 min training 1,234 examples per second",
        "loss training 0.0160 validation 0.1200",
        "learning rate last 0.0200",
        "27 of 29 test examples are right (93.10%)",
        "zero one 2 18.2%",
        "zero → one 98.8% · no. 41",
        "samples",
        "savedmodel 20.0 MiB 2.5e-07 0.9688 0.1000 1.750",
        "tflite/int8 3 KiB 0.03 0.9000 0.2000 0.500 0.250",
        "360 test examples",
        "m/head/kernel 2.5 0.12",
        "lr 0.125 default 0.001",
        "batch-size 64",
        "data image shape 8, 8, 1",
    ):
        assert part in page.text, part
    assert page.tags.count("svg") == 3  # loss, top1, the rate
    assert page.tags.count("circle") == 5 * (2 + 2 + 1)


def test_a_run_that_has_only_begun(tmp_path):
    page = page_of(write_run(tmp_path / "r"))
    assert "not finished" in page.text and "dataset digits" in page.text
    assert not {"svg", "img"} & set(page.tags)


def test_no_run_folder(tmp_path):
    with pytest.raises(ValueError, match="no run folder"):
        page.write(tmp_path)


def test_one_epoch_and_no_validation(tmp_path):
    rows = [{"epoch": 1, "step": 4, "lr": 0.0, "loss": 0.5}]
    assert page_of(write_run(tmp_path / "r", rows=rows)).tags.count("circle") == 2


def test_a_task_without_classes(tmp_path):
    metrics = {"test": {"bits": 3.25, "fid": 123.456, "gone": None}, "best_epoch": None}
    rows = [
        {"epoch": e, "step": e, "lr": 1, "bits": 4 / e, "val_bits": "nan" if e == 2 else 5 / e}
        for e in (1, 2, 3)
    ]
    page = page_of(write_run(tmp_path / "r", metrics, rows), {"artifacts": {"savedmodel": {}}})
    assert "3.2500 test bits 123.5 test fid" in page.text
    assert "bits training 1.3333 validation 1.6667" in page.text
    assert "savedmodel" in page.text and "Confusion" not in page.text


def test_a_thousand_classes_are_a_picture(tmp_path):
    names = [f"class {i}" for i in range(1000)]
    folder = write_run(tmp_path / "r", metrics_of(1000), rows_of(300), names)
    start = time.perf_counter()
    page = page_of(folder)
    assert time.perf_counter() - start < 3
    assert "class 0 class 1 2 18.2%" in page.text and "class 500" not in page.text
    assert "circle" not in page.tags  # too many points
    text = (folder / "report.html").read_text()
    assert len(text) < 300_000
    picture = tf.io.decode_png(base64.b64decode(re.search(r"base64,([^\"]+)", text)[1]))
    assert picture.shape == (250, 250, 4)
    diagonal = np.asarray(picture)[range(250), range(250), 3]
    assert diagonal.min() > 200 and np.asarray(picture)[100, 50, 3] == 0


def test_every_class_has_a_row_where_there_are_not_too_many(tmp_path):
    row = {"precision": 0.25, "recall": None, "f1": 0.5, "support": 1234}
    few, many = ({f"kind{i}": row for i in range(n)} for n in (100, 101))
    text = page_of(write_run(tmp_path / "a", metrics_of(3, classes=few))).text
    assert "kind0 0.2500 0.5000 1,234" in text and "kind99 0.2500" in text
    text = page_of(write_run(tmp_path / "b", metrics_of(3, classes=many))).text
    assert "kind0" not in text and "101 classes: they stand in metrics.json" in text


def test_everything_is_escaped(tmp_path):
    bad = "<script>alert(1)</script>\"'&"
    classes = {bad: {"recall": 0.5, "support": 2}}
    metrics = metrics_of(2, model=bad, dataset=bad, finished=bad, test={bad: 0.5}, classes=classes)
    settings = {"dataset": bad, "model_kwargs": {bad: bad}}
    rows = [{**row, bad: 1.0} for row in rows_of(2)]
    folder = write_run(tmp_path / "a<b>&", metrics, rows, (bad, bad), settings)
    (folder / "pictures").mkdir()
    grid = plots.png(np.zeros((10, 80, 4), np.uint8))
    for name in ("mistakes", "x<script>"):
        (folder / "pictures" / f"{name}.png").write_bytes(grid)
    (folder / "norms.json").write_text(json.dumps({f"weights/{bad}": 1.0}))
    card = {"folder": bad, "no_tflite": bad, "artifacts": {bad: {"test": {bad: 1.0}}}}
    page = page_of(folder, card)
    assert "script" not in page.tags
    assert page.text.count(bad) >= 10


def test_damaged_pictures_are_left_out(tmp_path):
    folder = write_run(tmp_path / "r", metrics_of(3), names=("a", "b", "c"))
    (folder / "pictures").mkdir()
    (folder / "pictures" / "mistakes.png").write_bytes(b"\x89PNG")
    assert "Wrong examples" not in page_of(folder).text


def test_every_mistake_shows_its_own_cell(tmp_path):
    mistakes = [
        {"confidence": 1 - i / 100, "index": i, "true": 0, "predicted": 1} for i in range(10)
    ]
    folder = write_run(tmp_path / "r", metrics_of(2, mistakes=mistakes), names=("a", "b"))
    (folder / "pictures").mkdir()
    grid = plots.png(np.zeros((60, 160, 4), np.uint8))  # two rows of cells 30 high, 20 wide
    (folder / "pictures" / "mistakes.png").write_bytes(grid)
    text = page.write(folder).read_text()
    assert "aspect-ratio:20/30;background-size:800% 200%" in text
    places = re.findall(r"background-position:(\S+) ([^\"]+)\"", text)
    assert places[0] == ("0%", "0%") and places[7] == ("100%", "0%")
    assert places[8] == ("0%", "100%") and places[9] == ("14.29%", "100%")


def test_it_needs_no_framework():
    code = (
        "import sys; from kerasdl.report import page\n"
        "sys.exit(str({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (3, 3, [3]),
        (0.91, 0.99, [0.9, 0.92, 0.94, 0.96, 0.98, 1]),
    ],
)
def test_ticks(low, high, expected):
    assert plots.ticks(low, high, 5) == expected


def test_log_axis_where_losses_differ_much():
    line = [(1, 1.0), (2, 0.01)]
    assert ">0.1<" in plots.curves({"train": line}, log=True)
    assert ">0.1<" not in plots.curves({"train": line})
    ET.fromstring(plots.curves({"train": line, "val": [(1, float("inf"))]}, mark=1))


def test_png_is_read_as_written(rng):
    pixels = rng.integers(0, 256, (5, 7, 4), np.uint8)
    data = plots.png(pixels)
    assert plots.png_size(data) == (7, 5)
    np.testing.assert_array_equal(tf.io.decode_png(data, channels=4), pixels)


@pytest.mark.parametrize(("seconds", "text"), [(3.14, "3.1 s"), (75, "1:15 min"), (7500, "2:05 h")])
def test_duration(seconds, text):
    assert page.duration(seconds) == text


def evaluated(names, ways=("guided", "free_drawn"), **more):
    """What `evaluate_samples` finds, made up."""
    metadata = {"name": "referee-a", "sha256": "0123456789abcdef" * 4}
    features = {"frechet": 2.5, "frechet_real": 2.25, "precision": 0.75, "recall": 0.5}
    pixel = {"frechet": 0.375, "frechet_real": 0.25, "ratio": 1.5, "nearest_ratio": 0.96875}
    way = {
        "pixel": pixel | {"spread": 0.9, "spread_least": 0.8, "spread_most": 1.0},
        "classes": {"shares": {n: 1 / len(names) for n in names}, "least_share": 0.0625},
        "features": features,
    }
    result = {
        "count": {"pixel": 400, "features": 1000},
        "referee": {**metadata, "top1": 0.96875},
        "features": {**metadata, "real": {**features, "recall": 0.625}},
        "notes": [],
        "ways": {name: json.loads(json.dumps(way)) for name in ways},
    }
    result["ways"][ways[0]]["recognised"] = 0.984375
    return {"samples": result | more, "test": {"loss": 0.5}}


def test_samples(tmp_path):
    names = ("ant", "bee", "cat", "doe", "elk")
    page = page_of(write_run(tmp_path / "r", evaluated(names), names=names))
    for part in (
        "400 images",
        "guided 0.375 0.250 1.500 0.900 (0.800 to 1.000) 0.969 free drawn 0.375",
        "ant bee cat doe elk smallest as requested guided 20.0% 20.0% 20.0% 20.0% 20.0% 6.2% 98.4%",
        "The reference classifier is referee-a (weights 0123456789ab ), test top1 0.9688",
        "free drawn 2.500 2.250 0.750 0.500",
        "training images 2.500 2.250 0.750 0.625",
    ):
        assert part in page.text, part


def test_classes_by_part_and_what_was_left_out(tmp_path):
    classes = {f"class <{i}>": {"train": 1000 + i, "validation": 7, "test": 0} for i in range(120)}
    data = {"classes": classes, "columns": {}, "notes": ["left out 2 files, the first a<b.txt"]}
    text = page_of(write_run(tmp_path / "r", {"data": data, "test": {"loss": 0.5}})).text
    assert "left out 2 files, the first a<b.txt" in text
    assert "class train validation test class <0> 1,000 7 0" in text
    assert "class <99>" in text and "class <100>" not in text and "And 20 more classes." in text
    data = {"classes": {}, "objects": {"cat": {"train": 1234, "test": 5}}, "notes": []}
    text = page_of(write_run(tmp_path / "o", {"data": data, "test": {"loss": 0.5}})).text
    assert "objects of the class train test cat 1,234 5" in text
    nothing = {"data": {"classes": {}, "notes": []}, "test": {"loss": 0.5}}
    assert "Data" not in page_of(write_run(tmp_path / "s", nothing)).text


def test_samples_of_data_without_classes(tmp_path):
    metrics = evaluated(("all",), referee=None, notes=["no <referee>"])
    for way in metrics["samples"]["ways"].values():
        del way["classes"], way["features"], way["pixel"]["spread"]
    del metrics["samples"]["features"]
    page = page_of(write_run(tmp_path / "r", metrics))
    assert "no <referee>" in page.text and "guided 0.375 0.250 1.500 0.969" in page.text
    assert "By class" not in page.text and "By features" not in page.text


def test_samples_of_a_thousand_classes_and_of_none_judged(tmp_path):
    names = [f"class {i}" for i in range(1000)]
    page = page_of(write_run(tmp_path / "r", evaluated(names), names=names))
    assert "smallest as requested guided 6.2% 98.4%" in page.text and "class 500" not in page.text
    none = {"samples": {"ways": {}, "notes": ["free: 1 image is not finite"]}, "test": {}}
    assert "Samples free: 1 image is not finite" in page_of(write_run(tmp_path / "s", none)).text
    assert "Samples" not in page_of(write_run(tmp_path / "t", {"samples": {}, "test": {}})).text


def frames_of(path):
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        frames = [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(image)]
        return frames, image.info["duration"]


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_a_grid_and_its_moving_one(tmp_path, channels):
    """3 rows of 4 columns: the still picture keeps them, frames are 2x2 tiles of a column."""
    levels = np.linspace(0, 1, 12).reshape(3, 4, 1, 1, 1)
    images = np.broadcast_to(levels, (3, 4, 8, 8, channels))
    pictures.write_picture(tmp_path / "a.png", images)
    still = np.asarray(Image.open(tmp_path / "a.png"))
    side = 8 * 6 + 2  # enlarged, with an edge
    assert still.shape == (3 * side, 4 * side, 3)
    middles = still[side // 2 :: side, side // 2 :: side, 0]
    np.testing.assert_allclose(middles / 255, levels[..., 0, 0, 0], atol=0.003)
    pictures.write_moving_picture(tmp_path / "a.gif", images)
    frames, last = frames_of(tmp_path / "a.gif")
    assert len(frames) == 4 and frames[0].shape == (2 * side, 2 * side, 3)
    assert last == pictures.LAST_FRAME
    for i, frame in enumerate(frames):
        middles = frame[side // 2 :: side, side // 2 :: side, 0].reshape(-1)
        expected = [*levels[:, i, 0, 0, 0], 1]  # the last tile is empty
        np.testing.assert_allclose(middles / 255, expected, atol=0.01)


def test_pictures_after_an_epoch_and_on_the_page(tmp_path):
    class Shows:
        def prepare(self, batch):
            return {"image": batch["image"] / 2}

        def pictures(self, model, batch):
            walk = tf.reshape(batch["image"], (2, 3, 8, 8, 1))
            result = {"samples": batch["image"], "latent_walk": walk, "denoising_trajectory": walk}
            return result | {"flat_trajectory": batch["image"]}

    folder = write_run(tmp_path / "r")
    callback = callbacks.Pictures(folder / "pictures", {"image": tf.ones((6, 8, 8, 1))})
    trainer = SimpleNamespace(task=Shows(), net=None)
    callback.loop = SimpleNamespace(trainer=trainer, averaged=nullcontext, done=True)
    callback.on_train_begin()
    callback.on_epoch_end(0, {})
    result = sorted(path.name for path in (folder / "pictures").iterdir())
    stills = [f"{n}.png" for n in ("flat_trajectory", "latent_walk", "samples")]
    assert result == ["denoising_trajectory.gif", "denoising_trajectory.png", *stills]
    page = page_of(folder)
    assert "Pictures denoising trajectory flat trajectory latent walk samples" in page.text
    sources = re.findall(r'src="data:image/(\w+);', (folder / "report.html").read_text())
    assert sources == ["png", "gif", "png", "png", "png"]
