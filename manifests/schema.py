"""Every column the pipeline can write, once: name, type, meaning, unit and range.

Stages declare what they measure by picking names from `FIELDS`; the manifests and the rejected shards are ordered
selections of it. A column that an engine cannot give is null, never zero or -1.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

FACE_BOX = pa.list_(pa.float32(), 4)
FACE_LANDMARKS = pa.list_(pa.float32(), 10)
HASH_WORDS = 5


def _field(name: str, type_: pa.DataType, meaning: str, unit: str = "", range_: str = "") -> pa.Field:
    metadata = {"meaning": meaning, "unit": unit, "range": range_}
    return pa.field(name, type_, metadata={k: v for k, v in metadata.items() if v})


_ALL = [
    # which clip
    _field("clip_id", pa.string(), "128-bit hash of source name, path, span and the source index's crop box", "hex"),
    _field("source", pa.string(), "name of the source in sources.yaml"),
    _field("path", pa.string(), "file relative to the source's root; bytes that are not UTF-8 are percent-escaped"),
    _field("kind", pa.string(), "what the file is", range_="video|image"),
    _field("source_span", pa.list_(pa.float64(), 2), "start and end of the clip in the file; null: whole", "s", ">=0"),
    _field("source_box", pa.list_(pa.float64(), 4), "cut out of each picture first: x0, y0, x1, y1", "share", "0..1"),
    _field("folder_fps", pa.float64(), "frame rate where the path is a folder of frames; null: a file", "1/s", ">0"),
    # what the source's index says of the clip; not applied
    _field("video_id", pa.string(), "the video, or original picture, that the source cut the clip from"),
    _field("index_span", pa.list_(pa.float64(), 2), "start and end of the clip in that video", "s", ">=0"),
    _field("index_box", pa.list_(pa.float64(), 4), "box of the clip in that video: x0, y0, x1, y1", "share", "0..1"),
    _field("text_action", pa.list_(pa.string()), "CelebV-Text's descriptions of actions"),
    _field("text_emotion", pa.list_(pa.string()), "CelebV-Text's descriptions of emotion"),
    _field("text_appearance", pa.list_(pa.string()), "CelebV-Text's general and detailed descriptions of the face"),
    _field("text_light_direction", pa.list_(pa.string()), "CelebV-Text's descriptions of where light comes from"),
    _field("text_light_intensity", pa.list_(pa.string()), "CelebV-Text's descriptions of how bright it is"),
    _field("text_light_color", pa.list_(pa.string()), "CelebV-Text's descriptions of the light's colour temperature"),
    # header
    _field("start_s", pa.float64(), "time of the clip's first grid frame in the file", "s", ">=0"),
    _field("duration_s", pa.float64(), "time from the first grid frame to the last; null for images", "s", ">0"),
    _field("file_duration_s", pa.float64(), "length of the span the clip is taken from; null for images", "s", ">0"),
    _field("fps", pa.float64(), "mean frame rate of the file; null for images", "1/s", ">0"),
    _field("width", pa.int32(), "displayed width, rotation applied", "native px", ">0"),
    _field("height", pa.int32(), "displayed height, rotation applied", "native px", ">0"),
    _field("short_side", pa.int32(), "the smaller of width and height", "native px", ">0"),
    _field("frame_count", pa.int64(), "frames in the file, as its header says; null where it does not", "", ">=0"),
    _field("missing_frames", pa.int32(), "grid frames the span is too short for", "", ">=0"),
    _field("codec", pa.string(), "codec of the video stream, or format of the image"),
    _field("rotation", pa.int16(), "rotation from the file's metadata, clockwise, already applied", "degree", "0..359"),
    # decode
    _field("decoder", pa.string(), "library that decoded the frames", range_="decord|pyav|pillow"),
    _field("grid_fps", pa.float64(), "rate of the frame grid", "1/s", ">0"),
    _field("grid_frames", pa.int16(), "frames in the grid", "", ">=1"),
    _field("grid_size", pa.int16(), "side of the grid's square frames", "px", ">0"),
    # cut
    _field("cut_score", pa.float32(), "how surely the scene changes inside the grid, stages/scene_cut.py", "", "0..2"),
    _field("cut_frame", pa.int16(), "index of the first grid frame after the likeliest cut", "", ">=1"),
    # hash
    _field("frame_hash", pa.list_(pa.uint64(), HASH_WORDS), "perceptual hash of the frames, see stages/hash.py"),
    # quality
    _field("quality_score", pa.float32(), "score of the quality engine on one frame, larger is better", "", "0..1"),
    _field("quality_frame", pa.int16(), "index of that frame in the grid", "", ">=0"),
    # text
    _field("text_area", pa.float32(), "union of text boxes over frame area, largest looked-at frame", "", "0..1"),
    _field("text_frame", pa.int16(), "index of that frame in the grid", "", ">=0"),
    # face, on whole frames
    _field("face_count", pa.int16(), "most faces on any looked-at frame", "", ">=0"),
    _field("face_count_frame", pa.int16(), "index in the grid of the first frame with that many", "", ">=0"),
    _field("face_fraction", pa.float32(), "share of looked-at frames with exactly one face", "", "0..1"),
    _field("face_score", pa.float32(), "median detection score of the largest face; scale is the engine's"),
    _field("face_frames", pa.list_(pa.int16()), "grid indices of the looked-at frames on which a face was found"),
    _field("frame_boxes", pa.list_(FACE_BOX), "largest face per entry of face_frames: x0, y0, x1, y1", "frame px"),
    _field("frame_landmarks", pa.list_(FACE_LANDMARKS), "eyes, nose, mouth corners: x, y five times", "frame px"),
    _field("face_embedding", pa.list_(pa.float32()), "ArcFace embedding of the best frame, unit length"),
    _field("face_similarity", pa.float32(), "smallest cosine of a frame's embedding with face_embedding", "", "-1..1"),
    # crop
    _field("crop", pa.list_(pa.float64(), 4), "the grid's square in the displayed frame: x0, y0, x1, y1", "native px"),
    _field("face_in_crop", pa.float32(), "smallest share of a face box that lies inside the crop", "", "0..1"),
    _field("face_boxes", pa.list_(FACE_BOX), "frame_boxes seen through the crop", "grid px"),
    _field("face_landmarks", pa.list_(FACE_LANDMARKS), "frame_landmarks seen through the crop", "grid px"),
    # motion
    _field("motion_intensity", pa.float64(), "M of Eq. 7, uncapped; 0 for an image", "grid px per step", ">=0"),
    _field("camera_motion", pa.float64(), "mean length of the camera's part of the flow", "grid px per step", ">=0"),
    _field("face_motion", pa.list_(pa.list_(pa.float32())), "kinematics per frame pair, see flows/kinematics.py"),
    _field("flow_path", pa.string(), "stored foreground flow, relative to the output folder"),
    # caption
    _field("caption", pa.string(), "overall description P"),
    _field("action", pa.string(), "action phrase A"),
    # embedding
    _field("image_embedding", pa.list_(pa.float32()), "image embedding of the face crop, unit length"),
    _field("frame_embedding", pa.list_(pa.float32()), "image embedding of a whole frame, unit length"),
    # shots of a whole file, which its windows are cut from
    _field("cuts", pa.list_(pa.float64()), "times of the first frames after cuts", "s", ">0"),
    _field("sharpness", pa.list_(pa.float32()), "variance of the Laplacian, four times a second", "", ">=0"),
    # decided over the whole dataset
    _field("motion_intensity_capped", pa.float64(), "M capped (A.5), what the model is conditioned on", "", "0..20"),
    _field("motion_bin", pa.int16(), "bin of M for resampling; null for images", "", ">=0"),
    _field("sample_weight", pa.float64(), "expected draws in an epoch of as many draws as clips", "", ">=0"),
    _field("identity", pa.string(), "cluster of clips that show the same face; null without face embeddings"),
    _field("split", pa.string(), "by a stable hash of the video; one for all that show one face", range_="train|val"),
    # why not kept
    _field("status", pa.string(), "what became of the clip", range_="rejected|failed"),
    _field("stage", pa.string(), "stage that rejected the clip, or at which it failed"),
    _field("reason", pa.string(), "name of the verdict rule that rejected the clip"),
    _field("value", pa.float64(), "measured value that the rule compared"),
    _field("threshold", pa.float64(), "threshold that it was compared with"),
    _field("error", pa.string(), "why the clip failed"),
    _field("duplicate_of", pa.string(), "clip_id of the kept clip that this one is a copy of", "hex"),
]

FIELDS: dict[str, pa.Field] = {field.name: field for field in _ALL}

LISTED = ("source_span", "source_box", "folder_fps")
INDEXED = (
    *("video_id", "index_span", "index_box", "text_action", "text_emotion", "text_appearance"),
    *("text_light_direction", "text_light_intensity", "text_light_color"),
)
# Columns that only the stages themselves read.
INTERNAL = frozenset(
    {"short_side", "missing_frames", "frame_boxes", "frame_landmarks", "face_motion", "cuts", "sharpness"}
)
VERDICT = ("status", "stage", "reason", "value", "threshold", "error", "duplicate_of")
DECIDED = ("motion_intensity_capped", "motion_bin", "sample_weight", "identity", "split")


def fields(*names: str) -> tuple[pa.Field, ...]:
    """The fields of these names, in this order. Raises KeyError for a name that the schema does not have."""
    return tuple(FIELDS[name] for name in names)


def manifest_schema() -> pa.Schema:
    """Columns of `manifests/`: kept clips."""
    return pa.schema([f for n, f in FIELDS.items() if n not in INTERNAL and n not in VERDICT])


def rejected_schema() -> pa.Schema:
    """Columns of `rejected/`: the manifest's, then the verdict."""
    return pa.schema([*manifest_schema(), *fields(*VERDICT)])
