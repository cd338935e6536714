"""Pages of exported models in a browser, whose functions tests can call."""

import contextlib

from kerasdl.bench.browser import serving
from kerasdl.export import litert_js, web_page


def html_of(version, change=None):
    """The page of a version's float32 file, as one plain script: its functions are global.

    Args:
        version: Its folder.
        change: Called with the description.
    """
    described = web_page.describe(version, "float32")
    if change:
        change(described)
    text = web_page.page(described, (version / "tflite/float32.tflite").read_bytes(), local=True)
    return text.replace('<script type="module">', "<script>")


@contextlib.contextmanager
def opened(chromium, text, ready=True, **context):
    """A tab with a page of HTML; `errors` are those that nothing has caught."""
    with serving(text, runtime=litert_js.folder()) as address:
        context = chromium.new_context(viewport={"width": 400, "height": 900}, **context)
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        tab.errors = []
        tab.on("pageerror", lambda error: tab.errors.append(str(error)))
        tab.goto(address)
        if ready:
            tab.wait_for_function("document.body.dataset.state === 'ready'")
        try:
            yield tab
        finally:
            context.close()


@contextlib.contextmanager
def functions(chromium, *names):
    """A tab with the functions of some of the page's scripts, and without a model."""
    data = "".join(
        f"<script type=application/json id={name}>{{}}</script>"
        for name in ("runtime", "description")
    )
    with opened(chromium, f"<!doctype html>{data}", ready=False) as tab:
        for name in names:
            tab.add_script_tag(content=(web_page.SOURCES / name).read_text("utf-8"))
        yield tab
