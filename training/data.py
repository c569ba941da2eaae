"""The dataset over a run's manifest: frame grid, reference face, P, A, M, flow and landmarks of each drawn clip."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from manifests import shards
from manifests.storage import Place
from stages.base import ClipError
from stages.decode import Decoder
from stages.frames import FrameSpec
from stages.recut import clip_of, read_grid
from stages.staging import Cache as Staging
from stages.staging import default_folder
from training.align import box_to_template, to_template
from training.batch import Entry, Sample
from training.cache import Cache, keep, read
from training.config import FitConfig
from training.draws import Draw
from training.faces import Faces, cut_out, view

# What training reads of a manifest; `source_box` and `folder_fps` may be absent.
COLUMNS = frozenset(
    {"clip_id", "source", "path", "kind", "start_s", "duration_s", "grid_size", "crop", "source_box", "folder_fps"}
    | {"face_frames", "face_boxes", "face_landmarks", "motion_intensity", "caption", "action", "flow_path"}
    | {"sample_weight", "split", "identity"}
)
STAGED_BYTES = 20 << 30  # of clips at URIs, copied to this machine
TRIES = 10  # clips tried for one draw before the data set counts as broken
_SIDES = re.compile(r"\b(left|right)(?=\b|wards?\b)", re.IGNORECASE)


class DataError(Exception):
    """So many clips cannot be read that training must stop."""


@dataclass(frozen=True)
class Manifest:
    """The rows to train on and what is needed to read them.

    rows: manifest rows of one split. folder: the run's output folder, that flow_path refers to. roots: where each
    source lies. fingerprint: hash of the shards.
    """

    rows: list[dict[str, Any]]
    folder: Place
    roots: Mapping[str, str]
    spec: FrameSpec
    fingerprint: str

    @classmethod
    def read(cls, path: str | Path, split: str, roots: Mapping[str, str] | None = None) -> Manifest:
        """Open a shard, a folder of shards or a run's output folder, at a path or URI.

        `roots` replace those of the metadata.

        Raises ValueError with one line when there is nothing to train on.
        """
        files = shards.shards(path)
        metadata = shards.metadata(path)
        present = [name for name in shards.read_schema(files[0]).names if name in COLUMNS]
        rows = [row for row in shards.read_manifest(path, present).to_pylist() if row["split"] == split]
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.read_bytes())
        folder = files[0].parent.parent
        merged = dict(metadata["roots"]) | dict(roots or {})
        return cls(rows, folder, merged, FrameSpec(**metadata["frames"]), digest.hexdigest())

    @cached_property
    def weights(self) -> np.ndarray:
        """`sample_weight` of each row; 1 where the manifest has none."""
        return np.array([1.0 if row["sample_weight"] is None else row["sample_weight"] for row in self.rows])


class ClipDataset(Dataset[Sample]):
    """Loads what a Draw asks for. The augmentation depends on the seed and the draw's number alone.

    `cache`: keeps the decoded frames at training size, and knows where the VAE's posteriors are kept.
    """

    def __init__(self, manifest: Manifest, config: FitConfig, cache: Cache | None = None) -> None:
        self.manifest = manifest
        self.config = config
        self.cache = cache
        self._decoder: Decoder | None = None

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def __getitem__(self, draw: Draw) -> Sample:
        """The sample of this draw; a clip that cannot be read is replaced by another, drawn by the same weights.

        Raises DataError when `TRIES` clips in a row cannot be read.
        """
        rng = np.random.default_rng([self.config.seed, draw.number])
        row, skipped = self.manifest.rows[draw.row], []
        for _ in range(TRIES):
            try:
                sample = self.load(row, rng)
            except ClipError as error:
                skipped.append((row["clip_id"], f"{row['source']}/{row['path']}: {error}"))
                weights = self.manifest.weights
                row = self.manifest.rows[rng.choice(len(weights), p=weights / weights.sum())]
            else:
                sample.skipped = skipped
                return sample
        raise DataError(f"{TRIES} clips in a row cannot be read; the last: {skipped[-1][1]}")

    def load(self, row: Mapping[str, Any], rng: np.random.Generator) -> Sample:
        """One clip, augmented. Raises ClipError with what is wrong with it."""
        size, count = self.config.size, self.manifest.spec.count
        flip = bool(rng.random() < self.config.flip)
        zoom = float(rng.uniform(1.0, self.config.zoom))
        fine = view(self.frames(row), zoom, flip)  # (2 N - 1, S, S, 3), the grid and the frames between
        faces = Faces.of(row)
        if faces is None:
            faces = Faces(np.array([0]), np.array([[0.0, 0.0, 1.0, 1.0]]) * row["grid_size"], None, row["grid_size"])
        faces = faces.seen(zoom, flip, size)

        reference, box, landmarks = _reference(fine, faces, row["kind"] == "image", count, rng)
        chosen = rng.choice(len(faces.frames), self.config.identity_frames)
        m = 0.0 if row["kind"] == "image" else min(float(row["motion_intensity"]) * zoom, 20.0)
        return Sample(
            clip_id=row["clip_id"],
            video=as_tensor(fine[::2]),
            face=as_tensor(cut_out(reference, box, size)[None])[0],
            reference=as_tensor(reference[None])[0],
            reference_warp=face_warp(box[None], None if landmarks is None else landmarks[None])[0],
            id_frames=torch.from_numpy(faces.frames[chosen]).long(),
            id_warps=face_warp(faces.boxes[chosen], None if faces.landmarks is None else faces.landmarks[chosen]),
            has_face=bool(row["face_frames"]),
            m=m,
            caption=mirrored(row["caption"] or "", flip),
            action=mirrored(row["action"] or "", flip),
            flow=torch.from_numpy(np.ascontiguousarray(view(self.flow(row), zoom, flip))),
            entry=self._entry(row, flip) if zoom == 1.0 else Entry(),
        )

    def _entry(self, row: Mapping[str, Any], flip: bool) -> Entry:
        """A mirrored video has a posterior of its own: a VAE is not symmetric."""
        if self.cache is None or self.cache.latents is None:
            return Entry()
        path = self.cache.path(f"latents/{self.cache.latents}", *self._key(row), flip, clip_id=row["clip_id"])
        kept = read(path)
        return Entry(path, None if kept is None else torch.from_numpy(kept))

    def _key(self, row: Mapping[str, Any]) -> list[Any]:
        """What the frames of a row depend on. M stands for the file's content: a file that changed is measured anew."""
        spec = self.manifest.spec.model_dump(mode="json")
        return [self.config.size, spec, row["start_s"], row["crop"], row["motion_intensity"]]

    def frames(self, row: Mapping[str, Any]) -> np.ndarray:
        """Frames at training size, uint8 (2 N - 1, S, S, 3): the grid at even places, halfway frames at odd ones.

        The reference face comes from a halfway frame: were it one of those denoised, the model would learn to paste.
        """
        if self.cache is None:
            return resized(self._decode(row), self.config.size)
        path = self.cache.path("frames", *self._key(row), clip_id=row["clip_id"])
        frames = read(path)
        if frames is None:
            frames = resized(self._decode(row), self.config.size)
            keep(path, frames)
        return frames

    def _decode(self, row: Mapping[str, Any]) -> np.ndarray:
        if row["source"] not in self.manifest.roots:
            raise ClipError(f"no root is known for source {row['source']}")
        self._decoder = self._decoder or Decoder(deadline_s=60.0)
        with Staging(default_folder(), STAGED_BYTES).clip(clip_of(row), self.manifest.roots[row["source"]]) as path:
            return read_grid(self._decoder, row, path, self.manifest.spec, per_step=2)

    def flow(self, row: Mapping[str, Any]) -> np.ndarray:
        """Stored foreground flow, uint8 (N - 1, h, h); zeros where there is none. Raises ClipError if unreadable.

        h is an eighth of the grid's size: 64 for 512.
        """
        spec = self.manifest.spec
        shape = (spec.count - 1, spec.size // 8, spec.size // 8)
        if row["flow_path"] is None:
            return np.zeros(shape, np.uint8)
        try:
            with np.load(io.BytesIO((self.manifest.folder / row["flow_path"]).read_bytes())) as stored:
                magnitude = stored["magnitude"]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise ClipError(f"flow {row['flow_path']} cannot be read: {error}") from error
        if magnitude.shape != shape:
            raise ClipError(f"flow {row['flow_path']} has shape {magnitude.shape}, expected {shape}")
        return magnitude

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_decoder": None}  # each worker process decodes in a child of its own


def _reference(
    fine: np.ndarray, faces: Faces, still: bool, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The frame I is cut from, and box and landmarks on it: a halfway frame next to one on which the face is known.

    A still's reference is itself, mirrored or moved closer; so is that of a video in which each halfway frame is one of
    the grid's, as where the file has no frame between them.
    """
    near = [2 * f + side for f in faces.frames for side in (-1, 1) if 0 < 2 * f + side < 2 * count - 2]
    near = [p for p in near if not any(np.array_equal(fine[p], fine[beside]) for beside in (p - 1, p + 1))]
    if still or not near:
        mirror = bool(rng.random() < 0.5)
        zoom = 1.0 if mirror else float(rng.uniform(1.1, 1.3))
        seen = faces.seen(zoom, mirror, faces.size)
        first = int(seen.frames[0])
        box, landmarks = seen.at(first)
        return view(fine[2 * first][None], zoom, mirror)[0], box, landmarks
    position = int(rng.choice(near))
    box, landmarks = faces.at(position / 2)
    return fine[position], box, landmarks


def resized(frames: np.ndarray, size: int) -> np.ndarray:
    """Square uint8 frames (n, s, s, 3) at (n, size, size, 3), averaged over areas."""
    if frames.shape[1] == size:
        return frames
    import cv2

    return np.stack([cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in frames])


def mirrored(text: str, flip: bool) -> str:
    """The text of a mirrored picture: left and right change places."""

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        other = "right" if word.lower() == "left" else "left"
        return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other

    return _SIDES.sub(swap, text) if flip else text


def as_tensor(frames: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w), -1..1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def face_warp(boxes: np.ndarray, landmarks: np.ndarray | None) -> Tensor:
    """Warps (n, 2, 3) to ArcFace's template, from landmarks (n, 5, 2) or where there are none boxes (n, 4)."""
    if landmarks is not None:
        return to_template(torch.from_numpy(np.ascontiguousarray(landmarks)).float())
    return box_to_template(torch.from_numpy(np.ascontiguousarray(boxes)).float())


def pixels_for(encoder_size: int, images: Tensor) -> Tensor:
    """Images (B, 3, S, S), -1..1, as CLIP's vision model takes them: (B, 3, e, e), its mean and deviation."""
    mean = images.new_tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = images.new_tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    if images.shape[-1] != encoder_size:
        images = functional.interpolate(images, (encoder_size, encoder_size), mode="bicubic", antialias=True)
    return ((images + 1) / 2 - mean) / std
