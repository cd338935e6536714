"""The parts of a run's page that show samples, and how they were evaluated."""

from kerasdl.report.html import data_url, esc, number_text, table

NAMED_CLASSES = 20  # more than so many have no column each
STRONG = 0.6  # of a cell's tint, from which its text is light
KINDS = {".gif": "image/gif", ".png": "image/png"}


def samples(evaluated: dict) -> str:
    """How samples were evaluated.

    Args:
        evaluated: What `kerasdl.inference.sample_quality.evaluate_samples` returns.
    """
    ways = (evaluated or {}).get("ways", {})
    notes = [f"<p class=note>{esc(note)}</p>" for note in (evaluated or {}).get("notes", ())]
    if not ways:
        return f"<h2>Samples</h2>{''.join(notes)}" if notes else ""
    shown = [_pixels(evaluated), _classes(evaluated), _features(evaluated)]
    return f"<h2>Samples</h2><section class=samples>{''.join(notes + shown)}</section>"


def pictures(folder) -> str:
    """The pictures of a run, moving ones beside the still one of the same name.

    Args:
        folder: `pictures` of the run.
    """
    result = {}
    for path in sorted((*folder.glob("*.png"), *folder.glob("*.gif")), reverse=True):
        if path.stem != "mistakes":
            result.setdefault(path.stem, []).append(path)
    metrics = []
    for stem in sorted(result):
        caption = esc(stem.replace("_", " ").replace("-", " "))
        images = [
            f'<img class=picture alt="{caption}" '
            f'src="{data_url(path.read_bytes(), KINDS[path.suffix])}">'
            for path in result[stem]
        ]
        metrics.append(f"<h3>{caption}</h3><div class=pictures>{''.join(images)}</div>")
    return f"<h2>Pictures</h2>{''.join(metrics)}" if metrics else ""


def _pixels(evaluated):
    head = ["sampling", "Fréchet distance", "training images'", "ratio", "spread in classes"]
    head += ["to the nearest", "test images'", "ratio"]
    rows = []
    for name, way in evaluated["ways"].items():
        result = {k: number_text(v, 3) for k, v in way["pixel"].items()}
        if "spread" in result:
            result["spread"] += f" ({result['spread_least']} to {result['spread_most']})"
        keys = ("frechet", "frechet_real", "ratio", "spread")
        keys += ("nearest", "nearest_test", "nearest_ratio")
        rows.append((_name(name), *(result.get(k, "") for k in keys)))
    note = (
        f"{evaluated['count']['pixel']:,} images. Fréchet distances are to the test images, "
        "spreads over those of training images; to the nearest training image it is the median."
    )
    return f"<h3>By pixels</h3><p class=note>{esc(note)}</p>{table(head, rows, 'num')}"


def _classes(evaluated):
    classifier = evaluated.get("referee")
    if not classifier:
        return ""
    ways = evaluated["ways"].items()
    recognized = any("recognised" in way for _, way in ways)
    names = next(iter(evaluated["ways"].values()))["classes"]["shares"]
    names = list(names) if len(names) <= NAMED_CLASSES else []
    head = [*names, "smallest", *["as requested"] * recognized]
    rows = []
    for name, way in ways:
        fractions = way["classes"]["shares"]
        maximum = max(fractions.values())
        cells = [_fraction(name, c, fractions[c], maximum) for c in names]
        cells.append(f"<td>{way['classes']['least_share']:.1%}</td>")
        if recognized:
            fraction = way.get("recognised")
            cells.append(f"<td>{fraction:.1%}</td>" if fraction is not None else "<td></td>")
        rows.append(f"<tr><th>{esc(_name(name))}</th>{''.join(cells)}</tr>")
    kind = "long" if max(map(len, head)) > 8 else ""
    cells = "".join(f'<th><div class="{kind}">{esc(h)}</div></th>' for h in head)
    note = f"Fractions of {evaluated['count']['features']:,} images, as the classifier sees them"
    note += "; and how many it takes for the requested class." if recognized else "."
    return (
        f"<h3>By class</h3><p class=note>{note} The reference classifier is "
        f"{_network(classifier)}, "
        f"test top1 {number_text(classifier['top1'])}.</p>"
        f"<div class=scroll><table class=confusion><thead><tr><th></th>{cells}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _fraction(way, name, fraction, maximum):
    tint = fraction / maximum
    return (
        f'<td class="{"strong" if tint > STRONG else ""}" title="{esc(f"{way}: {name}")}" '
        f'style="background:rgba(var(--tint),{max(tint, 0.04):.2f})">{fraction:.1%}</td>'
    )


def _features(evaluated):
    network = evaluated.get("features")
    if not network:
        return ""
    head = ["sampling", "Fréchet distance", "training images'"]
    keys = ["frechet", "frechet_real"]
    others = ["precision", "recall", "density", "coverage"]
    rows = {name: way["features"] for name, way in evaluated["ways"].items()}
    rows["training images"] = network["real"]
    cells = [
        (_name(name), *(number_text(result.get(k), 3) for k in [*keys, *others]))
        for name, result in rows.items()
    ]
    return (
        f"<h3>By features</h3><p class=note>{evaluated['count']['features']:,} images against the "
        f"test images, by what {_network(network)} makes of them.</p>"
        f"{table([*head, *others], cells, 'num')}"
    )


def _network(metadata):
    return f"<b>{esc(metadata['name'])}</b> (weights <code>{esc(metadata['sha256'][:12])}</code>)"


def _name(name):
    return name.replace("_", " ")
