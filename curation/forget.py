"""Forget clips: `python -m curation.forget OUT --clip ID | --source NAME | --path SOURCE/PATH`.

Removes them from measurements, listing, manifests, flows, caches and exports, decides the rest anew, and then searches
everything that is left for a trace. Only a hash of each clip's id is kept, so that later runs leave the clip out while
its file still lies in the source. The source's own files are not touched.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.config import Config
from curation.damaged import DAMAGED, write_measured
from curation.decide import decide, load_decided
from curation.errors import ConfigError, Stopped, shown
from curation.export.export import STATE, Export
from curation.forgotten import add_forgotten
from curation.lock import Lock, locked
from curation.run import stopped
from curation.store import listing_folder
from curation.tables import local_tables
from curation.traces import Needles, search
from manifests.shards import read_table, whole
from manifests.storage import Place, Remote, place
from manifests.trees import files_below, local_copy, remove_tree

Found = dict[str, tuple[str, str]]  # by clip id: source, path


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m curation.forget", description=__doc__.splitlines()[0])
    parser.add_argument("output", help="output folder of a run")
    parser.add_argument("--clip", action="append", default=[], metavar="ID", help="a clip_id; may be repeated")
    parser.add_argument("--path", action="append", default=[], metavar="SOURCE/PATH", help="all clips of one file")
    parser.add_argument("--source", action="append", default=[], metavar="NAME", help="all clips of a source")
    parser.add_argument(
        "--also", action="append", default=[], metavar="DIR", help="an export or a cache outside OUT, to clean as well"
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be forgotten, and do nothing")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        config = load_decided(args.output, [])
        also = [_folder(folder) for folder in args.also]
        found = select(config, args.clip, args.path, args.source)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    print(f"{len(found):,} clip(s) to forget")
    for clip_id, (source, path) in sorted(found.items(), key=lambda item: item[1])[:20]:
        print(f"  {clip_id}  {shown(f'{source}/{path}')}")
    if args.dry_run:
        return 0
    try:
        with locked(place(config.output), "curation.forget") as lock:
            return forget(config, found, also, lock)
    except (Stopped, OSError) as error:
        return stopped(error, config)


def _folder(given: str) -> Place:
    try:
        found = place(given)
    except ValueError as error:
        raise ConfigError(f"--also {error}") from None
    if not found.is_dir():
        raise ConfigError(f"--also {given}: no such folder")
    return found.absolute() if isinstance(found, Path) else found


def select(config: Config, clips: list[str], paths: list[str], sources: list[str]) -> Found:
    """The clips that are meant, by what the listing and the shards know. Raises ConfigError when one is not known."""
    known = dict(_known(config))
    found: Found = {}
    for clip_id in clips:
        if clip_id not in known:
            raise ConfigError(f"--clip {clip_id}: no such clip in {config.output}")
        found[clip_id] = known[clip_id]
    for wanted in paths:
        matching = {clip_id: at for clip_id, at in known.items() if "/".join(at) == wanted}
        if not matching:
            raise ConfigError(
                f"--path {wanted}: no such file in {config.output}; expected SOURCE/PATH as in the manifest"
            )
        found |= matching
    for name in sources:
        matching = {clip_id: at for clip_id, at in known.items() if at[0] == name}
        if not matching:
            raise ConfigError(f"--source {name}: no clip of such a source in {config.output}")
        found |= matching
    if not found:
        raise ConfigError("nothing to forget: give --clip, --path or --source")
    return found


def _outputs(config: Config) -> list[Place]:
    """The output folder, and those below it of the runs that found the shots of sources with windows."""
    output = place(config.output)
    return [output, *(output / "windows" / source.name for source in config.sources)]


def _known(config: Config) -> Iterator[tuple[str, tuple[str, str]]]:
    """(clip_id, (source, path)) of every clip, and every video with windows, that the output folder can name."""
    output = place(config.output)
    for folder in (*map(listing_folder, _outputs(config)), output / "manifests", output / "rejected"):
        for shard in folder.glob("*.parquet"):
            for row in read_table(shard, ["clip_id", "source", "path"]).to_pylist():
                yield row["clip_id"], (row["source"], row["path"])


def forget(config: Config, clips: Found, also: list[Place], lock: Lock) -> int:
    """Remove the clips and search for what is left of them. Returns the exit code: 1 when a trace is found."""
    output = place(config.output)
    add_forgotten(output, clips)
    rows = 0
    for folder in _outputs(config):
        for file in [*files_below(folder / "measurements")]:
            if file.name.endswith(DAMAGED):
                file.unlink()
        tables = [file for file in files_below(folder / "measurements") if file.name.endswith(".parquet")]
        rows += sum(drop_rows(file, clips) for file in tables)
        if isinstance(folder, Remote):
            remove_tree(local_tables(folder, config))  # copies of what they were
    files = 0
    for folder in (output, *also):
        files += _remove_named(folder, clips)
    exports = _exports(output, [output, *also])
    for export in exports:
        export.drop(clips)
    decide(config, lock)
    for export in exports:
        export.run(workers=1)
    others = {path for clip_id, (_, path) in _known(config) if clip_id not in clips}
    needles = Needles.of(clips, others)
    searched, traces = 0, []
    for folder in (output, *also):
        for path, hit in search(folder, needles):
            searched += 1
            traces += [path] if hit else []
    print(f"\nforgotten: {len(clips):,} clip(s); removed {rows:,} measurement(s) and {files:,} file(s)")
    print(f"searched {searched:,} file(s): {'no trace is left' if not traces else f'{len(traces)} still tell of them'}")
    for path in traces:
        print(f"  {path}", file=sys.stderr)
    print("models trained on these clips, copies made elsewhere, and the source files themselves are not covered")
    return 1 if traces else 0


def drop_rows(file: Place, clips: Found) -> int:
    """Rewrite a table of measurements without the rows of these clips; returns how many there were."""
    ids = pa.array(sorted(clips))
    column = read_table(file, ["clip_id"])["clip_id"]
    count = pc.sum(pc.is_in(column, ids)).as_py() or 0
    if count == len(column) and file.parent.name != "listing":  # a listing keeps its schema
        file.unlink()
    elif count:
        content = pa.BufferOutputStream()
        with (
            local_copy(file) as local,
            pq.ParquetFile(local) as source,
            pq.ParquetWriter(content, source.schema_arrow, compression="zstd") as target,
        ):
            for batch in source.iter_batches():
                target.write_batch(batch.filter(pc.invert(pc.is_in(batch["clip_id"], ids))))
        if file.parent.name == "listing":
            with whole(file) as temporary:
                temporary.write_bytes(content.getvalue())
        else:
            write_measured(file.parent, file.name.partition("-")[0], content.getvalue())
            file.unlink()
    return count


def _remove_named(folder: Place, clips: Found) -> int:
    """Remove the files whose name begins with the id of one of these clips: flows, cached frames, traces of work."""
    removed = 0
    for path in files_below(folder):
        if path.name[:32] in clips:
            path.unlink()
            removed += 1
    return removed


def _exports(output: Place, folders: list[Place]) -> list[Export]:
    """The exports at or below these folders."""
    states = sorted({file for folder in folders for file in files_below(folder) if file.name == STATE}, key=str)
    described = [(state, json.loads(state.read_text(encoding="utf-8"))) for state in states]
    return [Export.of(output, known["to"], known["form"], state.parent) for state, known in described]


if __name__ == "__main__":
    sys.exit(main())
