"""Files of weights by name: every format, what a folder holds, and what is refused in one line."""

import json
import sys
import types

import h5py
import ml_dtypes
import numpy as np
import pytest

from kerasdl.errors import UserError
from kerasdl.weights.files import open_weights, save_safetensors

rng = np.random.default_rng(0)
ARRAYS = {
    "embed.weight": rng.normal(size=(4, 3)).astype("float32"),
    "layers.0.bias": rng.normal(size=3).astype("float16"),
    "layers.0.weight": rng.normal(size=(2, 3)).astype(ml_dtypes.bfloat16),
    "norm.steps": np.array(7),
    "double": rng.normal(size=2),
    "empty": np.zeros((0, 5), "float32"),
    "eight": np.array([1.5, -2], ml_dtypes.float8_e4m3fn),
}


def saved(path, header, numbers=b""):
    """A safetensors file of any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)
    return path


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_safetensors(tmp_path):
    """Stored types are known, read ones are float32 or wider; numbers are the same, bit by bit."""
    path = tmp_path / "a.safetensors"
    save_safetensors(path, ARRAYS, {"format": "np"})
    with open_weights(path) as weights:
        assert weights.metadata == {"format": "np"}
        assert weights.shapes == {k: v.shape for k, v in ARRAYS.items()}
        assert weights.dtypes == {k: v.dtype for k, v in ARRAYS.items()}
        assert weights.nbytes == sum(v.nbytes for v in ARRAYS.values())
        for name, value in ARRAYS.items():
            assert weights.raw(name).tobytes() == value.tobytes()
            wide = value.dtype if value.dtype.itemsize >= 4 else "float32"
            assert weights[name].dtype == wide
            np.testing.assert_array_equal(weights[name], value.astype(wide))
        save_safetensors(tmp_path / "b.safetensors", weights, weights.metadata)
        assert "nothing" not in weights
        with pytest.raises(UserError, match="no embed.weigh .did you mean embed.weight"):
            weights.raw("embed.weigh")
    assert path.read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_safetensors_is_the_librarys_layout(tmp_path):
    """Larger types first, then by name, the header in multiples of 8 bytes."""
    two, one = np.ones(2, "float32"), np.ones(1, ">f8")
    save_safetensors(tmp_path / "a.safetensors", {"b": two, "a": two, "z": one})
    content = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0 and len(content) == 8 + length + 24
    assert list(json.loads(content[8 : 8 + length])) == ["z", "a", "b"]
    assert content[8 + length :] == np.ones(1, "<f8").tobytes() + two.tobytes() * 2


def test_npz(tmp_path):
    """Plain names; below weights/ alone where there are such; texts become metadata."""
    np.savez(tmp_path / "a.npz", **{"a.b": ARRAYS["layers.0.bias"], "note": "x"})
    with open_weights(tmp_path / "a.npz") as weights:
        assert list(weights) == ["a.b"] and weights.metadata == {"note": "x"}
        assert weights["a.b"].dtype == np.float32
    inputs = {"weights/a": np.arange(3), "inputs/a": np.zeros(3), "config": "{}"}
    np.savez_compressed(tmp_path / "b.npz", **inputs)
    with open_weights(tmp_path / "b.npz") as weights:
        np.testing.assert_array_equal(weights["a"], np.arange(3))
        assert list(weights) == ["a"] and weights.metadata == {"config": "{}"}
    np.savez(tmp_path / "c.npz", a=np.array([{}]))
    with pytest.raises(UserError, match="a is of type object"):
        open_weights(tmp_path / "c.npz")


def test_hdf5(tmp_path):
    """By the paths inside; Keras keeps bfloat16 as two bytes."""
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file["conv1/conv1/kernel:0"] = ARRAYS["embed.weight"]
        file["half"] = np.ones(2, "float16")
        file.create_dataset("brain", data=np.ones(2, ml_dtypes.bfloat16)).attrs["dtype"] = (
            "bfloat16"
        )
    with open_weights(tmp_path / "m.weights.h5") as weights:
        np.testing.assert_array_equal(weights["conv1/conv1/kernel:0"], ARRAYS["embed.weight"])
        assert weights["brain"].tolist() == weights["half"].tolist() == [1, 1]
        assert weights["brain"].dtype == weights["half"].dtype == np.float32
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file.create_dataset("x", (10**12,), "float32", chunks=(2**20,))
    with pytest.raises(UserError, match="x: does not stand there as it is"):
        open_weights(tmp_path / "bad.h5")


def test_dict():
    """Arrays in memory; those of torch by what they are, without torch."""
    weights = open_weights({"a": [1.0, 2.0], "b": ARRAYS["layers.0.weight"]})
    assert weights["a"].tolist() == [1, 2] and weights["b"].dtype == np.float32
    assert open_weights(weights) is weights
    with pytest.raises(UserError, match="x is of type"):
        open_weights({"x": ["text"]})


class Tensor:
    """What is used of torch's."""

    def __init__(self, values, dtype="torch.float32"):
        self.values, self.dtype = values, dtype

    def detach(self):
        return self

    cpu = detach

    def float(self):
        return Tensor(self.values.astype("float32"))

    def numpy(self):
        assert self.dtype != "torch.bfloat16"  # as torch does
        return self.values


