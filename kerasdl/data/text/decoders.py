"""Decoders and post-processors of a `tokenizer.json`: texts of tokens, and what is around one."""

from kerasdl.data.text.specs import bytes_by_name, made, parts_of, pattern_of, refused


def pieces_of(spec, tokens):
    """`(bytes of each token, whether a first space goes, {id: bytes in the first place})`."""
    parts = parts_of(spec, "decoders")
    kinds = [one["type"] for one in parts]
    if kinds == ["ByteLevel"]:
        return [_of_byte_names(token) for token in tokens], False, {}
    if "ByteFallback" in kinds or "Fuse" in kinds or "Strip" in kinds:
        return _llama(parts, kinds, tokens)
    if kinds not in ([], ["WordPiece"], ["Metaspace"]):
        raise refused(f"the decoder {', '.join(kinds)}")
    decode = made("decoder", spec).decode if spec else " ".join
    if not spec:
        return [f" {token}".encode() for token in tokens], True, {}
    pieces, first = [], {}
    for number, token in enumerate(tokens):
        piece = decode(["x", token])[1:] if token else ""
        begins = decode([token]) if token else ""
        pieces.append(piece.encode())
        if begins != piece.removeprefix(" "):
            first[number] = f" {begins}".encode()  # the space goes
    return pieces, True, first


def _of_byte_names(token):
    byte = bytes_by_name()
    if set(token) <= byte.keys():
        return bytes(byte[c] for c in token)
    return token.encode()


def _llama(parts, kinds, tokens):
    """The pieces of a decoder that is a sequence as Llama's: what replaces, then bytes, a strip."""
    replacing = kinds.count("Replace")
    rest = [kind for kind in kinds[replacing:] if kind != "Fuse"]
    strips = [one for one in parts if one["type"] == "Strip"]
    known = kinds[:replacing] == ["Replace"] * replacing
    known &= rest in (["ByteFallback", "Strip"], ["ByteFallback"], ["Strip"], [])
    known &= not strips or "Fuse" in kinds[: kinds.index("Strip")]
    if not known or any((s["content"], s["start"], s["stop"]) != (" ", 1, 0) for s in strips):
        raise refused(f"the decoder {', '.join(kinds)}")
    pieces = []
    for token in tokens:
        for one in parts[:replacing]:
            text, regex = pattern_of(one["pattern"])
            if regex:
                raise refused("the decoder Replace of a regular expression")
            token = token.replace(text, one["content"])
        byte = "ByteFallback" in kinds and len(token) == 6 and token.startswith("<0x")
        pieces.append(_byte(token) if byte else token.encode())
    return pieces, bool(strips), {}


def _byte(token):
    try:
        return bytes([int(token[3:5], 16)]) if token[5] == ">" else token.encode()
    except ValueError:
        return token.encode()


def around(spec):
    """The ids before and behind a text."""
    before, behind = [], []
    for one in parts_of(spec, "processors"):
        kind = one["type"]
        if kind == "TemplateProcessing":
            special = one["special_tokens"]
            ids, here = [[], []], 0
            for part in one["single"]:
                if "Sequence" in part:
                    here += 1
                else:
                    ids[min(here, 1)] += special[part["SpecialToken"]["id"]]["ids"]
            if here != 1:
                raise refused("a TemplateProcessing that has its text not once")
        elif kind in ("BertProcessing", "RobertaProcessing"):
            ids = [one["cls"][1]], [one["sep"][1]]
        elif kind == "ByteLevel":
            continue
        else:
            raise refused(f"the post_processor {kind}")
        before, behind = ids[0] + before, behind + ids[1]
    return [before, behind]
