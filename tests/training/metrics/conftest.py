"""Random weights in the published layouts, where stages.weights looks for them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

from benchmarks import upstream_layouts
from stages import weights
from tests.training.metrics import layouts

WORDS = 49408  # CLIP's own vocabulary: its tokenizer is the real one


def random_weights(folder: Path) -> Path:
    """A weights folder with every file of the metrics: CLIP tiny, the others of full size."""
    files = {
        "raft_large_things": upstream_layouts.raft_large(),
        "dover": layouts.dover(),
        "facenet-vggface2": layouts.facenet(),
        **{f"mtcnn-{name}": layout for name, layout in layouts.mtcnn().items()},
    }
    for seed, (name, layout) in enumerate(files.items()):
        path = folder / weights.WEIGHTS[name].file
        upstream_layouts.own(upstream_layouts.write(layout, path, seed), folder)
    upstream_layouts.own(layouts.write_state(layouts.amt_s(), folder / weights.WEIGHTS["amt-s"].file, 9), folder)
    clip = upstream_layouts.clip_vit(width=64, layers=2, patch=32, embed=48, text=64, text_layers=1, vocabulary=WORDS)
    path = folder / weights.WEIGHTS["clip-vit-l-14"].file
    upstream_layouts.own(upstream_layouts.write_script(clip, path, seed=1), folder)
    return folder


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("metric-weights"))


@pytest.fixture
def at_weights(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder, in force."""
    import torch

    torch.set_num_threads(1)
    monkeypatch.setenv(weights.VARIABLE, str(weights_folder))
    return weights_folder