def test_torch(tmp_path, monkeypatch):
    """With torch, only weights are unpickled; without, a line says how to convert."""
    path = tmp_path / "m.pth"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="not installed; convert .*save_file"):
        open_weights(path)
    state = {
        "a": Tensor(ARRAYS["layers.0.weight"], "torch.bfloat16"),
        "b": Tensor(np.arange(2)),
    }

    def load(file, **options):
        assert options == {"map_location": "cpu", "weights_only": True} and file == path
        return {"epoch": 5, "state_dict": state}

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    weights = open_weights(path)
    assert list(weights) == ["a", "b"] and weights["b"].dtype == np.int64
    np.testing.assert_array_equal(weights["a"], ARRAYS["layers.0.weight"].astype("float32"))
    state["c"] = 5
    with pytest.raises(UserError, match="holds no numbers under c"):
        open_weights(path)
    del state["a"], state["b"]
    with pytest.raises(UserError, match="holds no arrays by name"):
        open_weights(path)


def sharded(folder, **changes):
    """A folder of two files and their index."""
    one, two = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    names = list(ARRAYS)
    save_safetensors(folder / one, {k: ARRAYS[k] for k in names[:3]})
    save_safetensors(folder / two, {k: ARRAYS[k] for k in names[3:]})
    places = {k: one if i < 3 else two for i, k in enumerate(names)} | changes
    index = {"metadata": {"total_size": 5}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_sharded(tmp_path):
    with open_weights(sharded(tmp_path)) as weights:
        assert weights.shapes == {k: v.shape for k, v in ARRAYS.items()}
        np.testing.assert_array_equal(weights["double"], ARRAYS["double"])
        assert weights.name.endswith("index.json")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    line = "1 of 2 files of weights are missing: model-00002-of-00002.safetensors"
    with pytest.raises(UserError, match=line):
        open_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match="model.safetensors.index.json is missing, which names"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    "place",
    [
        "../x.safetensors",
        "/x.safetensors",
        "a/x.safetensors",
        "..",
        "",
        5,
        None,
        "x.json",
        "x\0.bin",
    ]
    + ["a\\x.safetensors", "model.safetensors.index.json"],
)
def test_a_part_does_not_leave_its_folder(place, tmp_path):
    (tmp_path / "in").mkdir()
    save_safetensors(tmp_path / "x.safetensors", {"z": ARRAYS["double"]})
    with pytest.raises(UserError, match="no file of weights beside the index; z cannot"):
        open_weights(sharded(tmp_path / "in", z=place))


def test_an_index_and_its_parts_agree(tmp_path):
    folder = sharded(tmp_path, doubl="model-00002-of-00002.safetensors")
    with pytest.raises(UserError, match="doubl is missing in .*did you mean double"):
        open_weights(folder)
    sharded(tmp_path)
    part = tmp_path / "model-00002-of-00002.safetensors"
    extra = {k: v for k, v in ARRAYS.items() if k in open_weights(part)}
    save_safetensors(part, extra | {"new": ARRAYS["double"]})
    assert "new" in open_weights(tmp_path)  # is left over later, by name
    other = tmp_path / "model-00001-of-00002.safetensors"
    save_safetensors(other, dict(open_weights(other)) | {"new": ARRAYS["double"]})
    with pytest.raises(UserError, match="new stands in .* and in"):
        open_weights(tmp_path)


