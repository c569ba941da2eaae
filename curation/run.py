"""Curate: `python -m curation.run sources.yaml`. Lists the clips, measures what is not measured yet, decides, writes.

Exit codes: 0 done; 1 the run broke; 2 wrong use; 3 more clips failed than max_failed_fraction allows.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from functools import partial
from importlib.metadata import version
from typing import Any

from curation.config import Config
from curation.config_file import load
from curation.errors import ConfigError, Stopped
from curation.fingerprint import build_engine, describe_engines
from curation.forgotten import without_forgotten
from curation.listing import list_clips
from curation.lock import Lock, locked
from curation.names import SUMMARY
from curation.weights import ensure
from manifests.storage import place
from stages import weights


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m curation.run", description=__doc__.splitlines()[0])
    parser.add_argument("config", help="sources.yaml: what to curate, and how")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, may be repeated")
    parser.add_argument("--output", help="output folder, instead of the one in the file")
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N clips of the listing")
    parser.add_argument("--runner", choices=("ray", "in-process"), default="ray")
    parser.add_argument("--retry-failed", action="store_true", help="measure clips again that failed for good")
    parser.add_argument("--dry-run", action="store_true", help="list what would be done, and do nothing")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        config = load(args.config, tuple(args.set), args.output)
        refuse_temporary_paths(config)
        require_weights(config, args.dry_run)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        if args.dry_run:
            from curation.dry_run import dry_run

            return dry_run(config, args.limit)
        with locked(place(config.output), "curation.run") as lock:
            return run(config, lock, args.runner, args.limit, args.retry_failed)
    except ConfigError as error:  # an index that is none
        print(error, file=sys.stderr)
        return 2
    except (Stopped, OSError) as error:
        return stopped(error, config)
    except KeyboardInterrupt:
        print("\ninterrupted: what was measured is kept; the same command goes on from there", file=sys.stderr)
        return 130


def stopped(error: Exception, config: Config) -> int:
    """Say in one line why nothing goes on; the exit code."""
    text = f"{error.filename or config.output}: {error.strerror}" if isinstance(error, OSError) else str(error)
    print(f"stopped: {text}", file=sys.stderr)
    return 1


def refuse_temporary_paths(config: Config) -> None:
    """Ray unpacks a job's working directory into a folder that it deletes later: nothing of ours may lie there."""
    for key, path in [("output", config.output), *((f"source {s.name}", s.root) for s in config.sources)]:
        if "/runtime_resources/" in path:
            raise ConfigError(f"{key}: {path} lies in Ray's temporary working directory; give an absolute path")


def require_weights(config: Config, look_only: bool) -> None:
    """Refuse to start without the libraries and model files of the chosen engines; what can be, is downloaded first.

    With `look_only` missing files are left for `--dry-run` to list.
    """
    try:
        engines = [build_engine(stage, chosen, config) for stage, chosen in config.stage_table()]
        for engine in engines:
            engine.version()
        if not look_only:
            ensure(weights.needed(engines))
            for engine in engines:
                if isinstance(engine, weights.HubModel):
                    engine.download()
    except ValueError as error:
        raise ConfigError(str(error)) from error


