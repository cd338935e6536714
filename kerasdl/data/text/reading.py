"""Tokenizers in the folders of published models, as metadata of `Tokenizer`.

| files | of |
|---|---|
| `tokenizer.json` | the `tokenizers` library |
| `tokenizer.model`, `spiece.model`, `sentencepiece.bpe.model` | sentencepiece |
| `source.spm`, `target.spm`, `vocab.json` | Marian: sentencepiece, with ids of its own |
| `vocab.json`, `merges.txt` | GPT-2 |
| `vocab.txt` | BERT |

The first of these that is there counts. `tokenizer_config.json` and `special_tokens_map.json` name
the special tokens.
"""

from pathlib import Path

from kerasdl.data.text import convert, sentences
from kerasdl.errors import UserError
from kerasdl.ops.text import Specials
from kerasdl.system import archives
from kerasdl.system.terminal import printable

LARGEST = 64 * archives.MIB  # bytes of a file
FOLDERS = ("", "tokenizer")
FAST, SETTINGS, NAMED = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
VOCAB, MERGES, WORDS = "vocab.json", "merges.txt", "vocab.txt"
SENTENCES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
SOURCE, TARGET = "source.spm", "target.spm"
PRESET = ("assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt")  # of KerasHub
TOKENS = ("bos", "eos", "unk", "pad", "mask", "cls", "sep")
# Of files that do not name them: special tokens that are called so.
USUAL = {
    "bos": ("<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>"),
    "eos": ("</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>"),
    "unk": ("<unk>", "[UNK]"),
    "pad": ("<pad>", "[PAD]"),
    "mask": ("[MASK]", "<mask>"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
}
BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
GPT2 = {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"}
SENTENCEPIECE_BOS = ("LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer")
SENTENCEPIECE_EOS = ("T5Tokenizer", "T5TokenizerFast", "MarianTokenizer")


def read_tokenizer(folder, specials=None, vocab_size=None) -> dict | None:
    """The metadata of the tokenizer of a folder; None where it has none.

    Args:
        folder: Of a published model.
        specials: Special ids that its model states, as `Specials.to_dict` has them.
        vocab_size: Ids that its model has; those that no token has stand for nothing.

    Raises:
        UserError: A file that cannot be read, something in it that is not known, or more tokens
            than the model has ids.
    """
    folder = next((Path(folder, one) for one in FOLDERS if _has(Path(folder, one))), None)
    if folder is None:
        return None
    files = _Files(folder)
    try:
        result = files.metadata()
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(
            f"{folder}: its tokenizer cannot be read: {archives.first(error)}"
        ) from None
    if result is None:
        return None
    names = result.pop("names")
    count = len(result["pieces"])
    if vocab_size is not None:
        if count > vocab_size:
            raise UserError(
                f"{folder}: its tokenizer has {count:,} tokens, but its model {vocab_size:,} ids"
            )
        result["pieces"] += [""] * (vocab_size - count)
        result["hidden"] += range(count, vocab_size)
    made = _specials(names, result["hidden"], specials or {}, count)
    result["specials"] = made.to_dict()
    if "mask" in names:  # a text shows it
        mask = result["mask"] = names["mask"]
        result["hidden"] = [i for i in result["hidden"] if i != mask]
        text = " " * result["strip"] + files.mask
        result["pieces"][mask] = text.encode().decode("latin-1")
    return result


def _has(folder):
    return any((folder / name).is_file() for name in (FAST, *SENTENCES, SOURCE, VOCAB, WORDS))


def _specials(names, hidden, stated, count):
    """The special ids of a tokenizer; what its model states counts more."""
    end = [names[name] for name in ("eos", "sep") if name in names][:1]
    begin = names.get("bos", names.get("cls"))
    pad = names.get("pad", next((one for one in (*end, begin, names.get("unk")) if one), 0))
    found = Specials(pad, begin, tuple(end), names.get("unk"), ())
    values = found.to_dict() | {k: v for k, v in stated.items() if v not in (None, (), [])}
    if "pad" in names:
        values["pad"] = names["pad"]
    if "mask" in names:  # of such a model's texts nothing is written, only filled in
        values["never"] = tuple(i for i in hidden if i < count)
    return Specials.from_dict(values)


class _Files:
    """What the files of a folder say.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder):
        self.folder = folder
        self.settings = self.json(SETTINGS) if self.has(SETTINGS) else {}
        named = self.json(NAMED) if self.has(NAMED) else {}
        self.named, self.mask = {}, ""
        for values in (named, self.settings):
            for name in TOKENS:
                value = values.get(f"{name}_token")
                value = value.get("content") if isinstance(value, dict) else value
                if isinstance(value, str) and value:
                    self.named[name] = value

    def has(self, *names):
        return all((self.folder / name).is_file() for name in names)

    def json(self, name):
        return archives.read_json(self.folder / name, LARGEST)

    def text(self, name):
        return archives.read_text(self.folder / name, LARGEST)

    def bytes(self, name):
        return archives.read_bytes(self.folder / name, LARGEST)

    def metadata(self):
        """The metadata, with `names`, ids of special tokens; None where nothing is known."""
        if self.has(FAST):
            data = self.json(FAST)
            if "model" in data:
                return self._fast(data, self._usual(data) | self.named)
            if self.has(*PRESET):  # KerasHub's
                return self._gpt2(*PRESET)
            return None
        for name in SENTENCES:
            if self.has(name):
                return self._sentences(name)
        if self.has(SOURCE, VOCAB):
            return self._marian()
        if self.has(VOCAB, MERGES):
            return self._gpt2(VOCAB, MERGES)
        if self.has(WORDS):
            return self._bert()
        return None

    def _usual(self, data):
        """Special tokens that are called as they usually are."""
        there = {t["content"] for t in data.get("added_tokens") or () if t.get("special")}
        found = {name: [t for t in texts if t in there] for name, texts in USUAL.items()}
        return {name: texts[0] for name, texts in found.items() if texts}

    def _fast(self, data, named):
        self.mask = named.get("mask", "")
        result = convert.metadata(data, named)
        around, names = result["around"], result["names"]
        if not any(around):  # what it has itself counts
            for place, flag, name in ((0, "add_bos_token", "bos"), (1, "add_eos_token", "eos")):
                if self.settings.get(flag) is True and name in names:
                    around[place].append(names[name])
        return result

    def _added(self, vocabulary, named):
        """The added tokens of files that do not list them as `tokenizer.json` does."""
        tokens = {text: {} for text in named.values()}
        listed = self.settings.get("added_tokens_decoder") or {}
        for number, one in listed.items():
            tokens[one["content"]] = one
            vocabulary.setdefault(one["content"], int(number))
        if self.has("added_tokens.json"):
            for text, number in self.json("added_tokens.json").items():
                tokens.setdefault(text, {"special": False})
                vocabulary.setdefault(text, number)
        keys = ("single_word", "lstrip", "rstrip", "normalized", "special")
        usual = dict.fromkeys(keys, False) | {"special": True}
        return [
            {"id": vocabulary[text], "content": text}
            | usual
            | {k: one[k] for k in keys if k in one}
            for text, one in tokens.items()
            if text in vocabulary
        ]

    def _made(self, model, vocabulary, named, **parts):
        added = self._added(vocabulary, named)
        own = {one["content"] for one in added if one["id"] not in model["vocab"].values()}
        model = model | {"vocab": {t: i for t, i in model["vocab"].items() if t not in own}}
        data = {"version": "1.0", "added_tokens": added, "model": model} | parts
        return self._fast(data, named)

    def _gpt2(self, vocab, merges):
        vocabulary = self.json(vocab)
        lines = [line for line in self.text(merges).split("\n") if line.strip()]
        if lines and lines[0].startswith("#version"):
            lines = lines[1:]
        named = {n: t for n, t in GPT2.items() if t in vocabulary} | self.named
        space = bool(self.settings.get("add_prefix_space", False))
        byte_level = {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True}
        byte_level["use_regex"] = True
        post = None
        if str(self.settings.get("tokenizer_class", "")).startswith("Roberta"):
            named = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "mask": "<mask>"} | self.named
            around = {n: [t, vocabulary[t]] for n, t in (("cls", "<s>"), ("sep", "</s>"))}
            post = {"type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": space}
            post |= around
        return self._made(
            {"type": "BPE", "vocab": dict(vocabulary), "merges": lines},
            vocabulary,
            named,
            pre_tokenizer=byte_level,
            decoder=byte_level,
            post_processor=post,
        )

    def _bert(self):
        words = self.text(WORDS).removesuffix("\n").split("\n")
        vocabulary = {word.removesuffix("\r"): i for i, word in enumerate(words)}
        named = {n: t for n, t in BERT.items() if t in vocabulary} | self.named
        model = {
            "type": "WordPiece",
            "vocab": dict(vocabulary),
            "unk_token": named.get("unk", "[UNK]"),
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        }
        normalizer = {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": self.settings.get("tokenize_chinese_chars", True),
            "strip_accents": self.settings.get("strip_accents"),
            "lowercase": self.settings.get("do_lower_case", True),
        }
        for name in ("cls", "sep"):
            if named.get(name) not in vocabulary:
                raise UserError(f"{WORDS} has no {BERT[name]}")
        ends = {n: [named[n], vocabulary[named[n]]] for n in ("cls", "sep")}
        return self._made(
            model,
            vocabulary,
            named,
            normalizer=normalizer,
            pre_tokenizer={"type": "BertPreTokenizer"},
            decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
            post_processor={"type": "BertProcessing"} | ends,
        )

    def _sentences(self, name):
        result = sentences.metadata(self.bytes(name))
        kind = self.settings.get("tokenizer_class", "")
        names = result["names"]
        pieces = result.pop("texts")
        self.mask = self.named.get("mask", "")
        names |= {n: pieces.index(t) for n, t in self.named.items() if t in pieces}
        flags = (
            (0, "add_bos_token", "bos", kind in SENTENCEPIECE_BOS),
            (1, "add_eos_token", "eos", kind in SENTENCEPIECE_EOS or name == "spiece.model"),
        )
        for place, flag, which, usual in flags:
            if self.settings.get(flag, usual) and which in names:
                result["around"][place].append(names[which])
        return result

    def _marian(self):
        vocabulary = self.json(VOCAB)
        named = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"} | self.named
        for name in ("eos", "unk"):
            if named[name] not in vocabulary:
                raise UserError(f"{VOCAB} has no {printable(named[name])}")
        names = {n: vocabulary[t] for n, t in named.items() if t in vocabulary}
        target = self.bytes(TARGET) if self.has(TARGET) else None
        return sentences.of_marian(self.bytes(SOURCE), target, vocabulary, names)
