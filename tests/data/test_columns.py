"""Which columns a source gives a task, and that every split reads and trains on the same ones."""

import numpy as np
import pytest

from kerasdl import tasks
from kerasdl.columns import ABSENT, VOID, DataInfo, Spec
from kerasdl.data import scenes as renderer
from kerasdl.data import sources
from kerasdl.data.images import STEP
from kerasdl.data.pipeline import evaluation_batches, training_batches
from kerasdl.data.sources import folder, open_source
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.errors import UserError
from kerasdl.ops.text import BOS, EOS
from kerasdl.tasks.adversarial import Adversarial
from kerasdl.tasks.classify import Classify
from kerasdl.tasks.generate_text import GenerateText
from kerasdl.tasks.translate import Translate

IMAGE = Spec(("H", "W", "C"), "float32", "image")


def wants(optional=(), **columns):
    """A task that wants an image and columns of the given kinds."""
    targets = {name: Spec((), "int32", kind) for name, kind in columns.items()}
    return type("Wants", (), {"inputs": {"image": IMAGE}, "targets": targets, "optional": optional})


def refused(match, *args, **kwargs):
    with pytest.raises(UserError, match=match) as caught:
        open_source(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_every_source_states_what_it_gives():
    stated = {name: sources._module(name).GIVES for name in sources.NAMES}
    assert {name for name, gives in stated.items() if gives is None} == {"synthetic", "tfds"}
    assert sources.names(Translate) == ["synthetic", "dates", "pairs:FILE_OR_FOLDER", "tfds:NAME"]
    assert sources.names(GenerateText)[1:3] == ["python_docs", "text:FILE_OR_FOLDER"]
    assert "scenes" not in sources.names(Classify) and "digit_rows" in sources.names(Classify)
    of_masks = "synthetic masks:FOLDER coco:FOLDER voc:FOLDER scenes tfds:NAME"
    assert sources.names(wants(mask="mask")) == of_masks.split()
    assert len(sources.names()) == len(sources.NAMES)
    for name in ("digits", "dates", "photos", "scenes"):
        given = open_source(name).info.columns
        assert {n: c.kind for n, c in given.items()} == stated[name]


def test_a_source_gives_only_what_the_task_wants():
    assert list(open_source("digits", task=wants()).test.read([0, 1])) == ["image"]
    both = open_source("digits", task=wants(("label",), label="label"))
    assert list(both.info.columns) == ["image", "label"] == list(both.test.arrays)
    assert both.info == open_source("digits").info
    assert open_source("digits", task=Adversarial).info.class_names == tuple("0123456789")
    with_groups = open_source("dates", task=Translate)
    assert set(with_groups.test.arrays) == {"source_ids", "target_ids", "group"}


def test_optional_columns_may_be_absent_or_of_another_kind():
    task = wants(("mask", "label"), mask="mask", label="number")
    assert list(open_source("digits", task=task).info.columns) == ["image"]
    refused(
        r"^digits has image and label, but the model's task needs image and mask, as in synthetic, "
        "masks:FOLDER, coco:FOLDER, voc:FOLDER, scenes, tfds:NAME$",
        "digits",
        task=wants(mask="mask"),
    )
    refused(
        r"needs image, label \(number\) and mask", "digits", task=wants(label="number", mask="mask")
    )


def test_image_folders_without_their_labels(tmp_path, monkeypatch):
    from PIL import Image

    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("RGB", (4, 4), (9 * i, 0, 0)).save(tmp_path / name / f"{i}.png")
    for limit in (folder.MEMORY_BYTES, 1):
        monkeypatch.setattr(folder, "MEMORY_BYTES", limit)
        source = open_source(f"folder:{tmp_path}", task=wants())
        assert (source.train.arrays is None) == (limit == 1)
        assert list(source.info.columns) == ["image"] == list(source.train.read([0]))


def splits(tmp_path, monkeypatch):
    """One source of every class of splits."""
    from PIL import Image

    (tmp_path / "a.txt").write_text("some text " * 100)
    for i in range(40):
        (tmp_path / "one").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (5 * i, 0, 9)).save(tmp_path / "one" / f"{i}.png")
    yield "arrays", open_source("digits", task=Classify)
    yield "windows", open_source(f"text:{tmp_path / 'a.txt'}", max_length=8)
    yield "scenes", open_source("scenes:colors=6", image_size=(20, 30))
    monkeypatch.setattr(folder, "MEMORY_BYTES", 1)
    yield "files", open_source(f"folder:{tmp_path}", val_split=0.2)


