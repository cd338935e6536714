"""Every command of the README, in its order, in one folder; those that train, for two steps."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasdl.launch import hosts
from kerasdl.system import processes
from kerasdl.weights.files import save_safetensors
from tests.export.stand_in import serving
from tests.weights import test_published, test_published_texts

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHORT = "--epochs 1 --max-steps 2 --limit-batches 2 --log none"
# What this machine lacks, and what is said of it.
REFUSED = {
    "--devices 8": "error: --devices 8: ",
    "--strategy tpu": "error: --tpu local: ",
}


def make_vit(path):
    """A tiny ViT of transformers for images of 32x32 pixels."""
    _, golden = test_published.folder_of("hf_vit", path, {"image_size": 32})
    positions = np.random.default_rng(0).normal(size=(1, 1 + 4 * 4, 24)).astype("float32")
    weights = golden.weights | {"vit.embeddings.position_embeddings": positions}
    save_safetensors(path / "model.safetensors", weights)


# Of the Hub, in the cache: tiny networks in place of the real ones.
REPOSITORIES = {
    "google/vit-base-patch16-224": make_vit,
    "openai-community/gpt2": test_published_texts.folder_of,
}
COMMIT = "0123456789" * 4
PROGRAMS = {
    # What `ssh HOST COMMAND` and `srun FLAGS COMMAND` do, here.
    "ssh": 'exec sh -c "${@: -1}"',
    "srun": "while [ $1 != python ]; do shift; done\n"
    "export SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 SLURM_STEP_NODELIST=localhost\n"
    'export SLURM_STEP_TASKS_PER_NODE=1 SLURM_JOB_ID=1 SLURM_LOCALID=0\nexec "$@"',
}


def commands():
    """The README's, one by one, without comments; those of CI's own left out."""
    result = []
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            parts = re.sub(r"\s{2,}#.*", "", line).split(" && ")
            result += [p for p in parts if not p.startswith(("pip install", "pytest"))]
    return result


def test_there_are_commands():
    assert len(commands()) > 40
    served = set(re.findall(r"saved_models/(\w+)", " ".join(commands())))
    assert served == {"resnet20", "char_gpt", "transformer_small", "ddpm_unet_small"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "train.py").write_text((ROOT / "train.py").read_text())
    rng = np.random.default_rng(0)
    for name, side in (("photos", 32), ("faces", 70), ("pets", 48)):
        for kind in ("a", "b"):
            (folder / name / kind).mkdir(parents=True)
            for number in range(50):
                pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
                Image.fromarray(pixels).save(folder / name / kind / f"{number}.png")
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / "picture.png")
    words = "the quick brown fox jumps over a lazy dog and returns to its den".split()
    text = " ".join(rng.choice(words, 8000))
    (folder / "my_novel.txt").write_text(text)
    lines = (f"{a} {b} {c}\t{c} {b}" for a in words for b in words[:6] for c in words[:4])
    (folder / "phrases.tsv").write_text("\n".join(lines))
    for repo, make in REPOSITORIES.items():
        cached = folder / "hub" / f"models--{repo.replace('/', '--')}"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text(COMMIT)
        (cached / "snapshots").mkdir()
        make(cached / "snapshots" / COMMIT)
    (folder / "bin").mkdir()
    for name, lines in PROGRAMS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{lines}\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


def shortened(command, exported):
    """A command that trains, for two steps; with an export if it is asked for later."""
    words = command.split()
    trains = re.search(r"train\.py( --(?!help)| launch |$)", command)
    if not trains:
        more = {" bench ": " --rounds 1", " probe ": " --seeds 1 --steps 1"}
        more[" ensemble "] = " --export none"
        return command + "".join(text for word, text in more.items() if word in command)
    model = words[words.index("--model") + 1] if "--model" in words else "resnet20"
    plain = words[2:] in ([], ["--model", model])
    more = SHORT if plain and model in exported else f"{SHORT} --export none"
    if plain and model == "ddpm_unet_small":  # so as to draw a thousand images in seconds
        more += " --task-kwargs conditional=true steps=4"
    if re.search("folder:|text:|pairs:|--batch-size", command):
        more += " --batch-size 4"
    if any(flag in command for flag in REFUSED):
        more += " --output others"
    if "folder:photos" in command:
        more += " --image-size 32"
    return f"{command} {more}"


EXPORTED = set(re.findall(r"saved_models/(\w+)", " ".join(commands())))


@pytest.fixture(scope="module")
def served():
    """`{"rest": port}` of the server that `docker` has started, which runs until the last test."""
    with contextlib.ExitStack() as stack:
        yield {"stack": stack}


# One after the other, since later ones use what earlier ones wrote.
@pytest.mark.slow
@pytest.mark.parametrize("command", commands(), ids=lambda command: command[:60])
def test_every_command_works(command, folder, served):
    if command.startswith("docker"):
        mounted, config = re.search(r'"\$PWD/(\S+):/models" .*/models/(\S+)', command).groups()
        assert (folder / mounted / config).exists()
        served["rest"], _ = served["stack"].enter_context(serving(folder / mounted))
        return
    if command.startswith("curl"):
        command = command.replace("localhost:8501", f"127.0.0.1:{served['rest']}") + " --fail"
    command = shortened(command, EXPORTED).replace("/shared", f"{folder}/shared")
    free = f"127.0.0.1,127.0.0.1 --port {hosts.free_ports(1)[0]}"
    programs = (str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"])
    environment = processes.environment(
        PATH=os.pathsep.join(programs), HF_HUB_CACHE=str(folder / "hub"), HF_HUB_OFFLINE="1"
    )
    for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        environment.pop(name, None)  # which a person has not set
    done = subprocess.run(
        ["bash", "-c", command.replace("a,b,c,d", free)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    check(command, done)
    if " predict " in command:
        check_answer(command, done.stdout, folder)


@pytest.mark.slow
def test_every_export_has_a_version_of_its_own(folder):
    assert {p.name for p in (folder / "saved_models" / "resnet20").iterdir()} == {"1", "2"}


def check(command, done):
    """Whether a command succeeded, or was refused for want of its machines."""
    refusal = next((line for flag, line in REFUSED.items() if flag in command), None)
    if refusal:
        assert done.returncode == 2 and done.stderr.startswith(refusal), done.stderr
        assert len(done.stderr.splitlines()) == 1
    else:
        assert done.returncode == 0, f"{command}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"


def check_answer(command, output, folder):
    """Whether `predict` said, or drew, what its model answers."""
    if "picture.png" in command:
        assert re.fullmatch(r"picture\.png: \d [01]\.\d{4}\n", output)
    elif "--output" in command:
        file = folder / command.split("--output ")[1]
        with Image.open(file) as image:
            assert output == f"{file.name}\n" and np.asarray(image).std() > 0
        file.unlink()
    else:
        assert output.startswith("Return the ") or "Wednesday" in command
