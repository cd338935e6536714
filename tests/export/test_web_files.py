"""The files of an exported model's page, what has no page, and the server."""

import json
import os
import re
import signal
import threading
import urllib.request
from pathlib import Path

import pytest

from kerasdl.errors import UserError
from kerasdl.export import litert_js, web_page


@pytest.fixture(scope="module")
def version(exported):
    return Path(exported["folder"])


def test_written_beside_the_tflite_files(version, tmp_path, monkeypatch):
    monkeypatch.delenv("KERASDL_NODE_MODULES", raising=False)
    monkeypatch.chdir(tmp_path)
    page, note = web_page.write(version.parent)
    assert page == version / "web" / "index.html" and "cdn.jsdelivr.net" in note
    text = page.read_text()
    assert f"{litert_js.CDN}@litertjs/core@{litert_js.VERSION}/dist/index.js" in text
    assert "@litertjs/core/dist" not in text
    modules = tmp_path / "node_modules"
    for file in litert_js.FILES:
        (modules / file).parent.mkdir(parents=True, exist_ok=True)
        (modules / file).write_text(file)
    for given in (tmp_path, modules, None):
        page, note = web_page.write(version, "int8", given)
        assert str(modules) in note and "int8.tflite" in page.read_text()
        copied = sorted(p for p in page.parent.rglob("*") if p.is_file())
        assert len(copied) == 1 + len(litert_js.FILES)
    web_page.write(version, "int8", "cdn")
    assert [p.name for p in page.parent.iterdir()] == ["index.html"]
    assert not list(version.glob(".web*"))
    for given in (tmp_path / "absent", version):
        with pytest.raises(UserError, match="holds no @litertjs/core/dist/index.js; give a node_"):
            web_page.write(version, runtime=given)


def changed(version, tmp_path, change):
    """A copy of the card and the files of a version, with another card."""
    copy = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    for name in ("saved_model.pb", "tflite/float32.tflite"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((version / name).read_bytes())
    card = json.loads((version / "assets.extra/card.json").read_text())
    change(card)
    (copy / "assets.extra").mkdir()
    (copy / "assets.extra/card.json").write_text(json.dumps(card))
    return copy


def _batch(card, size):
    for sides in card["artifacts"]["tflite/float32"]["signatures"].values():
        sides["inputs"]["image"]["shape"][0] = size


def test_what_has_no_page(version, tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="exported model"):
            web_page.write(path)
    with pytest.raises(UserError, match="there is no exported model"):
        web_page.write(version / "assets.extra/model.keras")
    for size, text in ((None, "any"), (4, "4")):
        copy = changed(version, tmp_path, lambda card, size=size: _batch(card, size))
        with pytest.raises(UserError, match=rf"image .* \({text}, 8, 8, 1\).*--tflite-batch 1"):
            web_page.write(copy, runtime="cdn")
    copy = changed(version, tmp_path, lambda card: None)
    with pytest.raises(UserError, match="has no tflite/int8.tflite; its TFLite files: float32$"):
        web_page.write(copy, "int8", "cdn")
    reason = {"tflite/int8": "it lost too much"}
    copy = changed(
        version,
        tmp_path,
        lambda card: (card["artifacts"].pop("tflite/int8"), card["omitted"].update(reason)),
    )
    with pytest.raises(UserError, match=r"has no tflite/int8.tflite \(it lost too much\)"):
        web_page.write(copy, "int8", "cdn")
    copy = changed(version, tmp_path, lambda card: card.pop("artifacts"))
    with pytest.raises(UserError, match="card.json does not describe its files"):
        web_page.write(copy, runtime="cdn")
    copy = changed(version, tmp_path, lambda card: None)
    with open(copy / "tflite/float32.tflite", "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="float32.tflite: is not what was exported"):
        web_page.write(copy, runtime="cdn")
    assert not list(tmp_path.rglob("web"))


def test_served_until_interrupted(tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("the page")
    (tmp_path / "a.wasm").write_bytes(b"\0asm")
    said, answers = [], []

    def ask(address):
        for name in ("", "a.wasm"):
            with urllib.request.urlopen(address + name, timeout=10) as reply:
                answers.append((reply.read(), reply.headers["Content-Type"]))
        os.kill(os.getpid(), signal.SIGINT)

    def say(text):
        said.append(text)
        if address := re.search(r"http://127\.0\.0\.1:\d+/", text):
            threading.Thread(target=ask, args=(address[0],)).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        web_page.serve(tmp_path, say)
    finally:
        signal.signal(signal.SIGINT, before)
    assert answers == [(b"the page", "text/html"), (b"\0asm", "application/wasm")]
    assert "Ctrl-C" in said[0] and said[-1] == "stopped"
