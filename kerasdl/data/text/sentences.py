"""Models of sentencepiece as metadata of `Tokenizer`.

Source: Kudo and Richardson 2018, https://arxiv.org/abs/1808.06226.
"""

import base64

from kerasdl.errors import UserError
from kerasdl.system import archives

SPACE = "\u2581"


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
        "names": {name: number for name, number in names.items() if number >= 0},
        "added": [[], []],
        "normalizer": [],
        "prefix": None,
        "splits": [],
        "model": ["SentencePiece", base64.b64encode(content).decode()],
        "around": [[], []],
        "texts": texts,
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
    for content in filter(None, (source, target)):
        opened(content)
    if sorted(vocabulary.values()) != [*range(len(vocabulary))]:
        raise UserError("its vocab.json has ids that are not 0, 1 and so on")
    texts = sorted(vocabulary, key=vocabulary.get)
    hidden = sorted({names[name] for name in ("eos", "pad", "unk") if name in names})
    pieces = ["" if i in hidden else t.replace(SPACE, " ") for i, t in enumerate(texts)]
    codes = [base64.b64encode(one).decode() for one in (source, target) if one]
    return {
        "kind": "published",
        "pieces": [piece.encode().decode("latin-1") for piece in pieces],
        "strip": True,
        "first": {},
        "hidden": hidden,
        "names": names,
        "added": [[], []],
        "normalizer": [],
        "prefix": None,
        "splits": [],
        "model": ["SentencePiece", codes[0], texts, names["unk"]],
        "target": codes[1] if target else None,
        "around": [[], []],  # the task ends a source
    }
