"""Doors to published weights: the Hugging Face Hub, online and from its cache."""

import hashlib
import importlib.util
import json
import re
import shutil
import socket
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import kerasdl
from kerasdl.store import load, published
from kerasdl.store.initial import open_initial
from kerasdl.weights import hugging_face, places
from kerasdl.weights.files import save_safetensors
from tests import goldens
from tests.weights import hub as hubs
from tests.weights.test_published import PREPROCESSOR, folder_of, of_nchw, refusal

REPO, SECRET = "some-org/a.repo", "hf_SECRETSECRET"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the Hub, which may not be asked."""
    for name in ("HF_HOME", "HF_ENDPOINT", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(hugging_face, "_silent", {})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


@pytest.fixture
def hub(cache, monkeypatch):
    """A Hub that answers."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with hubs.served() as (one, address):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield one


def cached(cache, folder, repo=REPO, revision="main", commit=hubs.COMMIT):
    """Put a folder into a cache as `huggingface_hub` would; returns that of its snapshot."""
    base = cache / f"models--{repo.replace('/', '--')}"
    for path in (p for p in sorted(Path(folder).rglob("*")) if p.is_file()):
        blob = base / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        link = base / "snapshots" / commit / path.relative_to(folder)
        for one in (blob, link):
            one.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(blob)
    reference = base / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
    return base / "snapshots" / commit


def contents(folder) -> dict:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def deviation(where, golden):
    logits = kerasdl.from_pretrained(where)(of_nchw(golden.inputs["pixel_values"]))
    return goldens.deviation(logits, golden.outputs["logits"])


def test_a_repository_in_the_cache_needs_no_network(cache, tmp_path):
    folder, golden = folder_of("hf_vit", tmp_path / "vit")
    cached(cache, folder)
    cached(cache, folder, "gpt", "refs/pr/1")
    assert deviation(f"hf:{REPO}", golden) < 1e-4
    for where in (f"hf:{REPO}@{hubs.COMMIT}", f"hub:hf://{REPO}", "hf:gpt@refs/pr/1"):
        assert load.find(where) == ("published", where)
        one = open_initial(where)
        assert (one.name, one.row) == (where, "vit_b16") and one.fill(
            kerasdl.from_pretrained(one.name)
        )


def test_timm_is_an_organization_of_the_hub(cache, tmp_path):
    golden = goldens.read("vit")
    init = golden.config["init"]
    options = {k: v for k, v in init.items() if k not in ("img_size", "in_chans")}
    given = {"input_size": [3, *init["img_size"]], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    config = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": given}
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config | {"model_args": options}))
    save_safetensors(tmp_path / "timm" / "model.safetensors", golden.weights)
    cached(cache, tmp_path / "timm", "timm/vit_tiny.tag")
    model = kerasdl.from_pretrained("timm:vit_tiny.tag")
    x = of_nchw(golden.inputs["x"]) * np.float32([0.4, 0.5, 0.6]) + np.float32([0.1, 0.2, 0.3])
    assert goldens.deviation(model(x), golden.outputs["logits"]) < 1e-4
    line = refusal(kerasdl.from_pretrained, "timm:vit_tiny")
    assert "did you mean timm/vit_tiny.tag?" in line and "end in a tag" in line


def test_only_what_is_needed_is_fetched_and_once(hub, cache, tmp_path):
    folder, golden = folder_of("hf_vit", tmp_path / "vit", preprocessor_config=PREPROCESSOR)
    others = {"pytorch_model.bin": b"0", "README.md": b"", "onnx/model.onnx": b"0", "../up": b"0"}
    hub.files[REPO] = contents(folder) | others
    hub.revisions.append("v1")
    place = places.locate(f"hf:{REPO}@v1")
    assert place.config["model_type"] == "vit" and place.read_json("preprocessor_config.json")
    wanted = ["config.json", "preprocessor_config.json"]
    assert sorted(contents(place.folder)) == wanted  # the weights may be gigabytes
    with place.weights() as weights:
        assert set(weights) == set(golden.weights)
    assert sorted(contents(place.folder)) == ["config.json", "model.safetensors", wanted[1]]
    hub.asked.clear()
    info = load.load_info(f"hf:{REPO}@v1").info
    assert info.input_mean == (0.5, 0.4, 0.3)
    assert hub.asked == [f"GET /api/models/{REPO}/revision/v1?blobs=true"]
    hub.error = (500, "")
    assert deviation_of_v1(golden) < 1e-4


def deviation_of_v1(golden):
    x = of_nchw(golden.inputs["pixel_values"]) * np.float32([0.2, 0.3, 0.4])
    logits = kerasdl.from_pretrained(f"hf:{REPO}@v1")(x + np.float32([0.5, 0.4, 0.3]))
    return goldens.deviation(logits, golden.outputs["logits"])


