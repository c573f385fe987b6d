"""log p(x) by the probability-flow ODE: equal to the closed form within its stated errors."""

from __future__ import annotations

import math

import pytest
import torch
from prior_cases import (
    GAUSSIANS,
    MIXTURES,
    SCHEDULES,
    exact_network,
    network_prior,
    normal,
    spd,
    spectrum,
)

from priors import (
    Circulant,
    Empirical,
    Gaussian,
    Mixture,
    NetworkPrior,
    Prior,
    bits_per_dim,
    log_prob,
)

SMALL = {
    name: make
    for name, make in (GAUSSIANS | MIXTURES).items()
    if name in ("single value", "dense", "diagonal", "low rank", "posterior")
    or name.startswith("mixture")
    or name == "posterior mixture"
}


def draws(prior, n=3, seed=0):
    return prior.sample(n, torch.Generator().manual_seed(seed)).double()


class Counted(Prior):
    """Another prior, seen through its denoiser alone."""

    def __init__(self, prior):
        self.prior, self.calls = prior, 0
        self.event_shape, self.sigma_range = prior.event_shape, prior.sigma_range

    def _denoise(self, x, sigma):
        self.calls += 1
        return self.prior.denoise(x, sigma.flatten())


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL.keys())
def test_ode_equals_the_closed_form(make):
    """Within `tolerance` nats a value and step, some 40 steps; and much closer as it shrinks."""
    prior = make()
    x = draws(prior)
    size = math.prod(prior.event_shape)
    exact = prior.log_density(x, prior.sigma_range[0])
    found = log_prob(prior, x, method="ode", tolerance=1e-5)
    assert float((found - exact).abs().max()) <= 40 * 1e-5 * size
    torch.testing.assert_close(found, prior.log_density(x), rtol=0, atol=2e-3 * size)


def test_error_falls_with_the_tolerance():
    prior = Mixture(2 * normal(3, 2), 0.4, torch.tensor([0.2, 0.3, 0.5]))
    x = draws(prior, 8)
    exact = prior.log_density(x, prior.sigma_range[0])
    errors = [
        float((log_prob(prior, x, method="ode", tolerance=tolerance) - exact).abs().max())
        for tolerance in (1e-3, 1e-5, 1e-7, 1e-9)
    ]
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 10
    # What is left is the largest level, where p is not quite Gaussian.
    assert errors[3] < 2e-7


def test_a_data_set_at_its_smallest_noise():
    prior = Empirical(normal(6, 2))
    low = prior.sigma_range[0]
    x = draws(prior) + low * normal(3, 2, seed=3)
    found = log_prob(prior, x, method="ode", tolerance=1e-6)
    torch.testing.assert_close(found, prior.log_density(x, low), rtol=0, atol=1e-4)


def test_the_density_integrates_to_one():
    prior = Mixture(torch.tensor([[-1.0], [2.0]]), torch.tensor([0.3, 0.8]), torch.ones(2) / 2)
    x = torch.linspace(-6, 8, 301, dtype=torch.float64)[:, None]
    density = log_prob(prior, x, method="ode").exp()
    assert float(torch.trapezoid(density, x[:, 0])) == pytest.approx(1.0, abs=1e-3)


def test_exact_where_the_prior_knows():
    prior = Gaussian(normal(3), spd(3))
    x = draws(prior)
    assert torch.equal(log_prob(prior, x), prior.log_density(x))
    assert torch.equal(log_prob(prior, x, method="exact"), prior.log_density(x))
    value, error = log_prob(prior, x, return_error=True)
    assert torch.equal(value, prior.log_density(x))
    assert error.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["epsilon VP", "v Cosine", "score VE", "flow Flow", "edm"])
