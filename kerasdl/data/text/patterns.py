"""Regular expressions of the `tokenizers` library (Oniguruma's) as RE2 reads them, alike or not at
all.

RE2 has no lookahead, its classes are of ASCII, and its Unicode is older. So every class is written
out, with the characters that it lacks; and `\\s+(?!\\S)`, all of some white space but the last
character before a word, becomes a mark in front of that character.
"""

import functools
import re

import tensorflow as tf

from kerasdl.errors import UserError
from kerasdl.system.terminal import printable

ISOLATED = ["", r"\0", ""]  # a match with a boundary on each side
SPACE = r"\t\n\x0b\f\r \x{85}\p{Z}"  # \s, the 25 characters of White_Space
SPACES = "\t\n\x0b\x0c\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))
SPACES += "\u2028\u2029\u202f\u205f\u3000"
LOOK = r"\s+(?!\S)"
NEWLINES = (r"\s*[\r\n]+", r"\s*[\r\n]")
LED, TRAILED = (" ?", r"[^\r\n\p{L}\p{N}]?"), (r"[\r\n]*", r"[\r\n/]*")
NAMES = "L M N P S Z C Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So".split()
ESCAPES = frozenset("tnrfv.|?*+()[]{}^$\\/-'\"")
ATOM = re.compile(
    r"""(?P<property>\\p\{[A-Za-z]+\}) | (?P<space>\\s) | (?P<digit>\\d) | (?P<word>\\w)
    | (?P<escape>\\.) | (?P<class>\[\^?) | (?P<group>\(\?:|\(\?i:|\(|\)|\|)
    | (?P<repeat>(?:[?*+]|\{\d+(?:,\d*)?\})) | (?P<plain>[^\\\[\](){}?*+|^$])""",
    re.VERBOSE | re.DOTALL,
)
# All code points that are, or may soon be, characters.
ASSIGNED = (
    range(0xD800),
    range(0xE000, 0x34000),
    range(0xE0000, 0xE0200),
    range(0xF0000, 0x110000),
)


@functools.cache
def characters() -> str:
    """All characters of `ASSIGNED`."""
    return "".join(chr(code) for block in ASSIGNED for code in block)


@functools.cache
def members(pattern: str) -> frozenset:
    """The characters that a class of Oniguruma has."""
    from tokenizers import Regex, normalizers

    text = characters()
    return frozenset(text) - frozenset(normalizers.Replace(Regex(pattern), "").normalize_str(text))


@functools.cache
def _class(pattern: str, similar: str) -> str:
    """What stands in the brackets of RE2 for a class: `similar` if it is the same, or almost."""
    return class_of(members(pattern), similar)


def class_of(here, similar: str) -> str:
    """What stands in the brackets of RE2 for characters: `similar` with those that it lacks."""
    text = characters()
    left = tf.strings.regex_replace([text], f"[{similar}]", "")[0].numpy().decode()
    there = frozenset(text) - frozenset(left)
    return similar + ranges(here - there) if there <= here else ranges(here)


def ranges(characters) -> str:
    """Characters as ranges of a class."""
    found = []
    for code in sorted(map(ord, characters)):
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in found)


def _in_class(match, pattern) -> str:
    kind, text = match.lastgroup, match.group()
    if kind == "property":
        if text[3:-1] not in NAMES:
            raise _refused(pattern, text)
        return _class(text, text)
    if kind == "space":
        return SPACE
    if kind == "digit":
        return _class(r"\d", r"\p{Nd}")
    if kind == "word":
        return _class(r"\w", r"\p{L}\p{M}\p{Nd}\p{Pc}")
    if kind == "escape" and text[1] in ESCAPES:
        return "\\x0b" if text == r"\v" else text
    raise _refused(pattern, text)


def _refused(pattern, what):
    shown = printable(repr(what))[:40]
    return UserError(
        f"the pattern {printable(pattern)[:200]!r} has {shown}, which is not supported"
    )


