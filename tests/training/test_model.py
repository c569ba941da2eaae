"""The adapter against the equations, on a tiny UNet, and its size at true SD 1.5 scale on the meta device."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers import UNetMotionModel  # noqa: E402
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0  # noqa: E402

from training.model import (  # noqa: E402
    AdapterSpec,
    IdentityProjection,
    IntensityEmbedding,
    adapter_parameters,
    conditions,
    install,
    pack_identity,
    sd15_unet,
    set_scales,
    spatial_transformers,
)

SPEC = AdapterSpec(arc_dim=12, clip_dim=10, id_tokens=3, motion_tokens=4)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def tiny_unet() -> UNetMotionModel:
    return UNetMotionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=24,
        num_attention_heads=2,
        motion_num_attention_heads=2,
    ).eval()


def inputs(batch: int = 2, frames: int = 3) -> dict:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    identity = pack_identity(draw(batch, 12), draw(batch, 5, 10))
    return {
        "sample": draw(batch, 4, frames, 8, 8),
        "timestep": torch.tensor([10] * batch),
        "encoder_hidden_states": draw(batch, 7, 24).repeat_interleave(frames, 0),
        "added_cond_kwargs": {"image_embeds": conditions(identity, draw(batch, 7, 24), torch.tensor([2.0, 15.0]))},
    }


@torch.no_grad()
def test_step_zero_equals_the_base_model_exactly() -> None:
    unet, x = tiny_unet(), inputs()
    base = unet(x["sample"], x["timestep"], x["encoder_hidden_states"]).sample
    install(unet, SPEC)
    set_scales(unet, lambda_=0.0)
    assert (unet(**x).sample - base).abs().max() == 0.0
    set_scales(unet, lambda_=1.0)
    with_identity = unet(**x).sample
    assert (with_identity - base).abs().max() > 1e-4
    x["added_cond_kwargs"]["image_embeds"][2] += 3.0
    assert (unet(**x).sample - with_identity).abs().max() == 0.0  # motion blocks are the identity at step 0


@torch.no_grad()
def test_alpha_and_lambda_switch_the_branches() -> None:
    unet, x = tiny_unet(), inputs()
    install(unet, SPEC)
    for name, parameter in unet.named_parameters():
        if ".block." in name:
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(2))

    def out(**scales: float) -> torch.Tensor:
        set_scales(unet, **scales)
        return unet(**x).sample

    def other_m(**scales: float) -> torch.Tensor:
        x["added_cond_kwargs"]["image_embeds"][2] += 1.5
        result = out(**scales)
        x["added_cond_kwargs"]["image_embeds"][2] -= 1.5
        return result

    assert not torch.equal(out(alpha=1.0), other_m(alpha=1.0))
    assert torch.equal(out(alpha=0.0), other_m(alpha=0.0))
    before = out(lambda_=1.0, alpha=1.0)
    x["added_cond_kwargs"]["image_embeds"][0] += 1.0
    assert not torch.equal(out(lambda_=1.0), before)
    off = out(lambda_=0.0)
    x["added_cond_kwargs"]["image_embeds"][0] += 1.0
    assert torch.equal(out(lambda_=0.0), off)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k / sqrt(d)) v in two heads."""
    q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in (q, k, v))
    return (torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v).transpose(1, 2).flatten(2)


@torch.no_grad()
def test_eq_2_e_arc_asks_and_e_clip_plus_e_arc_answer() -> None:
    module = IdentityProjection(SPEC, 24, heads=2)
    arc, clip = torch.randn(2, 12), torch.randn(2, 5, 10)
    got = module(pack_identity(arc, clip).squeeze(1))
    e = module.clip_in(clip) + module.arc_in(arc)[:, None]
    q = module.attention.to_q(module.queries(arc).view(2, 3, 24))
    answer = attend(q, module.attention.to_k(e), module.attention.to_v(e))
    want = module.norm(module.proj(module.attention.to_out[0](answer)))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.mean(-1), torch.zeros(2, 3), rtol=0, atol=1e-5)  # LayerNorm comes last
    assert not torch.equal(got[:, 0], got[:, 1])


