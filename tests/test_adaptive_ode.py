"""The adaptive probability-flow equation: against exact flow maps, sample by sample."""

from __future__ import annotations

import math

import pytest
import torch
from problems import DOUBLE

import inverse
import priors
from inverse.running import Counted
from inverse.samplers import AdaptiveODE, DivergenceError, Heun

RANGE = (0.01, 20.0)


def flow_map(x, mean, variance):
    """The exact end: along each axis x - m shrinks like sqrt(v + sigma^2), then is denoised."""
    low, high = RANGE
    moved = (x - mean) * ((variance + low**2) / (variance + high**2)).sqrt()
    return mean + moved * variance / (variance + low**2)


def test_errors_on_a_gaussian_follow_the_tolerance():
    mean = torch.tensor([0.5, -1.0, 0.0], dtype=DOUBLE)
    variance = torch.tensor([1.0, 0.05, 1e-3], dtype=DOUBLE)
    prior = priors.Gaussian(mean, torch.diag(variance))
    x = mean + 20 * torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    exact = flow_map(x, mean, variance)
    calls = []
    for rtol in (1e-3, 1e-5, 1e-7, 1e-9):
        sampler = AdaptiveODE(RANGE, rtol, rtol / 10)
        counted = Counted(prior)
        error = (sampler(counted, start=x) - exact).square().mean(1).sqrt()
        allowed = rtol / 10 + rtol * exact.square().mean(1).sqrt()
        assert bool((error < 10 * allowed).all()), (rtol, error / allowed)
        assert sampler.network_calls == counted.network_calls
        calls.append(sampler.network_calls)
    assert calls[0] < 120
    # Order 5: a hundredth of the error for 100^(1/5) = 2.5 as many steps.
    assert calls[3] / calls[2] == pytest.approx(100**0.2, rel=0.15)


def test_each_sample_of_a_batch_is_as_accurate_as_it_would_be_alone():
    """One sample between two narrow modes, whose path bends late, among easy ones."""
    prior = priors.Mixture(
        torch.tensor([[-1.0], [1.0]], dtype=DOUBLE), 1e-4, torch.tensor([0.5, 0.5], dtype=DOUBLE)
    )
    x = torch.tensor([[1e-2], [15.0], [30.0], [-8.0]], dtype=DOUBLE)
    reference = AdaptiveODE(RANGE, 1e-10, 1e-11)(prior, start=x)
    together = AdaptiveODE(RANGE, 1e-4, 1e-5)(prior, start=x)
    alone = torch.cat([AdaptiveODE(RANGE, 1e-4, 1e-5)(prior, start=row[None]) for row in x])
    for found in (together, alone):
        assert float((found - reference).abs().max()) < 3e-3
    assert float((together - reference).abs().max()) < 2 * float((alone - reference).abs().max())


def test_it_agrees_with_heun_of_many_steps_on_a_mixture():
    means = torch.tensor([[-2.0, 0.5], [1.0, 1.0], [0.0, -1.0]], dtype=DOUBLE)
    prior = priors.Mixture(means, 0.05, torch.tensor([0.2, 0.3, 0.5], dtype=DOUBLE))
    x = prior.initial(torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double(), 20.0)
    fine = Heun(priors.geometric(600, RANGE))(prior, start=x)
    assert torch.allclose(AdaptiveODE(RANGE, 1e-7, 1e-8)(prior, start=x), fine, atol=1e-3)


def test_calls_are_unknown_before_a_run_and_counted_at_the_front_door():
    prior = priors.Gaussian(torch.zeros(4), 1.0)
    sampler = AdaptiveODE(RANGE)
    assert sampler.network_calls is None
    samples = inverse.sample(prior, n=3, sampler=sampler, seed=0)
    assert samples.diagnostics["network_calls"] == sampler.network_calls
    assert samples.diagnostics["steps"] == sampler.taken > 2
    before = sampler.settings()
    sampler(prior, n=1)
    assert sampler.settings() == before, "what a run leaves behind is no setting"


def test_float32_ends_where_rounding_does():
    prior = priors.Gaussian(torch.zeros(4), 1.0)
    x = 20 * torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    found = AdaptiveODE(RANGE, 1e-12, 1e-12)(prior, start=x)
    exact = flow_map(x.double(), torch.zeros(4), torch.ones(4, dtype=DOUBLE))
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), exact, atol=1e-4)


class Jump(priors.Prior):
    event_shape, sigma_range = (1,), RANGE

    def _denoise(self, x, sigma):
        return 1e3 * torch.sign(torch.sin(x * 1e6))


def test_runs_that_cannot_end_say_why():
    x = torch.ones(1, 1, dtype=DOUBLE)
    with pytest.raises(DivergenceError, match=r"max_steps = 7 steps are needed.*give more"):
        AdaptiveODE(RANGE, max_steps=7)(priors.Gaussian(torch.zeros(1).double(), 1.0), start=x)
    with pytest.raises(DivergenceError, match=r"shrank to nothing|max_steps = 1000"):
        AdaptiveODE(RANGE, 1e-8, 1e-10)(Jump(), start=x)


def test_arguments_that_mean_nothing_are_refused():
    for bad in ((0.0, 1.0), (1.0, 0.1), (0.1, math.inf), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="0 < low < high"):
            AdaptiveODE(bad)
    for bad in (0.0, -1e-3, math.nan, True):
        with pytest.raises(ValueError, match="rtol must be"):
            AdaptiveODE(RANGE, bad)
        with pytest.raises(ValueError, match="atol must be"):
            AdaptiveODE(RANGE, 1e-3, bad)
    with pytest.raises(ValueError, match="max_steps must be"):
        AdaptiveODE(RANGE, max_steps=0)
