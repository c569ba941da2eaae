"""`python -m training.fit MANIFESTS`: train the MotionCharacter adapter on a run's manifest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.config import PRESETS, FitConfig, fit_config

if TYPE_CHECKING:
    from manifests.storage import Remote
    from training.data import Manifest


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


def plan(manifests: str, config: FitConfig, roots: dict[str, str]) -> str:
    """What would be done, in lines. Builds the models on the meta device, so it needs neither weights nor memory."""
    from training.components import missing
    from training.data import Manifest

    train, held_out = Manifest.read(manifests, "train", roots), Manifest.read(manifests, "val", roots)
    counts = parameter_counts(config, train)
    trained = counts["trained"]
    total = sum(counts.values()) - trained
    lines = [f"{name} = {value}" for name, value in config.model_dump().items()]
    lines.append(f"clips: {len(train.rows)} to train on, {len(held_out.rows)} held out")
    lines += [f"parameters of {name}: {count / 1e6:.1f} M" for name, count in counts.items()]
    # Weights in float32; of what is trained also gradient, two moments of AdamW and the moving average.
    lines.append(f"memory of a device: {(4 * total + 16 * trained) / 2**30:.1f} GiB, and the activations")
    lines += [f"missing: {line}" for line in missing(config)] or ["no model file is missing"]
    return "\n".join(lines)


def parameter_counts(config: FitConfig, manifest: Manifest) -> dict[str, int]:
    """Parameters by part: base, temporal, fusion, identity_kv, motion_blocks, intensity; and how many are trained."""
    import torch

    from training.components import SCRATCH, small_unet
    from training.model import AdapterSpec, adapter_parameters, install, sd15_unet

    with torch.device("meta"):
        unet = small_unet(config, manifest.spec.count) if config.base == SCRATCH else sd15_unet()
        temporal = sum(p.numel() for name, p in unet.named_parameters() if "motion_modules" in name)
        base = sum(p.numel() for p in unet.parameters()) - temporal
        arc_dim, clip_dim = (64, config.text_dim) if config.base == SCRATCH else (512, 1280)
        install(unet, AdapterSpec(arc_dim, clip_dim, config.id_tokens, config.motion_tokens, config.motion_control))
    parts = {part: sum(p.numel() for p in named.values()) for part, named in adapter_parameters(unet).items()}
    trained = sum(parts.values()) + (base + temporal if config.base == SCRATCH else 0)
    return {"base": base, "temporal": temporal, **parts, "trained": trained}


if __name__ == "__main__":
    sys.exit(main())