def test_a_network_prior(name):
    """In data units: the density carries the unit's Jacobian, 2 for each value."""
    inner = Mixture(0.5 * normal(3, 2), 0.05, torch.tensor([0.2, 0.3, 0.5]))
    prior = network_prior(name, inner)
    prior.sigma_range = (1e-3, 40.0)
    x = (draws(inner) + 1) / 2
    expected = inner.log_density(2 * x - 1, 2e-3) + 2 * math.log(2)
    found = log_prob(prior, x, tolerance=1e-5)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_hutchinsons_estimate_and_its_error():
    prior = Gaussian(normal(2, 6, 6), Circulant(spectrum(6, 6), (2, 6, 6)))
    x = draws(prior, 4)
    exact = prior.log_density(x, prior.sigma_range[0])
    found, error = log_prob(prior, x, method="ode", return_error=True, seed=3)
    assert found.shape == error.shape == (4,)
    assert bool((error > 0).all())
    assert bool(((found - exact).abs() <= 5 * error).all())
    _, smaller = log_prob(prior, x, method="ode", return_error=True, probes=64, seed=3)
    assert float(smaller.mean()) == pytest.approx(float(error.mean()) / 2, rel=0.3)
    traced, none = log_prob(prior, x, method="ode", exact_trace=True, return_error=True)
    assert none.tolist() == [0] * 4
    torch.testing.assert_close(traced, exact, rtol=0, atol=40 * 1e-4 * 72)


def test_hutchinsons_standard_error_is_honest():
    """Over seeds, the estimate's spread is what it says."""
    prior = Gaussian(normal(5), spd(5))
    x = draws(prior, 1)
    exact = prior.log_density(x, prior.sigma_range[0])
    settings = {"method": "ode", "exact_trace": False, "probes": 8, "return_error": True}
    pairs = [log_prob(prior, x, **settings, tolerance=1e-3, seed=seed) for seed in range(20)]
    values, errors = (torch.cat(part) for part in zip(*pairs, strict=True))
    spread = float(values.std())
    assert abs(float((values - exact).mean())) < 5 * spread / math.sqrt(20)
    assert 0.6 < spread / float(errors.square().mean().sqrt()) < 1.6


@pytest.mark.parametrize("exact_trace", [True, False])
def test_samples_do_not_know_each_other(exact_trace):
    prior = Mixture(2 * normal(3, 2), 0.4, torch.tensor([0.2, 0.3, 0.5]))
    x = draws(prior, 3)
    together = log_prob(prior, x, method="ode", exact_trace=exact_trace)
    fewer = log_prob(prior, x[:2], method="ode", exact_trace=exact_trace)
    # The signs are their own; the steps are the batch's, so that errors differ within tolerance.
    torch.testing.assert_close(together[:2], fewer, rtol=0, atol=40 * 1e-4 * 2)
    tight = {"method": "ode", "exact_trace": exact_trace, "tolerance": 1e-9}
    found, alone = log_prob(prior, x, **tight)[:2], log_prob(prior, x[:2], **tight)
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-7)
    again = log_prob(prior, x, method="ode", exact_trace=exact_trace)
    assert torch.equal(together, again)


def test_cost_and_the_default_jacobian():
    """A prior known by its denoiser alone: products by autograd, 6 calls a step."""
    prior = Counted(Mixture(2 * normal(3, 2), 0.4, torch.tensor([0.2, 0.3, 0.5])))
    x = draws(prior.prior)
    found = log_prob(prior, x)
    exact = prior.prior.log_density(x, prior.sigma_range[0])
    torch.testing.assert_close(found, exact, rtol=0, atol=5e-3)
    assert prior.calls < 6 * 60


def test_float32_and_nothing_outside_is_touched():
    prior = Gaussian(normal(3), spd(3))
    x, state = draws(prior).float(), torch.get_rng_state()
    before = x.clone()
    found = log_prob(prior, x, method="ode", exact_trace=False)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    exact = prior.log_density(x)
    torch.testing.assert_close(log_prob(prior, x, method="ode"), exact, rtol=0, atol=2e-2)


