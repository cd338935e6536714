"""Asking an exported file opens its card besides, and nothing else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerasdl import catalog, cli
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.export import exporter
from kerasdl.inference import artifact, predict, sampling
from kerasdl.store import load
from tests.export.examples import make_parts, quiet

LITE = "tflite/float32.tflite"


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """The folder of a tiny one, with a float32 TFLite file alone."""
    parts, folder = make_parts("vae", **catalog.module_of("vae").TINY["vae"]), tmp_path_factory
    card = exporter.export(parts, ("tflite",), folder.mktemp("vae"), None, quiet, quantized=())
    return Path(card["folder"])


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Makes a copy of an export that has no `model.keras`, where no model can be built."""

    def forbidden(*args, **kwargs):
        raise AssertionError("a model was built or loaded")

    def copy(folder):
        shutil.copytree(folder, tmp_path / "copy")
        (tmp_path / "copy" / "assets.extra" / "model.keras").unlink()
        for module, name in (
            (load, "load"),
            (load, "load_keras"),
            (load, "keras_file"),
            (catalog, "build"),
            (catalog, "module_of"),
        ):
            monkeypatch.setattr(module, name, forbidden)
        return tmp_path / "copy"

    return copy


@pytest.fixture
def picture(tmp_path, parts):
    """A digit as a file."""
    file = tmp_path / "digit.png"
    pixels = np.rint(parts.test["image"][0] * 255).astype("uint8")
    file.write_bytes(tf.io.encode_png(pixels).numpy())
    return file


@pytest.mark.parametrize("file", ["", LITE])
def test_a_classifier(exported, bare, picture, file):
    before = predict.predict(Path(exported["folder"]) / file, [picture])
    assert predict.predict(bare(exported["folder"]) / file, [picture]) == before
    assert before[0]["class_name"] in "0123456789"


@pytest.mark.parametrize("file", ["", LITE])
@pytest.mark.parametrize("name", ["writer", "translator"])
def test_texts(name, file, bare, request):
    folder = request.getfixturevalue(name)
    tokenizer = Tokenizer.from_json(load.load_info(folder).info.tokenizer)
    given = [tokenizer.decode(range(4, 8)), tokenizer.decode([5])]
    before = predict.predict(folder / file, given)
    copy = bare(folder)
    assert predict.predict(copy / file, given) == before
    assert [one["input"] for one in before] == given
    what = "text" if name == "writer" else "source"
    with pytest.raises(ValueError, match=f"text 2: {what} is empty"):
        predict.predict(copy / file, [given[0], ""])
    line = "text and max_new_tokens are more than the context of 24"
    with pytest.raises(ValueError, match=line if what == "text" else "source has more than"):
        refusing = {"long_prompts": "refuse"} if name == "writer" else None
        predict.predict(copy / file, [tokenizer.decode([5] * 40)], refusing)


@pytest.mark.parametrize("file", ["", LITE])
def test_images_sampled(vae, bare, file):
    before = sampling.sample_images(vae / "assets.extra" / "model.keras", {"num": 3, "seed": 5})
    result = sampling.sample_images(bare(vae) / file, {"num": 3, "seed": 5})
    np.testing.assert_allclose(result, before, atol=1e-4)
    with pytest.raises(ValueError, match="--label 1 needs a conditional model"):
        sampling.sample_images(vae / file, {"label": "1"})


def test_an_autoencoder_gives_a_picture(vae, picture, tmp_path, capsys):
    kept = str(vae / "assets.extra" / "model.keras")
    for path in (str(vae), str(vae / LITE), kept):
        argv = ["predict", "--saved-model", path, str(picture)]
        assert cli.main(argv) == 2
        error = capsys.readouterr().err
        assert error == ("error: vae makes an image: give --output FILE.png to write it to\n")
        out = tmp_path / f"{Path(path).name}.png"
        assert cli.main([*argv, "--output", str(out)]) == 0
        assert capsys.readouterr().out == f"{out}\n"
        painted = tf.io.decode_png(out.read_bytes()).numpy()
        artifact = predict.open_artifact(path)
        pixels = tf.image.decode_png(picture.read_bytes()).numpy()[None].astype("float32") / 255
        answer = artifact.answer("reconstruct", {"image": pixels})["image"][0]
        shown = painted[3::6, 4::6, :1] / 255  # of each enlarged pixel the middle
        np.testing.assert_allclose(shown, answer, atol=0.01)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "cannot be read"),
        ("[]", "is no JSON object"),
        ("{}", "does not describe its inputs"),
        ('{"model": "vae", "data": 3, "interface": 4}', "does not describe its inputs"),
        (
            '{"model": "vae", "data": {"columns": {}}, "interface": {"context": 3, "tflite": '
            '{"serving_default": {}}, "savedmodel": {"serve_bytes": {"inputs": {"x": 3}}}}}',
            "does not describe its inputs",
        ),
        (b"\xff\xfe", "cannot be read"),
        (None, "holds no assets.extra/card.json"),
    ],
)
def test_a_card_that_cannot_be_used(exported, bare, picture, content, line, capsys):
    copy = bare(exported["folder"])
    card = copy / "assets.extra" / "card.json"
    card.unlink()
    if content is not None:
        card.write_bytes(content if isinstance(content, bytes) else content.encode())
    for file in (copy, copy / LITE):
        assert cli.main(["predict", "--saved-model", str(file), str(picture)]) == 2
        error = capsys.readouterr().err
        assert line in error and error.count("\n") == 1
    assert cli.main(["evaluate", "--saved-model", str(copy)]) == 2


