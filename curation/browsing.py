"""What curation.view shows: the run's clips by filter, their files, and a clip's motion picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from curation.config import Config
from curation.tables import local_files, local_tables
from manifests.storage import is_uri, place
from stages.clip import Clip
from stages.recut import clip_of

PAGE = 50  # rows
COLUMNS = (
    "status", "reason", "source", "path", "motion_intensity", "quality_score", "action", "caption", "error", "clip_id"
)  # fmt: skip


class Clips:
    """The run's kept, rejected and failed clips, from its Parquet files."""

    def __init__(self, config: Config) -> None:
        import duckdb

        self.config = config
        self.roots = {source.name: source.root for source in config.sources}
        self._db = duckdb.connect(config={"memory_limit": "1GB", "threads": "2"})
        self._db.execute(
            "CREATE VIEW clips AS SELECT * FROM read_parquet($kept, union_by_name=true) "
            "UNION ALL BY NAME SELECT * FROM read_parquet($lost, union_by_name=true)".replace(
                "$kept", self._files("manifests")
            ).replace("$lost", self._files("rejected"))
        )
        self._db.execute("CREATE VIEW all_clips AS SELECT * REPLACE (coalesce(status, 'kept') AS status) FROM clips")

    def _files(self, folder: str) -> str:
        output = place(self.config.output)
        files = local_files(output / folder, local_tables(output, self.config))
        return "[" + ", ".join("'" + file.replace("'", "''") + "'" for file in files) + "]"

    def choices(self) -> list[str]:
        """What became of clips: kept, failed, to_measure, and each reason."""
        found = self._db.execute("SELECT DISTINCT coalesce(reason, status) FROM all_clips ORDER BY 1").fetchall()
        return [name for (name,) in found]

    def page(
        self, filters: dict[str, Any], order: str, descending: bool, offset: int
    ) -> tuple[int, list[dict[str, Any]]]:
        """How many clips pass the filters, and PAGE of them.

        filters: ends (a list), text (in caption, action, path or error), and low and high of motion_intensity and
        quality_score as (low, high), each None where it is open.
        """
        tests, values = ["true"], []
        if filters.get("ends"):
            tests.append("list_contains(?, coalesce(reason, status))")
            values.append(filters["ends"])
        if text := filters.get("text"):
            tests.append("contains(lower(concat_ws(' ', caption, action, path, error)), lower(?))")
            values.append(text)
        for column in ("motion_intensity", "quality_score"):
            for limit, op in zip(filters.get(column, (None, None)), (">=", "<="), strict=True):
                if limit is not None:
                    tests.append(f"{column} {op} ?")
                    values.append(limit)
        where = " AND ".join(tests)
        assert order in COLUMNS
        cursor = self._db.cursor()
        count = cursor.execute(f"SELECT count(*) FROM all_clips WHERE {where}", values).fetchone()[0]
        rows = cursor.execute(
            f"SELECT {', '.join(COLUMNS)} FROM all_clips WHERE {where} "
            f"ORDER BY {order} {'DESC' if descending else 'ASC'} NULLS LAST, clip_id LIMIT {PAGE} OFFSET {int(offset)}",
            values,
        ).fetchall()
        return count, [dict(zip(COLUMNS, row, strict=True)) for row in rows]

    def row(self, clip_id: str) -> dict[str, Any] | None:
        """All columns of one clip."""
        found = self._db.cursor().execute("SELECT * FROM all_clips WHERE clip_id = ?", [clip_id])
        names = [column[0] for column in found.description]
        row = found.fetchone()
        return None if row is None else dict(zip(names, row, strict=True))

    def file(self, clip_id: str) -> Path | None:
        """The clip's file, where it is a regular file below its source's root; links that lead out are refused."""
        import os

        from stages.clip import unescape_path

        row = self.row(clip_id)
        if row is None or row["source"] not in self.roots or is_uri(self.roots[row["source"]]):
            return None
        root = os.path.realpath(self.roots[row["source"]])
        path = os.path.realpath(os.path.join(root, os.fsdecode(unescape_path(row["path"]))))  # noqa: PTH118
        inside = path.startswith(root.rstrip("/") + "/")
        return Path(path) if inside and Path(path).is_file() else None

    def remote(self, clip_id: str) -> Clip | None:
        """The clip, where its file lies at a URI."""
        row = self.row(clip_id)
        there = row is not None and row["folder_fps"] is None and is_uri(self.roots.get(row["source"], ""))
        return clip_of(row) if row is not None and there else None


def motion_picture(config: Config, clip_id: str) -> bytes:
    """The clip's grid and its flow in colours side by side, an endless animated WebP at the grid's rate.

    Raises ConfigError or ClipError.
    """
    import numpy as np
    from PIL import Image

    from curation.pictures import Pictures, crop_of, grid_flow, side_by_side
    from curation.show import find
    from flows.colours import flow_colours

    row, _ = find(config, clip_id)
    with Pictures(config) as pictures:
        frames = pictures.frames(row, 256)
    grid = frames.through(crop_of(row, frames))
    if row["kind"] == "image":
        grid = np.stack([grid[0], grid[0]])
    flow, full = grid_flow(grid)
    pages = [Image.fromarray(side_by_side([grid[i], flow_colours(flow[i], full)])) for i in range(len(grid) - 1)]
    step_ms = round(1000 * config.frames.step_s(row["fps"] or 25.0))
    out = io.BytesIO()
    pages[0].save(out, "WEBP", save_all=True, append_images=pages[1:], duration=step_ms, loop=0, quality=70)
    return out.getvalue()
