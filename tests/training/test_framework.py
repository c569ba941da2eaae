"""One training step: which conditions are dropped, when L_id counts, what is trained; and the loss gaps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.training.conftest import TINY

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from training.arcface import small_arcface  # noqa: E402
from training.batch import Batch, collate  # noqa: E402
from training.components import build  # noqa: E402
from training.config import fit_config  # noqa: E402
from training.data import ClipDataset, Manifest  # noqa: E402
from training.draws import Draw  # noqa: E402
from training.framework import Drops, Framework, Noise  # noqa: E402
from training.gaps import condition_gaps, shuffle, shuffled  # noqa: E402
from training.losses import region_loss, region_weight  # noqa: E402
from training.small import small_tokenizer  # noqa: E402


@pytest.fixture(scope="module")
def batch(run_folder: Path) -> Batch:
    manifest = Manifest.read(run_folder, "train")
    dataset = ClipDataset(manifest, fit_config("embedded", [*TINY, "flip=0"]))
    return collate([dataset[Draw(row, row)] for row in (0, 1, 2, 3)])


def make(*overrides: str) -> Framework:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = fit_config("embedded", [*TINY, *overrides])
    tokenizer = small_tokenizer(["a drawn face on dark ground, it moves left right stays still"])
    return Framework(build(config, small_arcface(), 4, tokenizer), config)


def fixed_noise(framework: Framework, batch: Batch, t: list[int]) -> Noise:
    drawn = framework.noise(batch, torch.Generator().manual_seed(0))
    return dataclasses.replace(drawn, t=torch.tensor(t), drops=Drops.none(len(t)))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_is_the_papers(batch: Batch, kind: str) -> None:
    framework = make(f"prediction_type={kind}", "zero_terminal_snr=false")
    noise = fixed_noise(framework, batch, [100, 500, 700, 900])
    with torch.no_grad():
        losses = framework(batch, noise)
        z0 = framework.vae.encode(batch.video.flatten(0, 1)).unflatten(0, batch.video.shape[:2]).transpose(1, 2)
        a = framework.alpha_bar[noise.t].view(-1, 1, 1, 1, 1)
        z_t = a.sqrt() * z0 + (1 - a).sqrt() * noise.epsilon
        text, c, _ = framework.condition(batch, noise.drops)
        prediction = framework.predict(z_t, noise.t, text, c)
    target = noise.epsilon if kind == "epsilon" else a.sqrt() * noise.epsilon - (1 - a).sqrt() * z0
    weight = region_weight(batch.flow, 4, (8, 8))
    assert weight.max() == 1.5
    torch.testing.assert_close(losses.l_r, region_loss(prediction, target, weight).mean())
    assert losses.active.item() == 0.25
    assert 0 < losses.l_id.item() < 2
    torch.testing.assert_close(losses.total, losses.l_r + 0.1 * losses.l_id / 4)


def test_ablations(batch: Batch) -> None:
    plain = make("region_loss=false", "identity_loss=false")
    noise = fixed_noise(plain, batch, [10, 20, 30, 40])
    with torch.no_grad():
        without = plain(batch, noise)
        with_both = make()(batch, noise)
    assert without.total == without.l_r
    assert without.active == 0
    assert with_both.active == 1
    assert with_both.l_r > without.l_r
    bare = make("motion_control=false")
    assert not [name for name in bare.trainable() if ".block." in name]
    changed = dataclasses.replace(batch, m=batch.m + 5)
    with torch.no_grad():
        assert bare(batch, noise).total == bare(changed, noise).total


def test_l_id_reaches_the_adapter_and_not_arcface(batch: Batch) -> None:
    framework = make("beta=1")
    losses = framework(batch, fixed_noise(framework, batch, [5, 5, 5, 5]))
    parameter = framework.unet.conv_out.weight
    (gradient,) = torch.autograd.grad(losses.l_id, parameter)
    assert gradient.abs().max() > 0
    assert not any("arcface" in name or "vae" in name for name in framework.trainable())


def test_every_trained_parameter_gets_a_gradient(batch: Batch) -> None:
    framework = make()
    for parameter in framework.parameters():  # zeroed outputs hide what lies before them
        if parameter.requires_grad and parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    framework(batch, fixed_noise(framework, batch, [5, 300, 600, 999])).total.backward()
    missing = [name for name, p in framework.trainable().items() if p.grad is None]
    assert missing == []


def test_drops_are_disjoint_events_with_the_asked_shares() -> None:
    config = fit_config("paper")
    drops = Drops.draw(40_000, config, torch.Generator().manual_seed(0))
    both = drops.text & drops.image
    share = {
        "text alone": drops.text & ~drops.image,
        "image alone": drops.image & ~drops.text,
        "both": both,
        "action by itself": drops.action & ~both,
    }
    for name, dropped in share.items():
        assert dropped.float().mean().item() == pytest.approx(0.05, abs=0.005), name
    assert drops.action[both].all()
    assert drops.clip.float().mean().item() == pytest.approx(0.5, abs=0.01)


@torch.no_grad()
def test_dropped_conditions_do_not_reach_the_model(batch: Batch) -> None:
    framework = make()
    everything = torch.ones(4, dtype=torch.bool)
    text, (identity, action, m), _ = framework.condition(batch, Drops(everything, everything, everything, everything))
    assert identity.abs().max() == 0
    assert torch.equal(text[0], text[1])
    assert torch.equal(text[0], action[0, 0])  # both are the empty text
    assert torch.equal(m[:, 0], batch.m)  # M stays
    nothing = ~everything
    _, (faceless, _, _), _ = framework.condition(batch, Drops(nothing, everything, nothing, nothing))
    assert faceless.abs().max() == 0  # the image takes both E_arc and E_clip
    _, (kept, _, _), _ = framework.condition(batch, Drops(nothing, nothing, nothing, everything))
    assert kept[:, 0, 0].abs().max() > 0
    assert kept[:, 0, 1:].abs().max() == 0  # E_clip dropped, E_arc kept


def test_shuffling_gives_every_sample_another_value() -> None:
    values = ["b", "a", "c", "a", "b", "c"]
    order = shuffle(values)
    assert sorted(order) == list(range(6))
    assert all(values[i] != values[j] for i, j in enumerate(order))


def test_a_shuffled_condition_changes_that_alone(batch: Batch) -> None:
    other = shuffled(batch, "motion", ["a", "b", "c", "d"])
    assert sorted(other.m.tolist()) == sorted(batch.m.tolist())
    assert other.m.tolist() != batch.m.tolist()
    assert other.action == batch.action
    assert other.face is batch.face


def test_gaps_of_a_model_that_ignores_action_and_motion_are_exactly_one(batch: Batch) -> None:
    framework = make()  # at step 0 the motion blocks are the identity
    gaps = condition_gaps(framework, batch, ["a", "b", "c", "d"], seed=0, chunk=3)
    assert gaps["action"] == gaps["motion"] == 1.0
    assert gaps["identity"] != 1.0
    assert framework.training


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_gap_is_the_loss_with_the_wrong_condition_over_the_loss_with_the_true_one(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    framework = make()

    def uses_m_alone(z_t: torch.Tensor, t: torch.Tensor, text: torch.Tensor, c: list[torch.Tensor]) -> torch.Tensor:
        error = 1 + (c[2][:, 0] - batch.m).abs()
        return torch.ones_like(z_t) * error.view(-1, 1, 1, 1, 1)

    monkeypatch.setattr(framework, "predict", uses_m_alone)
    monkeypatch.setattr(framework, "target", lambda z0, epsilon, t: torch.zeros_like(z0))
    gaps = condition_gaps(framework, batch, ["a", "b", "c", "d"], seed=0, chunk=4, rounds=rounds)
    wrong = batch.m[shuffle(batch.m.tolist())]
    expected = (1 + (wrong - batch.m).abs()).square().mean().item()
    assert expected > 2
    assert gaps == {"identity": 1.0, "text": 1.0, "action": 1.0, "motion": pytest.approx(expected)}
