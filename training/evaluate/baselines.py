"""The paper's baselines: AnimateDiff with an IP-Adapter, through diffusers; and ID-Animator, whose own code makes the
videos that we list.

Adapter files as h94/IP-Adapter (models/ip-adapter-plus-face_sd15.safetensors) and h94/IP-Adapter-FaceID
(ip-adapter-faceid-portrait_sd15.bin, ip-adapter-faceid-plusv2_sd15.bin) publish them; the FaceID files are for
non-commercial research, like the insightface models whose embeddings they take.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training.evaluate.plan import write_lines
from training.evaluate.videos import LIST, read_picture
from training.requests import Request

FILES = {
    "plus-face": "ip-adapter-plus-face_sd15.safetensors",
    "faceid-portrait": "ip-adapter-faceid-portrait_sd15.bin",
    "faceid-plusv2": "ip-adapter-faceid-plusv2_sd15.bin",
}
MARGIN = 0.25  # of the face box's longer side, kept around it on each side
NEGATIVE = "low quality, worst quality, blurry, deformed"


@dataclass(frozen=True)
class Settings:
    """What the videos are made with. base, motion_adapter, ip_adapter, image_encoder: paths, or names below a weights
    folder; ip_adapter None: the published file's name."""

    method: str
    base: str
    motion_adapter: str
    ip_adapter: str | None
    image_encoder: str
    steps: int
    guidance: float
    frames: int
    size: int
    fps: int
    detector: str
    device: str


def said(request: Request) -> str:
    """What a model without our conditions is told: P, action and intensity in words, as the paper did. The words for
    the intensity are ours, it does not print its own."""
    strength = "no motion" if request.intensity == 0 else f"motion intensity {request.intensity:g} of 20"
    return ", ".join(part for part in (request.prompt, request.action, strength) if part)


def list_videos(wanted: Sequence[Request], out: Path, suffix: str = ".mp4") -> Path:
    """Write out/videos.jsonl: for each request the video's file name, its picture, and what is said to the model."""
    names = [request.name() for request in wanted]
    if len(set(names)) < len(names):
        raise ValueError("the plan asks for the same video twice")
    lines = [
        {
            "video": f"{name}{suffix}",
            "image": str(request.image.resolve()),
            "prompt": request.prompt,
            "action": request.action or "",
            "intensity": request.intensity,
            "seed": request.seed,
            "said": said(request),
        }
        for name, request in zip(names, wanted, strict=True)
    ]
    write_lines(out / LIST, lines)
    return out / LIST


def make_videos(wanted: Sequence[Request], settings: Settings, out: Path) -> int:
    """Make the videos that are not there yet. Returns 0, or 1 when a picture was refused (no face, or several).

    Raises ValueError when model files are missing or do not fit, or `out` was made with other settings.
    """
    from training.sampler import write_mp4

    listed = list_videos(wanted, out)
    _same_settings(settings, out / "settings.json")
    todo = [request for request in wanted if not (out / f"{request.name()}.mp4").exists()]
    if not todo:
        return 0
    baseline = Baseline(settings)
    refused: dict[Path, str] = {}
    for request in tqdm(todo, desc=settings.method, unit="video", disable=None):
        if request.image in refused:
            continue
        try:
            frames = baseline.make(request)
        except ValueError as error:
            refused[request.image] = str(error)
            print(f"training.evaluate: {error}", file=sys.stderr)
            continue
        write_mp4(out / f"{request.name()}.mp4", frames, Fraction(settings.fps))
    if refused:
        print(f"training.evaluate: {listed} still lists the videos of {len(refused)} refused pictures", file=sys.stderr)
    return 1 if refused else 0


def _same_settings(settings: Settings, path: Path) -> None:
    """Keeps the settings in the folder, so that it cannot mix two of them."""
    from manifests.shards import whole

    kept = {name: value for name, value in vars(settings).items() if name != "device"}
    if path.exists():
        if json.loads(path.read_text()) != kept:
            raise ValueError(f"{path}: these videos were made with other settings; give another --out")
        return
    with whole(path) as temporary:
        temporary.write_text(json.dumps(kept, indent=1))


