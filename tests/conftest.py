"""What all tests share: a clean state, a seed, how they are spread over processes, their cost."""

import collections
import os
import resource
from unittest import mock

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    threads = max(1, os.cpu_count() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(threads))

# Files whose tests need not follow each other; those of one variant of a model do.
BATTERY = ("test_every_model", "test_every_model_trains", "test_every_model_exports")
APART = (*BATTERY, "test_remat", "test_resume", "test_strategy")
# They take longest, one after the other.
FIRST = ("test_readme", "test_kills", "test_fifty_kills_lose_nothing")


@pytest.fixture(autouse=True, scope="module")
def _fresh_kernels():
    """TensorFlow forgets the kernels that another file needed: setting its seed does it."""
    import tensorflow as tf

    tf.random.set_seed(0)


@pytest.fixture(autouse=True)
def _clean_state():
    """Every test starts from one seed, and leaves precision as it found it."""
    import keras

    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    # Not TensorFlow's own, which nothing here uses: it takes seconds to make the kernels again.
    with mock.patch("tensorflow.random.set_seed"):
        keras.utils.set_random_seed(0)
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def rng():
    """A seeded numpy generator."""
    import numpy as np

    return np.random.default_rng(0)


def _variant(item):
    """The variant of a model that a test of the battery is about, or None."""
    if item.path.stem not in BATTERY or not hasattr(item, "callspec"):
        return None
    return item.callspec.params.get("name")


def _group(item):
    """Tests of one group run in one process, in their order."""
    stem = item.path.stem
    if {"exported", "parts"} & set(item.fixturenames):
        return "exported"
    if variant := _variant(item):
        return f"{stem}-{variant}"
    return item.name if stem in APART else str(item.path)


@pytest.hookimpl(wrapper=True)  # before xdist's own, which puts groups into the tests' names
def pytest_collection_modifyitems(items):
    """Long groups first, and last the many short ones that keep all processes busy to the end."""

    def turn(item):
        first = item.path.stem in FIRST or item.name in FIRST
        return -1 if first else int(item.path.stem in APART)

    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=turn)
    return (yield)


# -- processor time -----------------------------------------------------------------------------


def _seconds():
    """Of the processor, that this process and all that it has started took."""
    from tests import fork_server

    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(u.ru_utime + u.ru_stime for u in used) + fork_server.seconds()


_last = _seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    global _last
    report = yield
    now = _seconds()
    if variant := _variant(item):
        report.user_properties.append(("processor", (variant, item.path.stem, now - _last)))
    _last = now
    return report


def pytest_terminal_summary(terminalreporter, config):
    """With --durations, how much of a processor each variant of the battery took."""
    table = collections.defaultdict(collections.Counter)
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "processor":
                    variant, stem, seconds = value
                    table[variant][stem] += seconds
    if config.option.durations is None or not table:
        return
    columns = sorted({stem for counts in table.values() for stem in counts})
    terminalreporter.section("seconds of a processor per variant")
    head = [stem.removeprefix("test_every_") for stem in columns]
    terminalreporter.line(f"{'':20}" + "".join(f"{h:>16}" for h in [*head, "all"]))
    for variant, counts in sorted(table.items(), key=lambda pair: -pair[1].total()):
        cells = [*(counts[c] for c in columns), counts.total()]
        terminalreporter.line(f"{variant:20}" + "".join(f"{c:16.1f}" for c in cells))
    total = sum(counts.total() for counts in table.values())
    terminalreporter.line(f"{len(table)} variants, {total / len(table):.1f} on average")
