"""Export a run in a fresh float32 process on the CPU: both ends of it.

`export_run` starts `python -m kerasdl.export.worker`, which prints one line per step and, last,
its result as a line of JSON. This module imports no framework until that process runs.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

from kerasdl.errors import ExportError, UserError
from kerasdl.export import serving
from kerasdl.system import processes

RESULT = "@result "  # begins the last line


def export_run(
    folder,
    formats,
    export_dir,
    export_name=None,
    weights: str | None = None,
    settings: dict | None = None,
    say=print,
    **options,
) -> dict:
    """Export a run's model in a process of its own.

    Args:
        folder: The run's folder.
        formats: Any of "savedmodel" and "tflite".
        export_dir: Folder of the exported models.
        export_name: Name of the exported model; the catalogue's if None.
        weights: "best" or "last"; the run's own setting if None.
        settings: Of the task, in place of the run's; those of `Task.changeable`.
        say: Called with a line of progress.
        **options: `quantized`, `signatures` and `version` of `exporter.export`.

    Returns:
        The card, with the `folder` it stands in.

    Raises:
        UserError: The request cannot be done, in one line.
        ExportError: It failed or was killed, in one line that names the step.
    """
    if export_name:
        serving.check_writable(export_dir, export_name)  # before seconds of imports
    command = [sys.executable, "-m", "kerasdl.export.worker", "--run", folder]
    command += ["--formats", *formats, "--export-dir", export_dir]
    command += ["--export-name", export_name] if export_name else []
    command += ["--weights", weights] if weights else []
    command += ["--task-kwargs", json.dumps(settings)] if settings else []
    command += ["--options", json.dumps(options)]

    def clean(pid):
        for left in Path(export_dir).glob(f"*/{serving.temporary_name(pid)}"):
            serving.remove(left)
            with contextlib.suppress(OSError):
                left.parent.rmdir()

    variables = {
        "CUDA_VISIBLE_DEVICES": "",  # a GPU would bake its own kernels in
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    with processes.child(command, clean, **variables) as (lines, wait):
        step, result = follow(lines, say)
        status, output = wait()
    return _outcome(result, status, step, output)


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


def main(arguments=None) -> int:
    """The process that `export_run` starts; returns its exit status."""
    parser = argparse.ArgumentParser(prog="kerasdl.export.worker")
    parser.add_argument("--run", required=True)
    parser.add_argument("--formats", nargs="*", default=[])
    parser.add_argument("--export-dir", required=True)
    parser.add_argument("--export-name")
    parser.add_argument("--weights", choices=("best", "last"))
    parser.add_argument("--task-kwargs", type=json.loads)
    parser.add_argument("--options", type=json.loads, default={})
    given = parser.parse_args(arguments)

    def say(line):
        print(line, flush=True)

    try:
        from kerasdl.store.runs import open_run

        run = open_run(given.run)
        serving.check_writable(given.export_dir, given.export_name or run.model_name)
        from kerasdl.export import exporter, parts

        card = exporter.export(
            parts.parts_of(run, given.weights, given.task_kwargs),
            given.formats,
            given.export_dir,
            given.export_name,
            say,
            **given.options,
        )
        result = {"card": card}
    except UserError as error:
        result = {"refused": str(error)}
    except ExportError as error:
        result = {"failed": str(error)}
    say(RESULT + json.dumps(result))
    return 0 if "card" in result else 2


if __name__ == "__main__":
    sys.exit(main())