class Baseline:
    """AnimateDiff on Stable Diffusion 1.5 with one of the adapters."""

    def __init__(self, settings: Settings, detector: Any = None) -> None:
        """detector: an engine of the face stage, set up; without it, the settings' one. Raises ValueError when model
        files are missing or do not fit."""
        from training.components import resolve

        self.settings = settings
        names = {
            "base": settings.base,
            "motion_adapter": settings.motion_adapter,
            "ip_adapter": settings.ip_adapter or FILES[settings.method],
            "image_encoder": settings.image_encoder,
        }
        paths = {key: resolve(name) for key, name in names.items()}
        if lines := [f"{key}={names[key]}: no such path, and in no weights folder" for key in paths if not paths[key]]:
            raise ValueError("model files are missing:\n  " + "\n  ".join(lines))
        self.pipeline = _pipeline(paths, settings.device)
        self.detector = detector or _detector(settings)
        self._conditions: dict[Path, dict[str, Any]] = {}

    def make(self, request: Request) -> np.ndarray:
        """uint8 RGB (N, S, S, 3). Raises ValueError when the picture does not show exactly one face."""
        import torch

        from training.sampler import as_frames

        if request.image not in self._conditions:
            self._conditions = {request.image: self.conditions(request.image)}
        conditions = dict(self._conditions[request.image])
        clip_embeds = conditions.pop("clip_embeds", None)
        if clip_embeds is not None:
            projection = self.pipeline.unet.encoder_hid_proj.image_projection_layers[0]
            projection.clip_embeds, projection.shortcut = clip_embeds, True  # v2 adds the identity once more
        settings = self.settings
        with torch.no_grad():
            made = self.pipeline(
                prompt=said(request),
                negative_prompt=request.negative_prompt or NEGATIVE,
                num_frames=settings.frames,
                height=settings.size,
                width=settings.size,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                generator=torch.Generator().manual_seed(request.seed),
                output_type="pt",
                **conditions,
            )
        return as_frames(made.frames[0].float().cpu())

    def conditions(self, image: Path) -> dict[str, Any]:
        """What the pipeline is given of the face: its picture, its identity embedding, or both."""
        import torch
        from PIL import Image

        frame = read_picture(image)
        found = self.detector.detect(frame)
        if len(found) != 1:
            raise ValueError(f"{image}: {len(found) or 'no'} faces found, exactly one is needed")
        crop = Image.fromarray(_around(frame, found[0].clipped(frame.shape[:2])))
        if self.settings.method == "plus-face":
            return {"ip_adapter_image": [crop]}
        vector = self.detector.embed([frame], np.array([found[0].landmarks]).reshape(-1, 5, 2))
        dtype, device = self.pipeline.unet.dtype, self.settings.device
        identity = torch.from_numpy(vector).to(device, dtype)[:, None]  # (1, 1, 512)
        guided = self.settings.guidance > 1
        both = torch.cat([torch.zeros_like(identity), identity]) if guided else identity
        given: dict[str, Any] = {"ip_adapter_image_embeds": [both]}
        if self.settings.method == "faceid-plusv2":
            with torch.no_grad():
                given["clip_embeds"] = self.pipeline.prepare_ip_adapter_image_embeds([crop], None, device, 1, guided)[0]
        return given