def atoms(pattern: str) -> list:
    """The parts of a pattern in RE2's writing: `(kind, as it stood, as RE2 reads it)`.

    Raises:
        UserError: Names what of it is not known.
    """
    result, place = [], 0
    while place < len(pattern):
        match = ATOM.match(pattern, place)
        if not match:
            raise _refused(pattern, pattern[place : place + 8])
        kind, start, place = match.lastgroup, place, match.end()
        text = match.group()
        if kind == "class":
            inside = []
            while place < len(pattern) and pattern[place] != "]":
                if pattern[place] in "[&":
                    raise _refused(pattern, pattern[place])
                match = ATOM.match(pattern, place)
                if match and match.lastgroup in ("property", "space", "digit", "word", "escape"):
                    inside.append(_in_class(match, pattern))
                    place = match.end()
                else:
                    character = pattern[place]
                    inside.append(character if character == "-" else rf"\x{{{ord(character):x}}}")
                    place += 1
            if place == len(pattern) or not inside:
                raise _refused(pattern, text)
            place += 1
            result.append(("class", pattern[start:place], f"{text}{''.join(inside)}]"))
        elif kind in ("property", "space", "digit", "word"):
            result.append(("class", text, f"[{_in_class(match, pattern)}]"))
        elif kind == "repeat":
            if place < len(pattern) and pattern[place] == "?":  # as few as possible
                text, place = f"{text}?", place + 1
            if place < len(pattern) and pattern[place] in "?*+{":  # possessive, or twice
                raise _refused(pattern, pattern[start : place + 1])
            result.append(("repeat", text, text))
        elif kind == "group":
            if text == "(" and pattern[place : place + 1] == "?":
                raise _refused(pattern, pattern[start : start + 6])
            result.append(("group", text, "(?:" if text == "(" else text))
        elif kind == "escape":
            result.append(("plain", text, _in_class(match, pattern)))
        else:
            result.append(("plain", text, text))
    return result


def alternatives(pattern: str) -> list:
    """The alternatives of a pattern, outside of all brackets."""
    parts, depth, inside, escaped = [""], 0, False, False
    for character in pattern:
        if not escaped and not inside and character == "|" and not depth:
            parts.append("")
            continue
        parts[-1] += character
        if not escaped:
            inside = (inside or character == "[") and character != "]"
            depth += 0 if inside else (character == "(") - (character == ")")
        escaped = not escaped and character == "\\"
    return parts


def translate(pattern: str) -> str:
    """A pattern without lookahead, as RE2 reads it.

    Raises:
        UserError: Something in it is not known, or it matches nothing at all somewhere.
    """
    result = "".join(text for _, _, text in atoms(pattern))
    if tf.strings.regex_full_match("", result).numpy():
        raise UserError(f"the pattern {printable(pattern)[:200]!r} matches the empty text")
    return result


def split_steps(pattern: str) -> list:
    """What splits texts at the matches of a pattern that leaves nothing out: see `Splits`.

    Returns:
        `[pattern, [text, ...]]` pairs: the texts with boundaries between them replace a match.

    Raises:
        UserError: See `translate`.
    """
    parts = alternatives(pattern)
    if LOOK not in parts:
        return [[translate(pattern), ISOLATED]]
    place = parts.index(LOOK)
    others = parts[:place] + parts[place + 1 :]
    lines = [part for part in parts[:place] if part in NEWLINES]
    if parts[place + 1 :] not in ([r"\s+"], [r"\s"]):
        raise _refused(pattern, LOOK)
    trailed = False
    for part in parts[:place]:
        if part in NEWLINES:
            continue
        lead = next((one for one in LED if part.startswith(one)), "")
        trail = next((one for one in TRAILED if part.endswith(one)), "")
        trailed |= bool(trail)
        middle = part.removeprefix(lead).removesuffix(trail)
        for kind, _, text in atoms(middle):
            if kind in ("class", "plain") and _has_space(text):
                raise _refused(pattern, part)  # it may reach over white space that is marked
    if trailed and not lines:
        raise _refused(pattern, LOOK)
    others = others[:-1] + [r"\s+"]  # no white space that is split is left for `\s`
    # The last of some white space belongs to the word behind it; where lines end in a token of
    # their own, it stays there.
    last = r"([\t\x0b\f \x{85}\p{Z}])" if lines else f"([{SPACE}])"
    return [
        [rf"{last}([^{SPACE}])", ["", r"\1\2"]],
        [translate("|".join(others)), ISOLATED],
    ]


def _has_space(atom) -> bool:
    return bool(tf.reduce_any(tf.strings.regex_full_match(list(SPACES), atom)).numpy())


def quoted(text: str) -> str:
    """A pattern that matches a text alone."""
    return re.sub(r"[^\w\s]", lambda match: rf"\x{{{ord(match.group()):x}}}", text)
