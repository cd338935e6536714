"""The page of an exported model in a real browser: drawn and dropped pictures, what is amiss."""

import base64
import contextlib
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasdl.bench.browser import serving
from kerasdl.data import images
from kerasdl.export import litert_js, web_page
from kerasdl.ops.colors import class_colors

LINES = {  # of digits, in proportions of the drawing pad
    "0": [
        (0.5 - 0.25 * math.sin(a), 0.5 - 0.38 * math.cos(a))
        for a in np.linspace(0, 2 * math.pi, 33)
    ],
    "1": [(0.38, 0.3), (0.52, 0.12), (0.52, 0.88)],
    "7": [(0.25, 0.14), (0.75, 0.14), (0.45, 0.88)],
}
SHAPES = (((8, 8, 1), images.Fit()), ((32, 24, 3), images.Fit("crop", 0.875)))
SHAPES += (((24, 40, 3), images.Fit("pad")), ((16, 16, 1), images.Fit("pad", 0.9)))


@pytest.fixture(scope="module")
def version(exported):
    return Path(exported["folder"])


@pytest.fixture(scope="module")
def described(version):
    return web_page.describe(version, "float32")


@pytest.fixture(scope="module")
def html(version, described):
    return web_page.page(described, (version / "tflite/float32.tflite").read_bytes(), local=True)


@pytest.fixture(scope="module")
def served(version):
    """`encoded picture -> probabilities` of the SavedModel."""
    function = tf.saved_model.load(str(version)).signatures["serve_bytes"]
    return lambda content: function(image_bytes=tf.constant([content]))["probabilities"][0].numpy()


@pytest.fixture
def show(chromium):
    """Open a page of HTML: `(text, prepare=JavaScript, width=pixels) -> tab`."""
    with contextlib.ExitStack() as stack:

        def show(text, prepare="", width=400, runtime=None, permissions=(), cdn=None):
            runtime = litert_js.folder() if runtime is None else runtime
            address = stack.enter_context(serving(text, runtime=runtime))
            size = {"width": width, "height": 900}
            context = chromium.new_context(viewport=size, permissions=list(permissions))
            stack.callback(context.close)
            tab = context.new_page()
            tab.set_default_timeout(30_000)
            tab.errors = []
            tab.on("pageerror", lambda error: tab.errors.append(str(error)))
            if prepare:
                tab.add_init_script(prepare)
            if cdn:
                tab.route(f"{litert_js.CDN}**", cdn)
            tab.goto(address)
            return tab

        yield show


@pytest.fixture
def tools(show):
    """A tab with the functions of the page's scripts, and without its model."""
    data = "".join(
        f"<script type=application/json id={name}>{{}}</script>"
        for name in ("runtime", "description")
    )
    tab = show(f"<!doctype html>{data}")
    for name in ("runtime.js", "pixels.js", "images.js"):
        tab.add_script_tag(content=(web_page.SOURCES / name).read_text())
    return tab


def ready(tab):
    tab.wait_for_function("document.body.dataset.state")
    assert tab.evaluate("document.body.dataset.state") == "ready", tab.inner_text("header")
    return tab


def probabilities(tab):
    """Those of the bars, by class."""
    rows = [row.inner_text().splitlines() for row in tab.locator(".bars li").all()]
    return {name: float(text.removesuffix(" %")) / 100 for name, text in rows}


def draw(tab, points):
    tab.locator("canvas.pad").scroll_into_view_if_needed()
    box = tab.locator("canvas.pad").bounding_box()
    for i, (x, y) in enumerate(points):
        tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if i == 0:
            tab.mouse.down()
    tab.mouse.up()


def drop(tab, content, name="picture.png"):
    text = _base64(content)
    transfer = tab.evaluate_handle(
        "([text, name]) => { const data = new DataTransfer(); data.items.add(new File("
        "[Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name)); return data; }",
        [text, name],
    )
    tab.dispatch_event("section", "drop", {"dataTransfer": transfer})


def png(pixels):
    return tf.io.encode_png(pixels).numpy()


def waves(height, width, channels):
    """Pixels with slow and fast changes."""
    y, x, c = np.meshgrid(*map(np.arange, (height, width, channels)), indexing="ij")
    return (127.5 + 127 * np.sin(x / 5 + c) * np.cos(y / 3 - 2 * c + x * y / 900)).astype("uint8")


