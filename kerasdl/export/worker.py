"""Export a run in a fresh float32 process on the CPU: both ends of it.

An `Export` starts `python -m kerasdl.export.worker`, which imports what it needs, and what its own
processes need, and then gets its request. It prints one line per step and, last, its result as
a line of JSON. This module imports no framework until that process runs.
"""

import contextlib
import json
import select
import sys
from pathlib import Path

from kerasdl.errors import ExportError, UserError
from kerasdl.export import serving
from kerasdl.system import processes

RESULT = "@result "  # begins the last line


class Export:
    """The process that exports a run; it is warm by the time that there is something to export.

    Args:
        formats: Any of "savedmodel" and "tflite".
        export_dir: Folder of the exported models.
    """

    def __init__(self, formats, export_dir):
        self._formats, self._export_dir, self._process = list(formats), str(export_dir), None

    def start(self) -> None:
        """Let it import what it needs, before there is something to export."""
        if self._process:
            return
        command = [sys.executable, "-m", "kerasdl.export.worker", *self._formats]
        variables = processes.environment(
            CUDA_VISIBLE_DEVICES="",  # a GPU would bake its own kernels in
            KERAS_BACKEND="tensorflow",
            TF_CPP_MIN_LOG_LEVEL="2",
        )
        self._process = processes.Process(command, self._clean, variables)

    def _clean(self, pid):
        for left in Path(self._export_dir).glob(f"*/{serving.temporary_name(pid)}"):
            serving.remove(left)
            with contextlib.suppress(OSError):
                left.parent.rmdir()

    def run(
        self,
        folder,
        export_name=None,
        weights: str | None = None,
        settings: dict | None = None,
        say=print,
        is_run: bool = True,
        dataset: str | None = None,
        **options,
    ) -> dict:
        """Export a run, or published weights, once.

        Args:
            folder: The run's folder; or what `kerasdl.store.load.find` takes.
            export_name: Name of the exported model; the catalogue's if None.
            weights: "best" or "last"; the run's own setting if None.
            settings: Of the task, in place of the run's; those of `Task.changeable`.
            say: Called with a line of progress.
            is_run: Which of the two `folder` is.
            dataset: Of published weights, what the files are calibrated with and evaluated on.
            **options: `quantized`, `signatures`, `version` and `batch` of `exporter.export`.

        Returns:
            The card, with the `folder` it stands in.

        Raises:
            UserError: The request cannot be done, in one line.
            ExportError: It failed or was killed, in one line that names the step.
        """
        request = {
            "folder": str(folder),
            "formats": self._formats,
            "export_dir": self._export_dir,
            "name": export_name,
            "weights": weights,
            "settings": settings,
            "is_run": is_run,
            "dataset": dataset,
            "options": options,
        }
        self.start()
        self._process.send(request)
        step, result = follow(self._process.lines, say)
        status, output = self._process.wait()
        return _outcome(result, status, step, output)

    def close(self) -> None:
        """End it, and remove what it has not published."""
        if self._process:
            self._process.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def export_run(folder, formats, export_dir, export_name=None, *args, **more) -> dict:
    """Export a run's model in a process of its own, as `Export.run`."""
    if export_name:
        serving.check_writable(export_dir, export_name)  # before seconds of imports
    with Export(formats, export_dir) as export:
        return export.run(folder, export_name, *args, **more)


def follow(lines, say) -> tuple[str, dict]:
    """Pass on the lines of progress; return the last of them, and the result, {} if none came."""
    step, result = "starting", {}
    for line in lines:
        if line.startswith(RESULT):
            result = json.loads(line.removeprefix(RESULT))
        elif line.strip():
            step = line.strip()
            say(step)
    return step, result


def _outcome(result, status, step, log) -> dict:
    if "card" in result:
        return result["card"]
    if "refused" in result:
        raise UserError(result["refused"])
    if "failed" in result:
        raise ExportError(f"export failed: {result['failed']}")
    why = processes.why(status, log)
    if status < 0:
        raise ExportError(f"export failed: the process was {why} at: {step}")
    raise ExportError(f"export failed at: {step}: {why}")


def main(*formats) -> int:
    """The process of an `Export`; returns its exit status."""
    with processes.importing():
        from kerasdl.export import exporter

    def say(line):
        print(line, flush=True)

    def in_turn(lines):
        """One after the other, while a training needs the cores; all at once, when it is over."""
        select.select([sys.stdin, lines], (), ())

    with exporter.Helpers("tflite" in formats, in_turn) as helpers:
        request = next(processes.requests(), None)
        if request is None:  # nothing is to be exported after all
            return 0
        try:
            name, export_dir = request["name"], request["export_dir"]
            card = exporter.export(
                _parts(request),
                request["formats"],
                export_dir,
                name,
                say,
                helpers=helpers,
                **request["options"],
            )
            result = {"card": card}
        except UserError as error:
            result = {"refused": str(error)}
        except ExportError as error:
            result = {"failed": str(error)}
    say(RESULT + json.dumps(result))
    return 0 if "card" in result else 2


def _parts(request):
    """The `Parts` that a request names; its folder can be written."""
    from kerasdl.export import parts
    from kerasdl.store import load
    from kerasdl.store.runs import open_run

    folder, name, export_dir = request["folder"], request["name"], request["export_dir"]
    if request["is_run"]:
        run = open_run(folder)
        serving.check_writable(export_dir, name or run.model_name)
        return parts.parts_of(run, request["weights"], request["settings"])
    found = load.Found.at(folder)
    serving.check_writable(export_dir, name or found.metadata().model)
    return parts.parts_of_model(found, request["dataset"], request["settings"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
