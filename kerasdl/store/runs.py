"""A run's folder: its settings, and how to have its model back."""

import contextlib
import json
import shutil
import time
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import yaml

from kerasdl import catalog, tasks
from kerasdl.columns import DataInfo
from kerasdl.errors import CheckpointError, UserError
from kerasdl.recipe import MAY_CHANGE_ON_RESUME, Recipe, flag, stored, to_dict
from kerasdl.store import checkpoint, fit, lock
from kerasdl.system import archives, files
from kerasdl.system.files import write_text
from kerasdl.system.names import nearest

ARGS, MODEL, METRICS, DATA = "args.yaml", "model.json", "metrics.json", "data.json"
FILES = (ARGS, MODEL, METRICS, DATA, "summary.csv", "norms.json", "report.html", lock.FILE)
PROBE = "probe"  # what was trained from its weights
FOLDERS = ("checkpoints", "tensorboard", "pictures", PROBE)


@dataclass
class Run:
    """A run's folder, read.

    Attributes:
        folder: Where it is.
        recipe: The settings, resolved.
        model_name: Of the catalogue.
        model_arguments: What the model was built with.
        info: What the data are.
        data: `{"fingerprint", "steps_per_epoch"}` of the data that it was started with; empty of
            a run without them.
    """

    folder: Path
    recipe: Recipe
    model_name: str
    model_arguments: dict
    info: DataInfo
    data: dict = field(default_factory=dict)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether it is: trained, evaluated and, where that was asked for, exported."""
        return bool((self.metrics() or {}).get("finished"))

    def create(self) -> None:
        """Write the settings of the run, its model and its data."""
        write_text(self.folder / MODEL, json.dumps(self.header(), indent=1))
        if self.data:
            write_text(self.folder / DATA, json.dumps(self.data, indent=1))
        # Last: where it is, the run is whole.
        write_text(self.folder / ARGS, yaml.safe_dump(to_dict(self.recipe), sort_keys=False))

    def header(self) -> dict:
        """What every checkpoint says of the model."""
        return {
            "model": self.model_name,
            "arguments": self.model_arguments,
            "info": json.loads(self.info.to_json()),
        }

    def metrics(self) -> dict | None:
        """Final metrics, or None while the run is not finished."""
        path = self.folder / METRICS
        if not path.exists():
            return None
        metrics = archives.read_json(path)
        test = metrics.get("test", None if "finished" in metrics else {})
        parts = (test, metrics.get("val", {}))
        if not all(isinstance(part, dict) for part in parts) or not all(
            isinstance(value, int | float) for value in test.values()
        ):
            raise UserError(f"{path}: cannot be used: it holds no metrics of the test part")
        return metrics

    def check_fit(self) -> None:
        """Refuse a run whose model is none for its data.

        Raises:
            UserError: Names what differs.
        """
        try:
            fit.check(self.model_name, self.info, self.recipe, self.model_arguments)
        except fit.DAMAGED as error:
            raise UserError(
                f"{self.folder}: its {MODEL} cannot be used: {fit.said(error)}"
            ) from error

    def restore(self, weights: str | None = None, dtype: str = "float32", say=print):
        """A rebuild of the trained model, and its task.

        Args:
            weights: "best" or "last"; the run's own setting if None.
            dtype: Dtype of the rebuild.
            say: Where a damaged checkpoint is named.

        Raises:
            ValueError: No checkpoint can be read.
        """
        from kerasdl.data.text.tokenizer import give_texts
        from kerasdl.store import weightless

        self.check_fit()
        arrays = self.weights(weights or self.recipe.weights, say)

        def build():
            return catalog.build(self.model_name, **self.model_arguments)

        with dtype_policy(dtype):
            try:
                checkpoint.check_shapes(dict(weightless.shapes(build, len(arrays))), arrays)
                model = build()
            except Exception as error:  # damaged arguments fail in ways without number
                line = archives.first(error)
                raise UserError(f"{self.folder}: cannot be restored: {line}") from error
            variables = {v.path: v for v in model.variables}
            variables = {k: v for k, v in variables.items() if not k.endswith(weightless.SEEDS)}
            checkpoint.restore(variables, arrays)
        task = tasks.get(catalog.row(self.model_name).task)(self.info, self.recipe)
        return model, give_texts(task)

    def weights(self, which: str, say=print) -> dict:
        """`{path: array}` of the best or the last weights, averaged ones where there are any.

        Raises:
            ValueError: No checkpoint can be read.
        """
        if which == "best":
            path = self.checkpoints / "best.npz"
            try:
                return checkpoint.read(path)[1]
            except CheckpointError as error:
                say(f"{error}; using the last checkpoint")
        result = checkpoint.latest(self.checkpoints, say)
        if not result:
            raise UserError(f"{self.folder} has no checkpoint that can be read")
        arrays = result[1]
        weights = {k.removeprefix("model/"): v for k, v in arrays.items() if k.startswith("model/")}
        return weights | {
            k.removeprefix("ema/"): v for k, v in arrays.items() if k.startswith("ema/")
        }


def now() -> str:
    """The time, as `metrics.json` says when a run was finished."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def set_precision(name: str) -> None:
    """Make layers from now on under a dtype policy, and floats of its width."""
    import keras

    keras.config.set_dtype_policy(name)
    keras.config.set_floatx("float64" if name == "float64" else "float32")