def test_index_of_keras(tmp_path):
    """Names groups, and files in a list."""
    for i in range(2):
        with h5py.File(tmp_path / f"model_{i}.weights.h5", "w") as file:
            file[f"layers/dense/vars/{i}"] = np.full(2, i, "float32")
    places = {"/layers/dense/vars": ["model_0.weights.h5", "model_1.weights.h5"]}
    (tmp_path / "model.weights.json").write_text(json.dumps({"weight_map": places}))
    weights = open_weights(tmp_path)
    assert weights["layers/dense/vars/1"].tolist() == [1, 1] and len(weights) == 2


def test_folders(tmp_path):
    """Hugging Face's names before torch's, diffusers' below unet/, and a single file."""
    one, two = {"one": ARRAYS["double"]}, {"two": ARRAYS["double"]}
    (tmp_path / "unet").mkdir()
    with pytest.raises(UserError, match="holds no file of weights; there may be"):
        open_weights(tmp_path)
    save_safetensors(tmp_path / "any.safetensors", one)
    assert list(open_weights(tmp_path)) == ["one"]
    save_safetensors(tmp_path / "other.safetensors", one)
    with pytest.raises(UserError, match="several files of weights, name one: any.safetensors, o"):
        open_weights(tmp_path)
    save_safetensors(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", two)
    assert list(open_weights(tmp_path)) == ["two"]
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    save_safetensors(tmp_path / "model.safetensors", one)
    assert list(open_weights(tmp_path)) == ["one"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "has no header"),
        (b"1234567", "has no header"),
        ((10**15).to_bytes(8, "little") + b"{}", "header has 1,000,000,000,000,000 bytes, the f"),
        (bytes(8) + b"{}", "has no header"),
    ],
)
def test_lengths_of_headers(content, line, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=line):
        open_weights(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (b"[]", "no JSON object"),
        (b"{x}", "cannot be read"),
        (b'{"a":' * 10**5, "cannot be read"),
        (b'{"\xff": 1}', "cannot be read"),
        (b'{"a": NaN}', "holds NaN"),
        (b'{"a": 1, "a": 2}', "holds a twice"),
        ({"a": 5}, "a has not the fields"),
        ({"a": entry() | {"more": 1}}, "a has not the fields"),
        ({"a": entry(dtype="F4")}, "of type F4; there may be U64"),
        ({"a": entry(dtype=[])}, "of type"),
        ({"a": entry((-2,))}, "no shape"),
        ({"a": entry((2.0,))}, "no shape"),
        ({"a": entry((True, 2))}, "no shape"),
        ({"a": entry((10**15,))}, "needs 4,000,000,000,000,000"),
        ({"a": entry((10**18, 10**18))}, "no shape"),
        ({"a": entry((0, 10**18, 10**18), (0, 0))}, "no shape"),
        ({"a": entry((1,) * 65)}, "no shape"),
        ({"a": entry((3,))}, "has 8 bytes; its shape .* needs 12"),
        ({"a": entry(offsets=(0, 16))}, "truncated: a ends at byte 16 of 8"),
        ({"a": entry(offsets=(8, 0))}, "no data_offsets"),
        ({"a": entry(offsets=(0, 10**200))}, "no data_offsets"),
        ({"a": entry(offsets=(0,))}, "no data_offsets"),
        ({"a": entry((1,), (0, 4)), "b": entry((1,), (0, 4))}, "b overlaps"),
        ({"a": entry((1,), (4, 8))}, "a leaves bytes before it out"),
        ({"a": entry((1,), (0, 4))}, "4 bytes that belong to no array"),
        ({"__metadata__": {"a": 5}, "a": entry()}, "__metadata__"),
    ],
)
def test_headers(header, line, tmp_path):
    path = saved(tmp_path / "m.safetensors", header, bytes(8))
    with pytest.raises(UserError, match=line) as refused:
        open_weights(path)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 1000


def test_types_that_are_not_written(tmp_path):
    with pytest.raises(UserError, match="a is of type complex64"):
        save_safetensors(tmp_path / "m.safetensors", {"a": np.ones(2, "complex64")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", ["[]", "{", "{}", '{"weight_map": {}}', '{"weight_map": 5}', "[" * 10**5]
)
def test_an_index_that_is_none(content, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match="is no index|cannot be read"):
        open_weights(tmp_path)


def test_names_of_no_weights(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UserError, match="x.txt: is no file of weights by its name; there may be"):
        open_weights(tmp_path / "x.txt")
    with pytest.raises(UserError, match="there is no such file or folder"):
        open_weights(tmp_path / "m.npz")
