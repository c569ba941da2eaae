"""Face similarity as FastComposer measures it (Xiao et al. 2023, arXiv 2305.10431): MTCNN finds, FaceNet compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stages import weights
from training.metrics.base import Score, Video

if TYPE_CHECKING:
    import torch

SIDE = 160  # of the face that FaceNet sees
NETWORKS = ("mtcnn-pnet", "mtcnn-rnet", "mtcnn-onet")


class FaceSimilarity:
    """Whether the person is the same; by other networks than those that the identity loss trained on."""

    name = "face_similarity"
    title = "Face Similarity"
    definition = (
        "FastComposer's: the largest face that MTCNN finds (20 px or more, thresholds 0.6, 0.7, 0.7, factor 0.709, no "
        "margin) on each frame at native resolution and on the reference picture, scaled to 160 x 160; cosine of their "
        "FaceNet embeddings (InceptionResnetV1, VGGFace2), at least 0, and 0 for a frame on which no face is found; "
        "mean over all frames. The identity loss is trained on ArcFace, not on FaceNet"
    )
    weights: tuple[str, ...] = (*NETWORKS, "facenet-vggface2")
    packages: tuple[str, ...] = ("torch", "torchvision")

    def setup(self, device: str) -> None:
        """Loads MTCNN and FaceNet."""
        pnet, rnet, onet, facenet = (weights.load_state_dict(path) for path in weights.require(self.weights).values())
        from training.metrics.facenet import load_facenet
        from training.metrics.mtcnn import Mtcnn

        self.detector = Mtcnn(pnet, rnet, onet, device)
        self.facenet = load_facenet(facenet).to(device)
        self.device = device

    def measure(self, video: Video) -> Score:
        """details: the cosine of each frame, null where no face was found. Raises ValueError when I shows none."""
        reference = self.face(video.reference)
        if reference is None:
            raise ValueError("no face is found on the reference picture")
        return similarity([self.face(frame) for frame in video.frames], reference, self.embed)

    def face(self, frame: np.ndarray) -> np.ndarray | None:
        """uint8 RGB (SIDE, SIDE, 3) of the largest face on a frame (h, w, 3), None without one."""
        height, width = frame.shape[:2]
        boxes = self.detector.detect(frame)
        edges = boxes[:, :4].clip(0, (width, height, width, height)).astype(int)
        boxes = boxes[(edges[:, 2:] > edges[:, :2]).all(axis=1)]  # corrections may turn a box over
        if not len(boxes):
            return None
        box = boxes[np.argmax((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])), :4]
        return cut(frame, box)

    def embed(self, faces: np.ndarray) -> np.ndarray:
        """uint8 (n, SIDE, SIDE, 3) -> unit float32 (n, 512)."""
        import torch

        x: torch.Tensor = torch.from_numpy(faces).to(self.device).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            return self.facenet((x - 127.5) / 128).cpu().numpy()


def similarity(faces: list[np.ndarray | None], reference: np.ndarray, embed: Any) -> Score:
    """The score from the faces of the frames and of the reference; embed as FaceSimilarity.embed."""
    found = [face for face in faces if face is not None]
    vectors = iter(embed(np.stack([reference, *found])))
    of_reference = next(vectors)
    cosines = [None if face is None else float(next(vectors) @ of_reference) for face in faces]
    value = float(np.mean([0.0 if cosine is None else max(cosine, 0.0) for cosine in cosines]))
    return Score(value, {"cosines": cosines, "missed": len(faces) - len(found)})


def cut(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The part of the frame in the box (x0, y0, x1, y1), its edges cut off to whole pixels, as (SIDE, SIDE, 3)."""
    from PIL import Image

    height, width = frame.shape[:2]
    x0, y0 = (int(max(v, 0)) for v in box[:2])
    x1, y1 = int(min(box[2], width)), int(min(box[3], height))
    return np.asarray(Image.fromarray(frame).crop((x0, y0, x1, y1)).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
