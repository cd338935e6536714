"""Pictures in the page of an exported model: codes, noise, and noise step by step."""

import base64
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasdl import catalog
from kerasdl.export.exporter import export
from kerasdl.inference.runtimes import TFLite
from kerasdl.ops import diffusion
from tests.export.examples import make_parts, quiet
from tests.export.pages import functions, html_of, opened

STEPS = 5
SHAPE = (1, 4, 4, 2)
SAMPLERS = {
    "ddim": (("cosine", "v"), {"name": "ddim"}),
    "ddim without clipping": (("linear", "eps"), {"name": "ddim", "clip": False}),
    "euler": (("ve", "x"), {"name": "euler"}),
    "heun": (("flow", "v"), {"name": "heun"}),
    "ddpm": (("cosine", "v"), {"name": "ddpm"}),
    "ddim with noise": (("linear", "x"), {"name": "ddim", "eta": 0.5}),
    "ddim beside the clipped": (("linear", "eps"), {"name": "ddim", "clip_noise": False}),
    "ddim clipped later": (("linear", "x"), {"name": "ddim", "clip_range": 0.5}),
    "discrete euler": (("cosine", "v"), {"name": "euler", "spacing": "leading"}),
    "discrete heun": (("linear", "v"), {"name": "heun", "karras": True, "clip": False}),
}


def version_of(name, folder, signatures, **settings):
    """The version of a small model whose weights are away from their start, and its file."""
    parts = make_parts(name, task_kwargs=settings, **catalog.module_of(name).TINY[name])
    rng = np.random.default_rng(0)
    for weight in parts.model.trainable_variables:
        weight.assign(weight + 0.05 * rng.standard_normal(weight.shape))
    card = export(parts, ("tflite",), folder, None, quiet, (), signatures)
    version = folder / name / str(card["version"])
    return version, TFLite(version / "tflite/float32.tflite")


