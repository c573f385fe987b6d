"""Saving priors: what was saved loads again, whole or not at all."""

import itertools
import os
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from checkpoint_files import assert_close
from diffusers import UNet2DModel
from pipelines import (
    FOURIER,
    SAVED,
    WEIGHTS,
    by_edm,
    images,
    tiny,
)

import priors
from priors import NetworkPrior
from priors.network import SpaceToDepth
from priors.pretrained import safe_files

pytestmark = pytest.mark.usefixtures("one_thread")


def test_save_then_load_is_the_same_prior(tmp_path: Path) -> None:
    unet = tiny()
    priors.save(unet, tmp_path / "mine", **SAVED, any_size=True, stride=2, name="mine")
    prior = priors.load(tmp_path / "mine")
    expected = NetworkPrior(
        unet, "edm", (3, 8, 8), data_range=(0, 1), sigma_data=0.4, any_size=True, stride=2
    )
    for sigma in (0.002, 0.3, 30.0):
        x = 0.5 + sigma * images(2)
        assert_close(prior.denoise(x, sigma), expected.denoise(x, sigma), 1e-6)
    assert prior.data_range == (0.0, 1.0)
    assert prior.sigma_range == pytest.approx((0.001, 40.0))
    assert prior.resized((3, 12, 6)).denoise(images(1, (3, 12, 6)), 1.0).shape == (1, 3, 12, 6)
    assert priors.load(tmp_path / "mine", event_shape=(3, 4, 8)).event_shape == (3, 4, 8)
    assert priors.load(tmp_path / "mine", data_range=(-1, 1)).sigma_range == pytest.approx(
        (0.002, 80)
    )
    assert not list((tmp_path / "mine").glob(".*"))


def test_diffusers_reads_what_save_wrote(tmp_path: Path) -> None:
    unet = tiny()
    priors.save(unet, tmp_path, **SAVED)
    theirs = UNet2DModel.from_pretrained(tmp_path, subfolder="unet", use_safetensors=True).eval()
    scheduler = diffusers.EDMEulerScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    assert scheduler.config.sigma_min == pytest.approx(0.002)
    assert scheduler.config.sigma_max == pytest.approx(80)
    prior = priors.load(tmp_path, data_range=(-1, 1))
    sigma, x, x0 = by_edm(scheduler, theirs, 700)
    assert_close(prior.denoise(x, sigma), x0)


def test_diffusers_samples_from_what_save_wrote(tmp_path: Path) -> None:
    priors.save(tiny(), tmp_path, **SAVED)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        batch_size=2, num_inference_steps=6, latents=images(2), output_type="pt"
    ).images
    prior, levels = priors.load(tmp_path), pipeline.scheduler.sigmas / 2
    x = 0.5 + images(2) * pipeline.scheduler.init_noise_sigma / 2
    for sigma, below in itertools.pairwise(levels):
        x = x + (below - sigma) * (x - prior.denoise(x, sigma)) / sigma
    assert_close(x.clamp(0, 1), theirs)
    mode = (tmp_path / "unet/config.json").stat().st_mode
    assert (tmp_path / WEIGHTS).stat().st_mode == mode


def test_a_folder_without_its_side_file_is_the_same_denoiser(tmp_path: Path) -> None:
    priors.save(tiny(), tmp_path, **SAVED)
    whole = priors.load(tmp_path, data_range=(-1, 1))
    (tmp_path / "prior.json").unlink()
    bare = priors.load(tmp_path)
    assert bare.data_range == (-1.0, 1.0)
    assert bare.sigma_range == pytest.approx(whole.sigma_range)
    assert torch.equal(bare.denoise(images(1), 1.0), whole.denoise(images(1), 1.0))


