"""`python -m training.fit MANIFESTS`: train the MotionCharacter adapter on a run's manifest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.config import PRESETS, fit_config

if TYPE_CHECKING:
    from manifests.storage import Remote


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m training.fit", description=__doc__)
    p.add_argument("manifests", help="output folder of a run, its manifests/, or one shard")
    p.add_argument("--preset", choices=sorted(PRESETS), default="embedded")
    p.add_argument("--output", type=Path, required=True, help="checkpoints, previews and TensorBoard logs")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override a setting")
    p.add_argument("--root", action="append", default=[], metavar="SOURCE=FOLDER", help="where a source lies now")
    p.add_argument(
        "--cache", nargs="?", const="", metavar="FOLDER",
        help="keep decoded frames, latents and text embeddings there; without FOLDER, in cache/ of the run's output",
    )  # fmt: skip
    p.add_argument("--dry-run", action="store_true", help="print plan, parameters, memory and missing weights")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 wrong use, 1 training broke."""
    args = parser().parse_args(argv)
    try:
        config = fit_config(args.preset, args.set)
        roots = dict(_pair(text) for text in args.root)
        if args.dry_run:
            from training.plan import plan

            print(plan(args.manifests, config, roots))
            return 0
        from manifests.shards import shards

        first = shards(args.manifests)[0]  # before anything heavy is imported
        cache = cache_folder(args.cache, first)
        from training.data import DataError
        from training.loop import fit
    except (ValueError, ModuleNotFoundError) as error:
        return _refuse(error)
    try:
        fit(args.manifests, args.output, config, roots, cache)
    except ValueError as error:
        return _refuse(error)
    except (DataError, OSError) as error:
        # One from a worker of the data loader carries its traceback, and ends with its own line.
        print(f"training.fit: {str(error).splitlines()[-1]}", file=sys.stderr)
        return 1
    return 0


def cache_folder(given: str | None, shard: Path | Remote) -> Path | None:
    """Where the cache is: as given; where that is empty, beside the manifests that `shard` is one of. None for none.

    Raises ValueError when those lie at a URI: what is cached is for this machine.
    """
    if given is None:
        return None
    if given:
        return Path(given)
    folder = shard.parent.parent
    if not isinstance(folder, Path):
        raise ValueError(f"--cache: {folder} is a URI; give a local folder, --cache FOLDER")
    return folder / "cache"


def _refuse(error: Exception) -> int:
    hint = ": install human-motion[train]" if isinstance(error, ModuleNotFoundError) else ""
    print(f"training.fit: {error}{hint}", file=sys.stderr)
    return 2


def _pair(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals:
        raise ValueError(f"--root {text}: expected SOURCE=FOLDER")
    return name, folder


if __name__ == "__main__":
    sys.exit(main())
