"""The one table of model files: where each comes from, its licence, its size and its hash (see stages/weights.py)."""

from __future__ import annotations

from dataclasses import dataclass

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
