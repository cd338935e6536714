"""Where LiteRT.js lies: the npm package `@litertjs/core` with what it needs, or the npm CDN."""

import os
from pathlib import Path

from kerasdl.errors import UserError

VERSION = "2.5.3"  # what the CDN gives
CDN = "https://cdn.jsdelivr.net/npm/"
CORE, UTILS = "@litertjs/core", "@litertjs/wasm-utils"
MODULES = {name: f"{name}/dist/index.js" for name in (CORE, UTILS)}  # below node_modules
WASM = f"{CORE}/wasm/"
# With relaxed SIMD, and without
BINARIES = tuple(
    f"{WASM}litert_wasm_{kind}.{ending}"
    for kind in ("internal", "compat_internal")
    for ending in ("js", "wasm")
)
FILES = (*MODULES.values(), *BINARIES)


def folder(given=None) -> Path | None:
    """The `node_modules` that holds LiteRT.js.

    Args:
        given: It, or the folder that it is in; if None that of KERASDL_NODE_MODULES, or of this
            folder or one above it.

    Returns:
        None where there is none, and none was given.

    Raises:
        UserError: The given one does not hold it.
    """
    here = Path.cwd()
    folders = [p / "node_modules" for p in (here, *here.parents)]
    if set_by := given or os.environ.get("KERASDL_NODE_MODULES"):
        folders = [Path(set_by), Path(set_by) / "node_modules"]
    result = next((f for f in folders if all((f / m).is_file() for m in FILES)), None)
    if given and not result:
        missing = next(m for m in FILES if not (Path(given) / m).is_file())
        raise UserError(
            f"{given}: holds no {missing}; give a node_modules folder, where "
            f"`npm install {CORE}` has been, or cdn"
        )
    return result
