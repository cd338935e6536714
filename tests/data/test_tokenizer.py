"""Tokenizers: lossless, alike in Python and in the graph, the same each time, and served."""

import inspect
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.data.text.specs import byte_names
from kerasdl.data.text.tokenizer import KINDS, SPLIT, Tokenizer, train
from kerasdl.ops.text import BOS, EOS, PAD, SPECIAL, UNK

TEXTS = inspect.getsource(textwrap).split("\n\n") + ["naïve 日本 😀"]
VOCAB_SIZE = {"char": None, "byte": None, "bpe": 400, "wordpiece": 400, "sentencepiece": 420}
# Every kind of white space, marks, a byte order mark, what looks like a special, and a long word.
ODD = [
    "",
    " ",
    "a",
    "  two\n\n\tlines \r\n",
    "\ufeffe\u0301\u0966६\xa0\u2028\x0b\x00\x1f.",
    "[PAD] [EOS] <s> </s> <unk> <0x0A> ##a",
    "日本語 😀😀 𝔘𝔫𝔦",
    "x" * 100 + "é" * 40 + " " * 40 + "1234567890" * 5,
    "don't 'tis it's -----------------------------------------",
]
LOSSLESS = ("byte", "bpe", "sentencepiece")


@pytest.fixture(scope="module")
def trained():
    return {kind: train(kind, TEXTS, VOCAB_SIZE[kind]) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_come_back(trained, kind):
    tokenizer = trained[kind]
    encoded = tokenizer.encode(TEXTS)
    assert [ids.dtype for ids in encoded] == [np.int32] * len(TEXTS)
    if kind == "wordpiece":
        words = ["".join(text.split()) for text in TEXTS]
        assert ["".join(tokenizer.decode(ids).split()) for ids in encoded] == words
        assert tokenizer.decode(tokenizer.encode(["wrap the text"])[0]) == "wrap the text"
    else:
        assert [tokenizer.decode(ids) for ids in encoded] == TEXTS
    if kind in LOSSLESS:
        assert [tokenizer.decode(ids) for ids in tokenizer.encode(ODD)] == ODD
    assert max(ids.max() for ids in encoded) < tokenizer.vocab_size
    assert tokenizer.vocab_size <= (VOCAB_SIZE[kind] or 260)


@pytest.mark.parametrize("kind", KINDS)
def test_what_looks_like_a_special_is_text(trained, kind):
    ids = np.concatenate(trained[kind].encode([*TEXTS, *ODD]))
    assert not np.isin(ids, (PAD, BOS, EOS)).any()
    if kind in LOSSLESS:
        assert UNK not in ids


@pytest.mark.parametrize("kind", KINDS)
def test_graph_and_python_agree(trained, kind):
    tokenizer = trained[kind]
    texts = TEXTS + ODD
    encoded = tokenizer.encode(texts)
    once = tf.function(tokenizer.ids, input_signature=[tf.TensorSpec((None,), tf.string)])
    for ids, lengths in (once(tf.constant(texts)), tokenizer.ids(tf.constant(texts))):
        assert ids.dtype == lengths.dtype == tf.int32
        assert ids.shape == (len(texts), max(map(len, encoded)))
        for row, length, right in zip(ids.numpy(), lengths.numpy(), encoded, strict=True):
            assert row[:length].tolist() == right.tolist() and (row[length:] == PAD).all()
    texts_back = [text.decode() for text in tokenizer.text(ids).numpy()]
    assert texts_back == [tokenizer.decode(row) for row in encoded]
    data = tf.data.Dataset.from_tensor_slices(texts).batch(4).map(lambda x: tokenizer.ids(x)[1])
    assert np.concatenate(list(data)).tolist() == list(map(len, encoded))
    ids, lengths = once(tf.zeros((0,), tf.string))
    assert ids.shape[0] == 0 and lengths.shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_json_both_ways_and_trained_alike(trained, kind):
    tokenizer = trained[kind]
    again = train(kind, TEXTS, VOCAB_SIZE[kind])
    assert again.to_json() == tokenizer.to_json()
    back = Tokenizer.from_json(tokenizer.to_json())
    assert back.kind == kind and back.to_json() == tokenizer.to_json()
    for a, b in zip(back.encode(ODD), tokenizer.encode(ODD), strict=True):
        assert a.tolist() == b.tolist()
    pieces = json.loads(tokenizer.to_json())["pieces"]
    assert pieces[:UNK] == ["", "", ""] and len(pieces) == tokenizer.vocab_size


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_is_not_utf8(trained, kind):
    tokenizer = trained[kind]
    broken = [b"fine", b"abc\xff"]
    if kind == "byte":
        ids, _ = tokenizer.ids(tf.constant(broken))
        assert tokenizer.text(ids).numpy()[1].decode() == "abc\ufffd"
    else:
        for ids in (tokenizer.ids, tf.function(lambda x: tokenizer.ids(x)[0])):
            with pytest.raises(tf.errors.InvalidArgumentError):
                ids(tf.constant(broken))
        with pytest.raises(ValueError, match="text 2 is not valid Unicode at position 3"):
            tokenizer.encode(broken)
    with pytest.raises(ValueError, match="text 1 is not valid Unicode at position 1"):
        tokenizer.encode(["a\ud800"])


def test_broken_utf8_is_replaced_alike_in_python_and_in_the_graph(trained):
    tokenizer = trained["byte"]
    pool = list("aé日😀".encode() + b"\xc0\x80\xed\xa0\xf4\x90\xff\xfe\xe2\x82\xf0\x9f\xf8")
    ids = np.random.default_rng(0).choice(pool, (2000, 9)).astype(np.int32) + SPECIAL
    result = [text.decode() for text in tokenizer.text(tf.constant(ids)).numpy()]
    assert result == [tokenizer.decode(row) for row in ids]
    assert sum("\ufffd" in text for text in result) > 1000


@pytest.mark.parametrize("kind", KINDS)
def test_text_ends_at_the_first_end(trained, kind):
    tokenizer = trained[kind]
    a, b = tokenizer.encode(["the", "text"])
    row = np.concatenate([[BOS], a, [PAD], b, [EOS], a, [EOS]])
    assert tokenizer.decode(row) == tokenizer.decode([*a, *b])
    assert tokenizer.text(tf.constant(row[None])).numpy()[0].decode() == tokenizer.decode(row)
    unknown = tokenizer.decode([UNK])
    assert unknown == "\ufffd" == tokenizer.text([[UNK]]).numpy()[0].decode()


def test_char_keeps_the_most_frequent_and_names_the_others():
    tokenizer = train("char", ["aaaa bbb", "c日日"], SPECIAL + 3)
    assert tokenizer.vocab_size == SPECIAL + 3
    assert tokenizer.unknown("b日c ac?") == [" ", "?", "c"]
    assert tokenizer.decode(tokenizer.encode(["ba日c"])[0]) == "ba日\ufffd"
    assert train("byte", ["a"]).unknown("日") == []


def test_bpe_joins_as_the_tokenizers_library_does(trained):
    from tokenizers import Regex, models, pre_tokenizers
    from tokenizers import Tokenizer as Reference

    metadata = json.loads(trained["bpe"].to_json())
    assert len(metadata["merges"]) == 400 - SPECIAL - 256
    name = byte_names()
    pieces = ["".join(name[ord(c)] for c in piece) for piece in metadata["pieces"]]
    vocabulary = {piece: i for i, piece in enumerate(pieces) if i >= SPECIAL}
    merges = [(pieces[a], pieces[b]) for a, b in metadata["merges"]]
    reference = Reference(models.BPE(vocabulary, merges))
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rng = np.random.default_rng(0)
    sampled = ["".join(rng.choice(list("abeinst  \n.1é"), 25)) for _ in range(200)]
    texts = [*sampled, *(word for text in TEXTS for word in text.split() if len(word) < 30)]
    for text, ids in zip(texts, trained["bpe"].encode(texts), strict=True):
        assert ids.tolist() == reference.encode(text).ids


SERVE = """
import json, sys
from importlib.util import find_spec
from pathlib import Path

for name in ("keras", "tf_keras", "keras_hub", "kerasdl"):
    sys.modules[name] = None
import tensorflow as tf

found = []
for path in sys.argv[2:]:
    if not Path(path).name in ("char", "byte", "bpe"):
        for library in sorted(Path(find_spec("tensorflow_text").origin).parent.glob("**/ops/*.so")):
            tf.load_op_library(str(library))
    serve = tf.saved_model.load(path).signatures["serving_default"]
    outputs = serve(text=tf.constant(json.loads(sys.argv[1])))
    found.append([outputs["ids"].numpy().tolist(), [t.decode() for t in outputs["text"].numpy()]])
print(json.dumps(found))
"""


def save(tokenizer, path):
    import keras

    def serve(text):
        ids, _ = tokenizer.ids(text)
        return {"ids": ids, "text": tokenizer.text(ids)}

    archive = keras.export.ExportArchive()
    archive.track(tokenizer)
    spec = tf.TensorSpec((None,), tf.string, name="text")
    archive.add_endpoint("serving_default", serve, [spec])
    archive.write_out(path, verbose=False)


def test_a_process_without_keras_serves_it(trained, tmp_path):
    texts, paths = ["wrap the text,\n  won't you?", "", "naïve"], []
    for kind, tokenizer in trained.items():
        paths.append(str(tmp_path / kind))
        save(tokenizer, paths[-1])
    command = [sys.executable, "-c", SERVE, json.dumps(texts), *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    for (ids, back), tokenizer in zip(
        json.loads(done.stdout.splitlines()[-1]), trained.values(), strict=True
    ):
        assert ids == tokenizer.ids(tf.constant(texts))[0].numpy().tolist()
        assert back == [tokenizer.decode(row) for row in ids]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_that_is_set_later_changes_nothing(trained, kind):
    before = trained[kind].encode(ODD)
    tf.random.set_seed(1)  # drops what TensorFlow keeps between operations
    for a, b in zip(before, trained[kind].encode(ODD), strict=True):
        assert a.tolist() == b.tolist()


def test_only_words_need_more_than_tensorflow(trained):
    assert [k for k, t in trained.items() if t.needs_text_ops] == ["wordpiece", "sentencepiece"]


@pytest.mark.parametrize(
    "match,arguments",
    [
        ("--tokenizer bpee: not one of .*did you mean bpe", ("bpee", TEXTS)),
        ("at least one text that is not empty", ("char", [""])),
        ("--vocab-size 4: char needs at least 5", ("char", TEXTS, 4)),
        ("--vocab-size 100: bpe needs at least 260", ("bpe", TEXTS, 100)),
        ("--vocab-size 50: wordpiece needs at least", ("wordpiece", TEXTS, 50)),
        ("--vocab-size 50: too small", ("sentencepiece", TEXTS, 50)),
    ],
)
def test_refused(match, arguments):
    with pytest.raises(ValueError, match=match) as caught:
        train(*arguments)
    assert "\n" not in str(caught.value)
