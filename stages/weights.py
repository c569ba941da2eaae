"""Model files: where each is looked up, whether it is the one of the table, and what to do where it is missing.

Engines ask `require` for their files and get paths or one error that names file, origin and place; nothing is
downloaded here. A run does so before its first clip (curation/weights.py), and `python -m curation.weights fetch`.

Lookup order: each folder of `HUMAN_MOTION_WEIGHTS` (several, as in PATH), this project's cache, the caches of the
libraries that use the same files. A file of one's own in place of a published one needs its hash in the folder's
`sha256sums.txt` (the format of sha256sum).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from stages.digests import digest
from stages.weight_table import WEIGHTS

VARIABLE = "HUMAN_MOTION_WEIGHTS"
OFFLINE = ("HUMAN_MOTION_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # any of them set: nothing is downloaded
SUMS = "sha256sums.txt"
CACHE = "~/.cache/human-motion/weights"


@runtime_checkable
class HasWeights(Protocol):
    """An engine that needs model files."""

    def weights(self) -> tuple[str, ...]:
        """Names in `WEIGHTS`."""
        ...


@runtime_checkable
class HubModel(Protocol):
    """An engine whose model comes from the Hugging Face hub, by a name that the user gives."""

    def folder(self) -> Path | None:
        """Where all of the model lies on this machine; None where it does not."""
        ...

    def download(self) -> None:
        """Get what is missing of it, with progress. Raises ValueError that says where to get it and where to put it."""
        ...

    def origin(self) -> str:
        """Its address."""
        ...


def offline() -> str | None:
    """The environment variable that forbids downloads, if one does."""
    off = ("", "0", "false", "no", "off")
    return next((name for name in OFFLINE if os.environ.get(name, "").lower() not in off), None)


def needed(engines: Iterable[object]) -> tuple[str, ...]:
    """Names of all model files that these engines need, each once, in order."""
    return tuple(dict.fromkeys(n for engine in engines if isinstance(engine, HasWeights) for n in engine.weights()))


def folders() -> list[Path]:
    """The weights folders in order of preference; `fetch` writes into the first."""
    given = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    return [Path(part).expanduser() for part in (*given, CACHE)]


def find(name: str) -> Path | None:
    """Where this model file lies, unchecked; None where it lies nowhere."""
    weight = WEIGHTS[name]
    caches = [Path(os.path.expandvars(cache)).expanduser() for cache in weight.caches]
    for path in (*(folder / weight.file for folder in folders()), *caches):
        if path.exists():
            return path
    return None


def missing(names: Iterable[str]) -> list[str]:
    """Those of these model files that lie nowhere; cheap, hashes nothing."""
    return [name for name in names if find(name) is None]


def require(names: Iterable[str]) -> dict[str, Path]:
    """The paths of these model files, their hashes checked.

    Raises ValueError that names each missing file with its address, licence and place, and each wrong one.
    """
    found: dict[str, Path] = {}
    problems = []
    for name in names:
        path = find(name)
        problem = how_to_get(name) if path is None else check(name, path)
        if problem is not None:
            problems.append(f"{name}: {problem}")
        elif path is not None:
            found[name] = path
    if problems:
        raise ValueError("model files:\n  " + "\n  ".join(problems))
    return found


def check(name: str, path: Path, anew: bool = False) -> str | None:
    """What is wrong with the file at `path`, or None: its hash against one's own sum, else against the table's.

    `anew`: the hash of what lies there now, whatever is remembered of the file.
    """
    weight = WEIGHTS[name]
    own = _own_sums(path, weight.file)
    expected = own if own is not None else weight.sha256
    if expected is None or (found := digest(path, anew)) == expected:
        return None
    return (
        f"{path} is not the published file: sha256 is {found}, expected {expected}. Fetch it again, or, "
        f"if it is your own, put its hash into {SUMS} of its weights folder"
    )


def version(names: Iterable[str], *packages: str) -> str:
    """Versions of these packages and hashes of these model files, for an engine's version.

    A file that lies nowhere stands as "missing". Raises ValueError for a package that is not installed.
    """
    parts = []
    for package in packages:
        try:
            parts.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            raise ValueError(f"{package} is not installed: pip install 'human-motion[paper]'") from None
    for name in names:
        path = find(name)
        parts.append(f"{name}={'missing' if path is None else digest(path)[:16]}")
    return " ".join(parts)


def load_state_dict(path: Path) -> dict[str, Any]:
    """The tensors by name in a PyTorch file, on the CPU.

    Read with `weights_only`, so that the file can run no code. TorchScript archives, in which OpenAI publishes CLIP,
    cannot be read so: they are opened by torch.jit, whose language cannot leave the model. A leading "module." of
    DataParallel is taken off.
    """
    import torch

    with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else nullcontext() as archive:
        script = archive is not None and any(name.endswith("/constants.pkl") for name in archive.namelist())
    if script:
        state = torch.jit.load(path, map_location="cpu").state_dict()
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _own_sums(path: Path, file: str) -> str | None:
    """The hash that the weights folder of `path` states for it, or None."""
    for folder in folders():
        sums = folder / SUMS
        if path == folder / file and sums.is_file():
            for line in sums.read_text().splitlines():
                value, _, listed = line.partition("  ")
                if listed.strip() == file:
                    return value.strip().lower()
    return None


def how_to_get(name: str) -> str:
    """Where to get this model file, under which licence, and where to put it."""
    weight = WEIGHTS[name]
    size = "" if weight.size is None else f", {weight.size / 1e6:.0f} MB"
    place = folders()[0] / weight.file
    barred = offline()
    command = (
        f"downloads are off ({barred} is set): " if barred else f"run `python -m curation.weights fetch {name}`, or "
    )
    member = f"({weight.member} in the archive) " if weight.member else ""
    how = (
        f"get it by hand from {weight.origin} and put it at {place}"
        if weight.by_hand
        else f"{command}get it from {weight.origin} {member}and put it at {place}"
    )
    return f"missing ({weight.licence}{size}): {how}"
