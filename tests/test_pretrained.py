"""Loading and saving pretrained priors: exact denoisers, and every refusal."""

import itertools
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

import priors
from priors import NetworkPrior, pretrained
from priors.network import SpaceToDepth
from priors.pretrained import loading, safe_files
from priors.pretrained.diffusers_schedulers import TABLE_SCHEDULERS, noise_law

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are too small to share
    yield
    torch.set_num_threads(threads)


def tiny(seed: int = 0, **config: Any) -> UNet2DModel:
    settings = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DModel(**{**settings, **config}).eval()


def write(folder: Path, unet: UNet2DModel, scheduler: Any) -> Path:
    """The layout that diffusers' pipelines have on disk."""
    unet.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", type(scheduler).__name__],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))


def images(count: int, shape: tuple[int, ...] = (3, 8, 8), seed: int = 1) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def assert_close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    error = float((a - b).norm() / b.norm())
    assert error < tolerance, f"relative difference {error:.1e}"


# --- the contract: denoise equals the scheduler's own x0 --------------------------------------

# sigma, x = x0 + sigma eps and what the scheduler makes of x, at training step t.
Triple = tuple[float, Tensor, Tensor]
Reference = Callable[[Any, UNet2DModel, int], Triple]


def noisy(sigma: float) -> Tensor:
    return images(2, seed=2).clamp(-1, 1) + sigma * images(2)


def signal(scheduler: Any, t: int) -> tuple[float, float]:
    """alpha_t and sigma_t / alpha_t."""
    abar = float((1 - scheduler.betas.double()).cumprod(0)[t])
    return abar**0.5, ((1 - abar) / abar) ** 0.5


