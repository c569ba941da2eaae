"""What each subcommand of training.evaluate does."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from manifests.shards import whole
from training.evaluate import plan
from training.metrics.table import METRICS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m training.evaluate", description="The paper's evaluation.")
    commands = top.add_subparsers(dest="command", required=True)

    p = commands.add_parser("plan", help="portraits times prompts, as a JSONL file for training.sample --batch")
    p.add_argument("portraits", type=Path, help="folder of pictures with one face each")
    p.add_argument("--prompts", type=Path, required=True, help="text file, a prompt a line, or JSONL by portrait")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--intensity", type=float, nargs="+", default=[plan.INTENSITY], help="M; Table 1: 20")
    p.add_argument("--action", default="", help="action phrase; Table 1: empty")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--parts", type=int, default=1, help="files to deal the videos out to, one for each GPU")
    p.set_defaults(run=run_plan)

    p = commands.add_parser("prompts", help="prompts for each portrait from an OpenAI-compatible server")
    p.add_argument("portraits", type=Path)
    p.add_argument("--base-url", required=True, help="for example http://localhost:8000/v1")
    p.add_argument("--model", required=True)
    p.add_argument("--api-key-env", help="environment variable that holds the key")
    p.add_argument("--count", type=int, default=140)
    p.add_argument("--template", type=Path, help="file with the question; {count} and {known} are filled in")
    p.add_argument("--out", type=Path, required=True, help="JSONL; a run that was stopped goes on")
    p.set_defaults(run=run_prompts)

    p = commands.add_parser("score", help="measure a folder of videos; goes on where it was stopped")
    p.add_argument("videos", type=Path, help="training.sample's output, or a folder with a videos.jsonl")
    p.add_argument("--metrics", nargs="+", choices=list(METRICS), default=list(METRICS), metavar="METRIC")
    p.add_argument("--name", help="the method's name in tables; default: the folder's")
    p.add_argument("--out", type=Path, help="default: VIDEOS/evaluation")
    p.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N; under torchrun, cuda is each process's own")
    p.set_defaults(run=run_score)

    p = commands.add_parser("table", help="several methods' scores in one table, beside the paper's")
    p.add_argument("scores", type=Path, nargs="+", help="folders that `score` wrote")
    p.add_argument("--out", type=Path, help="Markdown file; default: standard output")
    p.set_defaults(run=run_table)

    p = commands.add_parser("baseline", help="the plan through one of the paper's baselines")
    p.add_argument("method", choices=("plus-face", "faceid-portrait", "faceid-plusv2", "id-animator"))
    p.add_argument("--plan", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--base", default="stable-diffusion-v1-5", help="folder, a path or below a weights folder")
    p.add_argument("--motion-adapter", default="animatediff-motion-adapter-v1-5-2")
    p.add_argument("--ip-adapter", help="file, a path or below a weights folder; default: the published one's name")
    p.add_argument("--image-encoder", default="ip-adapter-image-encoder")
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--guidance", type=float, default=8.0)
    p.add_argument("--frames", type=int, default=16)
    p.add_argument("--size", type=int, default=512)
    p.add_argument("--fps", type=int, default=8)
    p.add_argument("--detector", choices=("dlib", "insightface"), default="insightface")
    p.add_argument("--device", default="cpu")
    p.set_defaults(run=run_baseline)

    p = commands.add_parser("study", help="a page that asks people which of several methods' videos is best")
    p.add_argument("methods", nargs="+", metavar="NAME=FOLDER")
    p.add_argument("--out", type=Path, required=True, help="HTML file; the key comes beside it")
    p.add_argument("--count", type=int, default=10, help="groups to show")
    p.add_argument("--seed", type=int, default=0)
    p.set_defaults(run=run_study)

    p = commands.add_parser("tally", help="counts the answers of a study")
    p.add_argument("answers", type=Path, nargs="+", help="files that the page saved")
    p.add_argument("--key", type=Path, nargs="+", required=True)
    p.add_argument("--out", type=Path, help="JSON file")
    p.set_defaults(run=run_tally)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done; 1 some videos could not be made or scored, which is said; 2 wrong use."""
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, FileNotFoundError) as error:
        print(f"training.evaluate: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"training.evaluate: {error}: pip install 'human-motion[train,paper]'", file=sys.stderr)
    return 2


def run_plan(args: argparse.Namespace) -> int:
    """Writes the plan and says how large it is."""
    from training.requests import read_batch, request

    pictures = plan.portraits(args.portraits)
    prompts = plan.read_prompts(args.prompts, args.portraits, pictures)
    lines = plan.requests(prompts, args.intensity, args.action, args.seed)
    for line in lines:
        request("command line", **line)  # before anything is written
    for path in plan.write_parts(lines, args.out, args.parts):
        print(f"{path}: {len(read_batch(path))} videos")
    counts = sorted({len(of) for of in prompts.values()})
    each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    print(f"{len(pictures)} portraits x {each} prompts x {len(args.intensity)} intensities = {len(lines)} videos")
    return 0


def run_prompts(args: argparse.Namespace) -> int:
    """Asks the server for each portrait that has too few prompts."""
    from training.evaluate.prompts import TEMPLATE, server, write_prompts

    template = TEMPLATE if args.template is None else args.template.read_text(encoding="utf-8")
    pictures = plan.portraits(args.portraits)
    engine = server(args.base_url, args.model, args.api_key_env)
    write_prompts(engine, args.portraits, pictures, args.count, template, args.out)
    print(args.out)
    return 0


def run_score(args: argparse.Namespace) -> int:
    """Measures, and writes the tables when nothing is missing any more."""
    from training.evaluate.score import Scores, Share
    from training.evaluate.tables import markdown, write_summary

    out = args.out or args.videos / "evaluation"
    scores = Scores(args.videos, out, args.metrics)
    share = Share.of(args.device)
    scores.measure(share)
    if missing := scores.missing():
        print(f"{share.rank}: {missing} scores are still missing, other processes are at them", file=sys.stderr)
        return 0
    summary = scores.summary(args.name or args.videos.resolve().name)
    write_summary(summary, out)
    print(markdown([summary]), end="")
    print(f"\n{out}")
    failed = {name: len(found["failed"]) for name, found in summary["metrics"].items() if found["failed"]}
    for name, found in summary["metrics"].items():
        for video, error in list(found["failed"].items())[:3]:
            print(f"training.evaluate: {name} of {video}: {error}", file=sys.stderr)
    return 1 if failed else 0


def run_table(args: argparse.Namespace) -> int:
    """One row for each folder of scores."""
    from training.evaluate.tables import markdown, read_summary

    text = markdown([read_summary(folder) for folder in args.scores])
    if args.out is None:
        print(text, end="")
    else:
        with whole(args.out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


def run_baseline(args: argparse.Namespace) -> int:
    """Makes the plan's videos, or for ID-Animator lists what its own code is to make."""
    from training.evaluate.baselines import Settings, list_videos, make_videos
    from training.requests import read_batch

    wanted = read_batch(args.plan)
    if args.method == "id-animator":
        path = list_videos(wanted, args.out)
        print(f"{path}: run ID-Animator on each line's image with its `said`, and save the video as its `video`")
        return 0
    names = {field: getattr(args, field) for field in Settings.__dataclass_fields__}
    code = make_videos(wanted, Settings(**names), args.out)
    made = sum((args.out / f"{request.name()}.mp4").exists() for request in wanted)
    print(f"{made} of {len(wanted)} videos in {args.out}")
    return code


def run_study(args: argparse.Namespace) -> int:
    """Writes page and key."""
    from training.evaluate.study import make_study

    folders = {}
    for method in args.methods:
        name, equals, folder = method.partition("=")
        if not equals or not name or name in folders:
            raise ValueError(f"{method}: expected NAME=FOLDER, each name once")
        folders[name] = Path(folder)
    key = make_study(folders, args.count, args.seed, args.out)
    print(f"{args.out}: give this to the participants\n{key}: keep this for the tally")
    return 0


def run_tally(args: argparse.Namespace) -> int:
    """Prints the table; writes the counts as JSON where asked."""
    from training.evaluate.study import tally, tally_table

    result = tally(args.key, args.answers)
    if args.out is not None:
        with whole(args.out) as temporary:
            temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(tally_table(result), end="")
    return 0
