"""Grids of noise levels: what each is uniform in, none outside of the range; diffusers' own."""

from __future__ import annotations

import math

import pytest
import torch

import inverse
import priors
from forward_models import Identity, LinearGaussian
from inverse.samplers.names import NAMES, named
from priors.grids import GRIDS, grid, levels_of, uniform_alpha, uniform_time, unit_of
from priors.pretrained.diffusers_schedulers import SCHEDULERS

DOUBLE = torch.float64
every_grid = pytest.mark.parametrize("name", GRIDS)


def network_prior(data_range=(0.0, 1.0), sigma_range=(0.003, 45.0)) -> priors.NetworkPrior:
    return priors.NetworkPrior(
        lambda x, t: x, "epsilon", (2,), data_range=data_range, sigma_range=sigma_range
    )


@every_grid
@pytest.mark.parametrize("steps", [1, 2, 17, 300])
@pytest.mark.parametrize("sigma_range", [(0.002, 80.0), (0.1 + 0.2, 1 / 3), (1e-4, 7e3)])
def test_no_level_lies_outside_of_the_range(name, steps, sigma_range):
    prior = network_prior((0.0, 0.3), sigma_range)
    levels = grid(name, steps, prior)
    assert levels.shape == (steps + 1,)
    assert float(levels[0]) == sigma_range[1]
    assert float(levels[-1]) == 0
    assert steps == 1 or float(levels[-2]) == sigma_range[0]
    assert bool((levels.diff() < 0).all())


def uniform(values: torch.Tensor) -> None:
    torch.testing.assert_close(values.diff(), values.diff().mean().expand(len(values) - 1))


def test_what_each_is_uniform_in():
    prior = network_prior()  # half of its data range is the unit
    units = grid("uniform-alpha", 30, prior)[:-1] / 0.5
    uniform((1 + units**2).rsqrt())
    for name, schedule in {"vp": priors.VP(), "cosine": priors.Cosine()}.items():
        uniform(schedule.t(grid(name, 30, prior)[:-1] / 0.5))
    uniform(grid("karras", 30, prior)[:-1] ** (1 / 7))
    uniform(grid("geometric", 30, prior)[:-1].log())
    assert torch.equal(uniform_alpha(9, (0.1, 5.0), 2.0), 2.0 * uniform_alpha(9, (0.05, 2.5)))
    flow = uniform_time(9, (0.1, 5.0), priors.Flow(), unit=0.25)[:-1] / 0.25
    uniform(flow / (1 + flow))


def test_the_unit_is_the_networks_under_any_wrapper():
    prior = network_prior((-3.0, 1.0))
    assert unit_of(prior) == 2.0
    model = LinearGaussian(Identity(), 0.1)
    assert unit_of(inverse.condition(prior, model, torch.zeros(2))) == 2.0
    assert unit_of(priors.Gaussian(torch.zeros(2), 1.0)) == 1.0
    assert unit_of(priors.Gaussian(torch.zeros(2), 1.0, data_range=(0.0, 3.0))) == 1.5


@pytest.mark.parametrize("name", SCHEDULERS)
def test_levels_of_every_scheduler_that_load_reads(name):
    diffusers = pytest.importorskip("diffusers")
    if name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde")
    scheduler = getattr(diffusers, name)()
    before = (scheduler.timesteps, getattr(scheduler, "num_inference_steps", None))
    prior = network_prior()
    levels = levels_of(scheduler, 20, prior)
    after = (scheduler.timesteps, getattr(scheduler, "num_inference_steps", None))
    assert before[0] is after[0], "the caller's scheduler is untouched"
    assert before[1] == after[1]
    assert bool((levels.diff() < 0).all())
    assert float(levels[-1]) == 0
    assert float(levels[0]) <= 45.0
    assert float(levels[-2]) >= 0.003
    twice = ("PNDMScheduler", "KDPM2DiscreteScheduler")  # whose midpoints are levels too
    assert 15 <= len(levels) - 1 <= (40 if name in twice else 20)


def test_levels_are_those_the_schedulers_step_through():
    """Their sigmas, an independent way to the same numbers, times the unit of 1/2."""
    diffusers = pytest.importorskip("diffusers")
    prior = network_prior(sigma_range=(1e-3, 1e3))
    for scheduler, close in (
        (diffusers.EulerDiscreteScheduler(final_sigmas_type="zero"), 1e-3),
        (diffusers.EulerDiscreteScheduler(use_karras_sigmas=True), 2e-2),
        (diffusers.DPMSolverMultistepScheduler(), 1e-3),
        (diffusers.EDMEulerScheduler(), 1e-4),
        (diffusers.EDMEulerScheduler(sigma_schedule="exponential"), 1e-4),
    ):
        levels = levels_of(scheduler, 12, prior)
        scheduler.set_timesteps(12)
        torch.testing.assert_close(levels[:-1], scheduler.sigmas[:-1].double() / 2, rtol=close,
                                   atol=0)  # fmt: skip
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    levels = levels_of(flow, 12, prior)
    flow.set_timesteps(12)
    t = flow.sigmas[1:-1].double()  # t = 1 has no finite level: held at the largest
    torch.testing.assert_close(levels[1:-1], t / (1 - t) / 2, rtol=1e-4, atol=0)
    assert float(levels[0]) == 1e3
    score = diffusers.ScoreSdeVeScheduler(sigma_min=0.02, sigma_max=300.0)
    levels = levels_of(score, 12, prior)
    assert float(levels[0]) == pytest.approx(150, rel=1e-6)
    ddim = diffusers.DDIMScheduler()
    ddim.set_timesteps(12)
    abar = ddim.alphas_cumprod.double()[ddim.timesteps]
    expected = ((1 - abar) / abar).sqrt() / 2
    torch.testing.assert_close(levels_of(ddim, 12, prior)[:-1], expected, rtol=1e-4, atol=0)


def test_levels_beyond_the_priors_range_are_held_at_its_ends():
    diffusers = pytest.importorskip("diffusers")
    prior = network_prior((-1.0, 1.0), (0.1, 5.0))
    levels = levels_of(diffusers.EDMEulerScheduler(), 30, prior)
    assert float(levels[0]) == 5.0
    assert float(levels[-2]) == 0.1
    assert len(levels) < 31


def test_names_and_schedulers_that_are_unknown_are_refused():
    prior = network_prior()
    with pytest.raises(ValueError, match=r"unknown grid of levels 'karas'; known: .*mean 'karras'"):
        grid("karas", 5, prior)
    with pytest.raises(ValueError, match="unknown scheduler object; known: DDIM"):
        levels_of(object(), 5, prior)
    for bad in (0, 2.5, True):
        with pytest.raises(ValueError, match="steps must be an integer >= 1"):
            grid("flow", bad, prior)
        with pytest.raises(ValueError, match="steps must be an integer >= 1"):
            levels_of(object(), bad, prior)


@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_by_name_runs_on_every_kind_of_grid(name):
    prior = priors.Gaussian(torch.full((3,), 0.5, dtype=DOUBLE), 0.1, data_range=(0.0, 1.0))
    for levels in ("geometric", "karras", "vp"):
        x = named(name, prior, 5, levels)(prior, n=2, dtype=DOUBLE)
        assert x.shape == (2, 3)
        assert bool(x.isfinite().all())
        assert float((x - 0.5).abs().max()) < math.sqrt(0.1) * 12
