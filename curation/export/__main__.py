"""Export kept clips: `python -m curation.export OUT --to webdataset|hf|clips`. Goes on where it was stopped.

The clips of each split are dealt into shards by their ids. A shard whose clips are unchanged is not made again, so an
export follows a manifest that is decided anew at the cost of what changed.
"""

from __future__ import annotations

import argparse
import os
import sys

from curation.errors import ConfigError, Stopped


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m curation.export", description=__doc__.splitlines()[0])
    parser.add_argument("output", help="output folder of a run")
    parser.add_argument("--to", required=True, choices=("webdataset", "hf", "clips"))
    parser.add_argument(
        "--form",
        choices=("grid", "original"),
        default="grid",
        help="the square frame grid that M was measured on (default), or every frame of the span at its own size",
    )
    parser.add_argument("--dest", help="folder to write to; default OUT/exports/<to>-<form>")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that encode")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    from curation.export.export import Export

    try:
        export = Export.of(args.output, args.to, args.form, args.dest)
        return export.run(max(1, args.workers))
    except (ConfigError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except (Stopped, OSError) as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: finished shards are kept; the same command goes on from there", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