def test_what_is_read_is_what_is_trained_and_evaluated_on(tmp_path, monkeypatch):
    for name, source in splits(tmp_path, monkeypatch):
        columns, split = source.info.columns, source.validation
        (batch,) = evaluation_batches(
            split, columns, batch_size=6, limit_batches=1
        ).as_numpy_iterator()
        (trained,) = training_batches(
            split, columns, batch_size=6, seed=0, stop_step=1
        ).as_numpy_iterator()
        for result in (batch, trained):
            read = split.read(result["index"])
            assert set(read) == set(columns), name
            for column, value in read.items():
                if columns[column].kind == "image":
                    value = value * STEP if value.dtype == np.uint8 else value
                np.testing.assert_array_equal(result[column], value, f"{name} {column}")
                assert result[column].dtype == value.dtype
        train = source.train.read([2, 0, 2])
        for value in train.values():
            np.testing.assert_array_equal(value[0], value[2])


def test_scenes():
    source = open_source("scenes", seed=3, image_size=(32, 40), task=wants(mask="mask"))
    assert (len(source.train), len(source.validation), len(source.test)) == (4000, 500, 1000)
    assert source.info.image_shape == (32, 40, 1)
    assert source.info.columns["mask"].class_names == ("background", *"0123456789")
    assert source.info.class_names == source.info.columns["mask"].class_names
    sampled = renderer.scene(3, "train", 7, (32, 40))
    for name, value in source.train.read([7]).items():
        np.testing.assert_array_equal(value[0], sampled[name])
    assert DataInfo.from_json(source.info.to_json()) == source.info
    other = open_source("scenes", seed=4, image_size=(32, 40), task=wants(mask="mask"))
    np.testing.assert_array_equal(source.test.arrays["image"], other.test.arrays["image"])
    assert (source.train.arrays["image"] != other.train.arrays["image"]).any()


def test_colored_scenes_and_their_texts():
    source = open_source("scenes:colors=6")
    assert source.info.image_shape == (48, 48, 3)
    shown, sampled = source.test.read([31]), renderer.scene(0, "test", 31, colors=6)
    np.testing.assert_array_equal(shown["image"][0], sampled["image"])
    for name in ("caption", "question", "answer"):
        assert shown[name][0].decode() == sampled[name]


def test_scenes_of_one_digit():
    source = open_source("scenes:digits=1", task=wants(valid="valid", boxes="boxes"))
    for part in (source.train, source.validation, source.test):
        assert (part.arrays["valid"].sum(-1) == 1).all()
    one = renderer.scene(0, "test", 31, maximum=1)
    np.testing.assert_array_equal(source.test.read([31])["boxes"][0], one["boxes"])
    source = open_source("scenes:colors=6,digits=1", task=wants(image="image", label="label"))
    shown, one = source.test.read([31]), renderer.scene(0, "test", 31, colors=6, maximum=1)
    np.testing.assert_array_equal(shown["image"][0], one["image"])
    assert shown["label"][0] == one["labels"][0] and source.info.class_names == tuple("0123456789")