def run(config: Config, lock: Lock, runner: str, limit: int | None = None, retry_failed: bool = False) -> int:
    """List, measure, decide, write. Returns the exit code."""
    from curation.compact import compact
    from curation.outputs import write_json, write_outputs
    from curation.report import write_report
    from curation.store import stage_folder, write_listing
    from curation.summary import print_summary, save_config
    from curation.tables import local_tables, set_aside
    from curation.verdicts import Measurements

    started = time.monotonic()
    output = place(config.output)
    engines = describe_engines(config)
    ignored: Counter[str] = Counter()
    find_shots = partial(measure, runner=runner, doing="finding shots")
    listed = list_clips(config, limit, ignored, find_shots, retry_failed)
    clips = without_forgotten(listed, output, ignored)
    found = write_listing(output, clips)
    save_config(output, config, engines)
    print(f"{found:,} clips listed in {len(config.sources)} source(s)", flush=True)
    folders = [stage_folder(output, name, engine["fingerprint"]) for name, engine in engines.items()]
    tables = local_tables(output, config)
    set_aside(folders, tables)
    compact(folders, tables)
    with Measurements(output, config, engines, "all" if retry_failed else "transient") as known:
        measured = measure(config, engines, known, runner)
    compact(folders, tables)
    with Measurements(output, config, engines, "nothing") as known:
        lock.check()
        decision = write_outputs(config, engines, known)
        lost = decision.status.get("to_measure", 0)
        if lost or decision.clips != found:
            raise Stopped(
                f"{found} clips went in, {decision.clips} came out, {lost} of them unmeasured: a defect, report it"
            )
        summary: dict[str, Any] = {
            **decision.as_json(),
            "ignored_files": dict(sorted(ignored.items())),
            "stages": {name: {**described, **measured["stages"][name]} for name, described in engines.items()},
            "thresholds": config.limits(),
            "versions": {name: version(name) for name in ("human-motion", "ray", "duckdb", "pyarrow", "numpy")},
            "run": {"runner": runner, "seconds": round(time.monotonic() - started, 3), **measured["run"]},
        }
        steps = {step["stage"]: step for step in decision.funnel}
        for name in engines:
            step = steps[name]
            reached = step["in"] - step["to_measure"]
            summary["stages"][name]["reused"] = max(0, reached - summary["stages"][name]["measured"])
        write_json(output / SUMMARY, summary)
        write_report(output, config, known, summary)
    print_summary(summary, output)
    failed = decision.status.get("failed", 0)
    if decision.clips and failed / decision.clips > config.execution.max_failed_fraction:
        allowed = config.execution.max_failed_fraction
        print(
            f"{failed} of {decision.clips} clips failed, more than max_failed_fraction = {allowed:g}", file=sys.stderr
        )
        return 3
    return 0


def measure(
    config: Config, engines: dict[str, Any], known: Any, runner: str, doing: str = "measuring"
) -> dict[str, Any]:
    """Measure all that is lacking; returns what was measured and how long it took, by stage."""
    from tqdm import tqdm

    from curation.store import Recorder
    from curation.tasks import count_pending, pending_tasks

    stages = {stage.name: (stage, engines[stage.name]["fingerprint"]) for stage, _ in config.stage_table()}
    by_stage: dict[str, dict[str, Any]] = {
        name: {"measured": 0, "seconds": 0.0, "gpu_seconds": None} for name in stages
    }
    todo = count_pending(known)
    if not todo:
        return {"stages": by_stage, "run": {"clips_measured": 0, "startup_seconds": 0.0}}
    started = time.monotonic()
    recorder = Recorder(place(config.output), stages)
    verdicts: Counter[str] = Counter()
    startup = None
    every = 0.5 if sys.stderr.isatty() else 30.0  # a log wants a line now and then, not a moving bar
    with tqdm(total=todo, unit="clip", desc=doing, dynamic_ncols=True, mininterval=every, maxinterval=every) as bar:
        try:
            for task in _runner(config, engines, runner)(pending_tasks(known)):
                if startup is None:
                    startup = time.monotonic() - started - sum(task.seconds.values())
                recorder.add(task.new)
                for name in task.new:
                    by_stage[name]["measured"] += 1
                for name, seconds in task.seconds.items():
                    by_stage[name]["seconds"] += seconds
                for name, seconds in task.gpu_seconds.items():
                    by_stage[name]["gpu_seconds"] = (by_stage[name]["gpu_seconds"] or 0.0) + seconds
                failed = any(row.get("error") for row in task.new.values())
                verdicts["failed" if failed else "rejected" if task.rejected else "kept"] += 1
                bar.set_postfix({name: verdicts[name] for name in ("kept", "rejected", "failed")}, refresh=False)
                bar.update()
        finally:
            recorder.flush()
    for entry in by_stage.values():
        entry["seconds"] = round(entry["seconds"], 3)
        if entry["gpu_seconds"] is not None:
            entry["gpu_seconds"] = round(entry["gpu_seconds"], 3)
    seconds = time.monotonic() - started
    return {
        "stages": by_stage,
        "run": {
            "clips_measured": todo,
            "measuring_seconds": round(seconds, 3),
            "startup_seconds": round(startup or 0.0, 3),
        },
    }


def _runner(config: Config, engines: dict[str, Any], name: str) -> Any:
    if name == "in-process":
        from curation.local_runner import run_in_process

        return lambda tasks: run_in_process(config, engines, tasks)
    from curation.cluster import connect
    from curation.ray_runner import RayRunner

    connect()
    return RayRunner(config, engines).run


if __name__ == "__main__":
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    sys.exit(main())
