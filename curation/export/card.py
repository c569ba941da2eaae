"""The dataset card of a Hugging Face export, filled from the run's summary and configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from curation.config import Config
from curation.export.media import Form
from curation.fingerprint import build_engine
from curation.names import SUMMARY
from manifests.schema import manifest_schema
from manifests.shards import whole
from manifests.storage import Place, place
from stages.weight_table import WEIGHTS
from stages.weights import needed

FORMS = {
    "grid": "the frames that motion intensity was measured on, {count} at {rate}, {size}x{size} pixels",
    "original": "every frame of the span at the file's own rate and size; a still as PNG in `image`",
}


def write_card(config: Config, dest: Place, form: Form) -> None:
    """Write README.md into the export at `dest`; the same run gives the same bytes."""
    summary = json.loads((place(config.output) / SUMMARY).read_text(encoding="utf-8"))
    with whole(dest / "README.md") as temporary:
        temporary.write_text(
            f"---\n{_front_matter(dest, summary)}\n---\n\n{_text(config, summary, form)}", encoding="utf-8"
        )


def _front_matter(dest: Place, summary: dict[str, Any]) -> str:
    from huggingface_hub import DatasetCardData

    names = {"train": "train", "val": "validation"}
    present = [split for split in names if any((dest / "data").glob(f"{split}-*.parquet"))]
    files = [{"split": names[split], "path": f"data/{split}-*.parquet"} for split in present]
    return DatasetCardData(
        pretty_name="Human-Motion",
        license="other",
        task_categories=["text-to-video", "image-to-video"],
        tags=["portrait", "human motion", "optical flow"],
        size_categories=[_size(summary["kept"])],
        configs=[{"config_name": "default", "data_files": files}],
    ).to_yaml()


def _size(count: int) -> str:
    """The hub's word for a dataset of this many rows."""
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if count < limit:
            return name
    return "1M<n<10M"


def _text(config: Config, summary: dict[str, Any], form: Form) -> str:
    frames = config.frames
    rate = f"{frames.fps:g} fps" if frames.stride is None else f"every {frames.stride} file frames"
    clips = FORMS[form].format(count=frames.count, rate=rate, size=frames.size)
    histogram = summary["motion_histogram"]["clips_per_bin"]
    width = config.resample.max_intensity / config.resample.bins
    return f"""# Human-Motion, {summary["kept"]:,} clips

Single-person portrait clips with an overall description, an action phrase and a motion intensity, made from raw video
as in MotionCharacter ([arXiv 2411.18281](https://arxiv.org/abs/2411.18281)). `video` holds {clips}. The columns:

{_table(("column", "meaning", "unit", "range"), _columns())}

## Sources

{_table(("source", "kind", "listed", "kept", "rejected", "failed", "licence"), _sources(config, summary))}

The clips stay under the licences of their sources; where none is named, none is known, and nothing here grants one.

## How it was made

{summary["inputs"]:,} clips: {summary["kept"]:,} kept, {summary["rejected"]:,} rejected, {summary["failed"]:,} failed.

{_table(("rejected because of", "clips"), sorted(summary["reasons"].items()))}

{_table(("stage", "engine", "version"), ((n, s["engine"], s["version"]) for n, s in summary["stages"].items()))}

{_table(("threshold", "value"), ((n, "none" if v is None else f"{v:g}") for n, v in summary["thresholds"].items()))}
{_models(config)}
`sample_weight` balances motion intensity over 0..{config.resample.max_intensity:g}:

{_table(("motion intensity", "clips"), ((_bin(i, width, len(histogram)), n) for i, n in enumerate(histogram)))}

## Limits

- Captions and action phrases were written by the engine `{summary["stages"]["caption"]["engine"]}`, not by people.
- Motion intensity is in pixels of the {frames.size}-pixel grid per step, depends on the flow engine, and includes the
  camera's motion, which `camera_motion` estimates.
- Whose faces the detector misses, by light, age or skin tone, was not measured: the clips are no fair sample of people.

## Biometric data

The clips show real faces, and boxes, landmarks and embeddings of them can identify a person: in many countries that is
biometric data, which may be processed only with consent or on another legal basis. Do not use it to identify anyone.
`python -m curation.forget` deletes a clip, a file or a source from a run and its exports; keep a way to ask for it.
"""


def _columns() -> Iterable[tuple[str, ...]]:
    for field in manifest_schema():
        known = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        yield f"`{field.name}`", known.get("meaning", ""), known.get("unit", ""), known.get("range", "")


def _sources(config: Config, summary: dict[str, Any]) -> Iterable[tuple[Any, ...]]:
    for source in config.sources:
        counts = summary["by_source"].get(source.name, {})
        listed = sum(counts.values())
        kept, rejected, failed = (counts.get(name, 0) for name in ("kept", "rejected", "failed"))
        yield source.name, source.kind, listed, kept, rejected, failed, source.licence or "not named"


def _models(config: Config) -> str:
    """The model files that took part, with their licences; empty where there were none."""
    names = needed(build_engine(stage, chosen, config) for stage, chosen in config.stage_table())
    if not names:
        return ""
    return "\n" + _table(("model file", "licence"), ((name, WEIGHTS[name].licence) for name in names)) + "\n"


def _bin(index: int, width: float, bins: int) -> str:
    start = f"{index * width:g}"
    return f"{start} and more" if index == bins - 1 else f"{start} to {(index + 1) * width:g}"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; what could break it or be taken for markup is escaped."""
    lines = [list(head)]
    lines.append(["---"] * len(lines[0]))
    lines += [[_cell(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    text = " ".join(str(value).split())
    for character, escaped in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), (">", "&gt;"), ("[", "\\[")):
        text = text.replace(character, escaped)
    return text
