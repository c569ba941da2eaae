"""Each network takes the published layout strictly, and gives the numbers of an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from torch import Tensor, nn  # noqa: E402

from benchmarks.upstream_layouts import parameters  # noqa: E402
from tests.training.metrics import layouts  # noqa: E402
from training.metrics import dover_networks  # noqa: E402
from training.metrics.amt import Interpolator  # noqa: E402
from training.metrics.amt_network import AmtS, Correlations  # noqa: E402
from training.metrics.dover_networks import ConvBlock, ConvNeXt, Dover, Swin, WindowAttention  # noqa: E402
from training.metrics.facenet import InceptionResnetV1, load_facenet  # noqa: E402
from training.metrics.mtcnn import ONet, PNet, RNet  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def randomise(model: nn.Module) -> None:
    for name, p in model.named_parameters():
        nn.init.normal_(p, mean=1.0 if p.dim() == 1 and "norm" in name and "weight" in name else 0.0, std=0.1)


@pytest.mark.parametrize(
    ("layout", "network"),
    [
        (layouts.amt_s(), AmtS),
        (layouts.dover(), Dover),
        (layouts.facenet(), InceptionResnetV1),
        (layouts.mtcnn()["pnet"], PNet),
        (layouts.mtcnn()["rnet"], RNet),
        (layouts.mtcnn()["onet"], ONet),
    ],
)
def test_names_and_shapes_are_the_published_ones(layout: dict, network: type[nn.Module]) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in network().state_dict().items()} == layout


def test_the_layouts_have_the_published_sizes() -> None:
    assert round(parameters(layouts.amt_s()) / 1e6, 1) == 3.0  # AMT's paper, table 1
    assert parameters(layouts.facenet()) - 8631 * 513 == 23_482_624  # InceptionResnetV1 without its classifier


def test_swin_equals_torchvision_where_fragments_have_the_same_bias() -> None:
    from torchvision.models.video import swin3d_t

    mine = Swin()
    randomise(mine)
    for module in mine.modules():
        if isinstance(module, WindowAttention) and module.fragment_position_bias_table is not None:
            module.fragment_position_bias_table.data.copy_(module.relative_position_bias_table.data)
    reference = swin3d_t(weights=None).eval()
    state = {swin_name(name): tensor for name, tensor in mine.state_dict().items() if "fragment" not in name}
    assert reference.load_state_dict(state, strict=False).missing_keys == ["head.weight", "head.bias"]
    video = torch.randn(1, 3, 20, 72, 60)  # not divisible by windows: padded; shifted windows on all axes
    with torch.no_grad():
        expected = reference.norm(reference.features(reference.patch_embed(video)))
        found = mine(video)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def swin_name(name: str) -> str:
    if not name.startswith("layers."):
        return name
    _, stage, rest = name.split(".", 2)
    rest = rest.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")
    if rest.startswith("blocks."):
        return f"features.{2 * int(stage)}.{rest.removeprefix('blocks.')}"
    return f"features.{2 * int(stage) + 1}.{rest.removeprefix('downsample.')}"


def test_within_a_fragment_the_second_bias_counts() -> None:
    # Two tokens of the same fragment: distance 0, the fragment's table; one fragment apart: the relative table; two
    # apart: twice the relative one less the fragment's, as DOVER's code has it.
    attention = WindowAttention(24, 1, gated=True)
    attention.qkv.weight.data.zero_()
    attention.qkv.bias.data[:48].zero_()
    attention.relative_position_bias_table.data.fill_(1.0)
    attention.fragment_position_bias_table.data.fill_(3.0)
    seen: list[Tensor] = []
    real = nn.functional.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
        seen.append(attn_mask)
        return real(q, k, v, attn_mask=attn_mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dover_networks.functional, "scaled_dot_product_attention", spy)
        attention(torch.zeros(1, 3, 24), torch.tensor([[[0, 1, 2], [1, 0, 1], [2, 1, 0]]]).byte(), None)
    assert seen[0][0, 0].tolist() == [[3, 1, -1], [1, 3, 1], [-1, 1, 3]]


def test_fragments_are_a_mosaic_of_seven_by_seven() -> None:
    distance = dover_networks.fragment_distances((8, 56, 56), (8, 7, 7), (0, 0, 0))
    assert distance.shape == (64, 392, 392)
    first, second = distance[0].reshape(8, 7, 7, 8, 7, 7), distance[1].reshape(8, 7, 7, 8, 7, 7)
    assert first.max() == 0  # patches 0 to 6 all lie in the first fragment of 8 x 8 patches
    assert second[0, 0, 0, 7, 6, 0] == 0  # patch column 7, the last of its fragment, and rows 0 to 6
    assert second[0, 0, 0, 0, 0, 1] == 1  # its right neighbour is column 8, of the next fragment
    shifted = dover_networks.fragment_distances((8, 56, 56), (8, 7, 7), (4, 3, 3))
    assert shifted[0].reshape(8, 7, 7, 8, 7, 7)[0, 4, 4, 0, 5, 5] == 2  # patches 7 and 8 in both directions


def test_dover_gives_what_the_authors_code_gives() -> None:
    """The numbers are those of VQAssessment/DOVER's backbones and heads (dover/models/) on these parameters and views,
    float32. Of the first view windows are padded and shifted over time, height and width."""
    model = drawn_dover()
    with torch.no_grad():
        view = wave(20, 120, 128)
        technical = model.technical_head(model.technical_backbone(view))[0, 0]
        aesthetic = model.aesthetic_head(model.aesthetic_backbone(view))[0, 0]
        both = model(wave(16, 112, 112), wave(16, 64, 64))
    assert technical.shape == (10, 4, 4)
    assert technical.mean().item() == pytest.approx(0.16637069, abs=5e-6)
    assert technical[-1, 1].tolist() == pytest.approx([0.43753, 0.14145, -0.11322, 0.35685], abs=2e-5)
    assert aesthetic.shape == (10, 3, 4)
    assert aesthetic.mean().item() == pytest.approx(0.39525789, abs=5e-6)
    assert aesthetic[:4, 0, 0].tolist() == pytest.approx([-0.13585, 0.09163, 0.09366, 0.10289], abs=2e-5)
    assert both == pytest.approx((0.40542209, 0.24956104), abs=5e-6)


@pytest.mark.slow
def test_dover_gives_what_the_authors_code_gives_on_views_of_full_size() -> None:
    views = torch.cat([wave(32, 224, 224).roll(7 * i, dims=3) * (1 - 0.2 * i) for i in range(3)])
    with torch.no_grad():
        assert drawn_dover()(views, views) == pytest.approx((0.27680936, 0.38529417), abs=5e-6)


def drawn_dover() -> Dover:
    """On parameters that make every part count."""
    model = Dover()
    draw, state = np.random.default_rng(0), {}
    for name, t in sorted(model.state_dict().items()):
        if name.endswith("relative_position_index"):
            state[name] = t
            continue
        width = 1.7 / t[0].numel() ** 0.5 if t.dim() > 1 and "bias_table" not in name else 0.5
        scale = 1.0 if "norm" in name and name.endswith("weight") and t.dim() == 1 else 0.0
        centre = 0.5 if name.endswith("gamma") else scale
        state[name] = torch.from_numpy(centre + draw.uniform(-width, width, tuple(t.shape))).float()
    model.load_state_dict(state)
    return model.eval()


def wave(frames: int, height: int, width: int) -> Tensor:
    """(1, 3, frames, height, width)"""
    n, y, x, c = np.ogrid[:frames, :height, :width, :3]
    made = 1.5 * np.sin((x - 3 * n) / 7 + c) * np.cos((y + 2 * n) / 11 - c) + np.sin(n + c)
    return torch.from_numpy(made.astype(np.float32)).permute(3, 0, 1, 2)[None]


def test_convnext_equals_torchvision_where_time_does_not_mix() -> None:
    from torchvision.models import convnext_tiny

    mine = ConvNeXt()
    randomise(mine)
    for block in mine.modules():
        if isinstance(block, ConvBlock) and block.dwconv.weight.shape[2] == 3:
            block.dwconv.weight.data[:, :, [0, 2]] = 0
    mine.downsample_layers[0][0].weight.data[:, :, 1] = 0  # of each two frames the first
    reference = convnext_tiny(weights=None).eval()
    state = {}
    for name, tensor in mine.state_dict().items():
        renamed = convnext_name(name)
        if tensor.dim() == 5:
            tensor = tensor[:, :, tensor.shape[2] // 2 if "dwconv" in name else 0]
        state[renamed] = tensor[:, None, None] if name.endswith("gamma") else tensor
    missing = reference.load_state_dict(state, strict=False)
    assert missing.unexpected_keys == []
    assert missing.missing_keys == ["classifier.2.weight", "classifier.2.bias"]
    video = torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        found = mine(video)
        expected = reference.features(video[0, :, ::2].transpose(0, 1)).permute(0, 2, 3, 1)
        expected = nn.functional.layer_norm(expected, (768,), mine.norm.weight, mine.norm.bias, 1e-6)
    torch.testing.assert_close(found[0], expected, atol=2e-4, rtol=1e-4)


def convnext_name(name: str) -> str:
    part, *rest = name.split(".")
    if part == "downsample_layers":
        return f"features.{2 * int(rest[0])}.{'.'.join(rest[1:])}"
    if part == "stages":
        inner = {"dwconv": "block.0", "norm": "block.2", "pwconv1": "block.3", "pwconv2": "block.5"}
        inner["gamma"] = "layer_scale"
        return ".".join(["features", str(2 * int(rest[0]) + 1), rest[1], inner[rest[2]], *rest[3:]])
    return f"classifier.0.{rest[0]}"


def test_correlations_are_looked_up_in_both_directions() -> None:
    f0, f1 = torch.randn(1, 5, 16, 16), torch.randn(1, 5, 16, 16)
    flows = torch.zeros(1, 4, 16, 16)
    flows[:, 0], flows[:, 1] = -1.0, 0.5  # to frame 0: twice as far is (-2, 1)
    flows[:, 2], flows[:, 3] = 1.5, -1.0  # to frame 1: (3, -2)
    found = Correlations(f0, f1)(flows)[0].reshape(2, 4, 7, 7, 16, 16)
    y, x = 8, 7
    for i, j in ((3, 3), (0, 5), (6, 2)):  # the window's first axis moves x
        forth = f0[0, :, y, x] @ f1[0, :, y - 2 + j - 3, x + 3 + i - 3] / 5**0.5
        back = f1[0, :, y, x] @ f0[0, :, y + 1 + j - 3, x - 2 + i - 3] / 5**0.5
        torch.testing.assert_close(found[0, 0, i, j, y, x], forth)
        torch.testing.assert_close(found[1, 0, i, j, y, x], back)


def silent_amt() -> AmtS:
    """An AMT-S that predicts no flow, even masks and no residual."""
    model = AmtS()
    randomise(model)
    for part in (model.decoder4, model.decoder3, model.decoder2, model.decoder1):
        nn.init.zeros_(part.convblock[2].weight)
        nn.init.zeros_(part.convblock[2].bias)
    for last in (*(u.flow_head[2] for u in (model.update4, model.update3, model.update2)), model.comb_block[2]):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return model


def test_amt_gives_what_the_authors_code_gives() -> None:
    """The numbers are those of MCG-NKU/AMT's own AMT-S on these parameters and frames, whole network, float32."""
    model = AmtS()
    draw, state = np.random.default_rng(0), {}
    for name, p in sorted(model.state_dict().items()):
        width = 1.3 / p[0].numel() ** 0.5 if p.dim() == 4 else 0.1
        slope = 0.25 if p.dim() == 1 and name.endswith("weight") else 0.0
        state[name] = torch.from_numpy(slope + draw.uniform(-width, width, tuple(p.shape))).float()
    model.load_state_dict(state)
    y, x = np.mgrid[:128, :160]
    channel = np.arange(3)[:, None, None]
    first, second = (
        torch.from_numpy(0.5 + 0.4 * np.sin((x - 5 * i) / 9 + channel) * np.cos((y + 2 * i) / 11 - channel)).float()[
            None
        ]
        for i in range(2)
    )
    with torch.no_grad():
        made = model(first, second)[0]
    quarters = torch.nn.functional.adaptive_avg_pool2d(made, 2).reshape(3, 4)
    theirs = [
        [0.377427, 0.380739, 0.388265, 0.37908],
        [0.59725, 0.623879, 0.60892, 0.625331],
        [0.116086, 0.1101, 0.112677, 0.115325],
    ]
    torch.testing.assert_close(quarters, torch.tensor(theirs), atol=2e-5, rtol=0)
    pixels = made[:, [5, 64, 120], [7, 80, 150]].T
    theirs = [[0.52663, 0.991916, 0.0], [0.511221, 0.617622, 0.162275], [0.282695, 0.838631, 0.116992]]
    torch.testing.assert_close(pixels, torch.tensor(theirs), atol=2e-5, rtol=0)


