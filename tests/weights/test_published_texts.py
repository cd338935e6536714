"""Published language models with their tokenizer: strings go in and come out."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from kerasdl.data.text.tokenizer import PUBLISHED
from kerasdl.errors import UserError
from kerasdl.export import worker
from kerasdl.inference.texts import predict_texts
from kerasdl.store import load
from kerasdl.weights.files import save_safetensors
from tests import goldens

END = "<|endoftext|>"
EMBEDDING = "transformer.wte.weight"


def folder_of(path, more=2):
    """The golden GPT-2 with the vocabulary of a new tokenizer, and so many ids more."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["some words and other words"] * 9, trainer)
    golden, size = goldens.read("gpt2"), tokenizer.get_vocab_size() + more
    weights = {name: value for name, value in golden.weights.items() if name != "lm_head.weight"}
    rng, dim = np.random.default_rng(0), weights[EMBEDDING].shape[1]
    weights[EMBEDDING] = rng.normal(size=(size, dim)).astype("float32")
    path.mkdir()
    ids = dict.fromkeys(("bos_token_id", "eos_token_id"), 0)
    values = golden.config["resolved_config"] | {"vocab_size": size} | ids
    (path / "config.json").write_text(json.dumps(values))
    save_safetensors(path / "model.safetensors", weights)
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def test_a_folder_brings_its_tokenizer(tmp_path):
    path = folder_of(tmp_path / "g")
    info = load.load_info(path).info
    metadata = json.loads(info.tokenizer)
    assert metadata["kind"] == PUBLISHED and metadata["specials"]["end"] == [0]
    assert info.vocab_size == len(metadata["pieces"]) == metadata["hidden"][-1] + 1
    with pytest.raises(UserError, match="its tokenizer has .* tokens, but its model"):
        load.load_info(folder_of(tmp_path / "small", -1))
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = {"type": "UnicodeScripts"}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="UnicodeScripts is not supported; without such files"):
        load.load_info(path)
    (path / "tokenizer.json").unlink()
    assert load.load_info(path).info.tokenizer is None


@pytest.mark.slow
def test_strings_in_and_out_of_every_file(tmp_path):
    path = folder_of(tmp_path / "g")
    worker.export_run(
        path, ["savedmodel", "tflite"], tmp_path / "out", say=lambda line: None, is_run=False
    )
    settings = {"max_new_tokens": 8, "temperature": 0.0}
    texts = ["words", "naïve 日本"]
    expected = [one["output"] for one in predict_texts(str(path), texts, settings)]
    assert all(map(str.startswith, expected, texts))
    version = tmp_path / "out" / "gpt2_small" / "1"
    assert [one["output"] for one in predict_texts(version, texts, settings)] == expected
    lite = predict_texts(version / "tflite" / "float32.tflite", texts)
    whole = [text.rstrip("\ufffd") for text in expected]  # without bytes of an unfinished character
    assert all(one["output"].startswith(text) for one, text in zip(lite, whole, strict=True))
