"""Loading diffusers pipelines: the denoiser is what the scheduler makes of the network."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from checkpoint_files import assert_close
from pipelines import (
    FOURIER,
    PLAIN,
    SKIP,
    WEIGHTS,
    Reference,
    by_conversion,
    by_edm,
    by_flow,
    by_score,
    by_sigma_step,
    by_step,
    by_table,
    edit,
    images,
    noisy,
    signal,
    tiny,
    write,
)
from safetensors.torch import load_file, save_file

import priors
from priors import NetworkPrior, pretrained
from priors.pretrained.diffusers_schedulers import TABLE_SCHEDULERS, noise_law

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Case:
    scheduler: str
    reference: Reference
    settings: dict[str, Any] = field(default_factory=dict)
    unet: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        values = [str(v) for v in (*self.settings.values(), *self.unet.values()) if v is not False]
        return "-".join([self.scheduler, *values])[:80]


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
    torch.testing.assert_close(
        law.time(table), torch.arange(1000, dtype=torch.float64), rtol=0, atol=1e-9
    )
    fine = torch.logspace(-2, 2.19, 5000, dtype=torch.float64)
    fine = fine[(fine > table[0]) & (fine < table[-1])]
    assert bool((law.time(fine).diff() > 0).all())
    halfway = (table[400] * table[401]).sqrt()
    assert float(law.time(halfway[None])) == pytest.approx(400.5)
    assert law.time(torch.tensor([1e-6, 1e6])).tolist() == [0, 999]


def test_a_step_between_two_reaches_the_network_as_a_fraction(folder: Path) -> None:
    prior, times = priors.load(folder), []
    prior.network.register_forward_pre_hook(lambda module, args: times.append(args[1]))
    sigma = prior.time.sigma(torch.tensor([10.25, 700.5], dtype=torch.float64))
    prior.denoise(images(2), sigma.float())
    torch.testing.assert_close(times[0], torch.tensor([10.25, 700.5]), rtol=1e-4, atol=0)


def test_zero_snr_drops_the_infinite_level() -> None:
    config = {"rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"}
    law = noise_law("DDIMScheduler", config)
    assert law.sigma_range == pytest.approx((0.01, 3538), rel=1e-3)
    assert law.time(torch.tensor([1e9])).item() == 998


def test_defaults_of_the_scheduler_class_fill_a_short_config() -> None:
    heun = noise_law("HeunDiscreteScheduler", {})
    ddpm = noise_law("DDPMScheduler", {"num_train_timesteps": 1000})
    assert ddpm.sigma_range == pytest.approx((0.0100005, 157.4), rel=1e-3)
    assert heun.sigma_range[1] < 0.2 * ddpm.sigma_range[1]
    assert noise_law("DDPMScheduler", {"predict_epsilon": False}).parametrization == "x0"


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
    null = priors.load(path, class_label="null")
    assert torch.equal(null.denoise(sigma * eps, sigma), results[2])
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


def test_fourier_frequencies_under_their_old_name_or_both(tmp_path: Path) -> None:
    scheduler = diffusers.ScoreSdeVeScheduler()
    folder = write(tmp_path, tiny(norm_num_groups=None, **FOURIER, **SKIP), scheduler)
    expected = priors.load(folder).denoise(images(1), 1.0)
    state = load_file(folder / WEIGHTS)
    frequencies = state["time_proj.weight"]
    both = {**state, "time_proj.W": frequencies.clone()}
    old = {name: value for name, value in both.items() if name != "time_proj.weight"}
    for tensors in (both, old):
        save_file(tensors, folder / WEIGHTS)
        assert torch.equal(priors.load(folder).denoise(images(1), 1.0), expected)
    for other in (2 * frequencies, frequencies[:-1].clone(), frequencies.double()):
        save_file({**both, "time_proj.W": other}, folder / WEIGHTS)
        with pytest.raises(ValueError, match=r"two tensors for time_proj\.weight, under an old"):
            priors.load(folder)


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
