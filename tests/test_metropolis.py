"""Metropolis-adjusted Langevin: no bias where plain Langevin has one, and its acceptance rule."""

from __future__ import annotations

import math

import pytest
import torch
from problems import DOUBLE

import inverse
import priors
from inverse.randomness import NoiseStream
from inverse.samplers import MALA, Langevin

SIGMA = 0.5


class Opaque(priors.Prior):
    """A prior known through its denoiser alone."""

    def __init__(self, prior: priors.Prior) -> None:
        self.inner, self.event_shape, self.sigma_range = prior, prior.event_shape, prior.sigma_range

    def initial(self, eps, sigma):
        return self.inner.initial(eps, sigma)

    def _denoise(self, x, sigma):
        return self.inner.denoise(x, sigma.flatten())


def gaussian() -> priors.Gaussian:
    mean = torch.tensor([0.7, -0.2], dtype=DOUBLE)
    return priors.Gaussian(mean, torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=DOUBLE))


def errors_in_standard_errors(x, mean, C):
    n, v = len(x), C.diagonal()
    spread = ((C**2 + torch.outer(v, v)) / n).sqrt()
    return torch.cat([(x.mean(0) - mean) / (v / n).sqrt(), ((x.T.cov() - C) / spread).flatten()])


@pytest.mark.parametrize("wrap", [lambda p: p, Opaque], ids=["log_density", "trapezoid"])
def test_a_gaussian_without_bias_at_a_step_where_plain_langevin_is_biased(wrap):
    """From a start three times too wide; the step is 0.7 of the narrowest variance."""
    prior, n = gaussian(), 4000
    mean, C = prior.moments()
    C = C + SIGMA**2 * torch.eye(2, dtype=DOUBLE)
    a = 0.7 * float(torch.linalg.eigvalsh(C)[0])
    start = mean + 3 * torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    sampler = MALA(SIGMA, a, 80)
    x = sampler(wrap(prior), start=start, seed=1)
    assert float(errors_in_standard_errors(x, mean, C).abs().max()) < 5
    assert sampler.acceptance.shape == (n,)
    assert 0.5 < float(sampler.acceptance.mean()) < 0.99
    plain = Langevin(SIGMA, a, 80)(prior, start=start, seed=1)
    assert float(errors_in_standard_errors(plain, mean, C).abs().max()) > 10


def test_on_a_gaussian_the_trapezoidal_rule_is_exact():
    prior, sampler = gaussian(), MALA(SIGMA, 0.8, 30)
    exact = sampler(prior, n=200, seed=2, dtype=DOUBLE)
    rates = sampler.acceptance
    assert torch.allclose(sampler(Opaque(prior), n=200, seed=2, dtype=DOUBLE), exact, atol=1e-10)
    assert torch.equal(sampler.acceptance, rates)


def test_a_step_is_the_rule_of_metropolis_and_hastings():
    """Against densities and transitions written out with torch.distributions."""
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=DOUBLE)
    prior = priors.Mixture(means, 0.2, torch.tensor([0.3, 0.7], dtype=DOUBLE))
    a, noise = 0.3, NoiseStream(3, range(500), (2,), DOUBLE)
    x = prior.initial(noise.normal(0), SIGMA)
    sampler = MALA(SIGMA, a, 1)
    ours = sampler(prior, n=500, seed=3, dtype=DOUBLE)
    normal = torch.distributions.Normal
    parts = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor([0.3, 0.7], dtype=DOUBLE)),
        torch.distributions.Independent(normal(means, math.sqrt(0.2 + SIGMA**2)), 1),
    )

    def ahead(z):
        z = z.detach().requires_grad_()
        return z + a * torch.autograd.grad(parts.log_prob(z).sum(), z)[0]

    def to(z, z_new):
        return normal(ahead(z).detach(), math.sqrt(2 * a)).log_prob(z_new).sum(1)

    x_new = ahead(x).detach() + math.sqrt(2 * a) * noise.normal(1)
    ratio = parts.log_prob(x_new) - parts.log_prob(x) + to(x_new, x) - to(x, x_new)
    u = torch.special.ndtr(noise.normal(2)[:, 0])
    accepted = u < ratio.exp()
    assert torch.allclose(ours, torch.where(accepted[:, None], x_new, x), rtol=0, atol=1e-12)
    assert torch.equal(sampler.acceptance, accepted.double())
    assert 0.2 < float(accepted.double().mean()) < 0.95


@pytest.mark.parametrize("wrap", [lambda p: p, Opaque], ids=["log_density", "trapezoid"])
def test_a_mixture_of_two_overlapping_modes_gets_their_weights(wrap):
    """n = 4000 from a start in the lighter mode; for the line integral at a shorter step."""
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=DOUBLE)
    weights, v, n = torch.tensor([0.3, 0.7], dtype=DOUBLE), 0.2 + SIGMA**2, 4000
    prior = priors.Mixture(means, 0.2, weights)
    mean = weights @ means
    between = (weights[:, None] * (means - mean)).T @ (means - mean)
    exact = wrap(prior) is prior
    sampler = MALA(SIGMA, 0.3 if exact else 0.1, 100 if exact else 200)
    start = means[0] + 0.1 * torch.randn(
        n, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE
    )
    x = sampler(wrap(prior), start=start, seed=1)
    C = between + v * torch.eye(2, dtype=DOUBLE)
    assert float(((x.mean(0) - mean) / (C.diagonal() / n).sqrt()).abs().max()) < 5
    fourth = ((x - mean) ** 2).var(0)
    assert (
        float((((x - mean) ** 2).mean(0) - C.diagonal()).div((fourth / n).sqrt()).abs().max()) < 5
    )
    right = float((x[:, 0] > 0).double().mean())
    phi = torch.special.ndtr(torch.tensor(1 / math.sqrt(v), dtype=DOUBLE))
    expected = float(0.7 * phi + 0.3 * (1 - phi))
    assert abs(right - expected) < 5 * math.sqrt(expected * (1 - expected) / n)


def test_acceptance_is_of_the_last_run_and_none_before():
    sampler = MALA(SIGMA, 1e-6, 3)
    assert sampler.acceptance is None
    inverse.sample(gaussian(), n=5, sampler=sampler, seed=0)
    assert sampler.acceptance.tolist() == [1.0] * 5
    sampler(gaussian(), n=2)
    assert sampler.acceptance.shape == (2,)


def test_a_posterior_in_a_run_of_the_front_door_costs_one_call_a_proposal():
    prior = gaussian()
    samples = inverse.sample(prior, n=3, sampler=MALA(SIGMA, 0.1, 12), seed=0)
    assert samples.diagnostics["network_calls"] == 13
    assert samples.diagnostics["steps"] == 12


def test_arguments_that_mean_nothing_are_refused():
    for bad in (0.0, -1.0, math.inf, math.nan, True, "1"):
        with pytest.raises(ValueError, match="sigma must be a finite number > 0"):
            MALA(bad, 0.1, 5)
        with pytest.raises(ValueError, match="step_size must be a finite number > 0"):
            MALA(0.1, bad, 5)
    with pytest.raises(ValueError, match="steps must be an integer >= 1"):
        MALA(0.1, 0.1, 0)
