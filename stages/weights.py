"""The one table of model files: where each comes from, its licence, its hash, and where it is looked up.

Engines ask `require` for their files and get paths or one error that names file, origin and place; nothing is
downloaded here. A run does so before its first clip (curation/weights.py), and `python -m curation.weights fetch`.

Lookup order: each folder of `HUMAN_MOTION_WEIGHTS` (several, as in PATH), this project's cache, the caches of the
libraries that use the same files. A file of one's own in place of a published one needs its hash in the folder's
`sha256sums.txt` (the format of sha256sum).
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

VARIABLE = "HUMAN_MOTION_WEIGHTS"
OFFLINE = ("HUMAN_MOTION_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # any of them set: nothing is downloaded
SUMS = "sha256sums.txt"
CACHE = "~/.cache/human-motion/weights"

MIT_CLIP = "MIT (openai/CLIP)"
APACHE_EASYOCR = "Apache-2.0 (JaidedAI/EasyOCR)"
INSIGHTFACE = "non-commercial research only (deepinsight/insightface)"
BSD_TORCHVISION = "BSD-3-Clause (pytorch/vision); trained on data sets with terms of their own"
FACENET = "MIT (timesler/facenet-pytorch)"
BSD_LAVIS = "BSD-3-Clause (salesforce/LAVIS)"

_CLIP = "https://openaipublic.azureedge.net/clip/models"
_EASYOCR = "https://github.com/JaidedAI/EasyOCR/releases/download"
_BUFFALO_L = "https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip"
_SCRFD = "https://github.com/deepinsight/insightface/tree/master/detection/scrfd"
_RAFT = "https://download.pytorch.org/models"
_LAVIS = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2"
_MINIGPT4 = "https://github.com/Vision-CAIR/MiniGPT-4"
_FACENET = "https://github.com/timesler/facenet-pytorch"


@dataclass(frozen=True)
class Weight:
    """A model file (or a folder of files).

    file: path below a weights folder.
    origin: the address that `fetch` downloads, or the page that says how to get it where `by_hand` is set.
    size: bytes; sha256: hex. None where the publisher does not say and no copy was at hand.
    member: the file's name inside the zip archive at `origin`.
    caches: where the libraries that use the same file keep it.
    """

    name: str
    file: str
    origin: str
    licence: str
    size: int | None = None
    sha256: str | None = None
    member: str | None = None
    caches: tuple[str, ...] = ()
    by_hand: bool = False


def _clip(name: str, file: str, sha256: str, size: int) -> Weight:
    name = f"clip-{name}"
    caches = (f"~/.cache/clip/{file}", f"$TORCH_HOME/hub/clip/{file}", f"~/.cache/torch/hub/clip/{file}")
    return Weight(name, f"clip/{file}", f"{_CLIP}/{sha256}/{file}", MIT_CLIP, size, sha256, caches=caches)


def _easyocr(name: str, release: str, sha256: str, size: int) -> Weight:
    file = f"{name}.pth"
    caches = (f"$EASYOCR_MODULE_PATH/model/{file}", f"~/.EasyOCR/model/{file}")
    origin = f"{_EASYOCR}/{release}/{name}.zip"
    return Weight(name, f"easyocr/{file}", origin, APACHE_EASYOCR, size, sha256, member=file, caches=caches)


def _buffalo(name: str, file: str, sha256: str, size: int) -> Weight:
    caches = (f"~/.insightface/models/buffalo_l/{file}",)
    return Weight(name, f"insightface/{file}", _BUFFALO_L, INSIGHTFACE, size, sha256, member=file, caches=caches)


def _scrfd(name: str, sha256: str, size: int) -> Weight:
    return Weight(name, f"insightface/{name}.onnx", _SCRFD, INSIGHTFACE, size, sha256, by_hand=True)


def _raft(name: str, file: str, sha256: str | None = None, size: int | None = None) -> Weight:
    caches = (f"$TORCH_HOME/hub/checkpoints/{file}", f"~/.cache/torch/hub/checkpoints/{file}")
    return Weight(name, f"raft/{file}", f"{_RAFT}/{file}", BSD_TORCHVISION, size, sha256, caches=caches)


def _mtcnn(name: str, sha256: str, size: int) -> Weight:
    origin = f"{_FACENET}/raw/master/data/{name}.pt"
    return Weight(f"mtcnn-{name}", f"facenet/{name}.pt", origin, FACENET, size, sha256)


# CLIP's hashes stand in its addresses, RAFT's begin in its file names; the others, and the sizes, are those that
# several independent public projects pin for the same files.
_ALL = (
    _clip("rn50", "RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762", 255827503),
    _clip("vit-b-32", "ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", 353976522),
    _clip("vit-l-14", "ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", 932768134),
    _easyocr(
        "craft_mlt_25k", "pre-v1.1.6", "4a5efbfb48b4081100544e75e1e2b57f8de3d84f213004b14b85fd4b3748db17", 83152330
    ),
    _easyocr("english_g2", "v1.3", "e2272681d9d67a04e2dff396b6e95077bc19001f8f6d3593c307b9852e1c29e8", 15143997),
    _easyocr("latin_g2", "v1.3", "aaa95be1c4a9cb3496879bed7c520886ce1164f89e026f0c54488394e74e8c55", 15406141),
    _easyocr("zh_sim_g2", "v1.3", "cb678fdef09d651e7763ca551ad790dc89f0b2e3d2a640484330e338fb574c7a", 21951421),
    _buffalo("det_10g", "det_10g.onnx", "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91", 16923827),
    _buffalo(
        "w600k_r50", "w600k_r50.onnx", "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43", 174383860
    ),
    _scrfd("scrfd_500m_kps", "517cb1980c72422e676738fc45431700fb7cbee56d0f825b623ee427b3e5ce58", 2524095),
    _scrfd("scrfd_2.5g_kps", "32d20c77b9e2dc1d07e94c2ab9d25bdd5cd05eddbe0b46e7b38e7a1eca22e99a", 3291017),
    _raft(
        "raft_large",
        "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        "ff5fadd56d26b40647388883af1547351ea17868b765c05b27231e72dd16a322",
        21106607,
    ),
    _raft(
        "raft_small",
        "raft_small_C_T_V2-01064c6d.pth",
        "01064c6dba73b0fc9fc8edf772248560a00a3acfd62ac6677e9eeebad9680e27",
        4006189,
    ),
    # The metrics of training.evaluate.
    _raft("raft_large_things", "raft_large_C_T_V1-22a6c225.pth"),
    Weight(
        "amt-s",
        "amt/amt-s.pth",
        "https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth",
        "non-commercial: CC BY-NC 4.0 (MCG-NKU/AMT)",
    ),
    Weight(
        "dover",
        "dover/DOVER.pth",
        "https://github.com/QualityAssessment/DOVER/releases/download/v0.1.0/DOVER.pth",
        "MIT (VQAssessment/DOVER); trained on LSVQ",
    ),
    _mtcnn("pnet", "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f", 28570),
    _mtcnn("rnet", "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86", 403147),
    _mtcnn("onet", "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d", 1559269),
    Weight(
        "facenet-vggface2",
        "facenet/20180402-114759-vggface2.pt",
        f"{_FACENET}/releases/download/v2.2.9/20180402-114759-vggface2.pt",
        f"{FACENET}; trained on VGGFace2, for non-commercial research",
    ),
    Weight("eva-vit-g", "minigpt4/eva_vit_g.pth", f"{_LAVIS}/eva_vit_g.pth", BSD_LAVIS),
    Weight(
        "blip2-qformer",
        "minigpt4/blip2_pretrained_flant5xxl.pth",
        f"{_LAVIS}/blip2_pretrained_flant5xxl.pth",
        BSD_LAVIS,
    ),
    Weight(
        "minigpt4-7b",
        "minigpt4/prerained_minigpt4_7b.pth",
        f"{_MINIGPT4}#3-prepare-the-pretrained-model-checkpoint",
        "BSD-3-Clause (Vision-CAIR/MiniGPT-4)",
        by_hand=True,
    ),
    Weight(
        "vicuna-7b",
        "minigpt4/vicuna-7b",
        f"{_MINIGPT4}#2-prepare-the-pretrained-llm-weights",
        "LLaMA's licence, non-commercial (lmsys/vicuna-7b)",
        by_hand=True,
    ),
)

WEIGHTS: dict[str, Weight] = {weight.name: weight for weight in _ALL}


@runtime_checkable
class HasWeights(Protocol):
    """An engine that needs model files."""

    def weights(self) -> tuple[str, ...]:
        """Names in `WEIGHTS`."""
        ...


@runtime_checkable
class HubModel(Protocol):
    """An engine whose model comes from the Hugging Face hub, by a name that the user gives."""

    def folder(self) -> Path | None:
        """Where all of the model lies on this machine; None where it does not."""
        ...

    def download(self) -> None:
        """Get what is missing of it, with progress. Raises ValueError that says where to get it and where to put it."""
        ...

    def origin(self) -> str:
        """Its address."""
        ...


def offline() -> str | None:
    """The environment variable that forbids downloads, if one does."""
    off = ("", "0", "false", "no", "off")
    return next((name for name in OFFLINE if os.environ.get(name, "").lower() not in off), None)


def needed(engines: Iterable[object]) -> tuple[str, ...]:
    """Names of all model files that these engines need, each once, in order."""
    return tuple(dict.fromkeys(n for engine in engines if isinstance(engine, HasWeights) for n in engine.weights()))


def folders() -> list[Path]:
    """The weights folders in order of preference; `fetch` writes into the first."""
    given = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    return [Path(part).expanduser() for part in (*given, CACHE)]


def find(name: str) -> Path | None:
    """Where this model file lies, unchecked; None where it lies nowhere."""
    weight = WEIGHTS[name]
    caches = [Path(os.path.expandvars(cache)).expanduser() for cache in weight.caches]
    for path in (*(folder / weight.file for folder in folders()), *caches):
        if path.exists():
            return path
    return None


def missing(names: Iterable[str]) -> list[str]:
    """Those of these model files that lie nowhere; cheap, hashes nothing."""
    return [name for name in names if find(name) is None]


def require(names: Iterable[str]) -> dict[str, Path]:
    """The paths of these model files, their hashes checked.

    Raises ValueError that names each missing file with its address, licence and place, and each wrong one.
    """
    found: dict[str, Path] = {}
    problems = []
    for name in names:
        path = find(name)
        problem = how_to_get(name) if path is None else check(name, path)
        if problem is not None:
            problems.append(f"{name}: {problem}")
        elif path is not None:
            found[name] = path
    if problems:
        raise ValueError("model files:\n  " + "\n  ".join(problems))
    return found


def check(name: str, path: Path) -> str | None:
    """What is wrong with the file at `path`, or None: its hash against one's own sum, else against the table's."""
    weight = WEIGHTS[name]
    own = _own_sums(path, weight.file)
    expected = own if own is not None else weight.sha256
    if expected is None or digest(path) == expected:
        return None
    return (
        f"{path} is not the published file: sha256 is {digest(path)}, expected {expected}. Fetch it again, or, "
        f"if it is your own, put its hash into {SUMS} of its weights folder"
    )


def digest(path: Path) -> str:
    """sha256, hex. A folder's is that of its sorted file names and their hashes."""
    if path.is_dir():
        lines = [f"{digest(p)}  {p.relative_to(path).as_posix()}" for p in sorted(path.rglob("*")) if p.is_file()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    stat = path.stat()
    return _digest(str(path), stat.st_size, stat.st_mtime_ns)


def version(names: Iterable[str], *packages: str) -> str:
    """Versions of these packages and hashes of these model files, for an engine's version.

    A file that lies nowhere stands as "missing". Raises ValueError for a package that is not installed.
    """
    parts = []
    for package in packages:
        try:
            parts.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            raise ValueError(f"{package} is not installed: pip install 'human-motion[paper]'") from None
    for name in names:
        path = find(name)
        parts.append(f"{name}={'missing' if path is None else digest(path)[:16]}")
    return " ".join(parts)


def load_state_dict(path: Path) -> dict[str, Any]:
    """The tensors by name in a PyTorch file, on the CPU.

    Read with `weights_only`, so that the file can run no code. TorchScript archives, in which OpenAI publishes CLIP,
    cannot be read so: they are opened by torch.jit, whose language cannot leave the model. A leading "module." of
    DataParallel is taken off.
    """
    import torch

    with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else nullcontext() as archive:
        script = archive is not None and any(name.endswith("/constants.pkl") for name in archive.namelist())
    if script:
        state = torch.jit.load(path, map_location="cpu").state_dict()
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


@lru_cache(maxsize=256)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_sums(path: Path, file: str) -> str | None:
    """The hash that the weights folder of `path` states for it, or None."""
    for folder in folders():
        sums = folder / SUMS
        if path == folder / file and sums.is_file():
            for line in sums.read_text().splitlines():
                value, _, listed = line.partition("  ")
                if listed.strip() == file:
                    return value.strip().lower()
    return None


def how_to_get(name: str) -> str:
    """Where to get this model file, under which licence, and where to put it."""
    weight = WEIGHTS[name]
    size = "" if weight.size is None else f", {weight.size / 1e6:.0f} MB"
    place = folders()[0] / weight.file
    barred = offline()
    command = (
        f"downloads are off ({barred} is set): " if barred else f"run `python -m curation.weights fetch {name}`, or "
    )
    member = f"({weight.member} in the archive) " if weight.member else ""
    how = (
        f"get it by hand from {weight.origin} and put it at {place}"
        if weight.by_hand
        else f"{command}get it from {weight.origin} {member}and put it at {place}"
    )
    return f"missing ({weight.licence}{size}): {how}"
