"""Lists, fetches and verifies the model files of the paper profile: python -m curation.weights list|fetch|verify."""

from __future__ import annotations

import argparse
import fcntl
import shutil
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from stages import weights
from stages.weight_table import WEIGHTS, Weight

_BLOCK = 1 << 20


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 1 where a file is missing, wrong or could not be fetched, 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="python -m curation.weights", description=__doc__)
    parser.add_argument("command", choices=("list", "fetch", "verify"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="model files, as `list` names them; default all")
    args = parser.parse_args(argv)
    for name in args.names:
        if name not in WEIGHTS:
            print(f"unknown model file {name!r}; known: {', '.join(WEIGHTS)}", file=sys.stderr)
            return 2
    names = args.names or list(WEIGHTS)
    if args.command == "list":
        _list(names)
        return 0
    return _verify(names) if args.command == "verify" else _fetch_all(names)


def _list(names: list[str]) -> None:
    for name in names:
        weight = WEIGHTS[name]
        size = "size unknown" if weight.size is None else f"{weight.size / 1e6:.1f} MB"
        print(f"{name}: {weights.find(name) or 'missing'}")
        print(f"    {weight.file}, {size}, sha256 {weight.sha256 or 'unknown'}")
        print(f"    {weight.licence}; {weight.origin}{' (by hand)' if weight.by_hand else ''}")


def _verify(names: list[str]) -> int:
    good = True
    for name in names:
        path = weights.find(name)
        problem = "missing" if path is None else weights.check(name, path, anew=True)
        good &= problem is None
        if path is not None and problem is None:
            known = WEIGHTS[name].sha256 is not None
            problem = (
                f"ok, {path}" if known else f"present, no published hash: sha256 is {weights.digest(path, anew=True)}"
            )
        print(f"{name}: {problem}")
    return 0 if good else 1


def _fetch_all(names: list[str]) -> int:
    lacking = weights.missing(names)
    barred = [name for name in lacking if WEIGHTS[name].by_hand or weights.offline()]
    problems = [f"{name}: {weights.how_to_get(name)}" for name in barred]
    problems += download(name for name in lacking if name not in barred)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def ensure(names: Iterable[str]) -> None:
    """Make these model files be there, their hashes right: what is missing is downloaded, with progress.

    Raises ValueError that names each file which is wrong, or missing and not to be had, with its address and place.
    Nothing is downloaded while another of the files can only be got by hand, or where `OFFLINE` forbids it.
    """
    names = list(names)
    lacking = weights.missing(names)
    if lacking and not weights.offline() and not any(WEIGHTS[name].by_hand for name in lacking):
        folder = weights.folders()[0]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one machine, and other runs, wait for the first
                problems = download(weights.missing(names))
        except OSError as error:
            problems = [f"{folder}: model files cannot be written there: {error.strerror}"]
        if problems:
            raise ValueError("model files cannot be downloaded:\n  " + "\n  ".join(problems))
    weights.require(names)


def download(names: Iterable[str]) -> list[str]:
    """Download those of the files that have an address; one line for each address that failed."""
    groups: dict[str, list[Weight]] = {}
    problems = []
    for name in names:
        if not WEIGHTS[name].by_hand:
            groups.setdefault(WEIGHTS[name].origin, []).append(WEIGHTS[name])
    for origin, group in groups.items():
        for weight in group:
            print(f"{weight.name}: {weight.licence}", file=sys.stderr, flush=True)
        folder = weights.folders()[0]
        try:
            fetch(origin, group, folder)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            places = ", ".join(str(folder / weight.file) for weight in group)
            problems.append(f"{', '.join(w.name for w in group)}: {error} (by hand: {origin}, to be put at {places})")
    return problems


def fetch(origin: str, group: list[Weight], folder: Path) -> None:
    """Downloads `origin` and puts the group's files, which all come from it, into `folder`, their hashes checked.

    An interrupted download goes on where it stopped. Raises OSError where the address does not answer, ValueError for
    a file that is not the published one; that file is then not kept.
    """
    first = folder / group[0].file
    first.parent.mkdir(parents=True, exist_ok=True)
    part = first.with_name(Path(origin).name + ".part")
    _download(origin, part)
    for weight in group:
        target = folder / weight.file
        staged = target.with_name(target.name + ".new")
        if weight.member is None:
            part.rename(staged)
        else:
            _extract(part, weight.member, staged)
        found = weights.digest(staged, anew=True)
        if weight.sha256 is not None and found != weight.sha256:
            staged.unlink()
            part.unlink(missing_ok=True)
            raise ValueError(f"{origin} gave a file whose sha256 is {found}, expected {weight.sha256}")
        staged.rename(target)
    part.unlink(missing_ok=True)


def _download(origin: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(origin, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        response = urllib.request.urlopen(request, timeout=60)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send: the part is whole
            return
        raise OSError(f"{origin}: {error}") from error
    except OSError as error:
        raise OSError(f"{origin}: {getattr(error, 'reason', error)}") from error
    with response:
        if have and response.status != 206:  # a server without ranges sends the file from its start
            have = 0
        left = response.headers.get("Content-Length")
        total = None if left is None else have + int(left)
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size != total:
        raise OSError(f"{origin}: the connection ended after {part.stat().st_size} of {total} bytes; run fetch again")


def _extract(archive: Path, member: str, target: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        inside = next((name for name in opened.namelist() if Path(name).name == member), None)
        if inside is None:
            raise ValueError(f"{archive.stem}: no {member} in the archive")
        with opened.open(inside) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)


if __name__ == "__main__":
    sys.exit(main())