@torch.no_grad()
@pytest.mark.parametrize(("equation", "tokens"), [(3, 3), (8, 4)])
def test_eq_3_and_8_are_text_attention_plus_scaled_attention_to_the_new_tokens(equation: int, tokens: int) -> None:
    unet = tiny_unet()
    install(unet, SPEC)
    base, motion = next(iter(spatial_transformers(unet))).transformer_blocks
    attention = base.attn2 if equation == 3 else motion.block.attn2
    processor = attention.processor
    for module in (attention.to_out[0], processor.to_k_ip[0], processor.to_v_ip[0]):
        torch.nn.init.normal_(module.weight)
    x, text, new = torch.randn(2, 64, 16), torch.randn(2, 7, 24), torch.randn(2, tokens, 24)
    processor.scale = [0.7]  # lambda of Eq. 3, alpha of Eq. 8
    got = attention(x, encoder_hidden_states=(text, [new[:, None]]))
    q = attention.to_q(x)
    want = attend(q, attention.to_k(text), attention.to_v(text))
    want = want + 0.7 * attend(q, processor.to_k_ip[0](new), processor.to_v_ip[0](new))
    torch.testing.assert_close(got, attention.to_out[0](want), rtol=1e-4, atol=1e-5)


def test_new_keys_and_values_start_as_the_text_ones_and_only_spatial_sites_have_them() -> None:
    unet = tiny_unet()
    install(unet, SPEC)
    sites = [name for name, p in unet.attn_processors.items() if isinstance(p, IPAdapterAttnProcessor2_0)]
    assert sites
    assert not [name for name in sites if "motion_modules" in name or "attn1" in name]
    for transformer in spatial_transformers(unet):
        base, motion = transformer.transformer_blocks
        assert torch.equal(base.attn2.processor.to_k_ip[0].weight, base.attn2.to_k.weight)
        assert torch.equal(motion.block.attn2.processor.to_v_ip[0].weight, base.attn2.to_v.weight)


@torch.no_grad()
def test_a_dropped_clip_embedding_leaks_no_bias() -> None:
    projection = IdentityProjection(SPEC, 24, 2)
    arc, clip = torch.randn(1, 12), torch.zeros(1, 5, 10)
    before = projection(pack_identity(arc, clip).squeeze(1))
    projection.clip_in.bias += 5.0
    assert torch.equal(projection(pack_identity(arc, clip).squeeze(1)), before)
    assert not torch.equal(projection(pack_identity(arc, clip + 1).squeeze(1)), before)


def test_intensity_gives_several_tokens_capped_at_20() -> None:
    embed = IntensityEmbedding(4, 24)
    tokens = embed(torch.tensor([0.0, 5.0, 20.0, 31.0]))
    assert tokens.shape == (4, 4, 24)
    assert torch.equal(tokens[2], tokens[3])
    assert (tokens[0] - tokens[1]).abs().max() > 0.01
    with pytest.raises(ValueError, match="motion_tokens is 1: at least 2 are needed"):
        IntensityEmbedding(1, 24)


def test_gradients_reach_every_part_after_the_first_step() -> None:
    unet = tiny_unet()
    install(unet, SPEC)
    parts = adapter_parameters(unet)
    parameters = [p for part in parts.values() for p in part.values()]
    unet.requires_grad_(False)
    optimizer = torch.optim.SGD([p.requires_grad_() for p in parameters], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        unet(**inputs()).sample.square().mean().backward()
        optimizer.step()
    for part, named in parts.items():
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in named.values()), part


def test_gradient_checkpointing_changes_nothing() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        unet = tiny_unet()
        install(unet, SPEC)
        if checkpointing:
            unet.enable_gradient_checkpointing()
        unet.train()(**inputs()).sample.square().mean().backward()
        gradients.append(unet.encoder_hid_proj.image_projection_layers[0].proj.weight.grad)
    assert torch.equal(*gradients)


def test_installing_twice_is_refused() -> None:
    unet = tiny_unet()
    install(unet, SPEC)
    with pytest.raises(ValueError, match="already has an image adapter"):
        install(unet, SPEC)


def test_parameter_counts_at_true_size() -> None:
    with torch.device("meta"):
        unet = sd15_unet()
        base = sum(p.numel() for n, p in unet.named_parameters() if "motion_modules" not in n)
        temporal = sum(p.numel() for n, p in unet.named_parameters() if "motion_modules" in n)
        assert len(list(spatial_transformers(unet))) == 16
        install(unet, AdapterSpec())
    parts = {part: sum(p.numel() for p in named.values()) for part, named in adapter_parameters(unet).items()}
    assert base == 859_520_964  # SD 1.5
    assert round(temporal / 1e6, 1) == 453.2  # AnimateDiff's motion modules, with the middle block's
    assert parts["identity_kv"] == 2 * 768 * (5 * 320 + 5 * 640 + 6 * 1280) == 19_169_280
    assert round(parts["motion_blocks"] / 1e6, 1) == 261.6
    assert sum(p.numel() for p in unet.parameters()) == base + temporal + sum(parts.values())
    assert (round(parts["fusion"] / 1e6, 1), round(parts["intensity"] / 1e6, 1)) == (10.6, 2.4)  # sizes of our choosing
