"""Particles against a posterior in closed form: moments, evidence, and the stated error of it."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from particle_cases import NO_EVIDENCE, ORDER_1, PARTICLES
from problems import DOUBLE, problem

import inverse
import priors
from forward_models import LinearGaussian
from inverse.particles import DecoupledDiffusion, Particles, TwistedFilter
from inverse.particles.particles import evidence_error
from inverse.randomness import NoiseStream
from inverse.samplers import Ancestral, EulerMaruyama, Multistep

GROUPS = COUNT = 64
every_weighed = pytest.mark.parametrize("name", [n for n in PARTICLES if n not in NO_EVIDENCE])


@functools.cache
def one_of_three():
    """One value of three measured, so that every method keeps many particles: the posterior, the
    basis of its SVD, the moments and the log evidence."""
    prior, model, _, _ = problem(size=3, rows=1)
    model = LinearGaussian(model.operator, 0.5)
    A = model.operator.matrix
    mean, covariance = prior.moments()
    spread = (A @ covariance @ A.T).item() + model.sigma**2
    y = A @ mean + 0.7 * math.sqrt(spread)
    log_evidence = -0.5 * (0.7**2 + math.log(2 * math.pi * spread))
    posterior = inverse.condition(prior, model, y[None])
    return (
        posterior,
        torch.linalg.svd(A).Vh,
        *prior.condition(model, y[None]).moments(),
        log_evidence,
    )


@functools.cache
def run(name: str) -> Particles:
    posterior = one_of_three()[0]
    method = PARTICLES[name](priors.geometric(60, posterior.sigma_range))
    return method(posterior, GROUPS * COUNT, groups=GROUPS, seed=1, dtype=DOUBLE)


@every_weighed
def test_moments_and_evidence_are_those_of_the_posterior(name):
    """Along each singular direction, with errors from group to group.

    Self-normalised averages have a bias of order 1 / K, so groups are weighed by their evidence.
    """
    _, basis, mean, covariance, log_evidence = one_of_three()
    found = run(name)
    weights = found.log_weights.exp().reshape(GROUPS, COUNT)
    torch.testing.assert_close(weights.sum(1), torch.ones(GROUPS, dtype=DOUBLE))
    evidence = (found.log_evidence - log_evidence).exp()
    error = evidence.std() / GROUPS**0.5
    assert error < 0.05
    assert abs(evidence.mean() - 1) < 4 * error + 0.04, (evidence.mean(), error)
    deviation = (basis @ covariance @ basis.T).diagonal().sqrt()
    x = ((found.x - mean) @ basis.T / deviation).reshape(GROUPS, COUNT, -1)
    coarse = 0.25 if name in ORDER_1 else 0.05
    for values, expected, bias in ((x, 0.0, 0.05), (x.square(), 1.0, coarse)):
        off = evidence[:, None] * ((weights[..., None] * values).sum(1) - expected)
        off, error = off.mean(0) / evidence.mean(), off.std(0) / GROUPS**0.5 / evidence.mean()
        assert error.max() < 0.06
        assert (off.abs() < 4 * error + bias).all(), (off, error)
    assert (found.ess <= COUNT + 1e-6).all()
    assert (found.ess >= 1 - 1e-6).all()


@every_weighed
def test_the_stated_error_of_the_evidence_is_its_spread(name):
    found = run(name)
    known = ~found.log_evidence_error.isnan()
    assert known.double().mean() > 0.9
    stated = found.log_evidence_error[known].square().mean().sqrt()
    spread = found.log_evidence.std()
    assert 0.7 < stated / spread < 1.4, (stated, spread)


@pytest.mark.parametrize("name", ["bootstrap", "best-of", "ddsmc"])
def test_an_error_of_the_evidence_is_not_stated_where_few_roots_are_left(name):
    """8 particles for 4 well measured values: what is stated is right, the rest is unknown."""
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    method = PARTICLES[name](priors.geometric(40, posterior.sigma_range))
    found = method(posterior, 8 * 64, groups=64, seed=1, dtype=DOUBLE)
    unknown = found.log_evidence_error.isnan()
    assert unknown[found.roots < 3].all()
    assert unknown.double().mean() > 0.5
    shown = found.diagnostics()
    assert [e is None for e in shown["log_evidence_error"]] == unknown.tolist()
    assert None not in shown["log_evidence"]


def test_error_of_the_evidence_without_resampling():
    """Weights exp(s z): Var(log mean) is (exp(s^2) - 1) / K to first order, and 0 where equal."""
    g = torch.Generator().manual_seed(0)
    w = torch.exp(0.6 * torch.randn(2000, 200, generator=g, dtype=DOUBLE))
    stated = evidence_error(w / w.sum(1, keepdim=True))
    spread = w.mean(1).log().std()
    assert abs(stated.square().mean().sqrt() / spread - 1) < 0.06
    assert evidence_error(torch.full((1, 50), 0.02, dtype=DOUBLE)).item() < 1e-6
    assert evidence_error(torch.ones(1, 1, dtype=DOUBLE)).isnan().all()


def test_ddsmc_proposes_and_weighs_with_the_published_spread():
    """rho^2 = (1 - abar) / 2 for images of unit variance, abar = 1 / (1 + sigma^2)."""
    prior, model, y, _ = problem()
    posterior, kept = inverse.condition(prior, model, y), {}
    method = DecoupledDiffusion([3.0, 1.5, 0.0], resample_below=0, spread=1.0)
    method(posterior, 5, seed=0, dtype=DOUBLE, keep=kept.__setitem__)
    noise = NoiseStream(0, range(5), (6,), DOUBLE)
    x, z = posterior.initial(noise.normal(0), 3.0), noise.normal(1)
    U, s, Vh = torch.linalg.svd(model.operator.matrix)
    target, sigma = y @ U / s, model.sigma / s

    D = prior.denoise(x, 3.0)
    c = 1.5 / 3 * math.sqrt(3**2 - 1.5**2)
    kept_share = math.sqrt(1.5**2 - c**2) / 3
    rho2 = (1 - 1 / (1 + 3.0**2)) / 2
    gain = rho2 / (rho2 + sigma**2)
    moved = (1 - kept_share) * gain * (target - (D @ Vh.T)[:, :4])
    spread = (c**2 - (1 - kept_share) ** 2 * gain * rho2).sqrt()
    expected = (D + kept_share * (x - D)) @ Vh.T + c * z @ Vh.T
    expected[:, :4] += moved + (spread - c) * (z @ Vh.T)[:, :4]
    torch.testing.assert_close(kept[1]["x"], expected @ Vh)

    D = prior.denoise(kept[1]["x"], 1.5)
    rho2 = (1 - 1 / (1 + 1.5**2)) / 2
    A = model.operator.matrix
    wide = model.sigma**2 * torch.eye(4, dtype=DOUBLE) + rho2 * A @ A.mT
    twist = torch.distributions.MultivariateNormal(D @ A.mT, wide)
    torch.testing.assert_close(kept[1]["log_g"], twist.log_prob(y))


@pytest.mark.parametrize(
    "sampler",
    [
        Ancestral([2.0, 1.2], eta=0.7),
        Ancestral([2.0, 1.2], zeta=0.4),
        Ancestral([2.0, 1.2], keep_noise=True),
        Multistep([2.0, 1.2]),
        EulerMaruyama([2.0, 1.2]),
        EulerMaruyama([2.0, 1.2], priors.VP(), unit=1.5),
    ],
)
def test_guidance_moves_a_step_by_its_pull(sampler):
    """The step under a posterior is the prior's, with its mean moved by pull times the shift."""
    prior, model, y, x = problem()
    posterior = inverse.condition(prior, model, y)

    class Drawn:
        def normal(self, step):
            return torch.full_like(x, 0.3)

    D, shift = posterior.guided(x, 2.0)
    mean, c, pull = sampler.transition(x, D, 2.0, 1.2, ())
    guided = sampler(posterior, start=x, noise=Drawn())
    torch.testing.assert_close(guided, mean + pull * shift + 0.3 * c)


def test_proposals_of_samplers_are_the_built_in_steps():
    posterior = one_of_three()[0]
    levels = priors.geometric(10, posterior.sigma_range)
    for sampler, options in (
        (Ancestral(levels, 0.8), {"eta": 0.8, "order": 1}),
        (Multistep(levels), {}),
    ):
        ours = TwistedFilter(levels, proposal=sampler)(posterior, 8, dtype=DOUBLE)
        built_in = TwistedFilter(levels, **options)(posterior, 8, dtype=DOUBLE)
        assert torch.equal(ours.x, built_in.x)
        assert torch.equal(ours.log_weights, built_in.log_weights)
