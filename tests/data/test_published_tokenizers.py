"""Tokenizers of published models: ids and texts as the libraries' own, in Python and in graphs."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
from keras import ops
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import Tokenizer as Reference

from kerasdl.columns import DataInfo
from kerasdl.data.sources import open_source
from kerasdl.data.text import convert, patterns
from kerasdl.data.text.reading import read_tokenizer
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.errors import UserError
from kerasdl.ops.text import Pieces
from kerasdl.recipe import Recipe
from kerasdl.tasks.generate_text import GenerateText

END = "<|endoftext|>"
CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
LLAMA3 = (
    rf"(?i:{CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CASED = (  # of GPT-4o
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    rf"(?i:{CONTRACTIONS})?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    rf"(?i:{CONTRACTIONS})?|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\u200b\ufeff"
WORDS = (
    "the The I'm you're don't we'll they've he'd it's It'S O'NEILL'S 's ''s 1's naïve café Straße "
    "İstanbul ſt'ſ ΟΔΥΣΣΕΥΣ привет мир שלום مرحبا नमस्ते สวัสดี 日本語 中文字符 한국어 12345 3.14 "
    "1,000 ½ Ⅷ ² <|endoftext|> [MASK] [CLS] [SEP] <s> </s> <unk> <pad> [PAD] <mask> <0x41> ▁ ▁a "
    r"## ##ing ... !!! -- /* */ \n \0 \1 👩‍👩‍👧‍👦 👍🏽 🇩🇪 e"
    "\u0301 a\u0323\u0302 a\u0302\u0323 ㎏ ﬁ Ａ １ \u212a ẞ ß Å Ǆ"
).split()
BLOCKS = (
    "20-7e a0-17f 370-3ff 400-45f 590-5f4 600-6ff 900-97f e00-e5b 1100-11ff 1e00-1eff 300-36f "
    "2000-206f 2150-218f 2e80-2fdf 3040-30ff 4e00-4f00 ac00-ad00 f900-faff fb00-fb4f ff00-ffef "
    "fff0-ffff 0-20 7f-a0 10400-1044f 10d40-10d90 16100-16140 1d150-1d180 1d400-1d4ff "
    "1f3fb-1f3ff 1f600-1f64f"
).split()
CASES = [
    *("", " ", "  ", "\n", "a", " a", "a ", "  a", "a  b", "\n\n a\n", "a\xa0 b", "\0a"),
    *("x" * 1500, "ab " * 200, "日" * 500, "e" * 120 + " f", SPACES, f"a{SPACES}b{SPACES}"),
    *(END, f" {END} ", f"a{END}b{END}{END}", "[MASK]", " [MASK] a", "a [MASK]b", "<s> a", "a</s>"),
]


def strings(count, seed=0):
    """Texts in many scripts, the same each time."""
    rng, result = random.Random(seed), list(CASES)
    blocks = [[int(end, 16) for end in block.split("-")] for block in BLOCKS]

    def character():
        return chr(rng.randint(*rng.choice(blocks)))

    def anything():
        code = rng.randrange(0x110000 - 0x800)
        return chr(code + 0x800 * (code >= 0xD800))

    def one():
        space = rng.choice([" ", "", "  ", "\n", "\t", rng.choice(SPACES), ".", " \n "])
        kinds = (
            character,
            lambda: rng.choice(WORDS) + space,
            lambda: rng.choice(SPACES) + rng.choice(SPACES),
            lambda: str(rng.randint(0, 99999)),
            lambda: rng.choice("'\"!?.,-_/"),
        )
        return rng.choice(kinds)()

    while len(result) < count:
        kind = rng.choice((one, one, character, anything, lambda: rng.choice(WORDS) + " "))
        block = rng.choice(blocks)
        script = rng.random() < 0.2
        parts = rng.randint(1, 40)
        made = (chr(rng.randint(*block)) if script else kind() for _ in range(parts))
        result.append("".join(" " if script and rng.random() < 0.2 else part for part in made))
    return result


@pytest.fixture(scope="session")
def corpus():
    text = " ".join(WORDS)
    words = [f"{word} {word}" for word in WORDS]
    return [
        Path(convert.__file__).read_text("utf-8"),
        Path(__file__).read_text("utf-8"),
        *[text] * 5,
        *words,
    ]


def byte_level(corpus, pre, size=800, **settings):
    made = Reference(models.BPE(**settings))
    made.pre_tokenizer, made.decoder = pre, decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(corpus, trainer)
    return made


def split_by(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def framed(begin, end=None):
    text = " ".join(filter(None, (begin[0], "$A", end and end[0])))
    return processors.TemplateProcessing(single=text, special_tokens=[begin, *[end] * bool(end)])


def bert(corpus, normalizer, pre=None, **settings):
    made = Reference(models.WordPiece(unk_token="[UNK]", **settings))
    made.normalizer, made.decoder = normalizer, decoders.WordPiece()
    made.pre_tokenizer = pre or pre_tokenizers.BertPreTokenizer()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=names, show_progress=False)
    made.train_from_iterator(corpus, trainer)
    made.post_processor = framed(("[CLS]", 2), ("[SEP]", 3))
    return made


def unigram(corpus, pre, scheme="always", normalizer=None):
    made = Reference(models.Unigram())
    made.normalizer, made.pre_tokenizer = normalizer, pre
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    names = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=names, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator([text[:2000] for text in corpus], trainer)
    return made


def llama2(corpus, pre=None, fallback=True, fuse=True):
    """BPE of characters, with bytes for those that it lacks."""
    spaces = pre_tokenizers.Metaspace(prepend_scheme="never")
    trained = Reference(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre or spaces
    names = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{value:02X}>" for value in range(256)] if fallback else []
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=names + bytes_, limit_alphabet=60, show_progress=False
    )
    trained.train_from_iterator([text[:3000] for text in corpus], trainer)
    data = json.loads(trained.to_str())
    data["model"] |= {"byte_fallback": fallback, "fuse_unk": fuse}
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] in names]
    if pre is None:
        prepend = {"type": "Prepend", "prepend": "▁"}
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        data["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]}
        data["pre_tokenizer"] = None
    made = Reference.from_str(json.dumps(data))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    made.post_processor = framed(("<s>", 1))
    return made


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
FIRST = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
KINDS = {
    "gpt2": lambda c: byte_level(c, GPT2),
    "llama3": lambda c: byte_level(c, split_by(LLAMA3), ignore_merges=True),
    "bert": lambda c: bert(c, normalizers.BertNormalizer()),
    "llama2": llama2,
    "unigram": lambda c: unigram(c, pre_tokenizers.Metaspace()),
}
MORE = {
    "roberta": lambda c: byte_level(c, pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "gpt4o": lambda c: byte_level(c, split_by(CASED)),
    "digits": lambda c: byte_level(c, pre_tokenizers.Sequence([pre_tokenizers.Digits(True), GPT2])),
    "punctuation": lambda c: byte_level(
        c,
        pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.Digits(False), GPT2]),
    ),
    "bert cased": lambda c: bert(c, normalizers.BertNormalizer(lowercase=False)),
    "bert stripped": lambda c: bert(
        c,
        normalizers.BertNormalizer(lowercase=False, strip_accents=True),
        max_input_chars_per_word=12,
    ),
    "words": lambda c: bert(
        c,
        normalizers.Sequence(
            [normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]
        ),
        pre_tokenizers.Whitespace(),
    ),
    "compatible": lambda c: bert(
        c,
        normalizers.Sequence(
            [normalizers.NFKD(), normalizers.Strip(), normalizers.Replace("a", "bb")]
        ),
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.WhitespaceSplit(),
                pre_tokenizers.Punctuation("merged_with_previous"),
            ]
        ),
    ),
    "mistral": lambda c: llama2(c, FIRST),
    "unknown": lambda c: llama2(c, None, False),
    "unknown apart": lambda c: llama2(c, None, False, False),
    "unigram first": lambda c: unigram(c, pre_tokenizers.Metaspace(prepend_scheme="first")),
    "unigram never": lambda c: unigram(
        c, pre_tokenizers.Metaspace(prepend_scheme="never"), "never", normalizers.NFKC()
    ),
}


def of(reference, **settings):
    data = json.loads(reference.to_str())
    metadata = convert.metadata(data)
    metadata.pop("names")
    return Tokenizer(metadata | settings)


def read(reference):
    """As it is read from its file, where scores may be other floats than when they were trained."""
    return Reference.from_str(reference.to_str())


@pytest.fixture(scope="session")
def references(corpus):
    return {name: read(make(corpus)) for name, make in KINDS.items()}


def check(reference, tokenizer, texts):
    expected = reference.encode_batch(texts)
    for text, ids, one in zip(texts, tokenizer.encode(texts), expected, strict=True):
        assert ids.tolist() == one.ids, (text, one.tokens)
    # Any ids, not only those that texts have; and what texts have.
    rng, pieces = np.random.default_rng(0), Pieces(tokenizer.to_json())
    shown = [i for i in range(reference.get_vocab_size()) if i != pieces.mask]
    rows = [rng.choice(shown, 6).tolist() for _ in range(50)]
    if "ByteFallback" in str(reference.decoder):
        rows = []  # broken bytes are as many U+FFFD as Unicode recommends, not as there are bytes
    rows += [one.ids for one in expected]
    hidden = min(pieces.hidden)
    texts = reference.decode_batch(rows)
    assert [tokenizer.decode(row) for row in rows] == texts
    graph = tokenizer.text(tf.ragged.constant(rows, tf.int32).to_tensor(hidden)).numpy()
    assert [text.decode() for text in graph] == texts


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_texts_are_those_of_the_library(kind, references):
    check(references[kind], of(references[kind]), strings(2000))


@pytest.mark.slow
@pytest.mark.parametrize("kind", MORE)
def test_other_settings_of_the_library(kind, corpus):
    reference = read(MORE[kind](corpus))
    check(reference, of(reference), strings(3000, seed=1))


def test_in_a_saved_model(references, tmp_path):
    module = tf.Module()
    made = {name: of(reference) for name, reference in references.items()}
    signatures = {}
    for name, tokenizer in made.items():

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
        def both(text, tokenizer=tokenizer):
            ids, lengths = tokenizer.ids(text)
            return {"ids": ids, "lengths": lengths, "text": tokenizer.text(ids)}

        assert not tokenizer.needs_text_ops
        signatures[name] = both
    tf.saved_model.save(module, str(tmp_path / "m"), signatures)
    loaded = tf.saved_model.load(str(tmp_path / "m"))
    texts = strings(200, seed=2)
    for name, reference in references.items():
        out = loaded.signatures[name](tf.constant(texts))
        lengths = out["lengths"].numpy()
        rows = [row[:n].tolist() for row, n in zip(out["ids"].numpy(), lengths, strict=True)]
        assert rows == [one.ids for one in reference.encode_batch(texts)]


def clip(corpus):
    """CLIP's: lower case, words that end in a mark, white space that is removed."""
    names = ["<|startoftext|>", END]
    words = r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    made = Reference(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    steps = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]  # behind NFC there
    made.normalizer = normalizers.Sequence(steps)
    pattern = Regex(rf"<\|startoftext\|>|<\|endoftext\|>|{CONTRACTIONS}{words}")
    split = pre_tokenizers.Split(pattern, "removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, GPT2])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    made.train_from_iterator(corpus, trainer)
    made.post_processor = processors.RobertaProcessing((END, 1), (names[0], 0))
    return made


def test_words_that_end_in_a_mark(corpus):
    reference = read(clip(corpus))
    tokenizer, texts = of(reference), strings(1000, seed=3)
    expected = reference.encode_batch(texts)
    for text, ids, one in zip(texts, tokenizer.encode(texts), expected, strict=True):
        assert ids.tolist() == one.ids, (text, one.tokens)
    words = tokenizer.encode(["A  red CAR's 42"])[0]
    assert tokenizer.decode(words).strip() == "a red car 's 4 2"
    data = json.loads(reference.to_str())
    data["pre_tokenizer"] = None
    with pytest.raises(UserError, match="end_of_word_suffix of the model BPE, but of bytes"):
        convert.metadata(data)


def test_special_tokens_of_a_file(corpus, tmp_path):
    reference = byte_level(corpus, GPT2, 400)
    tokens = [
        AddedToken("<mask>", lstrip=True, special=True),
        AddedToken("<tool>", rstrip=True, normalized=False),
        AddedToken("<a|b>", lstrip=True, rstrip=True, normalized=True),
        AddedToken("<a|b>c"),
    ]
    reference.add_tokens(tokens)
    reference.post_processor = framed((END, reference.token_to_id(END)))
    texts = ["a <mask> b", "<tool>  c<tool>", " <a|b> d", "<a|b>c \n<a|b>  c", "<mask>", "<tool"]
    check(reference, of(reference), [*texts, *strings(50)])
    reference.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": "<mask>"}))
    size = reference.get_vocab_size()
    metadata = read_tokenizer(tmp_path, {}, size + 3)
    end, mask = reference.token_to_id(END), reference.token_to_id("<mask>")
    assert metadata["mask"] == mask and metadata["specials"]["end"] == (end,)
    assert len(metadata["pieces"]) == size + 3
    assert metadata["specials"]["never"] == (end, mask)
    stated = read_tokenizer(tmp_path, {"end": (1, 2), "pad": 3, "begin": None, "never": ()}, size)
    assert stated["specials"]["end"] == (1, 2) and stated["specials"]["pad"] == 3
    assert stated["specials"]["begin"] == end
    with pytest.raises(UserError, match=f"has {size:,} tokens, but its model 10 ids"):
        read_tokenizer(tmp_path, {}, 10)


def test_vocabularies_without_a_tokenizer_json(references, tmp_path):
    texts = strings(300, seed=3)
    gpt2, bert_ = references["gpt2"], references["bert"]
    (tmp_path / "g").mkdir()
    gpt2.model.save(str(tmp_path / "g"))
    check(gpt2, Tokenizer(read_tokenizer(tmp_path / "g")), texts)
    settings = {"add_bos_token": True, "bos_token": {"content": END}}
    (tmp_path / "g" / "tokenizer_config.json").write_text(json.dumps(settings))
    first = Tokenizer(read_tokenizer(tmp_path / "g")).encode(["a"])[0][0]
    assert first == gpt2.token_to_id(END)
    (tmp_path / "b").mkdir()
    vocabulary = bert_.get_vocab()
    words = sorted(vocabulary, key=vocabulary.get)
    (tmp_path / "b" / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    metadata = read_tokenizer(tmp_path / "b")
    check(bert_, Tokenizer(metadata), [text for text in texts if "[MASK]" not in text])
    assert Tokenizer(metadata).decode([2, 4, 3]) == "[MASK]"
    assert metadata["mask"] == 4 and metadata["specials"]["never"] == (0, 1, 2, 3, 4)
    assert read_tokenizer(tmp_path) is None


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_models_of_sentencepiece(kind, corpus, tmp_path):
    model = io.BytesIO()
    lines = [line for text in corpus for line in text.split("\n") if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=kind,
        vocab_size=900,
        byte_fallback=kind == "bpe",
        character_coverage=0.98,
        minloglevel=2,
        **({"normalization_rule_name": "identity"} if kind == "bpe" else {}),
    )
    reference = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    tokenizer = Tokenizer(read_tokenizer(tmp_path))
    assert tokenizer.needs_text_ops
    texts = [text for text in strings(600, seed=4) if "\0" not in text]
    rows = reference.encode(texts, add_bos=True)
    assert [ids.tolist() for ids in tokenizer.encode(texts)] == rows
    assert [tokenizer.decode(row) for row in rows] == reference.decode(rows)
    # Marian has ids of its own for the pieces of two such models.
    texts_of = [reference.id_to_piece(i) for i in range(reference.vocab_size())]
    order = ["</s>", "<unk>", *(t for t in reversed(texts_of) if t not in ("</s>", "<unk>"))]
    (tmp_path / "m").mkdir()
    for name in ("source.spm", "target.spm"):
        (tmp_path / "m" / name).write_bytes(model.getvalue())
    vocabulary = {text: i for i, text in enumerate([*order, "<pad>", ">>fra<<"])}
    (tmp_path / "m" / "vocab.json").write_text(json.dumps(vocabulary))
    marian = Tokenizer(read_tokenizer(tmp_path / "m"))
    expected = [
        [vocabulary.get(piece, vocabulary["<unk>"]) for piece in row]
        for row in reference.encode(texts[:50], out_type=str)
    ]
    assert [ids.tolist() for ids in marian.encode(texts[:50])] == expected
    assert [ids.tolist() for ids in marian.of_targets().encode(texts[:50])] == expected
    assert marian.specials.end == (0,) and marian.specials.pad == len(order)
    into_french = [f">>fra<< {text}" for text in texts[:50] if "<" not in text]
    for ids, text in zip(marian.encode(into_french), into_french, strict=True):
        rest = reference.encode(text.removeprefix(">>fra<<"), out_type=str)
        assert ids.tolist() == [vocabulary[">>fra<<"], *(vocabulary.get(p, 1) for p in rest)]


def test_what_is_not_known_is_refused(references, tmp_path):
    data = json.loads(references["gpt2"].to_str())

    def refused(message, **parts):
        with pytest.raises(UserError, match=message):
            convert.metadata(data | parts)

    def model(**settings):
        return {"model": data["model"] | settings}

    refused("dropout of the model BPE", **model(dropout=0.1))
    marked = model(end_of_word_suffix="</w>", ignore_merges=True)
    refused("end_of_word_suffix of the model BPE, but of bytes", **marked)
    refused("the model WordLevel", model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"})
    refused("pre_tokenizer UnicodeScripts", pre_tokenizer={"type": "UnicodeScripts"})
    refused("the normalizer ByteLevel", normalizer={"type": "ByteLevel"})
    refused(
        "the decoder CTC",
        decoder={
            "type": "CTC",
            **dict.fromkeys(("pad_token", "word_delimiter_token"), "a"),
            "cleanup": True,
        },
    )
    for pattern in (r"a++", r"(?<=a)b", r"a(?!b)", r"\bword", r"\p{Han}+", r"[a&&b]", r"a*"):
        with pytest.raises(UserError, match="the pattern"):
            patterns.split_steps(pattern)
    for content in ("{}", '{"model": 3}', '{"model": {"type": "BPE"}}', "["):
        (tmp_path / "tokenizer.json").write_text(content)
        try:
            assert read_tokenizer(tmp_path) is None
        except UserError as error:
            assert "\n" not in str(error)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(UserError, match="no model of sentencepiece"):
        read_tokenizer(tmp_path)


def published(tokenizer, **specials):
    """A task of language modeling with a tokenizer."""
    metadata = json.loads(tokenizer.to_json()) | {"specials": specials}
    info = DataInfo.of_texts(json.dumps(metadata), 16)
    return GenerateText(info, Recipe(model="gpt2_small"))


class Counting:
    """Writes each token's successor; after the last one the first."""

    context = 16

    def __init__(self, size):
        self.size = size

    def init_cache(self, batch, total):
        return [ops.zeros((batch, 1))]

    def decode_step(self, token_ids, state, position):
        return 9.0 * ops.one_hot((token_ids + 1) % self.size, self.size), state


def test_generation_ends_at_the_end_token(references):
    tokenizer = of(references["gpt2"])
    size = tokenizer.vocab_size
    specials = {"pad": 7, "begin": None, "end": (33, 35), "unknown": None, "never": ()}
    task = published(tokenizer, **specials)
    settings = {
        "temperature": np.zeros(3, "float32"),
        "top_k": np.zeros(3, "int32"),
        "seed": np.arange(3, dtype="int32"),
    }
    prompt = np.array([[30, 9, 9], [34, 9, 9], [33, 33, 40]], "int32")
    length, new = np.array([1, 1, 3], "int32"), np.array([6, 6, 4], "int32")
    written = task.generate(Counting(size), prompt, length, new, **settings)["token_ids"]
    assert np.asarray(written).tolist() == [
        [30, 31, 32, 33, 7, 7, 7],
        [34, 35, 7, 7, 7, 7, 7],
        [33, 33, 40, 41, 42, 43, 44],  # ends of a prompt end nothing
    ]
    never = published(tokenizer, **{**specials, "never": (33, 35)})
    written = never.generate(Counting(size), prompt, length, new, **settings)["token_ids"]
    assert 33 not in np.asarray(written)[0] and 7 not in np.asarray(written)[0, :6]


def test_initial_weights_bring_their_tokenizer(references, tmp_path):
    tokenizer = of(references["gpt2"]).to_json()
    (tmp_path / "a.txt").write_text("some words " * 300)
    settings = {"max_length": 8, "task": GenerateText, "pretrained": tokenizer}
    source = open_source(f"text:{tmp_path / 'a.txt'}", **settings)
    assert source.info.tokenizer == tokenizer
    with pytest.raises(UserError, match="--tokenizer bpe: the initial weights are for"):
        open_source(f"text:{tmp_path / 'a.txt'}", tokenizer="bpe", **settings)