def test_patches(tmp_path: Path) -> None:
    unet = tiny(in_channels=4, out_channels=4)
    settings = {**SAVED, "event_shape": (1, 16, 16), "patch": 2}
    priors.save(unet, tmp_path, **settings)
    prior = priors.load(tmp_path)
    assert isinstance(prior.network, SpaceToDepth)
    assert prior.event_shape == (1, 16, 16)
    expected = NetworkPrior(
        SpaceToDepth(unet, 2), "edm", (1, 16, 16), data_range=(0, 1), sigma_data=0.4
    )
    x = images(2, (1, 16, 16))
    assert_close(prior.denoise(x, 1.0), expected.denoise(x, 1.0), 1e-6)
    with pytest.raises(ValueError, match="multiples of 4"):
        priors.save(unet, tmp_path, **{**settings, "event_shape": (1, 18, 16)})
    with pytest.raises(ValueError, match="cannot take patches of 3 x 3"):
        priors.save(unet, tmp_path, **{**settings, "patch": 3})


def test_saving_again_replaces_the_prior_and_leaves_other_files(tmp_path: Path) -> None:
    priors.save(tiny(0), tmp_path, **SAVED)
    (tmp_path / "README.md").write_text("card")
    first = priors.load(tmp_path)
    priors.save(tiny(1), tmp_path, **SAVED)
    assert (tmp_path / "README.md").read_text() == "card"
    x = images(1)
    assert not torch.allclose(first.denoise(x, 1.0), priors.load(tmp_path).denoise(x, 1.0))


def test_a_save_that_fails_leaves_the_earlier_prior(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    priors.save(tiny(0), tmp_path, **SAVED)
    before = priors.load(tmp_path).denoise(images(1), 1.0)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(diffusers.EDMEulerScheduler, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        priors.save(tiny(1), tmp_path, **SAVED)
    assert torch.equal(priors.load(tmp_path).denoise(images(1), 1.0), before)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("moved", range(5))
def test_a_save_that_is_cut_short_never_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    priors.save(tiny(0), tmp_path, **SAVED)
    again = {**SAVED, "sigma_data": 0.2}
    moves = []

    def replace(*paths: Path) -> None:
        if len(moves) == moved:
            raise KeyboardInterrupt
        moves.append(paths)
        os.rename(*paths)

    with monkeypatch.context() as patched:
        patched.setattr(safe_files.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            priors.save(tiny(1), tmp_path, **again)
    assert len(moves) == moved
    with pytest.raises(FileNotFoundError, match=r"no model_index\.json"):
        priors.load(tmp_path)
    priors.save(tiny(1), tmp_path, **again)
    priors.save(tiny(1), tmp_path / "fresh", **again)
    x, fresh = images(1), priors.load(tmp_path / "fresh")
    assert torch.equal(priors.load(tmp_path).denoise(x, 1.0), fresh.denoise(x, 1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_range": (1.0, 0.0)}, "data_range must be"),
        ({"sigma_range": (0.0, 1.0)}, "sigma_range must be"),
        ({"sigma_data": 0.0}, "sigma_data must be positive"),
        ({"event_shape": (1, 8, 8)}, "event_shape must be"),
        ({"any_size": True}, "stride must be a multiple of 2"),
        ({"patch": 0}, "patch must be from 1"),
    ],
)
def test_save_refuses(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        priors.save(tiny(), tmp_path / "out", **{**SAVED, **changes})
    assert not (tmp_path / "out").exists()


def test_save_says_what_it_takes(tmp_path: Path) -> None:
    prior = priors.Gaussian(torch.zeros(1, 8, 8), 1.0)
    message = "unet must be a diffusers UNet2DModel, got Gaussian; save_analytic writes a Gaussian"
    with pytest.raises(TypeError, match=message):
        priors.save(prior, tmp_path)  # type: ignore[arg-type]
    for name in ("event_shape", "data_range", "sigma_range"):
        with pytest.raises(TypeError, match="save needs event_shape, data_range and sigma_range"):
            priors.save(tiny(), tmp_path, **{**SAVED, name: None})


def test_save_refuses_networks_it_cannot_describe(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be a diffusers UNet2DModel, got SpaceToDepth"):
        priors.save(SpaceToDepth(tiny(), 2), tmp_path, **SAVED)
    with pytest.raises(ValueError, match="positional"):
        priors.save(tiny(**FOURIER), tmp_path, **SAVED)
    with pytest.raises(ValueError, match="as many channels"):
        priors.save(tiny(out_channels=6), tmp_path, **SAVED)
