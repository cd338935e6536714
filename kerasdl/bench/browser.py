"""TFLite files in a browser: LiteRT.js in a headless Chromium, with the answers as numpy arrays.

The runtime is the npm package `@litertjs/core` with what it needs, in a `node_modules` folder; the
browser is Debian's, driven by Playwright. A server on 127.0.0.1 gives both their files.
"""

import base64
import contextlib
import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import numpy as np

from kerasdl.errors import UserError
from kerasdl.export import litert_js
from kerasdl.inference import runtimes

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (  # no sandbox, as root has none; and nothing that looks for other computers
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",  # a camera, for pages that may have it
)
INSTALL = "apt-get install chromium && npm install @litertjs/core && pip install playwright"
MISSING = f"a browser with LiteRT.js is missing: {INSTALL}"
PAGE = """<!doctype html><title>LiteRT.js</title>
<script type="importmap">{"imports": %(modules)s}</script>
<script type="module">
import {loadLiteRt, loadAndCompile, Tensor} from "@litertjs/core";
const TYPES = {float32: Float32Array, int32: Int32Array, uint8: Uint8Array, int8: Int8Array};
const encode = (a) => {
  const bytes = new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) {
    text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  }
  return btoa(text);
};
const decode = (text, dtype) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new TYPES[dtype](bytes.buffer);
};
let model = null;
window.open_file = async (url, threads) => {
  model?.delete();
  model = null;
  model = await loadAndCompile(url, {accelerator: "wasm", cpuOptions: {numThreads: threads}});
  return Object.keys(model.signatures);
};
window.answer = async (signature, inputs, times) => {
  const tensors = {};
  for (const [name, {data, dtype, shape}] of Object.entries(inputs)) {
    tensors[name] = new Tensor(decode(data, dtype), shape);
  }
  const taken = [];
  let outputs = null;
  for (let i = 0; i < times; i++) {
    for (const tensor of Object.values(outputs ?? {})) tensor.delete();
    const start = performance.now();
    outputs = await model.run(signature, tensors);
    taken.push(performance.now() - start);
  }
  const result = {};
  for (const [name, tensor] of Object.entries(outputs)) {
    const values = await tensor.data();
    result[name] = {data: encode(values), dtype: tensor.type.dtype,
                    shape: [...tensor.type.layout.dimensions]};
    tensor.delete();
  }
  for (const tensor of Object.values(tensors)) tensor.delete();
  return {outputs: result, milliseconds: taken};
};
await loadLiteRt("/runtime/%(wasm)s");
window.ready = true;
</script>
"""


def executable() -> str | None:
    """The path of the browser, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Gives the page, files of the runtime, and those of `files`."""

    def __init__(self, *args, page="", roots=None, **more):
        self.page, self.roots = page.encode(), roots
        super().__init__(*args, **more)

    def translate_path(self, path):
        kind, _, rest = path.lstrip("/").partition("/")
        root = self.roots.get(kind)
        whole = Path(root, rest.split("?")[0]).resolve() if root else Path("/nothing")
        return str(whole) if root and whole.is_relative_to(Path(root).resolve()) else "/nothing"

    def do_GET(self):
        if self.path != "/":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(page: str, **roots):
    """A server on 127.0.0.1 of a page and of folders by name; yields its address."""
    handler = functools.partial(_Handler, page=page, roots=roots)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def chromium():
    """A headless browser, as Playwright's.

    Raises:
        UserError: It, or what drives it, is not installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise UserError(MISSING) from None
    if not (path := executable()):
        raise UserError(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def litert(folder, seconds: float = 60.0, browser=None):
    """A browser with LiteRT.js, that opens the TFLite files below a folder.

    Args:
        folder: Holds them.
        seconds: That anything may take.
        browser: Of `chromium`; one of its own if None.

    Yields:
        `path -> Browser`.

    Raises:
        UserError: Something is not installed.
    """
    modules = litert_js.folder()
    if not modules:
        raise UserError(MISSING)
    named = json.dumps({name: f"/runtime/{file}" for name, file in litert_js.MODULES.items()})
    page = PAGE % {"modules": named, "wasm": litert_js.WASM}
    own = contextlib.nullcontext(browser) if browser else chromium()
    with serving(page, runtime=modules, files=folder) as address, own as browser:
        tab = browser.new_page()
        tab.set_default_timeout(1e3 * seconds)
        tab.goto(address)
        tab.wait_for_function("window.ready")
        yield lambda path, threads=1: Browser(path, tab, folder, threads)


class Browser(runtimes.TFLite):
    """A TFLite file's signatures in a browser, by LiteRT.js on its processor (WebAssembly).

    Args:
        path: The file.
        tab: The page that runs it; it has one file open at a time.
        folder: Below which it lies.
        threads: Of WebAssembly, where the page may have them.
    """

    def __init__(self, path, tab, folder, threads: int = 1):
        super().__init__(path)
        self.tab = tab
        url = f"/files/{Path(path).resolve().relative_to(Path(folder).resolve())}"
        self.tab.evaluate("([url, threads]) => open_file(url, threads)", [url, threads])

    def run(self, signature: str, inputs: dict) -> dict:
        return self.timed(signature, inputs)[0]

    def timed(self, signature: str, inputs: dict, times: int = 1) -> tuple[dict, list[float]]:
        """The outputs, and the milliseconds of each of several runs."""
        given = {
            name: {
                "data": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode(),
                "dtype": value.dtype.name,
                "shape": list(value.shape),
            }
            for name, value in inputs.items()
        }
        answer = self.tab.evaluate(
            "([signature, inputs, times]) => answer(signature, inputs, times)",
            [signature, given, times],
        )
        return {
            name: np.frombuffer(base64.b64decode(one["data"]), one["dtype"]).reshape(one["shape"])
            for name, one in answer["outputs"].items()
        }, answer["milliseconds"]
