"""A page that runs an exported model in a browser: one HTML file beside its TFLite files.

The page holds its style, its scripts, a description of the model and the model itself; LiteRT.js
runs it, from a folder beside the page or from the npm CDN. Its scripts stand in `web/`: they are
one module, in the order of `SCRIPTS`.
"""

import base64
import functools
import html
import http.server
import json
import re
import shutil
import string
import tempfile
from pathlib import Path

import numpy as np

from kerasdl import catalog, tasks
from kerasdl.errors import UserError
from kerasdl.export import KINDS, card, litert_js
from kerasdl.export.serving_page import REQUESTS
from kerasdl.inference.interface import of_card
from kerasdl.ops.boxes import windows
from kerasdl.ops.colors import class_colors
from kerasdl.store import load

SOURCES = Path(__file__).parent / "web"
SCRIPTS = ("runtime.js", "pixels.js", "images.js", "texts.js", "samples.js", "main.js")
FOLDER = "web"  # below the version's
RUNTIME = "runtime"  # below it
PICTURES = 4  # of the requests, that the page shows
PANEL = re.compile(r"^(?:async )?function (\w+)Applies\(", re.MULTILINE)


def write(path, kind: str = "float32", runtime=None) -> tuple[Path, str]:
    """Write `<version>/web/index.html`, in place of one that is there.

    Args:
        path: The model's folder, or that of a version.
        kind: Of the TFLite file, one of `kerasdl.export.KINDS`.
        runtime: A `node_modules` folder with LiteRT.js, which is copied beside the page; "cdn"; or
            None for the folder of `litert_js.folder`, or else the CDN.

    Returns:
        The page, and where it has LiteRT.js from, in words.

    Raises:
        UserError: No exported model is there, or no such file of it, or one that no browser runs;
            or the folder does not hold LiteRT.js.
    """
    found, version = load.find(path)
    if found != "saved_model":
        raise UserError(f"{path}: there is no exported model; give the folder of one")
    described = describe(version, kind)
    lite = version / "tflite" / f"{kind}.tflite"
    load.check_files("tflite", lite)
    modules = None if runtime == "cdn" else litert_js.folder(runtime)
    text = page(described, lite.read_bytes(), local=modules is not None)
    try:
        with tempfile.TemporaryDirectory(prefix=".web-", suffix=".tmp", dir=version) as work:
            made, target = Path(work) / FOLDER, version / FOLDER
            made.mkdir()
            (made / "index.html").write_text(text, "utf-8")
            for file in litert_js.FILES if modules else ():
                (made / RUNTIME / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(modules / file, made / RUNTIME / file)
            if target.exists():
                target.rename(Path(work) / "former")
            made.rename(target)
    except OSError as error:
        raise UserError(f"{version}: cannot be written: {error.strerror}") from None
    source = f"a copy of {modules}" if modules else f"{litert_js.CDN} (version {litert_js.VERSION})"
    return target / "index.html", f"LiteRT.js: {source}"


def describe(version: Path, kind: str) -> dict:
    """What the page needs to know of a model, as JSON values.

    Args:
        version: Its version folder.
        kind: Of the TFLite file.

    Raises:
        UserError: There is no such file, or its shapes are not fixed at one example.
    """
    interface, metadata = of_card(version, "tflite"), load.load_info(version)
    values = load.card_of("saved_model", version)
    try:
        there = [name for name in KINDS if (version / "tflite" / f"{name}.tflite").is_file()]
        if kind not in there or f"tflite/{kind}" not in values["artifacts"]:
            why = values["omitted"].get(f"tflite/{kind}") or values["omitted"].get("tflite")
            raise UserError(
                f"{version}: has no tflite/{kind}.tflite{f' ({why})' if why else ''}; "
                f"its TFLite files: {', '.join(there) or 'none'}"
            )
        sides = values["artifacts"][f"tflite/{kind}"]["signatures"]
        signatures = {
            name: _signature(version, interface.signatures[name], sides[name])
            for name in interface.signatures
            if name in sides
        }
        info = metadata.info
        heads, rows = card.table(values)
        row = next(row for row in rows if row[0] == f"tflite/{kind}")
        figures = [["trainable parameters", f"{values['trainable_parameters']:,}"]]
        figures += [list(pair) for pair in zip(heads, row, strict=True) if pair[1]]
        texts = {name: str(values[name]) for name in ("name", "model", "paper", "task", "dataset")}
        return texts | {
            "version": values["version"],
            "file": f"{kind}.tflite",
            "figures": figures,
            "labels": list(info.class_names),
            "colors": (255 * class_colors(len(info.class_names) + 1)).round().astype(int).tolist(),
            "image_shape": info.image_shape and list(info.image_shape),
            "tokenizer": info.tokenizer and json.loads(info.tokenizer),
            "context": interface.context,
            "fit": {"mode": interface.fit.mode, "fraction": interface.fit.fraction},
            "signatures": signatures,
            "windows": _windows(info, signatures),
            "sampler": _sampler(metadata),
            "pictures": _pictures(version),
        }
    except (KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
        raise UserError(
            f"{version}: its card.json does not describe its files ({error}); export it again"
        ) from None


def page(described: dict, model: bytes, local: bool) -> str:
    """The page as HTML.

    Args:
        described: Of `describe`.
        model: The bytes of the TFLite file.
        local: Whether LiteRT.js lies beside the page; from the CDN otherwise.
    """
    address = f"./{RUNTIME}/" if local else litert_js.CDN

    def versioned(file):
        if local:
            return address + file
        name = next(n for n in litert_js.MODULES if file.startswith(f"{n}/"))
        return f"{address}{name}@{litert_js.VERSION}{file.removeprefix(name)}"

    modules = {name: versioned(file) for name, file in litert_js.MODULES.items()}
    runtime = {"local": local, "core": modules[litert_js.CORE], "wasm": versioned(litert_js.WASM)}
    scripts = [(SOURCES / name).read_text("utf-8") for name in SCRIPTS if (SOURCES / name).exists()]
    here = litert_js.CDN.removesuffix("/npm/") if not local else "'self'"
    policy = (  # nothing that a picture or a text could be sent to
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src 'unsafe-inline' 'unsafe-eval' {here}; connect-src {here}; "
        "form-action 'none'; base-uri 'none'"
    )
    names = [name for script in scripts for name in PANEL.findall(script)]
    panels = ", ".join(f"[{name}Applies, {name}Panel]" for name in names)
    template = string.Template((SOURCES / "page.html").read_text("utf-8"))
    return template.substitute(
        policy=policy,
        title=html.escape(described["name"]),
        style=(SOURCES / "style.css").read_text("utf-8"),
        imports=_json({"imports": modules}),
        runtime=_json(runtime),
        description=_json(described),
        model=base64.b64encode(model).decode(),
        script="\n".join([f"const PANELS = [{panels}];", *scripts]),
    )


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Gives the page and its files, without a line for each."""

    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self):
        self.send_header("Cache-Control", "no-cache")  # a page may be written again
        super().end_headers()

    def log_message(self, *args):
        pass


def serve(folder, say=print) -> None:
    """Serve a page's folder on 127.0.0.1, at a free port, until Ctrl-C.

    Args:
        folder: Its `web/`.
        say: Called with the address.
    """
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        say(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C stops the server)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("stopped")


def _signature(version, described, sides) -> dict:
    """A signature's inputs and outputs, with the kinds of the interface and the file's shapes."""
    result = {"limits": described["limits"]}
    for side in ("inputs", "outputs"):
        result[side] = {}
        for name, spec in sides[side].items():
            one = described[side].get(name, {"kind": "number"})
            batched = one.get("batched", True)
            if None in spec["shape"] or batched and spec["shape"] and spec["shape"][0] != 1:
                shape = ", ".join("any" if n is None else str(n) for n in spec["shape"])
                raise UserError(
                    f"{version}: {name} of its TFLite files is ({shape}), but a browser runs fixed "
                    "shapes, one example at a time; export it again with --tflite-batch 1"
                )
            result[side][name] = one | {"shape": spec["shape"], "dtype": spec["dtype"]}
    return result


def _windows(info, signatures):
    """Regions that the page looks at where a model is given some; None where it is not, or where
    so few of them do not cover a picture."""
    given = [one for signature in signatures.values() for one in signature["inputs"].values()]
    counts = [one["shape"][1] for one in given if one["kind"] == "regions"]
    try:
        return windows(info.image_shape[:2], counts[0]).tolist() if counts else None
    except UserError:
        return None


def _sampler(metadata) -> dict | None:
    """The sampler of a diffusion model: see `kerasdl.ops.diffusion.Sampler.table`."""
    task = catalog.row(metadata.model).task
    if task != "denoise":
        return None
    task = tasks.get(task)(metadata.info, metadata.recipe)
    sampler = task.sampler
    return {
        "name": sampler.name,
        "steps": sampler.steps,
        "clip": sampler.clip_range if sampler.clip else 0,
        "adds_noise": sampler.adds_noise,
        "classes": task.num_classes or 0,
        "guides": task.guides,
        "guidance": float(task.settings["guidance"]),
        "first": float(sampler.first(np.float64(1.0))),
        "table": sampler.table().tolist(),
        "sigmas": sampler.sigmas().tolist(),
    }


def _pictures(version) -> list[str]:
    """Encoded pictures of the model's requests, in base64."""
    file = version / "assets.extra" / REQUESTS / "serve_bytes.json"
    try:
        given = json.loads(file.read_text())["inputs"] if file.is_file() else {}
        texts = [
            one["b64"]
            for values in given.values()
            if isinstance(values, list)
            for one in values
            if isinstance(one, dict)
        ]
        return [base64.b64encode(base64.b64decode(text)).decode() for text in texts[:PICTURES]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: cannot be used ({error}); export it again") from None


def _json(value) -> str:
    """JSON that may stand in a script element: nothing in it ends one."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
