"""A video file through PyAV: its header, its frames' presentation times, its frames. Runs in the decoding child.

Time 0 of a file is the presentation of its first frame.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.packet_table import Table
from stages.picture import MAX_VIDEO_PIXELS, MediaError, check_size

# Containers of video files. Playlists and scripts (HLS, concat, ...) are not: they would open other files.
FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mxf,ivf"
# Containers that store no presentation times: there the k-th frame that comes out is the k-th one shown.
UNTIMED = frozenset({"avi"})
# H.264 says of each frame whether any other one refers to it: those that none does need decoding only where wanted.
# HEVC's like mark holds within a temporal layer only.
SKIPPABLE = frozenset({"h264"})
LARGE_BYTES = 256 << 20  # larger files are not read whole where it can be avoided
MARGIN_S = 2.0  # around the wanted times, for frames stored before or after their turn
SLACK_S = 0.5  # how much longer than its frames a complete file may claim to be


class VideoFile:
    """One open video file and its main video stream."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.large = Path(path).stat().st_size > LARGE_BYTES
        self.clean = True
        self._open()
        context = self.stream.codec_context
        check_size(context.width, context.height, MAX_VIDEO_PIXELS)
        self.codec: str = context.codec.canonical_name
        self.base = float(self.stream.time_base or 0)
        self.timed = self.container.format.name not in UNTIMED

    def _open(self) -> None:
        import av

        options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)
        with av.logging.Capture() as complaints:
            try:
                self.container = av.open(self.path, options=options, metadata_errors="replace")
            except av.error.FFmpegError as error:
                said = complaints[-1][2].strip() if complaints else "whitelist"
                if "whitelist" in said:
                    raise MediaError("is not a video file: no known video container in it") from error
                raise MediaError(f"cannot be opened as a video: {said}") from error
        av.logging.set_level(None)
        videos = [s for s in self.container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not videos:
            raise MediaError("has no video stream")
        self.stream = videos[0]
        self.alone = len(videos) == len(self.container.streams.video) == 1
        context = self.stream.codec_context
        if context is None:
            raise MediaError("has a video stream of unknown codec")
        context.thread_count = 1  # the workers share the cores
        context.options = {"max_pixels": str(MAX_VIDEO_PIXELS)}  # for frames that are larger than the header says

    def close(self) -> None:
        self.container.close()

    def header(self) -> dict[str, Any]:
        """Fields of `stages.decode.Header`. Decodes the first frame: it carries the rotation."""
        context = self.stream.codec_context
        count, duration, fps = self._extent()
        if not duration > 0 or not fps > 0:
            raise MediaError(f"has no duration: {count or 0} frames")
        rotation = self._rotation()
        width, height = context.width, context.height
        if rotation in (90, 270):
            width, height = height, width
        return {
            "width": width,
            "height": height,
            "fps": fps,
            "duration_s": duration,
            "frame_count": count,
            "codec": self.codec,
            "rotation": rotation,
        }

    def _extent(self) -> tuple[int | None, float, float]:
        """Number of frames, length in seconds, mean frame rate: from the header where it tells, else from packets."""
        stream = self.stream
        rate = float(stream.average_rate or 0)
        claimed = stream.duration * self.base if stream.duration else 0.0
        if self.container.format.name == "avi" and claimed and rate:
            return stream.frames or None, claimed, rate
        entries = stream.index_entries
        if stream.frames and "mov" in self.container.format.name and len(entries) > 1:
            # The index already follows the edit list.
            stamps = [entry.timestamp for entry in entries if not entry.is_discard]
            if len(stamps) == stream.frames and claimed and rate:
                return len(stamps), claimed, rate
            if len(stamps) > 1:
                step = (stamps[-1] - stamps[0]) * self.base / (len(stamps) - 1)
                return len(stamps), step * len(stamps), 1 / step if step else 0.0
        end = _clock(stream.metadata.get("DURATION", ""))  # Matroska: when the last frame ends
        if self.large and end and rate and stream.start_time is not None:
            return None, end - stream.start_time * self.base, rate
        table = self.table()
        count = len(table.seconds)
        if not count:
            raise MediaError("not one of its frames can be read")
        tag = end - float(table.pts.min()) * self.base
        if tag > table.length_s + SLACK_S:
            return None, tag, rate or count / table.length_s
        return count, table.length_s, count / table.length_s if table.length_s else rate

    def _rotation(self) -> int:
        """Degrees clockwise by which the pictures must be turned, a multiple of 90."""
        import av

        self._rewind()
        for packet in self.container.demux(self.stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:  # a later packet may do; `decode` judges the wanted ones
                continue
            if frames:
                return round(-frames[0].rotation / 90) * 90 % 360
        raise MediaError("not one of its frames can be decoded")

    def _rewind(self) -> None:
        import av

        start = self.stream.start_time
        try:
            self.container.seek(0 if start is None else min(0, start), stream=self.stream)
        except av.error.FFmpegError:  # no index to seek by
            self.container.close()
            self._open()

    def _packets(self) -> Iterator[Any]:
        """The stream's packets from here, as far as they can be read whole; `clean` tells whether all could."""
        import av

        try:
            for packet in self.container.demux(self.stream):
                if packet.is_corrupt:
                    self.clean = False
                elif packet.size:
                    yield packet
        except av.error.FFmpegError:  # what follows is missing: `choose` says so where it matters
            self.clean = False

    def table(self, around: tuple[float, float] | None = None) -> Table:
        """Read the packets of the stream, decoding none: all, or those that frames shown within `around` need."""
        zero = self.stream.start_time
        until = None
        self._rewind()
        if around is not None and self.timed and zero is not None:
            first, until = (zero + round(t / self.base) for t in (around[0] - MARGIN_S, around[1] + MARGIN_S))
            self.container.seek(max(zero, first), stream=self.stream)
        rows: list[tuple[int, int, bool, bool]] = []
        timed, last = self.timed, 0
        for packet in self._packets():
            timed = timed and packet.pts is not None
            stamp = packet.pts if packet.pts is not None else len(rows)
            dts = stamp if packet.dts is None else packet.dts
            rows.append((stamp, dts, packet.is_keyframe, not packet.is_discard))
            last = packet.duration or last
            if until is not None and dts > until:
                break
        columns = np.array(rows, np.int64).reshape(-1, 4)
        base, pts = self.base, columns[:, 0]
        rate = float(self.stream.average_rate or 0)
        if timed and len(np.unique(pts)) < len(pts):
            timed = False
        if not timed:
            base, pts, last = (1 / rate if rate else 0.0), np.arange(len(pts), dtype=np.int64), 1
        last_s = last * base or (1 / rate if rate else 0.0)
        key, shown = columns[:, 2] > 0, columns[:, 3] > 0
        if until is None:
            zero = None
        return Table(base, pts, columns[:, 1], key, shown, last_s, timed, self.clean, zero)

    def decode(
        self, table: Table, chosen: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (position, picture) for each position of `chosen` (ascending), the picture uint8 RGB (h, w, 3), not
        yet turned upright, scaled to `size` (width, height) if given. Decodes from the last keyframe that all of them
        can be decoded from."""
        import av
        from av.video.reformatter import VideoReformatter

        wanted = sorted(set(chosen))
        position = {int(table.pts[table.order[p]]): p for p in wanted}
        start = self._seek(table, table.order[wanted]) if table.timed else self._seek_start()
        first_pts = table.pts[start]
        context, reformatter = self.stream.codec_context, VideoReformatter()
        skip = table.timed and self.codec in SKIPPABLE
        found, counted = 0, 0
        for packet in itertools.chain(self._packets(), [None]):  # None: what the decoder still holds
            if skip and packet is not None:
                context.skip_frame = "DEFAULT" if packet.pts in position else "NONREF"
            try:
                frames = context.decode(packet)
            except av.error.FFmpegError as error:
                raise MediaError(f"is damaged before {self._at(table, wanted[found])}") from error
            for frame in frames:
                stamp: int | None = frame.pts if table.timed else counted
                counted += 1
                if frame.is_corrupt and (stamp is None or stamp >= first_pts):
                    raise MediaError(f"is damaged before {self._at(table, wanted[found])}")
                if stamp is None or stamp not in position:
                    continue
                if position[stamp] != wanted[found]:
                    raise MediaError(f"frame at {self._at(table, wanted[found])} cannot be decoded")
                width, height = size or (None, None)
                yield position[stamp], reformatter.reformat(frame, width, height, format="rgb24").to_ndarray()
                found += 1
                if found == len(wanted):
                    return
        raise MediaError(f"frame at {self._at(table, wanted[found])} cannot be decoded")

    def _at(self, table: Table, position: int) -> str:
        return f"{table.seconds[position]:.2f} s of {table.length_s:.2f} s"

    def _seek_start(self) -> int:
        self._rewind()
        return 0

    def _seek(self, table: Table, packets: np.ndarray) -> int:
        """Go to the last keyframe from which all `packets` (indices) can be decoded; the index of its packet.

        A frame that is shown before the keyframe it is stored after (open GOP) needs the keyframe before that one.
        """
        first_pts, first_packet = table.pts[packets].min(), packets.min()
        keys = np.flatnonzero(table.key)
        keys = keys[(table.pts[keys] <= first_pts) & (keys <= first_packet)]
        start = int(keys[-1]) if len(keys) else 0
        index_of: dict[int | None, int] = {int(stamp): i for i, stamp in enumerate(table.pts)}
        for stamp in (table.pts[start], table.dts[start], table.dts[max(0, start - 1)]):
            self.container.seek(int(stamp), stream=self.stream)
            landed = next(iter(self.container.demux(self.stream)), None)
            if landed is not None and index_of.get(landed.pts, start + 1) <= start:
                self.container.seek(int(stamp), stream=self.stream)
                return start
        return self._seek_start()


def _clock(text: str) -> float:
    """Seconds of "00:00:06.000000000"; 0 where the text is none."""
    parts = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", text)
    return int(parts[1]) * 3600 + int(parts[2]) * 60 + float(parts[3]) if parts else 0.0