def test_amt_without_flow_blends_both_frames() -> None:
    first, second = np.full((100, 70, 3), 40, np.uint8), np.full((100, 70, 3), 81, np.uint8)
    first[20:50, 30:] = 200
    made = Interpolator(silent_amt().state_dict())(first, second)
    assert made.shape == first.shape
    assert set(np.unique(made)) <= {59, 60, 61, 140}  # 60.5 and 140.5, cut off; float32 may lose a hair
    assert abs(int(made[0, 0, 0]) - 60) <= 1
    assert made[30, 40, 0] == 140


def test_amt_follows_the_flow_that_its_decoder_gives() -> None:
    model = silent_amt()
    model.decoder1.convblock[2].bias.data[:12] = torch.tensor([4.0, 0.0] * 3 + [-4.0, 0.0] * 3)
    picture = torch.zeros(1, 3, 128, 128)
    picture[..., 60] = 1.0
    with torch.no_grad():
        made = model(picture, picture)
    assert made[0, 0, 64, 56].item() == pytest.approx(0.5, abs=1e-4)  # from frame 0 at x + 4
    assert made[0, 0, 64, 64].item() == pytest.approx(0.5, abs=1e-4)  # from frame 1 at x - 4
    assert made[0, 0, 64, 60].item() == pytest.approx(0.0, abs=1e-4)


def test_files_of_another_layout_are_refused() -> None:
    with pytest.raises(ValueError, match="not a state dict of AMT-S: "):
        Interpolator({"weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="not a state dict of facenet-pytorch's VGGFace2 network: "):
        load_facenet({})
