"""One small ResNet, trained for seconds on real digits and exported once for all tests."""

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.export.examples import make_parts, quiet

SIZES = {"dim": 16, "depth": 1, "num_heads": 2, "mlp_dim": 16}  # of small text models


@pytest.fixture(scope="session")
def parts():
    return make_parts(epochs=2, depths=(1, 1, 1))


@pytest.fixture(scope="session")
def exported(parts, tmp_path_factory):
    """The card of a version with all files."""
    from kerasdl.export.exporter import export

    folder = tmp_path_factory.mktemp("saved_models")
    return export(parts, ("savedmodel", "tflite"), folder, "digits-net", quiet)


@pytest.fixture(scope="session")
def writer(tmp_path_factory):
    """The folder of a small language model with the context 24."""
    from kerasdl.export.exporter import export
    from kerasdl.models.sequence import gpt

    sizes = {**gpt.TINY["gpt2_small"], **SIZES, "max_length": 24}
    parts = make_parts("gpt2_small", **sizes)
    folder = tmp_path_factory.mktemp("writer")
    return Path(export(parts, ("tflite",), folder, None, quiet)["folder"])


@pytest.fixture(scope="session")
def translator(tmp_path_factory):
    """The folder of a small Transformer."""
    from kerasdl.export.exporter import export
    from kerasdl.models.sequence import transformer

    sizes = {**transformer.TINY["transformer_small"], **SIZES}
    parts = make_parts("transformer_small", **sizes)
    folder = tmp_path_factory.mktemp("translator")
    return Path(export(parts, ("tflite",), folder, None, quiet)["folder"])


@pytest.fixture(scope="session")
def replay(tmp_path_factory):
    """The compiled program of `replay.cc`."""
    from kerasdl.bench.native import compile_replay

    if not shutil.which("g++"):
        pytest.skip("needs g++")
    return compile_replay(tmp_path_factory.mktemp("replay"))


@pytest.fixture(scope="session")
def pictures():
    """Encoded images of several kinds and sizes, and the pixels they were made from."""
    import tensorflow as tf

    rng = np.random.default_rng(0)

    def pixels(h, w, c):
        return rng.integers(0, 256, (h, w, c), np.uint8)

    return {
        "gray": tf.io.encode_png(pixels(8, 8, 1)).numpy(),
        "gray_alpha": tf.io.encode_png(pixels(8, 8, 2)).numpy(),
        "color": tf.io.encode_png(pixels(8, 8, 3)).numpy(),
        "rgba": tf.io.encode_png(pixels(8, 8, 4)).numpy(),
        "larger": tf.io.encode_png(pixels(23, 31, 3)).numpy(),
        "smaller": tf.io.encode_png(pixels(5, 3, 1)).numpy(),
        "jpeg": tf.io.encode_jpeg(pixels(16, 16, 3)).numpy(),
        "gray_jpeg": tf.io.encode_jpeg(pixels(16, 16, 1)).numpy(),
    }


def pytest_collection_modifyitems(items):
    """TensorFlow 2.21's variables under NumPy 2: nothing that this project could call otherwise."""
    for item in items:
        item.add_marker(
            pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
        )


@pytest.fixture(scope="session")
def chromium_or_none():
    """A browser where LiteRT.js is installed too; None where something is missing (a failure where
    `CI` is set). There is one in a process: Playwright does not drive two."""
    from kerasdl.bench import browser
    from kerasdl.errors import UserError
    from kerasdl.export import litert_js

    with contextlib.ExitStack() as stack:
        result = None
        try:
            if not litert_js.folder():
                raise UserError(browser.MISSING)
            result = stack.enter_context(browser.chromium())
        except UserError as error:
            if os.environ.get("CI"):
                raise
            print(error)
        yield result


@pytest.fixture
def chromium(chromium_or_none):
    """The browser; skips where there is none."""
    from kerasdl.bench import browser

    if chromium_or_none is None:
        pytest.skip(browser.MISSING)
    return chromium_or_none


@pytest.fixture(scope="session")
def open_in_browser(tmp_path_factory, chromium_or_none):
    """`path -> Browser` of a TFLite file below the tests' folder; None where there is no
    browser."""
    from kerasdl.bench import browser

    if chromium_or_none is None:
        yield None
        return
    with browser.litert(tmp_path_factory.getbasetemp(), browser=chromium_or_none) as open_file:
        yield open_file