@torch.no_grad()
def by_step(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    scheduler.set_timesteps(1000)
    alpha, sigma = signal(scheduler, t)
    x_t = alpha * noisy(sigma)
    x0 = scheduler.step(unet(x_t, t).sample, t, x_t).pred_original_sample
    return sigma, noisy(sigma), x0


@torch.no_grad()
def by_sigma_step(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    scheduler.set_timesteps(1000)
    time = scheduler.timesteps[(scheduler.timesteps - t).abs().argmin()]
    sigma = float(scheduler.sigmas[scheduler.index_for_timestep(time)])
    x = noisy(sigma)
    out = unet(scheduler.scale_model_input(x, time), time).sample
    return sigma, x, scheduler.step(out, time, x).pred_original_sample


@torch.no_grad()
def by_conversion(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    scheduler.set_timesteps(999)
    time = scheduler.timesteps[(scheduler.timesteps - t).abs().argmin()]
    scheduler._init_step_index(time)
    level = scheduler.sigmas[scheduler.step_index]
    alpha, _ = scheduler._sigma_to_alpha_sigma_t(level)
    x = noisy(float(level))
    x_t = alpha * x
    x0 = scheduler.convert_model_output(unet(x_t, time).sample, sample=x_t)
    return float(level), x, x0


@torch.no_grad()
def by_table(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    alpha, sigma = signal(scheduler, t)
    x = noisy(sigma)
    return sigma, x, x - sigma * unet(alpha * x, t).sample


@torch.no_grad()
def by_edm(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    sigma = scheduler.sigmas[999 - t]
    x = noisy(float(sigma))
    time = scheduler.precondition_noise(sigma)
    out = unet(scheduler.precondition_inputs(x, sigma), time).sample
    return float(sigma), x, scheduler.precondition_outputs(x, out, sigma)


@torch.no_grad()
def by_flow(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    level = max(t, 1) / 1000
    sigma = level / (1 - level)
    x_t = (1 - level) * noisy(sigma)
    v = unet(x_t, torch.tensor(1000 * level)).sample
    return sigma, noisy(sigma), x_t - level * v


@torch.no_grad()
def by_score(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    sigma = float(scheduler.discrete_sigmas[2 * t])
    x = noisy(sigma)
    return sigma, x, x + sigma**2 * unet(x, torch.tensor([sigma])).sample


@dataclass
class Case:
    scheduler: str
    reference: Reference
    settings: dict[str, Any] = field(default_factory=dict)
    unet: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        values = [str(v) for v in (*self.settings.values(), *self.unet.values()) if v is not False]
        return "-".join([self.scheduler, *values])[:80]


PLAIN = {"clip_sample": False}
FOURIER = {"time_embedding_type": "fourier"}
SKIP = {
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
    "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
    "block_out_channels": (32, 64),
}
CASES = [
    Case("DDPMScheduler", by_step, PLAIN),
    Case("DDPMScheduler", by_step, {**PLAIN, "prediction_type": "v_prediction"}),
    Case("DDPMScheduler", by_step, {**PLAIN, "prediction_type": "sample"}),
    Case("DDPMScheduler", by_step, {**PLAIN, "beta_schedule": "scaled_linear"}),
    Case("DDPMScheduler", by_step, {**PLAIN, "beta_schedule": "squaredcos_cap_v2"}),
    Case("DDPMScheduler", by_step, {**PLAIN, "beta_schedule": "sigmoid"}),
    Case(
        "DDPMScheduler", by_step, {**PLAIN, "trained_betas": [1e-4 + 1e-5 * k for k in range(1000)]}
    ),
    Case(
        "DDPMScheduler", by_step, {**PLAIN, "variance_type": "learned_range"}, {"out_channels": 6}
    ),
    Case("DDPMScheduler", by_step, {**PLAIN, "variance_type": "learned"}, {"out_channels": 6}),
    Case(
        "DDPMScheduler",
        by_step,
        PLAIN,
        {"time_embedding_type": "learned", "num_train_timesteps": 1000},
    ),
    Case("DDIMScheduler", by_step, PLAIN),
    Case(
        "DDIMScheduler",
        by_step,
        {**PLAIN, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ),
    Case("PNDMScheduler", by_table),
    Case("DPMSolverMultistepScheduler", by_conversion),
    Case("DPMSolverMultistepScheduler", by_conversion, {"prediction_type": "v_prediction"}),
    Case(
        "DPMSolverMultistepScheduler",
        by_conversion,
        {"variance_type": "learned"},
        {"out_channels": 6},
    ),
    Case("DPMSolverSinglestepScheduler", by_conversion),
    Case("DEISMultistepScheduler", by_table),
    Case("UniPCMultistepScheduler", by_conversion),
    Case("EulerDiscreteScheduler", by_sigma_step),
    Case("EulerDiscreteScheduler", by_sigma_step, {"prediction_type": "v_prediction"}),
    Case(
        "EulerDiscreteScheduler",
        by_sigma_step,
        {
            "prediction_type": "v_prediction",
            "timestep_type": "continuous",
            "use_karras_sigmas": True,
            "sigma_min": 0.002,
            "sigma_max": 700.0,
        },
    ),
    Case("EulerAncestralDiscreteScheduler", by_sigma_step),
    Case("LMSDiscreteScheduler", by_sigma_step),
    Case("HeunDiscreteScheduler", by_sigma_step),
    Case("HeunDiscreteScheduler", by_table, {"beta_schedule": "exp"}),
    Case("KDPM2DiscreteScheduler", by_table),
    Case("EDMEulerScheduler", by_edm),
    Case("EDMEulerScheduler", by_edm, {"prediction_type": "v_prediction", "sigma_data": 1.0}),
    Case("EDMDPMSolverMultistepScheduler", by_edm, {"sigma_max": 160.0}),
    Case("FlowMatchEulerDiscreteScheduler", by_flow, {"shift": 3.0}),
    Case("FlowMatchHeunDiscreteScheduler", by_flow),
    Case(
        "DPMSolverMultistepScheduler",
        by_flow,
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
    ),
    Case("ScoreSdeVeScheduler", by_score, {}, FOURIER),
    Case(
        "ScoreSdeVeScheduler",
        by_score,
        {"sigma_max": 50.0},
        {**FOURIER, **SKIP, "norm_num_groups": 8},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_denoise_equals_the_schedulers_x0(case: Case, tmp_path: Path) -> None:
    unet = tiny(**case.unet)
    scheduler = getattr(diffusers, case.scheduler)(**case.settings)
    prior = priors.load(write(tmp_path, unet, scheduler))
    assert isinstance(prior, NetworkPrior)
    assert prior.event_shape == (3, 8, 8)
    expected_range = (0.0, 1.0) if case.reference is by_score else (-1.0, 1.0)
    assert prior.data_range == expected_range
    levels = []
    for t in (0, 10, 500, 998):
        sigma, x, x0 = case.reference(scheduler, unet, t)
        levels.append(sigma)
        assert_close(prior.denoise(x, sigma), x0)
    low, high = prior.sigma_range
    assert low <= min(levels) * 1.001
    assert max(levels) <= high * 1.001
    # Every sample of a batch may have its own level, and zero noise changes nothing.
    both = torch.tensor([levels[1], levels[2]])
    batch = torch.cat([noisy(levels[1])[:1], noisy(levels[2])[1:]])
    alone = [prior.denoise(batch[i : i + 1], float(both[i])) for i in range(2)]
    assert_close(prior.denoise(batch, both), torch.cat(alone))
    assert torch.equal(prior.denoise(batch, 0.0), batch)


def test_every_scheduler_named_is_in_the_contract_or_shares_its_table() -> None:
    covered = {case.scheduler for case in CASES}
    table = set(TABLE_SCHEDULERS)
    assert set(pretrained.SCHEDULERS) - table <= covered
    for name in sorted(table - covered - {"DPMSolverSDEScheduler"}):
        scheduler = getattr(diffusers, name)()
        law = noise_law(name, dict(scheduler.config))
        abar = scheduler.alphas_cumprod.double()
        assert law.sigma_range[0] == pytest.approx(float(((1 - abar) / abar).sqrt()[0]), rel=1e-3)
        assert law.sigma_range[1] == pytest.approx(float(((1 - abar) / abar).sqrt()[-1]), rel=1e-3)


def test_time_is_exact_at_the_table_monotone_between_and_held_beyond() -> None:
    scheduler = diffusers.DDPMScheduler()
    law = noise_law("DDPMScheduler", dict(scheduler.config))
    abar = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0)
    table = ((1 - abar) / abar).sqrt()
    assert law.time is not None
    torch.testing.assert_close(
        law.time(table), torch.arange(1000, dtype=torch.float64), rtol=0, atol=1e-9
    )
    fine = torch.logspace(-2, 2.19, 5000, dtype=torch.float64)
    fine = fine[(fine > table[0]) & (fine < table[-1])]
    assert bool((law.time(fine).diff() > 0).all())
    halfway = (table[400] * table[401]).sqrt()
    assert float(law.time(halfway[None])) == pytest.approx(400.5)
    assert law.time(torch.tensor([1e-6, 1e6])).tolist() == [0, 999]


def test_zero_snr_drops_the_infinite_level() -> None:
    config = {"rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"}
    law = noise_law("DDIMScheduler", config)
    assert law.sigma_range == pytest.approx((0.01, 3538), rel=1e-3)
    assert law.time is not None
    assert law.time(torch.tensor([1e9])).item() == 998


def test_defaults_of_the_scheduler_class_fill_a_short_config() -> None:
    heun = noise_law("HeunDiscreteScheduler", {})
    ddpm = noise_law("DDPMScheduler", {"num_train_timesteps": 1000})
    assert ddpm.sigma_range == pytest.approx((0.0100005, 157.4), rel=1e-3)
    assert heun.sigma_range[1] < 0.2 * ddpm.sigma_range[1]
    assert noise_law("DDPMScheduler", {"predict_epsilon": False}).parametrization == "x0"


# --- ranges, labels, dtypes, layouts ----------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "ddpm", tiny(), diffusers.DDPMScheduler())


def test_data_range_changes_units_and_nothing_else(folder: Path) -> None:
    network = priors.load(folder)
    unit = priors.load(folder, data_range=(0, 1))
    assert unit.data_range == (0.0, 1.0)
    assert unit.sigma_range == pytest.approx([s / 2 for s in network.sigma_range])
    x = images(2)
    for sigma in (0.05, 1.0, 30.0):
        expected = (network.denoise(x, sigma) + 1) / 2
        assert_close(unit.denoise((x + 1) / 2, sigma / 2), expected)


def test_sigma_range_is_the_callers_in_data_units(folder: Path) -> None:
    prior = priors.load(folder, data_range=(0, 255), sigma_range=(1, 500))
    assert prior.sigma_range == (1.0, 500.0)


def test_class_labels(tmp_path: Path) -> None:
    unet = tiny(num_class_embeds=3)
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    path = write(tmp_path, unet, scheduler)
    eps = images(2)
    alpha, sigma = signal(scheduler, 300)
    results = []
    for label in range(3):
        with torch.no_grad():
            out = unet(alpha * sigma * eps, 300, class_labels=torch.full((2,), label)).sample
        results.append(priors.load(path, class_label=label).denoise(sigma * eps, sigma))
        assert_close(results[-1], sigma * eps - sigma * out)
    assert not torch.allclose(results[0], results[1])
    with pytest.raises(ValueError, match="trained with 3 classes; pass class_label"):
        priors.load(path)
    with pytest.raises(ValueError, match=r"0 .. 2, got 3"):
        priors.load(path, class_label=3)
    with pytest.raises(TypeError, match="must be an int"):
        priors.load(path, class_label="cat")  # type: ignore[arg-type]


def test_class_label_for_a_network_without_classes(folder: Path) -> None:
    with pytest.raises(ValueError, match="knows no classes"):
        priors.load(folder, class_label=0)


def test_half_precision_files_are_computed_in_float32_unless_asked(tmp_path: Path) -> None:
    path = write(tmp_path, tiny().half(), diffusers.DDPMScheduler())
    prior, x = priors.load(path), images(1)
    assert {p.dtype for p in prior.network.parameters()} == {torch.float32}
    assert_close(prior.denoise(x, 1.0), priors.load(path).denoise(x, 1.0), 1e-7)
    low = priors.load(path, dtype=torch.bfloat16)
    assert {p.dtype for p in low.network.parameters()} == {torch.bfloat16}
    assert low.denoise(x, 1.0).dtype == torch.float32
    assert_close(low.denoise(x, 1.0), prior.denoise(x, 1.0), 0.05)
    double = priors.load(path, dtype=torch.float64)
    assert_close(double.denoise(x.double(), 1.0), prior.denoise(x, 1.0).double())
    with pytest.raises(TypeError, match=r"floating torch\.dtype"):
        priors.load(path, dtype=torch.int32)


def test_any_floating_image_is_taken_and_given_back_in_its_dtype(folder: Path) -> None:
    prior, x = priors.load(folder), images(1)
    assert prior.denoise(x.double(), 2.0).dtype == torch.float64
    assert_close(prior.denoise(x.double(), 2.0), prior.denoise(x, 2.0).double())


def test_gradients_reach_the_image_and_not_the_weights(folder: Path) -> None:
    prior = priors.load(folder)
    assert not any(p.requires_grad for p in prior.network.parameters())
    x0, covariance = prior.covariance(images(1), 1.0)
    assert bool(covariance(torch.ones_like(x0)).abs().sum() > 0)


def test_loading_leaves_the_global_random_state_alone(folder: Path) -> None:
    before = torch.random.get_rng_state()
    priors.load(folder)
    assert torch.equal(before, torch.random.get_rng_state())


def test_files_at_the_top_and_old_attention_names(folder: Path, tmp_path: Path) -> None:
    expected = priors.load(folder)
    old = tmp_path / "old"
    old.mkdir()
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    pattern = re.compile(r"\.(to_q|to_k|to_v|to_out\.0)\.")
    state = load_file(folder / WEIGHTS)
    renamed = {pattern.sub(lambda m: f".{names[m[1]]}.", k): v for k, v in state.items()}
    assert set(renamed) != set(state)
    save_file(renamed, old / Path(WEIGHTS).name)
    (folder / "unet" / "config.json").rename(old / "config.json")
    (folder / "scheduler" / "scheduler_config.json").rename(old / "scheduler_config.json")
    (folder / "model_index.json").rename(old / "model_index.json")
    assert torch.equal(priors.load(old).denoise(images(1), 1.0), expected.denoise(images(1), 1.0))


def test_event_shape(folder: Path) -> None:
    prior = priors.load(folder, event_shape=(3, 16, 12))
    assert prior.denoise(images(1, (3, 16, 12)), 1.0).shape == (1, 3, 16, 12)
    for wrong in [(1, 8, 8), (3, 9, 8), (3, 8), (3, 8, 0), (3.0, 8, 8)]:
        with pytest.raises(ValueError, match="event_shape must be"):
            priors.load(folder, event_shape=wrong)
    edit(folder / "unet/config.json", sample_size=None)
    with pytest.raises(ValueError, match="pass event_shape"):
        priors.load(folder)
    assert priors.load(folder, event_shape=(3, 8, 8)).event_shape == (3, 8, 8)
    edit(folder / "unet/config.json", sample_size=[16, 8])
    assert priors.load(folder).event_shape == (3, 16, 8)


# --- save -------------------------------------------------------------------------------------

SAVED: dict[str, Any] = {
    "event_shape": (3, 8, 8),
    "data_range": (0.0, 1.0),
    "sigma_range": (0.001, 40.0),
    "sigma_data": 0.4,
}


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


def test_save_refuses_networks_it_cannot_describe(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be a diffusers UNet2DModel, got SpaceToDepth"):
        priors.save(SpaceToDepth(tiny(), 2), tmp_path, **SAVED)
    with pytest.raises(ValueError, match="positional"):
        priors.save(tiny(**FOURIER), tmp_path, **SAVED)
    with pytest.raises(ValueError, match="as many channels"):
        priors.save(tiny(out_channels=6), tmp_path, **SAVED)


# --- refusals ---------------------------------------------------------------------------------


def test_unknown_names_list_the_bundled_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "BUNDLED", folder.parent)
    assert pretrained.bundled_names() == ["ddpm"]
    assert priors.load("ddpm").event_shape == (3, 8, 8)
    with pytest.raises(
        ValueError, match=r"unknown prior 'dpm'; did you mean 'ddpm'\? Bundled: ddpm"
    ):
        priors.load("dpm")
    with pytest.raises(FileNotFoundError, match="hub names are not downloaded"):
        priors.load("google/ddpm-cat-256")
    with pytest.raises(FileNotFoundError, match="no folder"):
        priors.load(Path("nowhere"))
    with pytest.raises(TypeError, match="a name or a path"):
        priors.load(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".pkl", ".ckpt"])
def test_pickles_are_never_read(folder: Path, suffix: str) -> None:
    canary = folder / "canary"
    # A pickle that would make the canary.
    payload = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    pickled = folder / "unet" / f"diffusion_pytorch_model{suffix}"
    pickled.write_bytes(payload)
    priors.load(folder)  # the safetensors beside it serve
    (folder / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="is a pickle, which can run code"):
        priors.load(folder)
    with pytest.raises(ValueError, match="asks for code, which is never run"):
        priors.load(pickled)
    pickled.rename(folder / WEIGHTS)
    with pytest.raises(ValueError, match="is corrupt"):
        priors.load(folder)
    assert not canary.exists()


def test_tensors_must_fit_the_network(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    name = "conv_in.weight"

    def becomes(changed: dict[str, Tensor], message: str) -> None:
        save_file(changed, folder / WEIGHTS)
        with pytest.raises(ValueError, match=message):
            priors.load(folder)

    becomes({k: v for k, v in state.items() if k != name}, "missing conv_in.weight")
    becomes({**state, "extra": torch.zeros(1)}, "unexpected extra")
    becomes({**state, name: torch.zeros(8, 3, 1, 1)}, r"conv_in.weight has shape \(8, 3, 1, 1\)")
    becomes({**state, name: state[name].int()}, "type torch.int32")
    becomes({**state, name: state[name] / 0}, "conv_in.weight holds values that are not finite")


def test_truncated_garbage_and_too_large_files(folder: Path) -> None:
    path = folder / WEIGHTS
    data = path.read_bytes()
    for bad in (data[:-1], data[: len(data) // 2], data[:12], data[:4], b"", data + b"\0"):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="corrupt"):
            priors.load(folder)
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ValueError, match="corrupt"):
        priors.load(folder)
    path.write_bytes(struct.pack("<Q", 10**5) + b"[" * 10**5)
    with pytest.raises(ValueError, match="corrupt"):
        priors.load(folder)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="more than max_parameters = 1000; raise max_parameters"):
        priors.load(folder, max_parameters=1000)
    bomb = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    header = json.dumps(bomb).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="more than max_parameters"):
        priors.load(folder)


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path: Path) -> None:
    priors.save(tiny(), tmp_path, **SAVED)
    data = bytearray((tmp_path / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (tmp_path / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match=r"expects SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        priors.load(tmp_path)


@pytest.mark.parametrize(
    "part", [WEIGHTS, "unet/config.json", "scheduler/scheduler_config.json", "model_index.json"]
)
def test_files_missing_linked_out_or_not_files(folder: Path, part: str) -> None:
    path, outside = folder / part, folder.parent / "outside"
    path.rename(outside)
    with pytest.raises(FileNotFoundError, match=re.escape(part)):
        priors.load(folder)
    path.symlink_to(outside)
    with pytest.raises(ValueError, match="leaves the folder"):
        priors.load(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file"):
        priors.load(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="not a regular file"):
        priors.load(folder)
    path.rmdir()
    path.symlink_to(path)
    with pytest.raises(ValueError, match="cannot be read"):
        priors.load(folder)


def test_a_linked_subfolder_and_an_inner_link(folder: Path) -> None:
    (folder / "unet").rename(folder / "kept")
    (folder / "unet").symlink_to("kept")
    assert priors.load(folder).event_shape == (3, 8, 8)
    (folder / "kept").rename(folder.parent / "kept")
    (folder / "unet").unlink()
    (folder / "unet").symlink_to("../kept")
    with pytest.raises(ValueError, match="leaves the folder"):
        priors.load(folder)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("model_index.json", {"unet": ["diffusers", "UNet2DConditionModel"]}, "only UNet2DModel"),
        ("model_index.json", {"unet": ["my_code", "UNet2DModel"]}, "not a part of diffusers"),
        ("model_index.json", {"scheduler": ["diffusers", "LCMScheduler"]}, "'LCMScheduler' is not"),
        ("model_index.json", {"scheduler": ["diffusers", ["x"]]}, "is not supported"),
        ("model_index.json", {"image_encoder": ["diffusers", "X"]}, "beside unet"),
        ("model_index.json", {"unet": [None, None]}, "must name a unet and a scheduler"),
        ("model_index.json", {"auto_map": {}}, "code of its own"),
        ("unet/config.json", {"_class_name": "UNet1DModel"}, "'UNet1DModel'; only UNet2DModel"),
        ("unet/config.json", {"auto_map": {"AutoModel": "x.Y"}}, "code of its own"),
        ("unet/config.json", {"surprise": 1}, "does not know: \\['surprise'\\]"),
        ("unet/config.json", {"layers_per_block": 10**9}, "at most 64 layers_per_block"),
        ("unet/config.json", {"layers_per_block": "2"}, "must be like 2, got '2'"),
        ("unet/config.json", {"norm_num_groups": 5}, "does not describe a UNet2DModel"),
        ("unet/config.json", {"block_out_channels": [10**30, 16]}, "does not describe"),
        ("unet/config.json", {"block_out_channels": [2**20, 2**20]}, "does not fit the network"),
        ("unet/config.json", {"down_block_types": ["os.system", "x"]}, "does not describe"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type 'timestep'"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "ScoreSdeVeScheduler only"),
        ("unet/config.json", {"sample_size": "8"}, "event_shape must be"),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "magic"},
            "prediction_type 'magic'",
        ),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "noise differs"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "cubic"}, "beta_schedule 'cubic'"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}, "num_train_timesteps"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "1000"}, "num_train_timesteps"),
        ("scheduler/scheduler_config.json", {"beta_start": -0.1}, "beta_start must be a number"),
        ("scheduler/scheduler_config.json", {"beta_start": 0.0}, "betas must lie in"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1, "x"]}, "trained_betas must"),
        ("scheduler/scheduler_config.json", {"trained_betas": [1.0, 1.0]}, "levels must increase"),
    ],
)
def test_settings_refused(folder: Path, part: str, changes: dict[str, Any], message: str) -> None:
    edit(folder / part, **changes)
    with pytest.raises(ValueError, match=message):
        priors.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2; this version reads 1"),
        ({"colour": 1}, "unknown keys \\['colour'\\]"),
        ({"patch": True}, "patch must be of type int"),
        ({"stride": 0}, "stride must be from 1"),
        ({"data_range": [1, 0]}, "data_range must be"),
        ({"data_range": ["a", 1]}, "data_range must be"),
        ({"sigma_range": [0, 1, 2]}, "sigma_range must be"),
        ({"event_shape": [3, 9, 9]}, "event_shape must be"),
        ({"any_size": True, "stride": 3}, "stride must be a multiple of 2"),
    ],
)
def test_side_file_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    (folder / "prior.json").write_text(json.dumps({"format": 1, **changes}))
    with pytest.raises(ValueError, match=message):
        priors.load(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "NaN", '{"format": 1, "format": 1}', '{"a": Infinity}', "[" * 9999, "\xff"],
)
def test_json_refused(folder: Path, text: str) -> None:
    (folder / "prior.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"prior\.json"):
        priors.load(folder)
    (folder / "prior.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ValueError, match="larger than"):
        priors.load(folder)


def test_random_damage_gives_a_typed_error_or_a_valid_prior(tmp_path: Path) -> None:
    priors.save(tiny(), tmp_path, **SAVED)
    random = torch.Generator().manual_seed(0)
    for part in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        path = tmp_path / part
        data = path.read_bytes()
        for _ in range(40):
            bad = bytearray(data)
            where, what = torch.randint(0, 2**31, (2,), generator=random).tolist()
            bad[where % len(bad)] = what % 256
            path.write_bytes(bad)
            try:
                priors.load(tmp_path)
            except (ValueError, FileNotFoundError) as error:
                assert len(str(error)) < 1200  # noqa: PT017
        path.write_bytes(data)


def test_devices(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no device nonsense; present: cpu"):
        priors.load(folder, device="nonsense")
    with pytest.raises(ValueError, match=r"x is on meta, the network on cpu"):
        priors.load(folder).network(images(1).to("meta"), torch.ones(1))


def test_importing_does_not_import_diffusers() -> None:
    code = "import sys, priors.pretrained; sys.exit('diffusers' in sys.modules)"
    root = Path(pretrained.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_nothing_is_asked_of_the_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert priors.load(folder).event_shape == (3, 8, 8)
