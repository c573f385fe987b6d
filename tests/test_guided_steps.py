"""Samplers that see the guidance apart from the prior: spherical, and ancestral with noise kept."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from problems import DOUBLE, problem

import inverse
import priors
from inverse.randomness import NoiseStream
from inverse.samplers import Ancestral, Spherical


class Given:
    """A noise source of one tensor."""

    def __init__(self, z: torch.Tensor) -> None:
        self.z = z

    def normal(self, step: int) -> torch.Tensor:
        return self.z


def guided_problem():
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    shape = tuple(prior.event_shape)
    x = prior.initial(NoiseStream(0, range(6), shape, DOUBLE).normal(0), 2.0)
    return prior, posterior, x, NoiseStream(1, range(6), shape, DOUBLE).normal(0)


def norm(values):
    return values.flatten(1).norm(dim=1)


def test_a_spherical_step_by_the_formula_of_the_paper():
    """With d* = sqrt(n) c along the gradient of the log-likelihood, found by autograd."""
    prior, posterior, x, z = guided_problem()
    sigma, after, ratio, n = 2.0, 1.4, 0.3, x[0].numel()
    found = Spherical([sigma, after], 0.8, ratio)(posterior, start=x, noise=Given(z))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(posterior.log_likelihood(leaf, sigma).sum(), leaf)
    x0 = prior.denoise(x, sigma)
    c = 0.8 * after / sigma * math.sqrt(sigma**2 - after**2)
    mu = x0 + math.sqrt(after**2 - c**2) * (x - x0) / sigma
    for i in range(len(x)):
        best = math.sqrt(n) * c * gradient[i] / gradient[i].norm()
        mixed = c * z[i] + ratio * (best - c * z[i])
        assert torch.allclose(found[i], mu[i] + math.sqrt(n) * c * mixed / mixed.norm(), atol=1e-9)
    assert torch.allclose(norm(found - mu), torch.full((6,), math.sqrt(n) * c, dtype=DOUBLE))


def test_the_likelihood_rises_with_the_ratio():
    _, posterior, x, z = guided_problem()
    values = [
        posterior.log_likelihood(
            Spherical([2.0, 1.9], ratio=ratio)(posterior, start=x, noise=Given(z)), 1.9
        )
        for ratio in (0.0, 0.2, 0.5, 1.0)
    ]
    assert all(bool((b > a).all()) for a, b in pairwise(values))


def test_without_guidance_it_is_ancestral_up_to_the_length_of_the_noise():
    prior, _, x, z = guided_problem()
    unit = z * math.sqrt(x[0].numel()) / norm(z).reshape(-1, *[1] * (z.ndim - 1))
    levels = [2.0, 1.0, 0.3, 0.0]
    for eta in (0.4, 1.0):
        plain = Ancestral(levels, eta)(prior, start=x, noise=Given(unit))
        for noise in (unit, 3 * unit):
            ours = Spherical(levels, eta)(prior, start=x, noise=Given(noise))
            assert torch.allclose(ours, plain, atol=1e-12)


def test_noise_on_a_sphere_keeps_the_second_moments_of_a_gaussian():
    prior = priors.Gaussian(torch.zeros(3, dtype=DOUBLE), 0.5)
    n = 4000
    levels = priors.geometric(30, (0.05, 10.0))[:-1]
    ours = Spherical(levels)(prior, n=n, seed=0, dtype=DOUBLE)
    # The exact recursion of the ancestral sampler, whose noise has the same covariance.
    v = 0.5 + 100.0
    for sigma, after in pairwise(levels.tolist()):
        c2 = after**2 / sigma**2 * (sigma**2 - after**2)
        gain = 0.5 / (0.5 + sigma**2)
        v = (gain + math.sqrt(after**2 - c2) / sigma * (1 - gain)) ** 2 * v + c2
    assert float((ours.var(0) / v - 1).abs().max()) < 5 * math.sqrt(2 / n)


def test_with_noise_kept_the_measurement_moves_the_image_alone():
    prior, posterior, x, z = guided_problem()
    sigma, after = 2.0, 1.4
    x0 = prior.denoise(x, sigma)
    shift = posterior.denoise(x, sigma) - x0
    assert float(norm(shift).min()) > 0.01
    for eta in (0.0, 0.7):
        c = eta * after / sigma * math.sqrt(sigma**2 - after**2)
        eps = (x - x0) / sigma
        expected = x0 + shift + math.sqrt(after**2 - c**2) * eps + c * z
        kept = Ancestral([sigma, after], eta, keep_noise=True)
        assert torch.allclose(kept(posterior, start=x, noise=Given(z)), expected, atol=1e-12)
        usual = Ancestral([sigma, after], eta)(posterior, start=x, noise=Given(z))
        assert not torch.allclose(usual, expected, atol=1e-3)
        same = Ancestral([sigma, after], eta)(prior, start=x, noise=Given(z))
        assert torch.allclose(kept(prior, start=x, noise=Given(z)), same, atol=1e-12)


@pytest.mark.parametrize(
    "sampler",
    [Spherical([2.0, 1.0, 0.5, 0.0]), Ancestral([2.0, 1.0, 0.5, 0.0], keep_noise=True)],
    ids=["spherical", "noise kept"],
)
def test_guidance_apart_costs_no_second_call(sampler):
    _, posterior, _, _ = guided_problem()
    samples = inverse.sample(posterior, n=2, sampler=sampler, seed=0)
    assert samples.diagnostics["network_calls"] == 3


def test_arguments_that_mean_nothing_are_refused():
    for eta in (0.0, -0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"eta must lie in \(0, 1\]"):
            Spherical([1.0, 0.0], eta)
    for ratio in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"ratio must lie in \[0, 1\]"):
            Spherical([1.0, 0.0], ratio=ratio)
