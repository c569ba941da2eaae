"""Cutting the videos of a source into windows: a run of its own finds the shots, and each window is a clip.

The shots of a file are measured once, by the same runner as everything else, into an output folder of their own,
OUT/windows/<source>; a rerun measures only what has changed. A file whose shots cannot be found is one failed clip.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from curation.config import Chosen, Config, Source, Windows
from curation.forgotten import without_forgotten
from curation.sources import list_source
from manifests.storage import place
from stages.clip import Clip
from stages.decode import Span
from stages.frames import FrameSpec
from stages.shot_detection import SHARP_FPS

# Measures what is lacking: configuration, its engines, what is known.
Measure = Callable[[Config, dict[str, Any], Any], Any]


def shots_config(config: Config, source: Source) -> Config:
    """The configuration of the run that finds the shots of one source."""
    windows = source.windows
    assert windows is not None
    params = {"threshold": windows.threshold, "detect": windows.policy != "stride"}
    limits = {"groups": None, "deadline_s": windows.deadline_s, "clip_deadline_s": windows.deadline_s + 60}
    return config.model_copy(
        update={
            "output": f"{config.output}/windows/{source.name}",
            "sources": (source,),
            "stages": (Chosen(stage="shots", engine="adaptive", params=params),),
            "execution": config.execution.model_copy(update=limits),
        }
    )


def list_windows(
    config: Config, source: Source, limit: int | None, ignored: Counter[str], measure: Measure, retry_failed: bool
) -> Iterator[Clip]:
    """The windows of a source's videos, by path; images, and files that cannot be cut, are clips as they are."""
    from curation.fingerprint import describe_engines
    from curation.store import clip_of, entry_of, stage_folder, write_listing
    from curation.tables import local_tables, set_aside
    from curation.verdicts import Measurements

    assert source.windows is not None
    inner = shots_config(config, source)
    engines = describe_engines(inner)
    output = place(inner.output)
    videos = without_forgotten(list_source(source, ignored), place(config.output), ignored)
    write_listing(output, itertools.islice(videos, limit))
    set_aside([stage_folder(output, "shots", engines["shots"]["fingerprint"])], local_tables(output, inner))
    with Measurements(output, inner, engines, "all" if retry_failed else "transient") as known:
        measure(inner, engines, known)
    with Measurements(output, inner, engines, "nothing") as known:
        for batch in known.batches(f"{known.joined('facts', known.stages)} ORDER BY path, source_span, clip_id"):
            for row in batch.to_pylist():
                clip = replace(clip_of(row), entry=entry_of(row))
                if row["shots_error"] is not None:
                    clip = replace(clip, problem=f"its shots cannot be found: {row['shots_error']}")
                if clip.problem is not None or clip.kind == "image":
                    yield clip
                    continue
                whole = clip.span or (0.0, row["file_duration_s"])
                for span in cut(source.windows, config.frames, whole, row["fps"], row["cuts"], row["sharpness"]):
                    yield clip if span == whole else replace(clip, span=span)


def cut(
    windows: Windows, spec: FrameSpec, whole: Span, fps: float, cuts: list[float], sharpness: list[float]
) -> list[Span]:
    """The windows of one video, start and end in seconds, in order.

    whole: what of the file may be used. cuts: times of the first frames after cuts. sharpness: every 1 / SHARP_FPS s
    from the start of `whole`. Where no shot is long enough, the longest one alone, which is then rejected as too short.
    """
    # One frame more than the grid spans: its last frame is shown until then, and no rounding leaves the shot.
    length = max(windows.length_s or 0.0, spec.span_s(fps) + 1.0 / fps)
    begin, end = whole
    if windows.policy == "stride":
        step = windows.stride_s or length
        count = int((end - begin - length) / step + 1e-6) + 1
        return [_span(begin + i * step, length) for i in range(count)] if end - begin >= length else [whole]
    edges = [begin, *(t for t in cuts if begin < t < end), end]
    shots = list(itertools.pairwise(edges))
    longest = max(shots, key=lambda shot: (shot[1] - shot[0], -shot[0]))
    # The frame before a cut is shown until the cut: half a frame of it must not be the nearest to a wanted time.
    room = [(a, b - (0.5 / fps if b < end else 0.0)) for a, b in shots]
    longest = room[shots.index(longest)]
    if windows.policy == "longest_shot":
        return [whole if len(shots) == 1 else _span(longest[0], longest[1] - longest[0])]
    found: list[Span] = []
    for start, stop in room:
        count = int((stop - start) / length + 1e-6)
        if not count:
            continue
        if windows.policy == "best":
            found.append(_span(_sharpest(start, stop - length, length, begin, sharpness), length))
        else:
            found += [_span(start + i * length, length) for i in range(1 if windows.policy == "first" else count)]
    return found or [whole if len(shots) == 1 else _span(longest[0], longest[1] - longest[0])]


def _span(start: float, length: float) -> Span:
    return round(start, 6), round(start + length, 6)


def _sharpest(first: float, last: float, length: float, begin: float, sharpness: list[float]) -> float:
    """Start of the window between starts `first` and `last`, on steps of 1 / SHARP_FPS, whose mean is the sharpest."""
    values = np.array(sharpness)
    starts = first + np.arange(int((last - first) * SHARP_FPS + 1e-6) + 1) / SHARP_FPS

    def mean(start: float) -> float:
        low, high = (int(np.ceil((t - begin) * SHARP_FPS - 1e-6)) for t in (start, start + length))
        return float(np.mean(values[low:high])) if low < min(high, len(values)) else 0.0

    return float(max(starts, key=lambda start: (mean(start), -start)))
