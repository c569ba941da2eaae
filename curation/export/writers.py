"""The shards of an export: what one holds, and how it is written, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.schema import manifest_schema
from manifests.shards import whole
from manifests.storage import Place

Row = dict[str, Any]
Rendered = tuple[Row, str, bytes]  # the manifest's row, the file's extension, its bytes
ROW_GROUP = 16  # clips held in memory while a Parquet shard is written


class Writer(Protocol):
    """Writes one shard from its clips, in order, and names it."""

    def path(self, shard: str) -> str:
        """The shard's file or folder, relative to the export."""

    def write(self, path: Place, clips: Iterable[Rendered]) -> None:
        """Write the shard at `path`."""


class WebDataset:
    """Tars that `webdataset` and plain tar read: <clip_id>.mp4 (or .png) and <clip_id>.json for each clip."""

    def path(self, shard: str) -> str:
        return f"{shard}.tar"

    def write(self, path: Place, clips: Iterable[Rendered]) -> None:
        import webdataset

        with whole(path) as temporary, temporary.open("wb") as file:
            # Fixed owner, mode and time: the same clips give the same bytes.
            tar = webdataset.TarWriter(file, user="root", group="root", mode=0o644, mtime=0.0, encoder=False)
            for row, extension, media in clips:
                tar.write({"__key__": row["clip_id"], extension: media, "json": as_json(row)})
            tar.close()


class HuggingFace:
    """Parquet shards that `datasets.load_dataset` opens: the manifest's columns, and the clip in `video` or `image`."""

    def path(self, shard: str) -> str:
        return f"data/{shard}.parquet"

    def write(self, path: Place, clips: Iterable[Rendered]) -> None:
        from datasets import Features, Image, Video

        features = Features.from_arrow_schema(manifest_schema().remove_metadata())
        schema = Features({**features, "video": Video(), "image": Image()}).arrow_schema
        with whole(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as file:
            held: list[Row] = []
            for row, extension, media in clips:
                content = {"bytes": media, "path": f"{row['clip_id']}.{extension}"}
                held.append({**row, "video": None, "image": None, "video" if extension == "mp4" else "image": content})
                if len(held) == ROW_GROUP:
                    file.write_table(pa.Table.from_pylist(held, schema))
                    held.clear()
            file.write_table(pa.Table.from_pylist(held, schema))


class Clips:
    """A folder of <clip_id>.mp4 (or .png), each with a <clip_id>.json of the manifest's columns beside it."""

    def path(self, shard: str) -> str:
        return shard

    def write(self, path: Place, clips: Iterable[Rendered]) -> None:
        written = set()
        for row, extension, media in clips:
            for name, content in ((f"{row['clip_id']}.{extension}", media), (f"{row['clip_id']}.json", as_json(row))):
                with whole(path / name) as temporary:
                    temporary.write_bytes(content)
                written.add(name)
        for stale in path.glob("*"):
            if stale.name not in written:
                stale.unlink()


WRITERS: dict[str, Writer] = {"webdataset": WebDataset(), "hf": HuggingFace(), "clips": Clips()}


def as_json(row: Row) -> bytes:
    """A manifest row as JSON in UTF-8."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False, sort_keys=True).encode()
