"""Weights of the Hugging Face Hub: `hf:ORG/REPO[@REVISION]`, and `timm:NAME`, its `hf:timm/NAME`.

Files are fetched into the Hub's own cache (`HF_HUB_CACHE`, or `hub` in `HF_HOME`), those that
describe the weights first, and of the weights only what will be read. Where the Hub does not
answer, or with `HF_HUB_OFFLINE=1`, the cache has to do.

Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

import contextlib
import functools
import importlib.util
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from kerasdl.errors import UserError
from kerasdl.system import archives, network
from kerasdl.system.names import few, nearest
from kerasdl.system.terminal import printable
from kerasdl.weights import files, keras_hub

DOORS = ("hf:", "timm:")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
PART = re.compile(r"[\w+-][\w.+-]*")
REVISION = re.compile(rf"{PART.pattern}(/{PART.pattern})*")
COMMIT = re.compile(r"[0-9a-f]{40}")
LONGEST = 96  # characters of a repository's name, and of a revision's
# What describes weights
DESCRIBING = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "scheduler_config.json",
)
VOCABULARIES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model"),
    *("sentencepiece.bpe.model", "source.spm", "target.spm"),
)
WANTED = (
    *(
        f"{folder}{name}"
        for folder in ("", "unet/", "transformer/", "scheduler/")
        for name in DESCRIBING
    ),
    *VOCABULARIES,
    *keras_hub.BESIDE_CONFIG,
    *keras_hub.ASSETS,
)
LARGEST = 64 * archives.MIB  # bytes of a file that describes
ANSWER, ASK_AGAIN = 10, 60  # seconds
MANY = 10_000  # files of a snapshot that are looked at
_silent = {}  # {address of a Hub that did not answer: when}


class Unreachable(UserError):
    """The Hub does not answer."""


@dataclass(frozen=True)
class Repository:
    """One commit of a repository.

    Attributes:
        name: As it was given.
        repo: `ORG/REPO`.
        folder: Where its files are, or will be.
        names: Those that can be had.
        sizes: `{name: bytes}`, as far as the Hub says it.
        online: Whether what is missing may be fetched.
    """

    name: str
    repo: str
    folder: Path
    names: tuple
    sizes: dict
    online: bool

    def fetch(self, names) -> None:
        """Let files be in `folder`.

        Raises:
            UserError: One cannot be had.
        """
        missing = [name for name in names if not (self.folder / name).is_file()]
        if missing and not self.online:
            why = "is not in the cache"
            if (self.folder / missing[0]).is_symlink():
                why = "is broken in the cache, a link to nothing"
            raise UserError(
                f"{self.name}: {printable(missing[0])} {why}, and the Hub does not answer: "
                f"{self.folder}"
            )
        for i, name in enumerate(missing):
            _fetch(self.name, self.repo, name, self.folder.name, first=i == 0)

    def weights(self) -> Path:
        """Fetch the weights, in the first format there is; returns their file or their index.

        Raises:
            UserError: There are none that can be read.
        """
        name = self._weights()
        of_torch = name.removesuffix(".index.json").endswith(files.TORCH)
        if of_torch and importlib.util.find_spec("torch") is None:
            raise UserError(
                f"{self.name}: holds its weights only as {name}, which only torch reads, and it is "
                f"not installed; {files.conversion(name)}"
            )
        self.fetch([name])
        path = self.folder / name
        if name.endswith(".json"):
            before = PurePosixPath(name).parent
            shards = {shard for each in files.shards_of(path).values() for shard in each}
            wanted = sorted(str(before / shard) for shard in shards)
            if missing := [one for one in wanted if one not in self.names]:
                raise UserError(
                    f"{self.name}: {len(missing)} of {len(wanted)} files of weights are missing: "
                    f"{few(missing, 5)}"
                )
            self.fetch(wanted)
        self.fetch({keras_hub.TASK_WEIGHTS} & set(self.names))
        return path

    def _weights(self) -> str:
        names = set(self.names)
        for folder in ("", *files.FOLDERS):
            for name in files.FILES:
                if (name := str(PurePosixPath(folder, name))) in names:
                    return name
        others = [n for n in self.names if "/" not in n and n.endswith(tuple(files.SUFFIXES))]
        if len(others) == 1:
            return others[0]
        some = "several files of weights" if others else "no weights that can be read"
        where = "" if self.online else " in the cache, and the Hub does not answer"
        raise UserError(
            f"{self.name}: there are {some}{where}: {few(sorted(others or names)) or 'no files'}; "
            f"there may be {', '.join(files.FILES[:4])}, ..."
        )


def open_repository(where: str, name: str = "") -> Repository:
    """Find a repository, and fetch what describes its weights.

    Args:
        where: `hf:ORG/REPO`, with `@` and a branch, tag or commit behind it; or `timm:NAME`.
        name: For messages, where it is not that.

    Raises:
        UserError: It is no such name, there is no such repository or revision, it may not be read,
            or the Hub does not answer and the cache does not have it.
    """
    name = name or where
    repo, revision = parsed(where)
    try:
        if _is_offline():
            raise Unreachable(f"{name}: HF_HUB_OFFLINE is set")
        commit, sizes = _ask(name, repo, revision)
    except UserError as error:
        result = _cached(name, repo, revision, error)
    else:
        folder = _folder(repo) / "snapshots" / commit
        names = tuple(n for n in sizes if _is_plain(n))
        result = Repository(name, repo, folder, names, sizes, True)
        _keep_reference(repo, revision, commit)
    wanted = [n for n in WANTED if n in result.names]
    for one in wanted:
        if (result.sizes.get(one) or 0) > LARGEST:
            raise UserError(f"{name}: {one} has {result.sizes[one]:,} bytes; {LARGEST:,} may be")
    result.fetch(wanted)
    return result


def parsed(name: str) -> tuple:
    """`(ORG/REPO, revision)` of what was given.

    Raises:
        UserError: It can be no name of a repository.
    """
    door = next(d for d in DOORS if name.startswith(d))
    repo, at, revision = name.removeprefix(door).partition("@")
    timm = door == "timm:"
    fits = REPOSITORY.fullmatch(repo) and len(repo) <= LONGEST and not (timm and "/" in repo)
    if not fits or "--" in repo or ".." in repo or repo.endswith((".git", ".", "-")):
        form = "timm:NAME, as in timm:resnet50.a1_in1k"
        form = form if timm else "hf:ORG/REPO, as in hf:openai-community/gpt2"
        raise UserError(f"{printable(name)}: is no repository's name; give {form}")
    if at and (not REVISION.fullmatch(revision) or ".." in revision or len(revision) > LONGEST):
        raise UserError(
            f"{printable(name)}: {printable(repr(revision))} is no branch, tag or commit"
        )
    return (f"timm/{repo}" if timm else repo), revision or "main"


# -- the Hub ------------------------------------------------------------------------------------


def _endpoint() -> str:
    """Its address; a program may set it after `huggingface_hub` was imported."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _is_offline() -> bool:
    from huggingface_hub import constants

    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return constants.HF_HUB_OFFLINE or said.upper() in constants.ENV_VARS_TRUE_VALUES


