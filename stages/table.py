"""The stages in the order in which they are measured and judged."""

from __future__ import annotations

from stages import caption, crop, embedding, face, hash, header, motion, quality, scene_cut, text
from stages.base import Stage

STAGES: tuple[Stage, ...] = (
    header.HEADER,
    header.DECODE,
    scene_cut.STAGE,
    hash.STAGE,
    quality.STAGE,
    text.STAGE,
    face.STAGE,
    crop.STAGE,
    embedding.STAGE,
    motion.STAGE,
    caption.STAGE,
)