def _around(frame: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """The square around a face, with a margin; black where it reaches over the edge."""
    x0, y0, x1, y1 = box
    half = round((0.5 + MARGIN) * max(x1 - x0, y1 - y0))
    x, y = round((x0 + x1) / 2), round((y0 + y1) / 2)
    padded = np.pad(frame, ((half, half), (half, half), (0, 0)))
    return padded[y : y + 2 * half, x : x + 2 * half]


def _detector(settings: Settings) -> Any:
    """An engine of the face stage; one that gives embeddings for the FaceID adapters."""
    if settings.method == "plus-face":
        from training.sampler import face_detector

        return face_detector(settings.detector, settings.device)
    from stages.frames import FrameSpec
    from stages.insightface_face import InsightFace, InsightFaceParams

    engine = InsightFace(InsightFaceParams.model_validate({}), FrameSpec())
    engine.setup(settings.device)
    return engine


def _pipeline(paths: dict[str, Any], device: str) -> Any:
    """The pipeline with the adapter in it. A FaceID adapter's LoRA is added to the base weights beforehand: diffusers
    looks it up by the number of each attention processor, which the motion modules shift."""
    import torch
    from diffusers import (
        AnimateDiffPipeline,
        AutoencoderKL,
        MotionAdapter,
        UNet2DConditionModel,
        UNetMotionModel,
    )
    from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

    from training.components import noise_schedule
    from training.config import fit_config

    base, dtype = paths["base"], torch.float32 if device == "cpu" else torch.float16
    unet2d = UNet2DConditionModel.from_pretrained(base, subfolder="unet", local_files_only=True)
    state = read_adapter(paths["ip_adapter"])
    state["ip_adapter"] = merge_lora(unet2d, state["ip_adapter"])
    adapter = MotionAdapter.from_pretrained(paths["motion_adapter"], local_files_only=True)
    encoder = CLIPVisionModelWithProjection.from_pretrained(paths["image_encoder"], local_files_only=True)
    side = encoder.config.image_size
    pipeline = AnimateDiffPipeline(
        vae=AutoencoderKL.from_pretrained(base, subfolder="vae", local_files_only=True),
        text_encoder=CLIPTextModel.from_pretrained(base, subfolder="text_encoder", local_files_only=True),
        tokenizer=CLIPTokenizer.from_pretrained(base, subfolder="tokenizer", local_files_only=True),
        unet=UNetMotionModel.from_unet2d(unet2d, adapter),
        motion_adapter=None,
        scheduler=noise_schedule(fit_config("paper")),
        feature_extractor=CLIPImageProcessor(size=side, crop_size=side),
        image_encoder=encoder,
    )
    try:
        pipeline.load_ip_adapter(state, subfolder="", weight_name="", image_encoder_folder=None)
    except (RuntimeError, KeyError, ValueError) as error:
        raise ValueError(f"{paths['ip_adapter']}: does not fit this base model: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, dtype)


def read_adapter(path: Path) -> dict[str, dict[str, Any]]:
    """{"image_proj": ..., "ip_adapter": ...} of an adapter, safetensors or a PyTorch file. Raises ValueError."""
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        state: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
        for name, tensor in load_file(path).items():
            part, _, rest = name.partition(".")
            state.setdefault(part, {})[rest] = tensor
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not state.get("image_proj") or not state.get("ip_adapter"):
        raise ValueError(f"{path}: is no IP-Adapter, it lacks image_proj or ip_adapter")
    return state


def merge_lora(unet: Any, adapter: dict[str, Any]) -> dict[str, Any]:
    """Adds the LoRA layers of a FaceID adapter to the UNet's attention weights (W + up down, scale 1) and returns the
    adapter without them. The number in a name counts the UNet's attentions, self and cross in turn."""
    import torch

    layers = {name: tensor for name, tensor in adapter.items() if "_lora." in name}
    for number, name in enumerate(unet.attn_processors):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for part in ("to_q", "to_k", "to_v", "to_out"):
            stem = f"{number}.{part}_lora"
            if f"{stem}.down.weight" not in layers:
                continue
            down, up = layers.pop(f"{stem}.down.weight"), layers.pop(f"{stem}.up.weight")
            linear = attention.to_out[0] if part == "to_out" else getattr(attention, part)
            with torch.no_grad():
                linear.weight += (up.float() @ down.float()).to(linear.weight.dtype)
    if layers:
        raise ValueError(f"the adapter's LoRA does not fit the base model: {next(iter(layers))} is left over")
    return {name: tensor for name, tensor in adapter.items() if "_lora." not in name}