def test_scenes_of_two_digits_at_most_and_their_captions_as_tokens():
    task = wants(image="image", caption="text", caption_ids="tokens", labels="label")
    source = open_source("scenes:digits=2", task=task)
    rows = source.test.read(range(40))
    assert {1, 2} == set((rows["labels"] >= 0).sum(1))
    tokenizer = Tokenizer.from_json(source.info.tokenizer)
    for ids, caption in zip(rows["caption_ids"], rows["caption"], strict=True):
        length = list(ids).index(EOS) + 1
        assert ids[0] == BOS and not ids[length:].any()
        assert tokenizer.decode(ids[1:length]) == caption.decode()
    assert source.info.max_length == rows["caption_ids"].shape[1] == 8
    again = open_source("scenes:digits=2", task=task, info=source.info)
    assert again.info == source.info
    short = open_source("scenes:digits=2", task=task, max_length=5)
    cut = short.test.read([0])["caption_ids"][0]
    np.testing.assert_array_equal(cut, [*rows["caption_ids"][0, :4], EOS])
    refused("--max-length 2: captions need", "scenes:digits=2", task=task, max_length=2)


def test_scenes_refuse_what_they_cannot_draw():
    refused(
        "must be colors=1, colors=6, digits=1, digits=2, colors=6,digits=1 or ", "scenes:colors=3"
    )
    refused("--image-size 8 48: scenes need", "scenes", image_size=(8, 48))
    refused("5500 scenes of 1000x1000 pixels do not fit into memory", "scenes", image_size=(1000,))
    refused("unknown data set 'scene:x'.*did you mean scenes", "scene:x")


def test_synthetic_makes_every_kind():
    task = type("Task", (), {})
    task.inputs = {
        "clip": Spec(("T", "H", "W", "C"), "float32", "video"),
        "sound": Spec(("N",), "float32", "audio"),
        "words": Spec(("L",), "int32", "tokens"),
        "state": Spec((3,), "float32", "vector"),
    }
    task.targets = {
        "mask": Spec(("H", "W"), "int32", "mask"),
        "instances": Spec(("M", "H", "W"), "uint8", "instances"),
        "boxes": Spec(("M", 4), "float32", "boxes"),
        "valid": Spec(("M",), "bool", "valid"),
        "labels": Spec(("M",), "int32", "label"),
        "reward": Spec((), "float32", "number"),
        "caption": Spec((), "string", "text"),
    }
    source = open_source("synthetic", task=task, image_size=(12, 16))
    made = source.train.read(range(len(source.train)))
    kinds = {**task.inputs, **task.targets}
    for name, column in source.info.columns.items():
        assert column.kind == kinds[name].kind and made[name].shape[1:] == column.shape, name
    assert made["clip"].dtype == np.uint8 and made["clip"].shape[2:] == (12, 16, 3)
    assert source.info.columns["mask"].class_names == tuple("0123456789")
    assert set(np.unique(made["mask"])) == {*range(10), VOID}
    np.testing.assert_array_equal(made["labels"] != ABSENT, made["valid"])
    assert not made["instances"][~made["valid"]].any() and not made["boxes"][~made["valid"]].any()
    assert source.info.vocab_size > made["words"].max() > 0
    assert np.abs(made["sound"]).max() <= 1 and source.info.columns["sound"].rate
    again = open_source("synthetic", task=task, image_size=(12, 16))
    for name, value in again.train.read([0, 5]).items():
        np.testing.assert_array_equal(value, made[name][[0, 5]])
    mean, std = sources.input_statistics(source.train, source.info.columns)
    pixels = made["clip"].reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-5)


OF_IMAGES = (
    "classify adversarial reconstruct denoise contrast masked_patches rotate place_tiles jigsaw "
    "predict_patches"
).split()


@pytest.mark.parametrize("name", OF_IMAGES)
def test_synthetic_fits_every_task_of_images(name):
    task = tasks.get(name)
    assert list(open_source("synthetic", task=task).info.columns) == ["image", "label"]
    assert task.optional == (() if name == "classify" else ("label",))