def _ask(name, repo, revision) -> tuple:
    """`(commit, {file: bytes or None})` of a revision."""
    from huggingface_hub import HfApi

    endpoint = _endpoint()
    if time.monotonic() - _silent.get(endpoint, -ASK_AGAIN) < ASK_AGAIN:
        raise Unreachable(f"{name}: {_host()} does not answer")
    ask = functools.partial(
        HfApi(endpoint=endpoint).model_info,
        repo,
        revision=revision,
        files_metadata=True,
        timeout=ANSWER / 2,
    )
    try:
        with _refusing(name, repo, revision):
            info = network.within(ANSWER, ask)
    except Unreachable:
        _silent[endpoint] = time.monotonic()
        raise
    if not COMMIT.fullmatch(info.sha or ""):
        raise Unreachable(f"{name}: {_host()} gives no answer of a Hub")
    return info.sha, {one.rfilename: one.size for one in info.siblings or ()}


def _fetch(name, repo, file, commit, first) -> None:
    """Download a file; the `first` one is asked for before, as the download itself is patient."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    endpoint = _endpoint()
    with _refusing(name, repo, commit, file):
        if first:
            url = hf_hub_url(repo, file, revision=commit, endpoint=endpoint)
            network.within(ANSWER, lambda: get_hf_file_metadata(url, timeout=ANSWER / 2))
        hf_hub_download(repo, file, revision=commit, cache_dir=_cache(), endpoint=endpoint)


@contextlib.contextmanager
def _refusing(name, repo, revision, file=""):
    """What the Hub and its client say as one line of ours; no token stands in any of them.

    Raises:
        UserError: In place of all others.
    """
    from huggingface_hub import errors

    login = "log in by HF_TOKEN or `hf auth login`"
    try:
        yield
    except errors.GatedRepoError:
        why = f"is gated: accept its terms at {_host()}/{repo}, and {login}"
    except errors.RepositoryNotFoundError:
        why = f"there is no such repository, or it is private and you have to {login}{_tag(repo)}"
    except errors.RevisionNotFoundError:
        why = f"the repository has no branch, tag or commit {revision}"
    except errors.LocalEntryNotFoundError:
        raise Unreachable(f"{name}: {_host()} does not answer") from None
    except errors.EntryNotFoundError:
        why = f"the repository has no {printable(file)}"
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status >= 500 or status in (408, 429):
            raise Unreachable(f"{name}: {_host()} answers {status}") from None
        why = f"{_host()} answers {status}"
        if status in (401, 403):
            why += f": the token may not read it; {login}"
    except errors.HFValidationError:
        why = "is no repository's name"
    except Exception as error:  # of many kinds; headers may stand in their texts
        kind = type(error)
        if isinstance(error, ConnectionError | TimeoutError) or kind.__module__.startswith("httpx"):
            raise Unreachable(f"{name}: {_host()} does not answer") from None
        if not isinstance(error, OSError) or error.errno is None:
            raise Unreachable(
                f"{name}: {_host()} gives no answer of a Hub: {kind.__name__}"
            ) from None
        why = f"{printable(file)} cannot be kept in {_cache()}: {error.strerror}"
    else:
        return
    raise UserError(f"{name}: {why}")


def _tag(repo) -> str:
    """What is added of a name of timm without the tag that timm itself would add."""
    if not repo.startswith("timm/") or "." in repo:
        return ""
    return "; most names of timm end in a tag, as in timm:resnet50.a1_in1k"


def _host() -> str:
    """Who is asked, without a password that may stand in the address."""
    parts = urlsplit(_endpoint())
    return parts.hostname or "the Hub"


# -- its cache ----------------------------------------------------------------------------------


def _cache() -> Path:
    from huggingface_hub import constants

    env = os.environ
    home = env.get("HF_HOME") and Path(env["HF_HOME"], "hub")
    where = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or home
    return Path(os.path.expandvars(where or constants.HF_HUB_CACHE)).expanduser()


def _folder(repo) -> Path:
    return _cache() / f"models--{repo.replace('/', '--')}"


def _cached(name, repo, revision, error) -> Repository:
    """What the cache has of a repository, or else `error`."""
    base = _folder(repo)
    reference, commit = base / "refs" / revision, revision
    if reference.is_file():
        commit = archives.read_text(reference, LONGEST).strip()
        if not PART.fullmatch(commit):
            raise UserError(f"{name}: the cache is broken: {reference} names no commit")
    folder = base / "snapshots" / commit
    if not folder.is_dir():
        raise type(error)(f"{error}{_not_cached(repo, revision, error)}")
    return Repository(name, repo, folder, tuple(_listed(folder)), {}, False)


def _not_cached(repo, revision, error) -> str:
    """What is added to why the Hub gave nothing."""
    if not isinstance(error, Unreachable):
        return ""
    base = _folder(repo)
    if base.is_dir():
        known = sorted(str(p.relative_to(base / "refs")) for p in _below(base / "refs"))
        return f", and revision {revision} is not in the cache {base}: {few(known) or 'no others'}"
    known = [p.name.removeprefix("models--").replace("--", "/", 1) for p in _below(_cache(), 1)]
    return f", and {repo} is not in the cache {_cache()}{nearest(repo, known)}{_tag(repo)}"


def _below(folder, depth=2):
    """The entries of a folder of the cache, those of folders in it too."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if depth > 1 and path.is_dir():
            yield from _below(path, depth - 1)
        else:
            yield path


def _listed(folder):
    """The names of the files of a snapshot, links to nothing too."""
    count = 0
    for place, _, names in os.walk(folder):
        for name in names:
            count += 1
            if count > MANY:
                return
            yield Path(place, name).relative_to(folder).as_posix()


def _is_plain(name) -> bool:
    """Whether the name of a file stays below its repository."""
    path = PurePosixPath(name)
    plain = "\\" not in name and "\0" not in name and ":" not in name
    return plain and not path.is_absolute() and ".." not in path.parts and path.name != ""


def _keep_reference(repo, revision, commit) -> None:
    """Note in the cache which commit a branch or tag is, as `huggingface_hub` does."""
    if COMMIT.fullmatch(revision):
        return
    path = _folder(repo) / "refs" / revision
    with contextlib.suppress(OSError):  # a cache may be read-only
        if not path.is_file() or path.read_text() != commit:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(commit)
