"""A local page to browse a run: `python -m curation.view OUT`. Filter its clips and play them, their flow beside them.

It answers on this machine only. The files it serves are those of the run's own clips, by clip_id: no path is taken from
a request. Needs the extra `view` (NiceGUI).
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from curation.browsing import COLUMNS, PAGE, Clips, motion_picture
from curation.config import Config
from curation.decide import load_decided
from curation.errors import ConfigError, Stopped
from curation.run import stopped
from curation.show import value_text

TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm", ".mkv": "video/webm"}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m curation.view", description=__doc__.splitlines()[0])
    parser.add_argument("output", help="output folder of a run")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        config = load_decided(args.output, [])
        from nicegui import ui
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except ImportError:
        print("curation.view needs NiceGUI: pip install 'human-motion[view]'", file=sys.stderr)
        return 2
    try:
        build(config)
    except (Stopped, OSError) as error:
        return stopped(error, config)
    ui.run(
        host="127.0.0.1",
        port=args.port,
        title="Human-Motion",
        reload=False,
        reconnect_timeout=30.0,
        show=not args.no_browser,
        dark=None,
        uvicorn_logging_level="warning",
    )
    return 0


def build(config: Config) -> None:
    """Register the page and the two routes that serve files."""
    from fastapi import Response
    from fastapi.responses import FileResponse
    from nicegui import app, ui
    from starlette.background import BackgroundTask

    from stages.base import ClipError

    clips = Clips(config)
    pictured = lru_cache(maxsize=64)(lambda clip_id: motion_picture(config, clip_id))

    @app.get("/clip/{clip_id}")
    def clip_file(clip_id: str) -> Response:
        if (path := clips.file(clip_id)) is not None:
            return FileResponse(path, media_type=TYPES.get(path.suffix.lower()))
        if (clip := clips.remote(clip_id)) is None:
            return Response("no such clip", status_code=404)
        held = ExitStack()  # the copy stays until it has been sent
        try:
            copy = held.enter_context(config.storage.opened().clip(clip, clips.roots[clip.source]))
        except ClipError as error:
            return Response(str(error), status_code=422)
        media = TYPES.get(PurePosixPath(clip.path).suffix.lower())
        return FileResponse(copy, media_type=media, background=BackgroundTask(held.close))

    @app.get("/flow/{clip_id}")
    def flow_file(clip_id: str) -> Response:
        if clips.row(clip_id) is None:
            return Response("no such clip", status_code=404)
        try:
            return Response(pictured(clip_id), media_type="image/webp")
        except (ClipError, ConfigError, OSError) as error:
            return Response(str(error), status_code=422)

    @ui.page("/")
    def page() -> None:
        _page(clips, ui)


def _page(clips: Clips, ui: Any) -> None:
    """The filters, the table, and the clip that was clicked."""
    state: dict[str, Any] = {"offset": 0}
    ui.label(Path(clips.config.output).name).classes("text-xl font-semibold")
    with ui.row().classes("items-end gap-4"):
        ends = ui.select(clips.choices(), multiple=True, label="status or reason").classes("w-56").props("use-chips")
        text = ui.input("text in caption, action, path, error").classes("w-72").props("clearable debounce=300")
        limits = {
            (column, side): ui.number(f"{label} {side}").classes("w-24").props("clearable debounce=300")
            for column, label in (("motion_intensity", "M"), ("quality_score", "quality"))
            for side in ("from", "to")
        }
        order = ui.select(list(COLUMNS), value="motion_intensity", label="order by").classes("w-44")
        descending = ui.checkbox("descending")
    shown = ui.label()
    table = (
        ui.table(
            columns=[{"name": c, "label": c, "field": c, "align": "left"} for c in COLUMNS if c != "clip_id"],
            rows=[],
            row_key="clip_id",
        )
        .classes("w-full")
        .props("wrap-cells")
    )
    with ui.row():
        back = ui.button("previous", on_click=lambda: turn(-PAGE)).props("flat")
        forth = ui.button("next", on_click=lambda: turn(PAGE)).props("flat")
    with ui.dialog().props("full-width") as dialog:
        detail = ui.card()

    def refresh() -> None:
        filters = {"ends": ends.value, "text": text.value}
        filters |= {
            column: (limits[column, "from"].value, limits[column, "to"].value)
            for column in ("motion_intensity", "quality_score")
        }
        count, rows = clips.page(filters, order.value, descending.value, state["offset"])
        for row in rows:
            for name in ("motion_intensity", "quality_score"):
                row[name] = None if row[name] is None else round(row[name], 3)
        table.rows = rows
        first = state["offset"]
        shown.text = f"{count:,} clips" + (f", {first + 1:,} to {first + len(rows):,} shown" if rows else "")
        back.enabled, forth.enabled = first > 0, first + PAGE < count
        table.update()

    def turn(by: int) -> None:
        state["offset"] = max(0, state["offset"] + by)
        refresh()

    def filtered() -> None:
        state["offset"] = 0
        refresh()

    def chosen(event: Any) -> None:
        row = clips.row(event.args[1]["clip_id"])
        if row is None:
            return
        detail.clear()
        with detail:
            with ui.row().classes("w-full items-center no-wrap justify-between"):
                ui.label(f"{row['source']}/{row['path']}").classes("font-mono break-all")
                ui.button("close", on_click=dialog.close).props("flat")
            with ui.row().classes("items-start"):
                if row["kind"] == "video":
                    start = row["start_s"] or 0.0
                    end = start + (row["duration_s"] or 0.0)
                    span = f"/clip/{row['clip_id']}#t={start:.3f},{end:.3f}"
                    ui.video(span, autoplay=True, loop=True, muted=True).classes("h-64")
                else:
                    ui.image(f"/clip/{row['clip_id']}").classes("h-64 w-64").props("fit=contain")
                ui.element("img").props(
                    f'src="/flow/{row["clip_id"]}" alt="the frame grid, and its flow in colours"'
                ).classes("h-64 object-contain")
            ui.label(
                "left: the file; right: the frame grid, and its flow to the next frame (hue: direction, white: still)"
            )
            known = {k: value_text(v) for k, v in row.items() if v is not None and not isinstance(v, list)}
            ui.table(
                columns=[{"name": k, "label": k, "field": k, "align": "left"} for k in ("column", "value")],
                rows=[{"column": k, "value": v} for k, v in known.items()],
            ).props("dense hide-header wrap-cells").classes("break-all")
        dialog.open()

    for element in (ends, text, order, descending, *limits.values()):
        element.on_value_change(filtered)
    table.on("rowClick", chosen)
    refresh()


if __name__ in {"__main__", "__mp_main__"}:
    sys.exit(main())