def test_damaged_files_are_one_line(exported, picture, tmp_path, capsys):
    folder = Path(exported["folder"])
    shutil.copytree(folder, tmp_path / "copy")
    saved = {
        folder / name: tmp_path / "copy" / name
        for name in ("saved_model.pb", LITE, "assets.extra/model.keras")
    }
    saved |= {p: tmp_path / "copy" / p.relative_to(folder) for p in folder.glob("variables/*")}
    rng = np.random.default_rng(0)
    for whole, copy in saved.items():
        content = bytearray(whole.read_bytes())
        changes = [bytes(content[: len(content) // 2]), b""]
        for place in rng.integers(0, len(content), 40):
            content[place] ^= 0xFF
        for damaged in (*changes, bytes(content)) if copy.suffix != ".tflite" else changes:
            copy.write_bytes(damaged)
            path = copy if copy.suffix in (".tflite", ".keras") else tmp_path / "copy"
            status = cli.main(["predict", "--saved-model", str(path), str(picture)])
            error = capsys.readouterr().err
            assert status in (0, 2) and (status == 0 or error.count("\n") == 1), error
        copy.write_bytes(whole.read_bytes())


@pytest.mark.parametrize("file", ["", LITE])
@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        (("data", "columns", "label", "class_names"), ["a", "b"], "say num_classes 2, the model"),
        (("data", "columns", "image", "shape"), [9, 9, 1], "say image_shape [9, 9, 1], the mod"),
        (("model_arguments", "num_classes"), 11, "num_classes 10, the model has 11"),
        (("recipe", "batch_size"), "x", "--batch-size 'x': is of a wrong type"),
        (("parts",), {"train": 5}, "its card.json cannot be used"),
        (("classes",), ["a"] * 10, "names classes that the data do not have"),
        (("shape",), {}, "describes an input of no shape or type"),
    ],
)
def test_a_card_that_fits_no_model(place, value, line, file, exported, bare, picture, capsys):
    copy = bare(exported["folder"])
    card = json.loads((copy / "assets.extra" / "card.json").read_text())
    serving = card["interface"]["tflite" if file else "savedmodel"]
    changes = {
        "classes": ("outputs", "label", "class_names"),
        "shape": ("inputs", "image", "shape"),
    }
    group, place = serving["serving_default"] if place[0] in changes else card, list(place)
    *before, last = changes.get(place[0], place)
    for name in before:
        group = group[name]
    group[last] = value
    (copy / "assets.extra" / "card.json").write_text(json.dumps(card))
    assert cli.main(["predict", "--saved-model", str(copy / file), str(picture)]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("where", "name", "opens"),
    [
        ("", "saved_model.pb", artifact.open_artifact),
        ("", "variables/variables.index", artifact.open_artifact),
        ("", "variables/variables.data-00000-of-00001", artifact.open_artifact),
        (LITE, LITE, artifact.open_artifact),
        ("", "assets.extra/model.keras", load.load),
    ],
)
def test_files_are_compared_with_the_card_before_they_are_opened(where, name, opens, vae, tmp_path):
    shutil.copytree(vae, tmp_path / "copy")
    opens(tmp_path / "copy" / where)
    path = tmp_path / "copy" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:90] + bytes([whole[90] ^ 4]) + whole[91:])
    with pytest.raises(ValueError, match=f"{name}: is not what was exported"):
        opens(tmp_path / "copy" / where)


def test_the_card_says_how_it_is_asked(vae):
    card = json.loads((vae / "assets.extra" / "card.json").read_text())
    asked = card["interface"]
    assert asked["savedmodel"]["serve_bytes"]["inputs"]["image_bytes"]["kind"] == "image"
    latent = asked["tflite"]["decode"]["inputs"]["latent"]
    assert latent["noise"] == {"distribution": "normal", "stream": 0}
    assert asked["savedmodel"]["sample"]["limits"] == [
        {"inputs": ["num"], "message": "num must be at least 1 and at most 1024"}
        | {"min": 1, "max": 1024}
    ]
