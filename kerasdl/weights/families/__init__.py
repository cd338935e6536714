"""The families of published weights, one small file for each architecture."""

import functools
import importlib

FILES = ("bert", "gpt2", "torch_recurrent")


@functools.cache
def families() -> tuple:
    """All of them."""
    return tuple(
        family
        for name in FILES
        for family in importlib.import_module(f"{__name__}.{name}").FAMILIES
    )