@contextlib.contextmanager
def dtype_policy(name: str):
    """Within it, layers are made under a dtype policy."""
    import keras

    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    set_precision(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_floatx(floatx)


def open_run(folder) -> Run:
    """Read a run's folder.

    Raises:
        ValueError: It is no run's folder, or its files cannot be read.
    """
    folder = Path(folder)
    if not (folder / ARGS).exists() or not (folder / MODEL).exists():
        around = [p.name for p in folder.parent.glob("*/")] if folder.parent.exists() else []
        raise UserError(f"{folder} is no run folder{nearest(folder.name, around)}")
    try:
        recipe = stored(yaml.safe_load(archives.read_text(folder / ARGS)))
        metadata = archives.read_json(folder / MODEL)
        info = DataInfo.from_dict(metadata["info"])
        arguments = {
            k: tuple(v) if isinstance(v, list) else v for k, v in metadata["arguments"].items()
        }
        data = folder / DATA
        data = archives.read_json(data) if data.exists() else {}
        catalog.row(metadata["model"])
        fit.check_fingerprint(data.get("fingerprint"))
        if not isinstance(data.get("steps_per_epoch", 1), int):
            raise TypeError("steps_per_epoch is no whole number")
        return Run(folder, recipe, metadata["model"], arguments, info, data)
    except (*fit.DAMAGED, yaml.YAMLError) as error:
        raise UserError(
            f"{folder}: its {ARGS}, {MODEL} or {DATA} cannot be read: "
            f"{fit.said(error).removeprefix(f'{folder}/')}"
        ) from error


def check(folder: Path) -> None:
    """Refuse early a folder that a run cannot be written to; leaves nothing there.

    Raises:
        ValueError: Something else is there, or it cannot be made or written.
    """
    folder = Path(folder)
    _check_ours(folder)
    try:
        files.check_makeable(folder)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror}") from error


def remove(folder: Path) -> None:
    """Delete what an earlier run left in a folder, and nothing else, nor what holds it.

    Raises:
        ValueError: The folder holds something that is no part of a run.
    """
    folder = Path(folder)
    _check_ours(folder)
    for path in folder.glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != lock.FILE:
            path.unlink(missing_ok=True)


def reopen(folder: Path) -> None:
    """Delete what stands in a finished run's folder of its last weights: it goes on."""
    (folder / METRICS).unlink(missing_ok=True)
    shutil.rmtree(folder / PROBE, ignore_errors=True)


def _check_ours(folder):
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give another --experiment")
    foreign = [
        p.name
        for p in folder.iterdir()
        if p.name not in (*FILES, *FOLDERS) and not fnmatch(p.name, ".*.tmp")
    ]
    if foreign:
        raise UserError(
            f"{folder} holds {sorted(foreign)[0]!r}, which is no part of a run; "
            "give another --experiment"
        )


def refuse_changes(old: Recipe, new: Recipe, but=()) -> None:
    """Refuse to go on with a run under settings that would change what is computed.

    Args:
        old: Its settings.
        new: Those that it shall go on with.
        but: Names of more settings that may differ.

    Raises:
        ValueError: Names every changed setting.
    """
    before, after = to_dict(old), to_dict(new)
    changed = [
        f"--{flag(k)} was {before[k]}, is {after[k]}"
        for k in before
        if k not in MAY_CHANGE_ON_RESUME and k not in but and before[k] != after[k]
    ]
    if changed:
        raise UserError(
            f"this run was started with other settings ({'; '.join(changed)}); give those, another "
            "--experiment, or --no-resume to start it anew"
        )
