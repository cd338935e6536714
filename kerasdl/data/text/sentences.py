"""Models of sentencepiece as metadata of `Tokenizer`.

Source: Kudo and Richardson 2018, https://arxiv.org/abs/1808.06226.
"""

import base64
import re

import numpy as np

from kerasdl.errors import UserError
from kerasdl.system import archives

SPACE = "\u2581"
LANGUAGE = re.compile(r">>.+<<")  # what Marian translates into, as a text begins with it


def opened(content: bytes):
    """The library's own processor of a model.

    Raises:
        UserError: It is none.
    """
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=content)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"is no model of sentencepiece: {archives.first(error)}") from None


def metadata(content: bytes) -> dict:
    """The metadata of a model: see `kerasdl.data.text.convert.metadata`; `texts` are its pieces.

    Raises:
        UserError: It is none.
    """
    model = opened(content)
    count = model.vocab_size()
    texts = [model.id_to_piece(i) for i in range(count)]
    control = [i for i in range(count) if model.is_control(i)]
    plain = next((i for i in range(count) if texts[i].strip(SPACE) and _is_text(model, i)), None)
    start = [] if plain is None else [plain]
    before = model.decode(start)
    pieces, first = [], {}
    for i in range(count):
        if model.is_byte(i):
            pieces.append(bytes([int(texts[i][3:5], 16)]))
            continue
        behind = model.decode([*start, i]).removeprefix(before)
        begins = model.decode([i])
        pieces.append(behind.encode())
        if begins != behind.removeprefix(" "):
            first[i] = f" {begins}".encode()  # the space goes
    names = {"unk": model.unk_id(), "bos": model.bos_id(), "eos": model.eos_id()}
    names |= {"pad": model.pad_id()}
    return {
        "kind": "published",
        "pieces": [piece.decode("latin-1") for piece in pieces],
        "strip": True,
        "first": {str(i): piece.decode("latin-1") for i, piece in first.items()},
        "hidden": control,
        "blank": _blank(model, texts, start),
        "names": {name: number for name, number in names.items() if number >= 0},
        "added": [[], []],
        "normalizer": [],
        "prefix": None,
        "splits": [],
        "model": ["SentencePiece", base64.b64encode(content).decode(), _unigram(model, texts)],
        "around": [[], []],
        "texts": texts,
    }


def _blank(model, texts, start):
    """The ids of spaces that are left out as long as nothing else stands before them."""
    if SPACE not in texts or not start:
        return []
    space = texts.index(SPACE)
    both = model.decode([space, space, *start]), model.decode(start)
    return [space] if both[0] == both[1] else []


def _unigram(model, texts):
    """The arguments of `subwords.Unigram` of a model; None of one of another type."""
    import sentencepiece.sentencepiece_model_pb2 as proto

    specs = proto.ModelProto.FromString(model.serialized_model_proto())
    if specs.trainer_spec.model_type != proto.TrainerSpec.UNIGRAM:
        return None
    kinds = proto.ModelProto.SentencePiece
    scores = [np.float32(piece.score) for piece in specs.pieces]
    normal = [s for s, p in zip(scores, specs.pieces, strict=True) if p.type == kinds.NORMAL]
    lowest, highest = min(normal, default=np.float32(0)), max(normal, default=np.float32(0))
    pieces, fallback = [], {}
    for number, (piece, score) in enumerate(zip(specs.pieces, scores, strict=True)):
        text = piece.piece if piece.type in (kinds.NORMAL, kinds.USER_DEFINED) else ""
        if piece.type == kinds.USER_DEFINED:  # so good that it is always taken
            score = np.float32(len(text.encode()) * highest - 0.1)
        elif piece.type != kinds.NORMAL:
            score = lowest
        if piece.type == kinds.BYTE:
            fallback[int(piece.piece[3:5], 16)] = number
        pieces.append([text, float(score)])
    bytes_ = [fallback[value] for value in sorted(fallback)]
    bytes_ = bytes_ if specs.trainer_spec.byte_fallback else []
    return {
        "pieces": pieces,
        "unknown": model.unk_id(),
        "fallback": bytes_,
        "dtype": "float32",
    }


def _is_text(model, number):
    return not (model.is_control(number) or model.is_unknown(number) or model.is_byte(number))


def of_marian(source: bytes, target: bytes | None, vocabulary: dict, names: dict) -> dict:
    """The metadata of Marian's: pieces of the source's model, with the ids of its own vocabulary.

    Args:
        source: The model of the texts that are translated.
        target: That of the translations, or None.
        vocabulary: `{piece: id}`.
        names: Ids of the special tokens.

    Raises:
        UserError: There is no model of sentencepiece, or ids that no vocabulary has.
    """
    both = [metadata(content) for content in (source, target) if content]
    if sorted(vocabulary.values()) != [*range(len(vocabulary))]:
        raise UserError("its vocab.json has ids that are not 0, 1 and so on")
    texts = sorted(vocabulary, key=vocabulary.get)
    hidden = sorted({names[name] for name in ("eos", "pad", "unk") if name in names})
    found = [i for i, text in enumerate(texts) if LANGUAGE.fullmatch(text)]
    pieces = ["" if i in hidden else t.replace(SPACE, " ") for i, t in enumerate(texts)]
    arguments = [[*one["model"], texts, names["unk"]] for one in both]
    return {
        "kind": "published",
        "pieces": [piece.encode().decode("latin-1") for piece in pieces],
        "strip": True,
        "first": {},
        "hidden": hidden,
        "names": names,
        "added": [[[texts[i], i, False, False] for i in found], []],
        "normalizer": [],
        "prefix": None,
        "splits": [],
        "model": arguments[0],
        "target": arguments[1] if target else None,
        "around": [[], []],  # the task ends a source
    }
