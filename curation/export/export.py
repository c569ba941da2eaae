"""An export of one run: its shards, which of them are up to date, and the making of those that are not."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.config import Config
from curation.decide import load_decided
from curation.errors import ConfigError, Stopped
from curation.export.card import write_card
from curation.export.media import Form, Renderer
from curation.export.writers import WRITERS, Rendered, Row, as_json
from curation.outputs import write_json
from curation.tables import local_files, local_tables
from manifests import shards
from manifests.storage import Place, place
from manifests.trees import files_below, remove_tree
from stages.base import ClipError
from stages.frames import FrameSpec

VERSION = 1  # of the files written: a new one makes every shard anew
PER_SHARD = 512  # clips, about
STATE = "export.json"
NOTES = ".shards"  # per shard, the key it was made under and the clips it holds
AHEAD = 4  # clips per worker that wait, rendered or not


@dataclass(frozen=True)
class Export:
    """Where an export comes from, what it is, and where it goes."""

    config: Config
    to: str
    form: Form
    dest: Place

    @classmethod
    def of(cls, output: str | Place, to: str, form: Form, dest: str | Place | None) -> Export:
        """Raises ConfigError for a folder that is no run's output, or a `dest` that holds something else."""
        config = load_decided(output, [])
        dest = place(dest) if dest else place(config.output) / "exports" / f"{to}-{form}"
        dest = dest.absolute() if isinstance(dest, Path) else dest
        state = dest / STATE
        described = {"to": to, "form": form}
        if state.exists():
            found = json.loads(state.read_text(encoding="utf-8"))
            if found != described:
                raise ConfigError(f"{dest}: holds an export --to {found['to']} --form {found['form']}; choose another")
        elif next(files_below(dest), None) is not None:
            raise ConfigError(f"{dest}: is not empty and holds no export; choose another --dest")
        return cls(config, to, form, dest)

    def run(self, workers: int) -> int:
        """Bring the export up to date with the manifest. Returns the exit code: 3 when more clips than
        `execution.max_failed_fraction` allows could not be rendered."""
        from tqdm import tqdm

        dataset = _Manifest(self.config)
        write_json(self.dest / STATE, {"to": self.to, "form": self.form})
        names: set[str] = set()
        failed: list[dict[str, str]] = []
        made = 0
        renderer = (
            dataset.roots,
            dataset.spec,
            self.form,
            self.config.execution.deadline_s,
            self.config.storage.opened(),
        )
        context = multiprocessing.get_context("spawn")
        with (
            ProcessPoolExecutor(workers, context, _start, renderer) as pool,
            tqdm(total=dataset.count, unit="clip", desc="exporting", dynamic_ncols=True) as bar,
        ):
            for name, rows in dataset.shards():
                names.add(name)
                note = self._note(name)
                key = self._key(rows)
                if self._is_current(name, key):
                    bar.update(len(rows))
                else:
                    note.unlink(missing_ok=True)
                    errors = self._make(pool, workers, name, rows, bar)
                    clips = [row["clip_id"] for row in rows]
                    write_json(note, {"key": key, "clips": clips, "failed": errors})
                    made += 1
                failed += json.loads(note.read_text(encoding="utf-8"))["failed"]
        self._remove_all_but(names)
        if self.to == "hf":
            write_card(self.config, self.dest, self.form)
        print(f"{dataset.count - len(failed):,} clips in {len(names)} shard(s) at {self.dest}, {made} made now")
        for error in failed[:10]:
            print(f"  not exported: {error['path']}: {error['error']}")
        allowed = self.config.execution.max_failed_fraction
        return 3 if dataset.count and len(failed) / dataset.count > allowed else 0

    def _make(
        self, pool: ProcessPoolExecutor, workers: int, name: str, rows: list[Row], bar: Any
    ) -> list[dict[str, str]]:
        """Render and write one shard. Returns the clips that could not be rendered, and why."""
        errors: list[dict[str, str]] = []

        def clips() -> Iterator[Rendered]:
            for row, (extension, media, error) in zip(rows, _in_order(pool, rows, AHEAD * workers), strict=True):
                bar.update()
                if error is None:
                    yield row, extension, media
                else:
                    path = f"{row['source']}/{row['path']}"
                    errors.append({"clip_id": row["clip_id"], "path": path, "error": error})

        try:
            WRITERS[self.to].write(self._shard(name), clips())
        except BrokenProcessPool as error:
            raise Stopped(f"a process that renders the clips of {name} died; the same command goes on") from error
        return errors

    def _key(self, rows: Iterable[Row]) -> str:
        digest = hashlib.blake2b(f"{VERSION} {self.to} {self.form}".encode(), digest_size=16)
        for row in rows:
            digest.update(as_json(row))
        return digest.hexdigest()

    def _shard(self, name: str) -> Place:
        return self.dest / WRITERS[self.to].path(name)

    def _note(self, name: str) -> Place:
        return self.dest / NOTES / f"{name}.json"

    def _notes(self) -> list[Place]:
        return sorted((self.dest / NOTES).glob("*.json"), key=str)

    def _is_current(self, name: str, key: str) -> bool:
        """Whether the shard stands as it should; one that lacks clips is tried again."""
        note = self._note(name)
        if not note.exists() or not self._shard(name).exists():
            return False
        found = json.loads(note.read_text(encoding="utf-8"))
        return found["key"] == key and not found["failed"]

    def drop(self, clips: Collection[str]) -> None:
        """Remove the shards that hold one of these clips; `run` makes them again from what the manifest then has."""
        for note in self._notes():
            if not set(clips).isdisjoint(json.loads(note.read_text(encoding="utf-8"))["clips"]):
                self._remove(note)

    def _remove_all_but(self, names: set[str]) -> None:
        for note in self._notes():
            if _shard_of(note) not in names:
                self._remove(note)

    def _remove(self, note: Place) -> None:
        shard = self._shard(_shard_of(note))
        if shard.is_dir():
            remove_tree(shard)
        else:
            shard.unlink(missing_ok=True)
        note.unlink()