def test_a_drawn_digit_is_classified_as_the_saved_model_does(show, html, served):
    tab, right = ready(show(html)), 0
    for digit, points in LINES.items():
        tab.click("text=Clear")
        tab.evaluate("document.querySelector('.bars')?.remove()")
        draw(tab, points)
        tab.wait_for_selector(".bars li")
        url = tab.evaluate("document.querySelector('canvas.pad').toDataURL()")
        expected = served(base64.b64decode(url.split(",")[1]))
        result = probabilities(tab)
        assert len(result) == 10
        assert next(iter(result)) == str(expected.argmax())
        for k, value in enumerate(expected):
            assert result[str(k)] == pytest.approx(value, abs=1e-3)
        right += str(expected.argmax()) == digit
    assert right >= 1
    assert re.fullmatch(r"\d+\.\d ms, wasm", tab.inner_text("#latency"))
    assert not tab.errors


def test_dropped_chosen_and_test_pictures(show, html, served, described, tmp_path):
    tab = ready(show(html))
    for content in (png(waves(23, 31, 4)), png(waves(5, 90, 1))):
        tab.evaluate("document.querySelector('.bars')?.remove()")
        drop(tab, content)
        tab.wait_for_selector(".bars li")
        for name, value in probabilities(tab).items():
            assert value == pytest.approx(served(content)[int(name)], abs=2e-3)
    (tmp_path / "chosen.png").write_bytes(content)
    before = probabilities(tab)
    tab.focus(".samples button")
    tab.evaluate("document.querySelector('.bars').remove()")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".bars li")
    known = served(base64.b64decode(described["pictures"][0]))
    assert next(iter(probabilities(tab))) == str(known.argmax())
    tab.evaluate("document.querySelector('.bars').remove()")
    tab.set_input_files("input[type=file]", tmp_path / "chosen.png")
    tab.wait_for_selector(".bars li")
    assert probabilities(tab) == before


PREPROCESS = """async ([files, cases]) => {
    const results = [];
    for (const text of files) {
        const picture = await decodePicture(new Blob([bytesOf(text)]));
        results.push(cases.map(([shape, fit]) => [...preprocess(picture, shape, fit)]));
    }
    return results;
}"""


def _base64(content):
    return base64.b64encode(content).decode()


def _transparent(content):
    return "A" in Image.open(io.BytesIO(content)).mode


