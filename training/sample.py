"""`python -m training.sample`: videos from a face, a prompt, an action and a motion intensity."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from training.requests import Request, read_batch, request

ENGINES = ("kinematic", "minigpt4", "image_text", "openai")  # of stages.caption, which takes long to import


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m training.sample", description=__doc__)
    p.add_argument("--checkpoint", type=Path, required=True, help="checkpoint folder, or a fit's output folder")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--image", type=Path, help="picture with exactly one face")
    p.add_argument("--prompt", default="", help="overall description P")
    p.add_argument("--action", help="action phrase A; without it, it is taken from P")
    p.add_argument("--captioner", choices=ENGINES, default="kinematic", help="caption engine that takes A from P")
    p.add_argument("--captioner-set", action="append", default=[], metavar="KEY=VALUE", help="its parameters")
    p.add_argument("--intensity", type=float, nargs="+", default=[10.0], help="motion intensity M, 0 to 20; several")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--negative-prompt", default="")
    p.add_argument("--guidance", type=float)
    p.add_argument("--steps", type=int)
    p.add_argument("--lambda", dest="lambda_", type=float, help="scale of the identity branch (Eq. 3)")
    p.add_argument("--alpha", type=float, help="scale of the intensity branch (Eq. 8)")
    p.add_argument("--batch", type=Path, help="JSONL file instead of --image: an object of these settings a video")
    p.add_argument("--detector", choices=("dlib", "insightface"), help="face detector; without it, by the preset")
    p.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 a video could not be written, 2 wrong use, which an image without exactly one face is."""
    args = parser().parse_args(argv)
    try:
        wanted = requests(args)
        from training.captioner import Captioner
        from training.sampler import Sampler

        captioner = Captioner.of(args.captioner, args.captioner_set, args.device)
        sampler = Sampler(args.checkpoint, args.device, args.detector, captioner)
    except (ValueError, ModuleNotFoundError) as error:
        return _refuse(error)
    failed = False
    for one in tqdm(wanted, desc="sample", disable=len(wanted) < 2):
        try:
            tqdm.write(str(sampler.write(one, args.out)), file=sys.stdout)
        except ValueError as error:
            _refuse(error)
            failed = True
        except OSError as error:
            _refuse(error)
            return 1
    return 2 if failed else 0


def _refuse(error: Exception) -> int:
    hint = ": install human-motion[train]" if isinstance(error, ModuleNotFoundError) else ""
    tqdm.write(f"training.sample: {error}{hint}", file=sys.stderr)  # above the bar, where there is one
    return 2


def requests(args: argparse.Namespace) -> list[Request]:
    """The videos asked for. Raises ValueError with one line when something is wrong with them."""
    if (args.batch is None) == (args.image is None):
        raise ValueError("give --image, or --batch with a JSONL file")
    if args.batch is not None:
        return read_batch(args.batch)
    same = {"image": args.image, "prompt": args.prompt, "action": args.action, "seed": args.seed}
    same |= {"negative_prompt": args.negative_prompt, "guidance": args.guidance, "steps": args.steps}
    same |= {"lambda": args.lambda_, "alpha": args.alpha}
    return [request("command line", intensity=m, **same) for m in args.intensity]


if __name__ == "__main__":
    sys.exit(main())