def test_a_hard_neighbour_costs_no_accuracy():
    """The worst sample sets the steps: a batch with one far out is as good as each alone."""
    prior = Mixture(2 * normal(3, 2), 0.01, torch.tensor([0.2, 0.3, 0.5]))
    x = torch.cat([draws(prior, 7), draws(prior, 1) + 3])
    exact = prior.log_density(x, prior.sigma_range[0])
    found = log_prob(prior, x, method="ode", tolerance=1e-6)
    torch.testing.assert_close(found, exact, rtol=0, atol=40 * 1e-6 * 2)


def test_bits_per_dimension():
    """A uniform density over the data range needs log2(levels) bits; half of it, one fewer."""
    prior = Gaussian(normal(2, 3), 1.0, data_range=(-1.0, 3.0))
    log_p = torch.tensor([-6 * math.log(4.0), -6 * math.log(2.0)])
    torch.testing.assert_close(bits_per_dim(log_p, prior), torch.tensor([8.0, 7.0]))
    torch.testing.assert_close(bits_per_dim(log_p, prior, levels=2), torch.tensor([1.0, 0.0]))
    found = bits_per_dim(2 * log_p, prior, event_shape=(2, 6))
    torch.testing.assert_close(found, torch.tensor([8.0, 7.0]))
    with pytest.raises(ValueError, match="data_range"):
        bits_per_dim(log_p, Gaussian(normal(2), 1.0))
    with pytest.raises(ValueError, match="levels"):
        bits_per_dim(log_p, prior, levels=1)


class Broken(Counted):
    def _denoise(self, x, sigma):
        x0 = super()._denoise(x, sigma)
        return torch.where(sigma > 1, x0 * math.nan, x0)


class Rough(Counted):
    """A denoiser with a jump at every level: no smooth flow."""

    def _denoise(self, x, sigma):
        return super()._denoise(x, sigma) + sigma * (1e4 * x / sigma).sin()


def test_refusals():
    gaussian = Gaussian(normal(2), 1.0)
    prior, x = Counted(gaussian), draws(gaussian)
    with pytest.raises(ValueError, match="unknown method 'euler'; known: auto, exact, ode"):
        log_prob(prior, x, method="euler")
    with pytest.raises(TypeError, match="Counted has no log_density"):
        log_prob(prior, x, method="exact")
    with pytest.raises(ValueError, match="probes must be at least 2"):
        log_prob(prior, x, exact_trace=False, probes=1)
    with pytest.raises(ValueError, match="0 < low < high"):
        log_prob(prior, x, sigma_range=(1.0, 0.1))
    for tolerance in (0.0, 2.0, math.nan):
        with pytest.raises(ValueError, match="tolerance"):
            log_prob(prior, x, tolerance=tolerance)
    with pytest.raises(ValueError, match="where the data still matter"):
        log_prob(prior, x, sigma_range=(1e-3, 0.5))
    with pytest.raises(RuntimeError, match="not finite at a noise level"):
        log_prob(Broken(gaussian), x)
    with pytest.raises(RuntimeError, match="max_steps = 5"):
        log_prob(prior, x, max_steps=5)
    with pytest.raises(RuntimeError, match=r"shrank|max_steps"):
        log_prob(Rough(gaussian), x, max_steps=60)
    with pytest.raises(ValueError, match="shape"):
        log_prob(prior, x[0])
    with pytest.raises(ValueError, match="sigma > 0"):
        log_prob(Empirical(normal(3, 2)), x)


def test_every_schedule_serves_the_same_density():
    inner = Gaussian(0.3 * normal(2), 0.2)
    x = draws(inner)
    for schedule in SCHEDULES.values():
        prior = NetworkPrior(
            exact_network(inner, "epsilon", schedule), "epsilon", (2,), schedule=schedule
        )
        found = log_prob(prior, x, sigma_range=(1e-3, 40.0))
        torch.testing.assert_close(found, inner.log_density(x, 1e-3), rtol=0, atol=5e-3)