def test_pixels_are_those_of_serve_bytes(tools):
    files = [
        png(waves(h, w, c))
        for h, w in ((8, 8), (5, 3), (1, 1), (211, 160), (31, 200))
        for c in (1, 2, 3, 4)
    ]
    for kind, more in (("BMP", {}), ("GIF", {}), ("WEBP", {"lossless": True})):
        file = io.BytesIO()
        Image.fromarray(waves(40, 30, 3)).save(file, kind, **more)
        files.append(file.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees, which only counts in a JPEG
    for kind in ("PNG", "JPEG"):
        file = io.BytesIO()
        Image.fromarray(waves(40, 30, 3)).save(file, kind, exif=exif)
        files.append(file.getvalue())
    cases = [[list(shape), {"mode": fit.mode, "fraction": fit.fraction}] for shape, fit in SHAPES]
    for canvas in (False, True):  # of browsers without WebCodecs: see `decodeOnCanvas`
        if canvas:
            tools.evaluate("delete window.ImageDecoder")
            files = [file for file in files if not (_transparent(file) or b"eXIf" in file)]
        results = tools.evaluate(PREPROCESS, [[_base64(file) for file in files], cases])
        for file, given in zip(files, results, strict=True):
            for (shape, fit), values in zip(SHAPES, given, strict=True):
                expected = images.read(tf.constant(file), shape, fit).numpy().astype(int).ravel()
                values = np.array(values) * 255
                assert np.abs(values - np.round(values)).max() < 1e-4
                steps = np.abs(np.round(values) - expected)
                is_jpeg = file.startswith(b"\xff\xd8")
                assert steps.max() <= (5 if is_jpeg else 1), (shape, fit)
                assert is_jpeg or (steps == 0).mean() >= 0.98


BAD = {
    "notes.txt": (b"no picture", "notes.txt: is no picture that can be read; PNG"),
    "half.png": (png(waves(90, 90, 3))[:700], "half.png: is a broken picture"),
    "empty.jpg": (b"", "empty.jpg: is no picture"),
    "head.jpg": (b"\xff\xd8\xff\xe0" + b"\0" * 50, "head.jpg: is a broken picture"),
}


def test_wrong_pictures_get_a_sentence_and_the_page_goes_on(show, html):
    tab = ready(show(html))
    for name, (content, message) in BAD.items():
        drop(tab, content, name)
        tab.wait_for_function(
            "(text) => document.querySelector('section > [role=alert]').textContent"
            ".startsWith(text)",
            arg=message,
        )
        assert tab.inner_text("section > [role=alert]").count(".") <= 3
    tab.dispatch_event(
        "section", "drop", {"dataTransfer": tab.evaluate_handle("new DataTransfer()")}
    )
    assert "no file" in tab.inner_text("section > [role=alert]")
    tab.click("text=Camera")  # which may not be used
    tab.wait_for_function(
        "document.querySelector('section > [role=alert]').textContent.includes('camera cannot')"
    )
    assert tab.is_visible("text=Camera") and tab.is_hidden("text=Take the picture")
    drop(tab, png(waves(9, 9, 3)))
    tab.wait_for_selector(".bars li")
    assert tab.is_hidden("section > [role=alert]") and not tab.errors


def test_a_picture_from_the_camera(show, html):
    tab = ready(show(html, permissions=["camera"]))
    tab.click("text=Camera")
    tab.click("text=Take the picture")
    tab.wait_for_selector(".bars li")
    tab.click("text=Stop the camera")
    assert tab.is_hidden("video") and not tab.errors
    assert tab.evaluate("document.activeElement.textContent") == "Camera"
    tab.evaluate("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    tab.click("text=Camera")
    assert tab.inner_text("section > [role=alert]").startswith("No camera: browsers give it to")


def test_by_the_cdn_and_by_nothing_else(show, version, described):
    asked = []

    def give(route):
        file = route.request.url.removeprefix(litert_js.CDN)
        asked.append(file)
        route.fulfill(
            path=litert_js.folder() / file.replace(f"@{litert_js.VERSION}", "", 1),
            content_type="application/wasm" if file.endswith("wasm") else "text/javascript",
            headers={"Access-Control-Allow-Origin": "*"},
        )

    lite = (version / "tflite/float32.tflite").read_bytes()
    text = web_page.page(described, lite, local=False)
    tab = ready(show(text, cdn=give))
    assert len(asked) >= 3 and all(f"@{litert_js.VERSION}/" in file for file in asked)
    refused = """new Promise((done) => {
        addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
        fetch("https://other.test/").catch(() => {});
    })"""
    assert tab.evaluate(refused) == "connect-src"
    message = failed(show(text, cdn=lambda route: route.abort()))
    assert message.startswith(f"LiteRT.js could not be loaded from {litert_js.CDN}")
    assert message.endswith("Is there a connection to the internet?")


def failed(tab):
    """The sentence of a page whose model cannot run, which its panel repeats."""
    tab.wait_for_function("document.body.dataset.state === 'failed'")
    message = tab.inner_text("header [role=alert]")
    drop(tab, png(waves(9, 9, 3)))
    tab.wait_for_selector("section > [role=alert]:not(:empty)")
    assert tab.inner_text("section > [role=alert]") == message
    assert tab.locator("#figures tr").count() > 3 and not tab.errors
    return message


def test_a_browser_without_simd(show, html):
    message = failed(show(html, prepare="WebAssembly.validate = () => false"))
    assert message.startswith("This browser cannot run the model: it lacks WebAssembly SIMD")


def test_missing_files_of_the_runtime(show, html, tmp_path):
    assert "LiteRT.js could not be loaded from" in failed(show(html, runtime=tmp_path))
    for file in litert_js.FILES:
        if not file.endswith(".wasm"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes((litert_js.folder() / file).read_bytes())
    message = failed(show(html, runtime=tmp_path))
    assert message.startswith("The WebAssembly file could not be loaded from ./runtime/")


def test_a_model_that_does_not_load(show, described):
    message = failed(show(web_page.page(described, b"no model", local=True)))
    assert message.startswith("The model could not be loaded by wasm: ")


def test_names_are_texts(show, version, described):
    evil = "</script><img src=x onerror='window.bad = 1'><!--"
    renamed = json.loads(json.dumps(described)) | {"name": evil, "dataset": evil}
    outputs = renamed["signatures"]["serving_default"]["outputs"]
    outputs["label"]["class_names"] = [f"{evil}{k}" for k in range(10)]
    renamed["figures"].append([evil, evil])
    lite = (version / "tflite/float32.tflite").read_bytes()
    tab = ready(show(web_page.page(renamed, lite, local=True)))
    drop(tab, png(waves(9, 9, 3)))
    tab.wait_for_selector(".bars li")
    assert tab.inner_text("h1") == evil and evil in tab.inner_text(".bars li >> nth=0")
    assert tab.evaluate("[window.bad, document.querySelectorAll('img').length]") == [None, 1]


def test_narrow_labeled_and_usable_by_keyboard(show, html):
    tab = ready(show(html, width=400))
    draw(tab, LINES["0"])
    tab.wait_for_selector(".bars li")
    tab.click("summary")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    nameless = tab.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter((node) =>"
        " !node.labels?.length && !node.textContent.trim() && !node.querySelector('img[alt]'))"
        ".length"
    )
    assert nameless == 0
    tab.focus("#backend")
    reached = []
    for _ in range(4):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.type"))
    assert reached == ["file", "button", "button", "button"]
    assert tab.locator("[aria-live], [role=status]").count() >= 2


def test_boxes_and_masks_lie_where_the_picture_was_taken(tools):
    rng = np.random.default_rng(0)
    for fit, (height, width) in (("crop", (90, 40)), ("pad", (30, 80)), ("squash", (50, 20))):
        way = images.Fit(fit, 0.8)
        boxes = rng.random((5, 4)).astype("float32")
        place = way.place(png(waves(height, width, 3)), (16, 24)).numpy()
        expected = images.in_whole(tf.constant(boxes), place[None]).numpy()
        result = tools.evaluate(
            "([boxes, height, width, fit]) => { const taken = fitBox(height, width, [16, 24], fit);"
            " return boxes.map((box) => inWhole(box, {height, width}, taken)); }",
            [boxes.tolist(), height, width, {"mode": fit, "fraction": 0.8}],
        )
        np.testing.assert_allclose(result, expected, atol=1e-6)
    colors = class_colors(3)
    drawn = tools.evaluate(
        """(colors) => {
  const picture = {data: new Uint8Array(40 * 80 * 4), width: 80, height: 40};
  const description = {colors, fit: {mode: "pad", fraction: 1}, signatures: {s: {outputs: {
    boxes: {kind: "boxes"}, label: {kind: "label", class_names: ["cat", "dog"]},
    masks: {kind: "instances"}, mask: {kind: "mask", class_names: ["none", "cat", "dog"]}}}}};
  const masks = new Uint8Array(2 * 64).fill(1, 32, 64);
  const objects = {boxes: {data: Float32Array.of(0.5, 0, 0.75, 1, 0, 0, 0, 0), shape: [1, 2, 4]},
    label: {data: Int32Array.of(1, -1), shape: [1, 2]}, masks: {data: masks, shape: [1, 2, 8, 8]},
    scores: {data: Float32Array.of(0.9, 0.8), shape: [1, 2]}};
  const pixels = {mask: {data: Int32Array.from({length: 64}, (_, i) => i >= 32 ? 1 : 0),
    shape: [1, 8, 8]}};
  return [objects, pixels].map((outputs) => {
    const root = element("div", {}, ...shown(outputs, "s", picture, [8, 8, 3], description));
    const canvas = root.querySelector("canvas"), at = (x, y) =>
      [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
    return [root.textContent, canvas.width, canvas.height, at(300, 60), at(300, 260)];
  });
}""",
        (255 * colors).round().tolist(),
    )
    for (text, width, height, above, below), words in zip(
        drawn, ("dog 0.90 at 0.500 0.000 1.000 1.000", "none: 50.0 %cat: 50.0 %"), strict=True
    ):
        assert words in text and (width, height) == (640, 320)
        assert above == [0, 0, 0, 255] and max(below[:3]) > 100


def test_random_numbers(tools):
    values = np.array(tools.evaluate("[...normals(20001, 3)]"))
    assert len(values) == 20001 and np.isfinite(values).all()
    assert abs(values.mean()) < 0.03 and abs(values.std() - 1) < 0.02
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.03
    again = tools.evaluate("[[...normals(9, 3)], [...normals(9, 4)]]")
    np.testing.assert_array_equal(again[0], values[:9])
    assert again[0] != again[1]
    assert 0 <= min(tools.evaluate("[...uniforms(999, 0)]")) < 0.01


def test_signatures_that_a_picture_is_enough_for(tools):
    image, regions, number = (
        {"kind": "image", "shape": [1, 8, 8, 3]},
        {"kind": "regions", "shape": [1, 4, 4]},
        {"kind": "number", "shape": [1]},
    )
    signatures = {
        "plain": {"inputs": {"image": image}},
        "regions": {"inputs": {"regions": regions, "picture": image}},
        "more": {"inputs": {"image": image, "time": number}},
        "two": {"inputs": {"image": image, "other": image}},
        "channels": {"inputs": {"image": {"kind": "image", "shape": [1, 8, 8, 5]}}},
        "none": {"inputs": {"latent": number}},
    }
    ask = "(one) => [imageSignatures(one), imagesApplies(one)]"
    for windows, expected in (
        (None, {"plain": "image"}),
        ([[0, 0, 1, 1]] * 4, {"plain": "image", "regions": "picture"}),
    ):
        result = tools.evaluate(ask, {"windows": windows, "signatures": signatures})
        assert result == [expected, True]
    assert tools.evaluate(ask, {"windows": None, "signatures": {}}) == [{}, False]
