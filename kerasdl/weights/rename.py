"""Rules that rename another library's weights to ours, and ours to theirs.

A `Family` is a list of rules, data that work both ways: names of theirs, paths of ours, and what is
done to the numbers between them. Names hold numbered places: the rule

    Rule("blocks.{i}.attn.proj.weight", "backbone/block{i+1}/attention/project/kernel", "kernel")

stands for every block; `{i+1}` is the same number, one higher, and `{_i}` the number as Keras
counts names: nothing for 0, then `_1`, `_2`. What is done to numbers is one of
`kerasdl.weights.transforms`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from kerasdl.errors import UserError
from kerasdl.layers.classifier import Backbone
from kerasdl.system.names import few
from kerasdl.weights.transforms import TRANSFORMS

PLACE = re.compile(r"\{(\*?)(\w+)([+-]\d+)?\}")
PLACE_ESCAPED = re.compile(r"\\\{(_?).*?\\\}")
COUNTER = "num_batches_tracked"  # of PyTorch's batch norms, which no model of ours has


@dataclass(frozen=True)
class Rule:
    """Some of their weights are some of ours.

    Attributes:
        theirs: Pattern of their name, or a tuple of them. `{*e}` stands for all numbers from 0 on
            that there are.
        ours: Pattern of our path below the model, or a tuple of them, all with the same places.
        how: A key of `TRANSFORMS`.
        also: Patterns of other names that hold the same numbers, as tied weights do: they may stand
            for the first, must be equal to it, and are written as well.
    """

    theirs: str | tuple
    ours: str | tuple
    how: str = "same"
    also: tuple = ()


def count_batches(arrays, model) -> dict:
    """The counter of every batch norm, which PyTorch asks for: 0."""
    ending = "running_mean"
    return {
        name.removesuffix(ending) + COUNTER: np.zeros((), "int64")
        for name in arrays
        if name.endswith(ending)
    }


@dataclass(frozen=True, eq=False)  # there is one of each
class Family:
    """The weights of an architecture as a library names them.

    Attributes:
        name: "timm ViT" and the like, for people.
        module: The module of its models, below `kerasdl.models`.
        rules: Of `Rule`s, or a function that makes those of a model, or of any if it is None. Where
            several fit a path, the first whose names are all there is read, and the first is
            written.
        prefix: A beginning of names that a file may lack, as that of a bare backbone does.
        ignored: Regular expressions of names that hold no weights, besides counters: masks, tables.
        written: A function `({name: array}, model) -> {name: array}` of what is written besides the
            rules' names: the counters of batch norms, or tables that are computed there.
        configs: `{value: function}`: which `model_type`, `_class_name` or `architecture` of a
            `config.json` it reads, and the function `config -> (row, arguments of its builder)`;
            a value that ends in `*` stands for all that begin so.
        accepts: A function of the model: whether such a network exists in that library.
        needs: What `accepts` asks of a model, for people.
        options: Arguments of a builder, with which a model is accepted that with its defaults is
            not.
    """

    name: str
    module: str
    rules: tuple | Callable
    prefix: str = ""
    ignored: tuple = ()
    written: Callable | None = count_batches
    configs: dict = field(default_factory=dict)
    accepts: Callable = lambda model: True
    needs: str = ""
    options: dict = field(default_factory=dict)

    def rules_for(self, model) -> tuple:
        """The rules of a model, or of any if it is None."""
        return tuple(self.rules(model) if callable(self.rules) else self.rules)


@dataclass(frozen=True)
class Renamed:
    """Weights under our paths.

    Attributes:
        arrays: `{path below the model: array}`; see `Arrays`.
        left_over: Their names that no rule took.
        missing: Our paths that nothing was given for.
    """

    arrays: Mapping
    left_over: tuple
    missing: tuple


class Arrays(Mapping):
    """`{path: array}` of which each array is read and made when it is asked for, and not kept.

    Attributes:
        shapes: `{path: shape}`.
    """

    def __init__(self):
        self.shapes, self._makers = {}, {}

    def add(self, paths, make):
        """Let `make()` give the arrays of `paths`; it is called once for their shapes."""
        for i, (path, array) in enumerate(zip(paths, make(), strict=True)):
            self.shapes[path], self._makers[path] = array.shape, (make, i)

    def __getitem__(self, path):
        make, i = self._makers[path]
        return make()[i]

    def __iter__(self):
        return iter(self.shapes)

    def __len__(self):
        return len(self.shapes)

    def __contains__(self, path):
        return path in self.shapes


def dense(theirs, ours) -> tuple:
    """Rules of a dense layer or a convolution: `weight` and `bias`."""
    return (
        Rule(f"{theirs}.weight", f"{ours}/kernel", "kernel"),
        Rule(f"{theirs}.bias", f"{ours}/bias"),
    )


def norm(theirs, ours) -> tuple:
    """Rules of a layer norm or group norm."""
    return Rule(f"{theirs}.weight", f"{ours}/gamma"), Rule(f"{theirs}.bias", f"{ours}/beta")


def batch_norm(theirs, ours) -> tuple:
    """Rules of a batch norm."""
    return (
        *norm(theirs, ours),
        Rule(f"{theirs}.running_mean", f"{ours}/moving_mean"),
        Rule(f"{theirs}.running_var", f"{ours}/moving_variance"),
    )


def backbone_of(model):
    """The backbone of a model, or the model itself where it is one, or has none."""
    return getattr(model, "backbone", model)


def by_path(model) -> dict:
    """`{path below the model: weight}`; a backbone alone has them where its classifier would."""
    before = "backbone/" if isinstance(model, Backbone) else ""
    # A model that was loaded from a file has paths without its own name.
    return {
        before + v.path.removeprefix(f"{model.path or model.name}/"): v
        for v in model.weights
        if "seed_generator" not in v.path
    }


def to_ours(family, model, weights) -> Renamed:
    """Rename another library's weights.

    Args:
        family: A `Family`.
        model: Our model, built.
        weights: `{name: array}`; each is read when it is needed, once to be checked and once more
            whenever its array is asked for.

    Raises:
        UserError: Tied weights that differ, or a shape that cannot be split, joined or turned.
    """
    paths, arrays, used = by_path(model), Arrays(), set()
    for rule, sources, others, ours in _matches(family, model, paths, weights):
        _check_tied(weights, sources[0], others)
        shapes = [tuple(paths[p].shape) for p in ours if p in paths]
        arrays.add(ours, partial(_made, rule, model, weights, sources, ours, shapes))
        used |= {*sources, *others}
    left = tuple(n for n in weights if n not in used and not _is_ignored(family, n))
    return Renamed(arrays, left, tuple(p for p in paths if p not in arrays))


def unused(family, model, names) -> tuple:
    """Names of a file that nothing is made of: those left over, and those that a family ignores.

    Args:
        family: A `Family`.
        model: Our model, built.
        names: Of the file.
    """
    matches = _matches(family, model, by_path(model), names)
    used = {n for _, sources, others, _ in matches for n in (*sources, *others)}
    return tuple(n for n in names if n not in used)


def _matches(family, model, paths, names):
    """Yield `(rule, sources, others, ours)` of each rule that gives some of `paths`.

    The names of the file that it reads, those there are of the same numbers, and all our paths that
    it makes.
    """
    names, done = _names(family, names), set()
    rules = [(_compiled(rule), rule) for rule in family.rules_for(model)]
    for path in paths:
        for patterns, rule in rules:
            places = _places(patterns[0], path)
            if path in done or places is None:
                continue
            sources = [n for p in _tuple(rule.theirs) for n in _expanded(p, places, names)]
            others = [n for n in (_format(p, places) for p in rule.also) if n in names]
            if sources == [None] and others:  # a tied name may stand for the first
                sources = others[:1]
            if not sources or any(name not in names for name in sources):
                continue
            ours = [_format(p, places) for p in _tuple(rule.ours)]
            done.update(ours)
            yield rule, [names[n] for n in sources], [names[n] for n in others], ours


def _made(rule, model, weights, sources, ours, shapes):
    """The arrays that a rule makes of those of `sources`."""
    values = [weights[name] for name in sources]
    try:
        return TRANSFORMS[rule.how].to_ours(values, shapes, model)
    except (ValueError, IndexError) as error:
        given = ", ".join(f"{n} {v.shape}" for n, v in zip(sources, values, strict=True))
        raise UserError(f"{given}: does not fit {', '.join(ours)} {shapes}: {error}") from None


def to_theirs(family, model, arrays=None, names=()) -> dict:
    """Our weights under another library's names, the inverse of `to_ours`.

    Args:
        family: A `Family`.
        model: Our model, built.
        arrays: `{path: array}`; the model's own if None.
        names: Of the file that the weights are from: where a family has several names for a weight,
            those of the file are taken, and of what is written besides only what the file has.

    Raises:
        UserError: The family has no name for a weight of the model.
    """
    paths, known = by_path(model), _names(family, names)
    if arrays is None:
        arrays = {path: np.asarray(v) for path, v in paths.items()}
    rules = [(_compiled(rule), rule) for rule in family.rules_for(model)]
    result, done, besides = {}, set(), {}
    for path in paths:
        chosen = None
        for patterns, rule in rules:
            places = _places(patterns[0], path)
            ours = [] if places is None else [_format(p, places) for p in _tuple(rule.ours)]
            if path in done or not ours or any(p not in paths for p in ours):
                continue
            made = TRANSFORMS[rule.how].to_theirs([np.asarray(arrays[p]) for p in ours], model)
            theirs = [n for p in _tuple(rule.theirs) for n in _numbered(p, places, len(made))]
            own = dict(zip(theirs, made, strict=True))
            tied = dict.fromkeys((_format(p, places) for p in rule.also), made[0])
            there = all(n in known for n in own) or any(n in known for n in tied)
            if there or chosen is None:
                chosen = own, tied, ours
            if there or not known:
                break
        if chosen:
            own, tied, ours = chosen
            besides |= tied
            done.update(ours)
            # Where the file has the numbers under a tied name alone, there they stay.
            if any(n in known for n in own) or not any(n in known for n in tied):
                result |= own
    if rest := [p for p in paths if p not in done]:
        raise UserError(f"{family.name} has no name for {few(rest)} of {model.name}")
    besides |= family.written(result | besides, model) if family.written else {}
    result |= {n: value for n, value in besides.items() if n in known or not known}
    result = {known.get(name, name): value for name, value in result.items()}
    if isinstance(model, Backbone) and not known:
        result = {name.removeprefix(family.prefix): value for name, value in result.items()}
    return {name: np.asarray(value, order="C") for name, value in result.items()}


def fraction(family, model, names) -> float:
    """The fraction of their names that rules of the family take, of a model that is at hand."""
    wanted = [
        re.compile(PLACE_ESCAPED.sub(_numbers, re.escape(pattern)) + r"\Z")
        for rule in family.rules_for(model)
        for pattern in (*_tuple(rule.theirs), *rule.also)
    ]
    stripped = _names(family, dict.fromkeys(names))
    counted = [n for n, full in stripped.items() if not _is_ignored(family, full)]
    matched = sum(any(p.match(n) for p in wanted) for n in counted)
    return matched / max(1, len({stripped[n] for n in counted}))


def _names(family, weights) -> dict:
    """`{name as the rules have it: name as the file has it}`."""
    names = {name: name for name in weights}
    if names and all(name.startswith("module.") for name in names):  # of a wrapped model
        names = {name.removeprefix("module."): name for name in names}
    if family.prefix and not any(name.startswith(family.prefix) for name in names):
        names |= {family.prefix + short: name for short, name in names.items()}
    return names


def _is_ignored(family, name) -> bool:
    return name.endswith(COUNTER) or any(re.search(pattern, name) for pattern in family.ignored)


def _tuple(patterns) -> tuple:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _compiled(rule) -> list:
    """A regular expression of each of our paths."""
    result = []
    for pattern in _tuple(rule.ours):
        parts, end = [], 0
        for place in PLACE.finditer(pattern):
            parts += [re.escape(pattern[end : place.start()]), f"(?P<{place[2]}>\\d+)"]
            end = place.end()
        shifts = {p[2]: int(p[3] or 0) for p in PLACE.finditer(pattern)}
        result.append((re.compile("".join(parts) + re.escape(pattern[end:]) + r"\Z"), shifts))
    return result


def _places(compiled, path):
    """`{place: number}` of a path, or None where the pattern is another one."""
    expression, shifts = compiled
    match = expression.match(path)
    return match and {key: int(n) - shifts[key] for key, n in match.groupdict().items()}


def _format(pattern, places) -> str:
    def text(place):
        number = places[place[2].removeprefix("_")] + int(place[3] or 0)
        if place[2].startswith("_"):
            return f"_{number}" if number else ""
        return str(number)

    return PLACE.sub(text, pattern)


def _numbers(place) -> str:
    """The regular expression of the numbers that may stand in a place."""
    return r"(_\d+)?" if place[1] else r"\d+"


def _expanded(pattern, places, names) -> list:
    """The names that a pattern stands for; `[None]` where its only one is not there."""
    star = next((p[2] for p in PLACE.finditer(pattern) if p[1]), None)
    if star is None:
        name = _format(pattern, places)
        return [name if name in names else None]
    result = []
    while (name := _format(pattern, {**places, star: len(result)})) in names:
        result.append(name)
    return result


def _numbered(pattern, places, number) -> list:
    """The names that a pattern stands for where a transformation made so many arrays."""
    star = next((p[2] for p in PLACE.finditer(pattern) if p[1]), None)
    if star is None:
        return [_format(pattern, places)]
    return [_format(pattern, {**places, star: i}) for i in range(number)]


def _check_tied(weights, first, others):
    for other in others:
        if other != first and not np.array_equal(weights[first], weights[other]):
            raise UserError(f"{first} and {other} differ: here they are one weight")
