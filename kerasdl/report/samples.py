"""The parts of a run's page that show what was drawn, and how it was judged."""

from kerasdl.report.html import data_url, esc, figure, table

NAMED_CLASSES = 20  # more than so many have no column each
STRONG = 0.6  # of a cell's tint, from which its text is light
KINDS = {".gif": "image/gif", ".png": "image/png"}


def samples(judged: dict) -> str:
    """The figures of drawn images.

    Args:
        judged: What `kerasdl.inference.sample_quality.judge_samples` found.
    """
    ways = (judged or {}).get("ways", {})
    notes = [f"<p class=note>{esc(note)}</p>" for note in (judged or {}).get("notes", ())]
    if not ways:
        return f"<h2>Samples</h2>{''.join(notes)}" if notes else ""
    shown = [_pixels(judged), _classes(judged), _features(judged)]
    return f"<h2>Samples</h2><section class=samples>{''.join(notes + shown)}</section>"


def pictures(folder) -> str:
    """The pictures of a run, moving ones beside the still one of the same name.

    Args:
        folder: `pictures` of the run.
    """
    found = {}
    for path in sorted((*folder.glob("*.png"), *folder.glob("*.gif")), reverse=True):
        if path.stem != "mistakes":
            found.setdefault(path.stem, []).append(path)
    figures = []
    for stem in sorted(found):
        caption = esc(stem.replace("_", " ").replace("-", " "))
        images = [
            f'<img class=picture alt="{caption}" '
            f'src="{data_url(path.read_bytes(), KINDS[path.suffix])}">'
            for path in found[stem]
        ]
        figures.append(f"<h3>{caption}</h3><div class=pictures>{''.join(images)}</div>")
    return f"<h2>Pictures</h2>{''.join(figures)}" if figures else ""


def _pixels(judged):
    head = ["drawn", "Fréchet distance", "training images'", "ratio", "spread in classes"]
    head += ["to the nearest", "test images'", "ratio"]
    rows = []
    for name, way in judged["ways"].items():
        found = {k: figure(v, 3) for k, v in way["pixel"].items()}
        if "spread" in found:
            found["spread"] += f" ({found['spread_least']} to {found['spread_most']})"
        keys = ("frechet", "frechet_real", "ratio", "spread")
        keys += ("nearest", "nearest_test", "nearest_ratio")
        rows.append((_name(name), *(found.get(k, "") for k in keys)))
    note = (
        f"{judged['count']['pixel']:,} images. Fréchet distances are to the test images, spreads "
        "over those of training images; to the nearest training image it is the median."
    )
    return f"<h3>By pixels</h3><p class=note>{esc(note)}</p>{table(head, rows, 'num')}"


def _classes(judged):
    referee = judged.get("referee")
    if not referee:
        return ""
    ways = judged["ways"].items()
    recognised = any("recognised" in way for _, way in ways)
    names = next(iter(judged["ways"].values()))["classes"]["shares"]
    names = list(names) if len(names) <= NAMED_CLASSES else []
    head = [*names, "least", *["as asked"] * recognised]
    rows = []
    for name, way in ways:
        shares = way["classes"]["shares"]
        most = max(shares.values())
        cells = [_share(name, c, shares[c], most) for c in names]
        cells.append(f"<td>{way['classes']['least_share']:.1%}</td>")
        if recognised:
            share = way.get("recognised")
            cells.append(f"<td>{share:.1%}</td>" if share is not None else "<td></td>")
        rows.append(f"<tr><th>{esc(_name(name))}</th>{''.join(cells)}</tr>")
    kind = "long" if max(map(len, head)) > 8 else ""
    cells = "".join(f'<th><div class="{kind}">{esc(h)}</div></th>' for h in head)
    note = f"Shares of {judged['count']['features']:,} images, as the referee sees them"
    note += "; and how many it takes for the class that was asked for." if recognised else "."
    return (
        f"<h3>By class</h3><p class=note>{note} The referee is {_network(referee)}, "
        f"test top1 {figure(referee['top1'])}.</p>"
        f"<div class=scroll><table class=confusion><thead><tr><th></th>{cells}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _share(way, name, share, most):
    tint = share / most
    return (
        f'<td class="{"strong" if tint > STRONG else ""}" title="{esc(f"{way}: {name}")}" '
        f'style="background:rgba(var(--tint),{max(tint, 0.04):.2f})">{share:.1%}</td>'
    )


def _features(judged):
    network = judged.get("features")
    if not network:
        return ""
    head = ["drawn", "Fréchet distance", "training images'"]
    keys = ["frechet", "frechet_real"]
    others = ["precision", "recall", "density", "coverage"]
    rows = {name: way["features"] for name, way in judged["ways"].items()}
    rows["training images"] = network["real"]
    cells = [
        (_name(name), *(figure(found.get(k), 3) for k in [*keys, *others]))
        for name, found in rows.items()
    ]
    return (
        f"<h3>By features</h3><p class=note>{judged['count']['features']:,} images against the "
        f"test images, by what {_network(network)} makes of them.</p>"
        f"{table([*head, *others], cells, 'num')}"
    )


def _network(facts):
    return f"<b>{esc(facts['name'])}</b> (weights <code>{esc(facts['sha256'][:12])}</code>)"


def _name(name):
    return name.replace("_", " ")