def test_the_shards_that_an_index_names_are_fetched(hub, tmp_path):
    folder, golden = folder_of("hf_vit", tmp_path / "vit")
    (folder / "model.safetensors").unlink()
    names, index = sorted(golden.weights), {}
    for i, part in enumerate((names[:5], names[5:])):
        shard = f"model-{i}.safetensors"
        save_safetensors(folder / shard, {n: golden.weights[n] for n in part})
        index |= dict.fromkeys(part, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    hub.files[REPO] = contents(folder) | {"model-2.safetensors": b"0"}
    assert deviation(f"hf:{REPO}", golden) < 1e-4
    assert not any("model-2" in one for one in hub.asked)
    del hub.files[REPO]["model-1.safetensors"]
    line = refusal(kerasdl.from_pretrained, f"hf:{REPO}")
    assert "1 of 2 files of weights are missing: model-1.safetensors" in line


def test_a_pipeline_keeps_its_parts_in_folders(hub, tmp_path):
    folder, golden = folder_of("unet_ddpm", tmp_path / "unet", {"_class_name": "UNet2DModel"})
    files = {f"unet/{name}": body for name, body in contents(folder).items()}
    files["unet/diffusion_pytorch_model.safetensors"] = files.pop("unet/model.safetensors")
    files["model_index.json"] = b'{"_class_name": "DDPMPipeline"}'
    scheduler = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
    files["scheduler/scheduler_config.json"] = json.dumps(scheduler).encode()
    hub.files[REPO] = files
    one = published.open_published(f"hf:{REPO}")
    assert one.task_kwargs["prediction"] == "v"
    with one.place.weights() as weights:
        assert set(weights) == set(golden.weights)


def test_a_preset_of_keras_hub_may_lie_there(hub, tmp_path):
    path = tmp_path / "preset"
    path.mkdir()
    arrays = {"layers/a": np.ones(3, "float32"), "layers/b": np.zeros(2, "float32")}
    for i, (name, value) in enumerate(arrays.items()):
        with h5py.File(path / f"model_{i:05}.weights.h5", "w") as file:
            file[f"{name}/vars/0"] = value
    index = {f"/{name}/vars": f"model_{i:05}.weights.h5" for i, name in enumerate(arrays)}
    (path / "model.weights.json").write_text(json.dumps({"weight_map": index}))
    shutil.copy(path / "model_00000.weights.h5", path / "task.weights.h5")
    for file in ("config.json", "task.json"):
        config = {"registered_name": "keras_hub>GPT2Backbone", "config": {"num_layers": 3}}
        (path / file).write_text(json.dumps(config))
    others = {"assets/tokenizer/merges.txt": b"a b", "assets/other": b"", "model.keras": b""}
    hub.files[REPO] = contents(path) | others
    place = places.locate(f"hub:hf://{REPO}")
    assert place.config["class_name"] == "GPT2Backbone" and place.config["num_layers"] == 3
    with place.weights() as weights:
        assert set(weights) == {"layers/a/vars/0", "layers/b/vars/0", "task/layers/a/vars/0"}
    fetched = set(contents(place.folder))
    assert fetched == {*contents(path), *others} - {"assets/other", "model.keras"}


@pytest.mark.parametrize(
    ("error", "files_only", "said"),
    [
        ((403, "GatedRepo"), True, "is gated: accept its terms at 127.0.0.1/some-org/a.repo"),
        ((401, "RepoNotFound"), False, "no such repository, or it is private .* `hf auth login`"),
        ((404, "RevisionNotFound"), False, "has no branch, tag or commit main"),
        ((404, "EntryNotFound"), True, "the repository has no config.json"),
        ((403, ""), False, "answers 403: the token may not read it"),
        ((503, ""), False, "127.0.0.1 answers 503, and some-org/a.repo is not in the cache"),
        ((200, ""), False, "no answer of a Hub"),
    ],
)
def test_what_a_hub_refuses_is_said_in_a_line(hub, caplog, error, files_only, said):
    hub.files[REPO] = {"config.json": b"{}"}
    hub.error, hub.files_only = error, files_only
    line = refusal(kerasdl.from_pretrained, f"hf:{REPO}")
    assert line.startswith(f"hf:{REPO}: ") and re.search(said, line)
    assert SECRET not in line + caplog.text


def test_repositories_without_weights_that_can_be_read(hub):
    hub.files[REPO] = {"config.json": b'{"model_type": "gpt2"}', "flax_model.msgpack": b"0"}
    line = refusal(places.locate(f"hf:{REPO}").weights)
    assert "no weights that can be read: config.json, flax_model.msgpack" in line
    hub.files[REPO] = {"a.safetensors": b"", "b.safetensors": b""}
    assert "several files of weights" in refusal(places.locate(f"hf:{REPO}").weights)
    hub.files[REPO] = {"config.json": b" " * (hugging_face.LARGEST + 1)}
    assert "config.json has 67,108,865 bytes" in refusal(places.locate, f"hf:{REPO}")


@pytest.mark.skipif(importlib.util.find_spec("torch"), reason="torch reads them")
def test_a_file_of_torch_is_not_even_fetched(hub):
    hub.files[REPO] = {"pytorch_model.bin": b"0"}
    line = refusal(places.locate(f"hf:{REPO}").weights)
    assert "holds its weights only as pytorch_model.bin, which only torch reads" in line
    assert "save_file" in line and not any("resolve" in one for one in hub.asked)


@pytest.mark.parametrize(
    "where",
    [
        *("hf:", "hf:../x", "hf:a/../b", "hf:/etc/passwd", "hf:a//b", "hf:a/b/c", "hf:a/b\n"),
        *("hf:a\\b", "hf:a/b@", "hf:a/b@../../x", "hf:a/b@/x", "hf:a/b@x\x1b[0m", "hf:a--b/c"),
        *("timm:", "timm:a/b", "hub:hf://..", "hub:kaggle://x", "hub:s3://a/b", "hf:" + "a" * 200),
    ],
)
def test_names_that_are_none_are_refused(cache, where):
    assert published.is_place(where) and "\x1b" not in refusal(kerasdl.from_pretrained, where)
    assert not cache.exists()


def test_no_network_is_said_in_seconds(cache, monkeypatch):
    start = time.monotonic()
    line = refusal(kerasdl.from_pretrained, "hf:google/vit")
    assert "HF_HUB_OFFLINE is set, and google/vit is not in the cache" in line
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and says nothing
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(hugging_face, "ANSWER", 0.5)
        line = refusal(kerasdl.from_pretrained, "hf:google/vit")
        assert "127.0.0.1 does not answer, and google/vit is not in the cache" in line
    monkeypatch.setattr(hugging_face, "_silent", {})
    assert "does not answer" in refusal(kerasdl.from_pretrained, "hf:google/vit")  # refuses
    assert time.monotonic() - start < 5


def test_a_hub_that_lists_files_and_gives_none_is_not_waited_for(hub, monkeypatch):
    hub.files[REPO] = {"config.json": b"{}"}
    hub.error, hub.files_only, hub.pause = (503, ""), True, 3
    monkeypatch.setattr(hugging_face, "ANSWER", 0.5)
    start = time.monotonic()
    assert "127.0.0.1 does not answer" in refusal(kerasdl.from_pretrained, f"hf:{REPO}")
    assert time.monotonic() - start < 2


def test_a_broken_cache_is_said_and_repaired(hub, cache, tmp_path, monkeypatch):
    folder, golden = folder_of("hf_vit", tmp_path / "vit")
    hub.files[REPO] = contents(folder)
    snapshot = cached(cache, folder)
    for blob in (snapshot.parents[1] / "blobs").iterdir():
        blob.unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = refusal(kerasdl.from_pretrained, f"hf:{REPO}")
    assert "config.json is broken in the cache, a link to nothing" in line
    line = refusal(kerasdl.from_pretrained, f"hf:{REPO}@v1")
    assert "revision v1 is not in the cache" in line and line.endswith(": main")
    (snapshot.parents[1] / "refs" / "main").write_text("../../up")
    assert "refs/main names no commit" in refusal(kerasdl.from_pretrained, f"hf:{REPO}")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert deviation(f"hf:{REPO}", golden) < 1e-4


def test_a_path_that_is_not_there_could_be_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for function in (kerasdl.from_pretrained, load.find, open_initial):
        assert "(did you mean hf:google/vit?)" in refusal(function, "google/vit")
        assert "did you mean hf:" not in refusal(function, "some/folder/of/mine")
    assert "hub:NAME, keras:NAME" in refusal(open_initial, "nothing")
    (tmp_path / "google").mkdir()
    assert "did you mean" not in refusal(load.find, "google/vit")


def test_presets_of_keras_hub_are_looked_for(monkeypatch):
    assert "did you mean gpt2_base_en?" in refusal(kerasdl.from_pretrained, "hub:gpt2_base_e")
    assert "there is no such folder" in refusal(kerasdl.from_pretrained, "hub:./gpt2")
    from keras_hub.src.utils import preset_utils

    def unreachable(preset, path):
        raise ConnectionError(f"api.kaggle.com {SECRET}")

    monkeypatch.setattr(preset_utils, "get_file", unreachable)
    for name in ("gpt2_base_en", "kaggle://keras/gpt2/keras/gpt2_base_en/3"):
        line = refusal(kerasdl.from_pretrained, f"hub:{name}")
        assert "there is no connection to Kaggle" in line and SECRET not in line
