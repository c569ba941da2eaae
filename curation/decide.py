"""Decide again: `python -m curation.decide OUT --set thresholds.min_quality=0.4`. Runs no model.

Starts from the configuration of the run that made OUT, applies --set to its thresholds, resample and split, and writes
manifests, rejected and summary anew. Clips whose later stages were never measured are counted and listed as to_measure;
`curation.run` with the same --set measures just those.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from curation.config import Config
from curation.config_file import validate
from curation.errors import ConfigError, Stopped
from curation.lock import Lock, locked
from curation.names import CONFIG, ENGINES, SUMMARY
from curation.run import stopped
from curation.yaml_file import apply_override, read_yaml
from manifests.storage import Place, place

DECIDES = ("thresholds", "resample", "split", "mix")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m curation.decide", description=__doc__.splitlines()[0])
    parser.add_argument("output", help="output folder of a run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, may be repeated")
    parser.add_argument("--what-if", action="store_true", help="say what --set would change, and write nothing")
    parser.add_argument(
        "--sweep", metavar="KEY=FROM:TO:STEP", help="the yield over the values of one threshold; writes nothing"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="with --sweep: draw the curve there")
    args = parser.parse_args(argv)
    if args.plot and not args.sweep:
        parser.error("--plot needs --sweep")
    return args


def main(argv: list[str] | None = None) -> int:
    from curation import what_if

    args = parse(argv)
    try:
        config = load_decided(args.output, args.set)
        sweep = what_if.parse_sweep(args.sweep) if args.sweep else None
        swept = [load_decided(args.output, [*args.set, f"{sweep.key}={v}"]) for v in sweep.values] if sweep else []
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        if sweep:
            what_if.print_sweep(sweep, swept, args.plot)
        elif args.what_if:
            what_if.print_what_if(load_decided(args.output, []), config)
        else:
            with locked(place(config.output), "curation.decide") as lock:
                decide(config, lock)
    except (Stopped, OSError) as error:
        return stopped(error, config)
    return 0


def load_decided(where: str | Place, overrides: list[str]) -> Config:
    """The configuration of the run whose output folder, a path or a URI, is given, with the overrides. Raises
    ConfigError."""
    try:
        output = place(where)
        for needed in (CONFIG, ENGINES):
            if not (output / needed).is_file():
                raise ConfigError(f"{output}: no {needed} there; expected the output folder of a run")
    except ConfigError:
        raise
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    raw = read_yaml(output / CONFIG)
    raw["output"] = str(output.resolve() if isinstance(output, Path) else output)
    for override in overrides:
        section = override.partition(".")[0]
        if section not in DECIDES:
            raise ConfigError(
                f"--set {override}: {section} changes what is measured; decide takes {', '.join(DECIDES)}. "
                "Use curation.run for it"
            )
        apply_override(raw, override)
    config = validate(raw, str(output / CONFIG), Path(), check_roots=False)
    measured = json.loads((output / ENGINES).read_text(encoding="utf-8"))
    if lacking := [stage.name for stage, _ in config.stage_table() if stage.name not in measured]:
        raise ConfigError(f"{output}: {', '.join(lacking)} was never measured there; run curation.run again first")
    return config


def decide(config: Config, lock: Lock) -> None:
    """Write manifests, rejected and summary from the measurements alone."""
    from curation.outputs import write_json, write_outputs
    from curation.report import write_report
    from curation.summary import print_summary
    from curation.verdicts import Measurements

    output = place(config.output)
    engines = json.loads((output / ENGINES).read_text(encoding="utf-8"))
    with Measurements(output, config, engines, "nothing") as measurements:
        lock.check()
        decision = write_outputs(config, engines, measurements)
        path = output / SUMMARY
        last: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        stages = {name: last.get("stages", {}).get(name, {}) | engine for name, engine in engines.items()}
        summary = {**last, **decision.as_json(), "stages": stages, "thresholds": config.limits()}
        write_json(path, summary)
        write_report(output, config, measurements, summary)
    print_summary(summary, output)
    if summary["to_measure"]:
        print("clips marked to_measure stand in rejected/; curation.run with the same --set measures them")


if __name__ == "__main__":
    sys.exit(main())