@pytest.fixture(scope="module")
def guided(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guided")
    signatures = ("denoise", "sample_from")
    return version_of("ddpm_unet_small", folder, signatures, steps=STEPS, guidance=2.0)


def pixels(tab, which="canvas.view", k=0):
    """uint8 `(H, W)`, the red ones of a canvas."""
    script = "(canvas) => canvas.toDataURL()"
    url = tab.locator(which).nth(k).evaluate(script)
    image = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
    return np.asarray(image.convert("RGB"))[..., 0]


def shown(image):
    """The pixels of floats in [0, 1] `(1, H, W, C)`, as they are shown."""
    return np.round(255 * np.asarray(image)[0, ..., 0])


def finished(tab):
    """Waits until all of a panel may be used again."""
    tab.wait_for_function(
        "[...document.querySelectorAll('section button.main')].every((one) => !one.disabled)"
    )
    assert tab.is_hidden("section > [role=alert]"), tab.inner_text("section > [role=alert]")


@pytest.mark.parametrize("kind", SAMPLERS)
def test_steps_are_those_of_the_sampler(chromium, kind):
    (schedule, prediction), settings = SAMPLERS[kind]
    process = diffusion.Diffusion(schedule, prediction)
    sampler = diffusion.Sampler(process, steps=STEPS, **settings)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(SHAPE).astype("float32")
    added = rng.standard_normal((STEPS, *SHAPE)).astype("float32")

    def predict(x, t):
        return 0.3 * x - tf.reshape(t, (-1, 1, 1, 1)) + 0.1

    x = sampler.first(noise)
    x = sampler.run(predict, tf.constant(x), noises=added).numpy()
    described = {
        "name": sampler.name,
        "steps": STEPS,
        "clip": sampler.clip_range if sampler.clip else 0,
        "adds_noise": sampler.adds_noise,
        "classes": 0,
        "first": float(sampler.first(np.float64(1.0))),
        "table": sampler.table().tolist(),
        "sigmas": sampler.sigmas().tolist(),
    }
    with functions(chromium, "runtime.js", "texts.js", "samples.js") as tab:
        made, seen = tab.evaluate(
            """async ([sampler, shape, noise, added]) => {
  const model = {run: async (name, {image, time}) => (
    {prediction: {data: image.data.map((x) => 0.3 * x - time.data[0] + 0.1)}})};
  const signatures = {denoise: {inputs: {image: {shape}}}}, seen = [];
  const settings = {label: null, guidance: 1, more: (i) => added[i].flat(4),
    onStep: (x, step) => { seen.push([step, x.length]); }};
  const start = Float32Array.from(noise.flat(4));
  return [[...await denoised(model, {sampler, signatures}, start, settings)], seen];
}""",
            [described, SHAPE, noise.tolist(), added.tolist()],
        )
    expected = np.clip((x + 1) / 2, 0, 1)
    np.testing.assert_allclose(np.reshape(made, SHAPE), expected, atol=1e-4)
    assert expected.std() > 0.05
    assert seen == [[i, noise.size] for i in range(STEPS + 1)]


def test_steps_give_what_sample_from_gives(chromium, guided):
    version, lite = guided
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((1, 8, 8, 2)).astype("float32")
    with opened(chromium, html_of(version)) as tab:
        results = {}
        for label, guidance in ((1, 1.0), (1, 2.0), (2, 0.0), (0, 0.5), (10, 2.0)):
            made = tab.evaluate(
                """async ([noise, label, guidance]) => {
  const model = await openModel(bytesOf(document.getElementById("model").textContent), "wasm");
  const settings = {label, guidance, more: null, onStep: () => true};
  return [...await denoised(model, description, Float32Array.from(noise), settings)];
}""",
                [noise.ravel().tolist(), label, guidance],
            )
            inputs = {"noise": noise, "label": np.array([label], "int32")}
            inputs["guidance"] = np.array([guidance], "float32")
            expected = lite.answer("sample_from", inputs)["image"]
            np.testing.assert_allclose(np.reshape(made, noise.shape), expected, atol=1e-3)
            results[label, guidance] = expected
        assert np.abs(results[1, 1.0] - results[1, 2.0]).max() > 1e-2


def test_the_panel_draws_step_by_step(chromium, guided):
    version, lite = guided
    with opened(chromium, html_of(version)) as tab:
        tab.select_option("section select >> nth=-1", "3")
        tab.get_by_label("Pictures").fill("2")
        tab.get_by_label("Seed").fill("7")
        tab.evaluate(
            "() => { window.steps = []; new MutationObserver(() => window.steps.push("
            "document.querySelector('progress').value)).observe("
            "document.querySelector('progress'), {attributes: true}); }"
        )
        tab.get_by_role("button", name="Draw", exact=True).click()
        finished(tab)
        assert tab.locator(".pictures canvas").count() == 2
        steps = tab.evaluate("window.steps")
        assert steps[: STEPS + 1] == pytest.approx([i / STEPS for i in range(STEPS + 1)])
        for k in range(2):
            noise = tab.evaluate(f"[...normals(128, mixed(7, {k}))]")
            inputs = {
                "noise": np.reshape(noise, (1, 8, 8, 2)).astype("float32"),
                "label": np.array([3], "int32"),
                "guidance": np.array([2], "float32"),  # of the settings
            }
            expected = shown(lite.answer("sample_from", inputs)["image"])
            assert np.abs(pixels(tab, ".pictures canvas", k) - expected).max() <= 1
        assert "2 of 2 pictures" in tab.inner_text("section:last-child [role=status]")
        tab.get_by_label("Guidance").fill("-1")
        tab.get_by_role("button", name="Draw", exact=True).click()
        assert "Guidance: must be a number" in tab.inner_text("section:last-child > [role=alert]")
        tab.get_by_label("Guidance").fill("1")
        tab.get_by_label("Pictures").fill("64")
        tab.get_by_role("button", name="Draw", exact=True).click()
        tab.wait_for_function("document.querySelectorAll('.pictures canvas').length > 1")
        tab.get_by_role("button", name="Stop").click()
        finished(tab)
        assert 0 < tab.locator(".pictures canvas").count() < 64
        assert not tab.errors
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_file_without_steps_draws_in_one_go(chromium, guided):
    version, lite = guided

    def without(described):
        described["sampler"] = None
        del described["signatures"]["denoise"]

    with opened(chromium, html_of(version, without)) as tab:
        tab.get_by_label("Pictures").fill("1")
        tab.get_by_label("Guidance").fill("1.5")
        tab.get_by_role("button", name="Draw", exact=True).click()
        finished(tab)
        noise = np.reshape(tab.evaluate("[...normals(128, mixed(0, 0))]"), (1, 8, 8, 2))
        inputs = {"noise": noise.astype("float32"), "label": np.array([0], "int32")}
        inputs["guidance"] = np.array([1.5], "float32")
        expected = shown(lite.answer("sample_from", inputs)["image"])
        assert np.abs(pixels(tab, ".pictures canvas") - expected).max() <= 1
        assert tab.locator("progress").count() == 0 and not tab.errors


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    return version_of("vae_mlp", tmp_path_factory.mktemp("codes"), ("reconstruct", "decode"))


def decoded(lite, code):
    return shown(lite.answer("decode", {"latent": np.array([code], "float32")})["image"])


def test_sliders_show_their_code(chromium, codes):
    version, lite = codes
    size = lite.interface()["decode"]["inputs"]["latent"]["shape"][1]
    with opened(chromium, html_of(version)) as tab:
        panel = tab.locator("section", has=tab.locator("input[type=range]"))
        canvas, ready = panel.locator("canvas.view").first, "(c) => c.width > 1"
        tab.wait_for_function(ready, arg=canvas.element_handle())
        before = decoded(lite, [0.0] * size)

        def assert_shows(expected):
            for _ in range(100):
                url = canvas.evaluate("(canvas) => canvas.toDataURL()").split(",")[1]
                image = Image.open(io.BytesIO(base64.b64decode(url))).convert("RGB")
                if np.abs(np.asarray(image)[..., 0] - expected).max() <= 1:
                    return
                tab.wait_for_timeout(50)
            raise AssertionError("shows another picture")

        assert_shows(before)
        sliders = panel.locator("input[type=range]")
        assert sliders.count() == min(size, 16)
        sliders.first.focus()
        tab.keyboard.press("End")
        after = decoded(lite, [3.0] + [0.0] * (size - 1))
        assert np.abs(after - before).max() > 2
        assert_shows(after)
        panel.get_by_label("Seed").fill("5")
        panel.get_by_text("Random").click()
        code = tab.evaluate(f"[...normals({size}, 5)]")
        assert_shows(decoded(lite, code))
        assert panel.get_by_label("Seed").input_value() == "6"
        assert float(sliders.first.input_value()) == pytest.approx(code[0], abs=0.01)
        panel.get_by_text("Walk").click()
        value = panel.locator("output").first
        seen = [value.inner_text()]
        for _ in range(100):
            tab.wait_for_timeout(50)
            seen.append(value.inner_text())
            if len(set(seen)) > 3:
                break
        assert len(set(seen)) > 3  # it moves
        panel.get_by_text("Stop").click()
        finished(tab)
        panel.get_by_text("All to 0").click()
        assert_shows(before)
        assert not tab.errors
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_walk_stands_still_where_motion_is_not_wanted(chromium, codes):
    version, lite = codes
    size = lite.interface()["decode"]["inputs"]["latent"]["shape"][1]
    with opened(chromium, html_of(version), reduced_motion="reduce") as tab:
        panel = tab.locator("section", has=tab.locator("input[type=range]"))
        panel.get_by_text("Walk").click()
        finished(tab)
        stills = panel.locator("canvas[aria-label*='on the way']")
        assert stills.count() == 8
        ends = [tab.evaluate(f"[...normals({size}, mixed(0, {k}))]") for k in (0, 1)]
        for k, code in ((0, ends[0]), (7, ends[1])):
            result = pixels(tab, "canvas[aria-label*='on the way']", k)
            assert np.abs(result - decoded(lite, code)).max() <= 1
        assert panel.locator("output").first.inner_text() == "0.00"


def test_codes_without_a_distribution_reach_further(chromium, codes):
    def without(described):
        del described["signatures"]["decode"]["inputs"]["latent"]["noise"]

    version, lite = codes
    size = lite.interface()["decode"]["inputs"]["latent"]["shape"][1]
    with opened(chromium, html_of(version, without)) as tab:
        slider = tab.locator("input[type=range]").first
        assert slider.get_attribute("max") == "10"
        tab.get_by_text("Random", exact=True).click()
        value = 3 * tab.evaluate(f"[...normals({size}, 0)]")[0]
        assert float(slider.input_value()) == pytest.approx(value, abs=0.01)
        assert tab.get_by_text("no distribution of their own").is_visible()


def test_a_generator_draws_a_grid_and_walks(chromium, tmp_path):
    version, lite = version_of("dcgan", tmp_path, ("generate", "discriminate"))
    latent = lite.interface()["generate"]["inputs"]["latent"]
    with opened(chromium, html_of(version)) as tab:
        distribution = tab.evaluate("description.signatures.generate.inputs.latent.noise")
        panel = tab.locator("section", has=tab.get_by_text("Draw 8 pictures"))
        panel.get_by_label("Seed").fill("3")
        panel.get_by_text("Draw 8 pictures").click()
        finished(tab)
        assert panel.locator(".pictures canvas").count() == 8
        for k in (0, 7):
            code = tab.evaluate(
                f"[...latentNumbers('{distribution['distribution']}', {latent['shape'][1]},"
                f" mixed(3, {k}))]"
            )
            image = lite.answer("generate", {"latent": np.array([code], "float32")})["image"]
            assert np.abs(pixels(tab, ".pictures canvas", k) - shown(image)).max() <= 1
        moving = "canvas[aria-label='The picture on the way']"
        assert tab.locator(moving).count() == 0
        panel.get_by_text("Walk").click()
        tab.wait_for_selector(moving)
        first = pixels(tab, moving)
        for _ in range(100):
            if (pixels(tab, moving) != first).any():
                break
            tab.wait_for_timeout(50)
        assert (pixels(tab, moving) != first).any()
        panel.get_by_role("button", name="Stop").click()
        finished(tab)
        assert not tab.errors


def test_numbers_of_a_code(chromium):
    with functions(chromium, "runtime.js", "texts.js", "samples.js") as tab:
        for distribution in ("normal", "uniform"):
            values = np.array(tab.evaluate(f"[...latentNumbers('{distribution}', 20000, 1)]"))
            assert abs(values.mean()) < 0.03 and abs(values.std() - 1) < 0.02
            assert (np.abs(values).max() > 2) == (distribution == "normal")
            a, b, half = tab.evaluate(
                f"() => {{ const [a, b] = [1, 2].map((n) => latentNumbers('{distribution}', 500,"
                f" n)); return [[...a], [...b], [...between(a, b, 0.5, '{distribution}')]]; }}"
            )
            middle = (np.array(a) + b) / 2
            if distribution == "normal":  # keeps its length
                assert np.linalg.norm(half) == pytest.approx(
                    (np.linalg.norm(a) + np.linalg.norm(b)) / 2, rel=1e-4
                )
                assert np.corrcoef(half, middle)[0, 1] > 0.999
            else:
                np.testing.assert_allclose(half, middle, atol=1e-6)
        message = tab.evaluate(
            "() => { try { latentNumbers('other', 3, 0) } catch (e) { return e.message } }"
        )
        assert message == "The distribution other is not in this page."
        seeds = tab.evaluate(
            "Array.from({length: 1000}, (_, i) => mixed(i % 10, Math.floor(i / 10)))"
        )
        assert len(set(seeds)) == 1000
