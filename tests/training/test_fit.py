"""`python -m training.fit` on a real small run: training, resuming after a kill, refusals."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from manifests.storage import Remote
from tests.training.conftest import arguments

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from training import loop, state, tally  # noqa: E402
from training.checkpoint import Checkpoint  # noqa: E402
from training.config import FitConfig, fit_config  # noqa: E402
from training.data import DataError  # noqa: E402
from training.fit import cache_folder, main  # noqa: E402
from training.framework import Losses  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def newest(output: Path) -> Checkpoint:
    return Checkpoint(sorted((output / "checkpoints").iterdir())[-1])


def test_a_run_leaves_checkpoints_losses_gaps_and_pictures(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    names = sorted(path.name for path in (trained / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000006"]
    report = json.loads((trained / "fit.json").read_text())
    assert report["step"] == 6
    assert report["held_out"] is True
    assert set(report["gaps"]) == {"identity", "text", "action", "motion"}
    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    tags = events.Tags()
    assert {"loss/total", "loss/l_r", "loss/active", "gap/motion", "data/unreadable"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("loss/total")] == [1, 2, 3, 4, 5, 6]
    [shown] = events.Images("samples")
    video = Image.open(io.BytesIO(shown.encoded_image_string))
    assert (video.format, video.n_frames, video.info["duration"]) == ("GIF", 4, 250)
    assert video.size == (shown.width, shown.height) == (32, 32)  # two samples side by side, above what was made


def test_losses_are_means_and_l_id_counts_where_it_was_computed() -> None:
    from accelerate import Accelerator

    running, accelerator = tally.Running(), Accelerator(cpu=True)
    for total, l_r, l_id, active in ((1.0, 0.5, 0.8, 0.5), (2.0, 1.5, 0.0, 0.0), (6.0, 4.0, 0.2, 1.0)):
        running.add(Losses(*map(torch.tensor, (total, l_r, l_id, active))))
    assert running.finite()
    means = running.means(accelerator)
    assert means == pytest.approx({"total": 3.0, "l_r": 2.0, "active": 0.5, "l_id": (0.4 + 0.2) / 1.5})
    running.add(Losses(*map(torch.tensor, (float("nan"), 1.0, 0.0, 0.0))))
    assert not running.finite()
    running.add(Losses(*map(torch.tensor, (1.0, 1.0, 0.0, 0.0))))
    assert not running.finite()  # a later pass does not hide it


def same_weights(a: Path, b: Path) -> bool:
    for ema in (False, True):
        one, other = newest(a).weights(ema), newest(b).weights(ema)
        if one.keys() != other.keys() or not all(torch.equal(one[name], other[name]) for name in one):
            return False
    return True


def test_a_run_broken_off_and_resumed_equals_an_undisturbed_one(
    run_folder: Path, cache: Path, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    update = loop.update_ema

    def breaks(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:  # after checkpoint 2, in the middle of step 4
            raise KeyboardInterrupt
        update(*args)

    monkeypatch.setattr(loop, "update_ema", breaks)
    with pytest.raises(KeyboardInterrupt):
        main(arguments(run_folder, tmp_path, cache))
    assert newest(tmp_path).step == 2
    monkeypatch.setattr(loop, "update_ema", update)
    assert main(arguments(run_folder, tmp_path, cache)) == 0
    assert same_weights(tmp_path, trained)


@pytest.mark.slow
def test_sigkill_and_rerun_gives_the_same_weights(run_folder: Path, cache: Path, tmp_path: Path, trained: Path) -> None:
    command = [sys.executable, "-m", "training.fit", *arguments(run_folder, tmp_path, cache)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    while not list(tmp_path.glob("checkpoints/step-*")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert same_weights(tmp_path, trained)


@pytest.mark.slow
def test_two_processes_in_bf16_with_accumulation_and_checkpointing(
    run_folder: Path, cache: Path, tmp_path: Path
) -> None:
    settings = ("steps=2", "precision=bf16", "accumulate=2", "gradient_checkpointing=true", "workers=1")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command += ["-m", "training.fit", *arguments(run_folder, tmp_path, cache, *settings)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert 0 < json.loads((tmp_path / "fit.json").read_text())["loss"]["l_r"] < 5


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_used(
    run_folder: Path, cache: Path, tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(trained, output)
    weights = newest(output).folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert main(arguments(run_folder, output, cache)) == 0
    said = capsys.readouterr().err
    assert "refused: " in said
    assert "weights.safetensors: is damaged" in said
    assert f"resuming from {output}/checkpoints/step-00000004" in said
    assert same_weights(output, trained)


def test_a_full_disk_is_one_line_and_with_more_room_the_run_goes_on(
    run_folder: Path, cache: Path, small_disk: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = sum(file.stat().st_size for file in newest(trained).folder.iterdir())
    subprocess.run(["mount", "-o", f"remount,size={int(1.7 * one)}", str(small_disk)], check=True)
    assert main(arguments(run_folder, small_disk, cache)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"training.fit: {small_disk}/checkpoints/step-00000004: cannot be written: ")
    assert "No space left on device" in last
    assert [path.name for path in (small_disk / "checkpoints").iterdir()] == ["step-00000002"]
    subprocess.run(["mount", "-o", f"remount,size={8 * one}", str(small_disk)], check=True)
    assert main(arguments(run_folder, small_disk, cache)) == 0
    assert same_weights(small_disk, trained)


@pytest.mark.parametrize("limit", [1e-3, 1e9])
def test_gradients_are_clipped_to_clip_norm(run_folder: Path, cache: Path, tmp_path: Path, limit: float) -> None:
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    norms: list[float] = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [p.grad.norm() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.stack(gradients).norm().item())

    hook = register_optimizer_step_pre_hook(look)
    try:
        settings = ("steps=2", "arcface_steps=1", "sample_steps=1", f"clip_norm={limit}")
        assert main(arguments(run_folder, tmp_path, cache, *settings)) == 0
    finally:
        hook.remove()
    steps = norms[1:]  # the first is the step of the small ArcFace
    assert len(steps) == 2
    if limit == 1e-3:
        assert steps == pytest.approx([limit, limit], rel=1e-3)
    else:
        assert min(steps) > 0.01  # what there was to clip


def test_resuming_under_another_config_is_refused(
    run_folder: Path, cache: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(run_folder, trained, cache, "lr=0.5")) == 2
    assert "was trained with lr=0.001, not 0.5; choose another --output" in capsys.readouterr().err


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    config = fit_config("embedded", ["lr=2", "warmup=4", "steps=100", "lr_decay=cosine"])
    assert [loop.learning_rate(config, step) for step in (0, 50)] == pytest.approx([0.5, 1.0])
    assert 0 < loop.learning_rate(config, 99) < 0.001
    flat = config.model_copy(update={"lr_decay": "none"})
    assert [loop.learning_rate(flat, step) for step in (1, 99)] == [1.0, 2.0]


def test_a_learning_rate_that_falls_fixes_the_number_of_steps(
    run_folder: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(run_folder, tmp_path / "fit", cache, "lr_decay=cosine", "steps=2")) == 0
    assert main(arguments(run_folder, tmp_path / "fit", cache, "lr_decay=cosine", "steps=3")) == 2
    assert "was trained with steps=2, not 3; choose another --output" in capsys.readouterr().err


def test_a_checkpoint_without_optimizer_is_not_resumed(
    run_folder: Path, cache: Path, tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(trained, output)
    (newest(output).folder / "optimizer.pt").unlink()
    assert main(arguments(run_folder, output, cache)) == 2
    assert "its optimizer.pt was deleted, so it can be sampled from but not resumed" in capsys.readouterr().err


def test_a_finished_run_does_nothing_more(run_folder: Path, cache: Path, trained: Path) -> None:
    before = (trained / "fit.json").read_bytes()
    assert main(arguments(run_folder, trained, cache)) == 0
    assert (trained / "fit.json").read_bytes() == before


def test_too_many_unreadable_clips_stop_training() -> None:
    class Fake:
        clip_id = ("a",) * 9
        skipped = (("b", "drawn/b.mp4: is empty"),)

    skips = tally.Skips(limit=0.05)
    said: list[str] = []
    skips.add(Fake, said.append)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"2 of 20 draws could not be read, more than max_unreadable=0.05 allows"):
        skips.add(Fake, said.append)  # type: ignore[arg-type]
    assert said == ["skipped b: drawn/b.mp4: is empty"]


def test_the_package_folder_is_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(__file__).parents[2] / "manifests"
    assert main([str(folder), "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"training.fit: {folder}: no Parquet shards; a run writes its manifest to OUTPUT/manifests/part-00000.parquet\n"
    )


def test_the_cache_lies_beside_the_manifests_unless_it_is_named() -> None:
    shard = Path("run/manifests/part-00000.parquet")
    assert cache_folder(None, shard) is None
    assert cache_folder("", shard) == Path("run/cache")
    assert cache_folder("there", shard) == Path("there")
    far = Remote("memory://bucket/run/manifests/part-00000.parquet")
    assert cache_folder("there", far) == Path("there")
    with pytest.raises(ValueError, match=r"--cache: memory://bucket/run is a URI; give a local folder"):
        cache_folder("", far)


def test_missing_weights_are_named(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run_folder), "--preset", "paper", "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "base=stable-diffusion-v1-5: no such path" in said
    assert "w600k_r50" in said


def test_dry_run_of_the_paper_says_sizes_and_what_is_missing(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run_folder), "--preset", "paper", "--output", str(tmp_path / "none"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "clips: 9 to train on, 4 held out" in said
    assert "parameters of motion_blocks: 261.6 M" in said
    assert "parameters of identity_kv: 19.2 M" in said
    assert "parameters of vae: 83.7 M" in said
    assert "parameters of text_encoder: 123.1 M" in said
    assert "parameters of image_encoder: 632.1 M" in said
    assert "parameters of arcface: 43.6 M" in said
    # 4 bytes x 2489 M, and 16 more for each of the 293.8 M that are trained.
    assert "memory of weights, gradients, AdamW, EMA: 13.6 GiB" in said
    assert "memory of L_id: 6.0 GiB (one decoded frame at a time)" in said
    assert "missing: motion_adapter=animatediff-motion-adapter-v1-5-2: no such path" in said
    assert not (tmp_path / "none").exists()


def test_random_numbers_depend_on_seed_pass_and_rank_alone() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    draws = {key: torch.rand(1, generator=loop.generator(*key)).item() for key in keys}
    assert len(set(draws.values())) == 4
    assert torch.rand(1, generator=loop.generator(0, 1, 0)).item() == draws[0, 1, 0]


def test_only_settings_that_do_not_touch_the_weights_may_change() -> None:
    assert set(FitConfig.model_fields) >= state.FREE
    config = fit_config("embedded")
    assert not {"lr", "seed", "batch", "beta", "flip"} & state.FREE
    assert config.keep_checkpoints >= 2