def _shard_of(note: Place) -> str:
    return note.name.removesuffix(".json")


class _Manifest:
    """The kept clips of a run, split by split, in shards of clips whose ids begin alike."""

    def __init__(self, config: Config) -> None:
        import pyarrow.dataset

        output = place(config.output)
        files = local_files(output / "manifests", local_tables(output, config))
        self._dataset = pyarrow.dataset.dataset(files, format="parquet")
        described = shards.metadata(output)
        self.roots: dict[str, str] = described["roots"]
        self.spec = FrameSpec(**described["frames"])
        self.count: int = self._dataset.count_rows()
        self._bits = max(0, (self.count - 1) // PER_SHARD).bit_length()

    def shards(self) -> Iterator[tuple[str, list[Row]]]:
        """(name, rows in the order of their ids), for every shard that holds a clip."""
        import pyarrow.compute as pc

        for split in ("train", "val"):
            batches = self._dataset.to_batches(filter=pc.field("split") == split)
            rows = (row for batch in batches for row in batch.to_pylist())
            for index, group in itertools.groupby(rows, lambda row: int(row["clip_id"], 16) >> (128 - self._bits)):
                yield f"{split}-{index:05d}", list(group)


_renderer: Renderer


def _start(*of_renderer: Any) -> None:
    global _renderer
    _renderer = Renderer(*of_renderer)


def _render(row: Row) -> tuple[str, bytes, str | None]:
    try:
        return (*_renderer.render(row), None)
    except ClipError as error:
        return "", b"", str(error)


def _in_order(pool: ProcessPoolExecutor, rows: list[Row], ahead: int) -> Iterator[tuple[str, bytes, str | None]]:
    """Results in the order of the rows, at most `ahead` of them waiting."""
    left = iter(rows)
    waiting: list[Future[tuple[str, bytes, str | None]]] = [
        pool.submit(_render, row) for row in itertools.islice(left, ahead)
    ]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(_render, row) for row in itertools.islice(left, 1)]
