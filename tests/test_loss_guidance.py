"""Guidance by losses: the corner cases of training-free guidance against the named methods."""

from __future__ import annotations

import math

import pytest
import torch
from problems import DOUBLE, Component, problem

import inverse
import priors
from forward_models import Energy, Gaussian, LinearGaussian, from_simulator
from inverse.likelihoods import (
    Cost,
    GaussianLift,
    Moments,
    MonteCarloLift,
    TrainingFree,
    Zero,
)
from inverse.likelihoods.loss_guidance import constant


def moments(prior: priors.Prior, x: torch.Tensor, sigma: float) -> Moments:
    x0, product = prior.covariance(x, sigma)
    level = torch.full((len(x), *[1] * (x.ndim - 1)), sigma, dtype=x.dtype)
    return Moments(x, level, x0, product, exact=prior.exact_covariance, prior=prior)


def gentle():
    """A problem whose likelihood is so wide that no bound holds."""
    prior, model, y, x = problem()
    return prior, LinearGaussian(model.operator, 40.0), y, x


def by_hand(prior, f, x, sigma):
    """sigma^2 grad_x f(D(x)) and grad_D f(D), by differentiation."""
    at = x.clone().requires_grad_()
    D = prior.denoise(at, sigma)
    (through,) = torch.autograd.grad(f(D).sum(), at, retain_graph=True)
    (u,) = torch.autograd.grad(f(D).sum(), D)
    return sigma**2 * through, u


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_variance_guidance_alone_is_the_score_of_dps(sigma):
    prior, model, y, x = gentle()
    through, _ = by_hand(prior, lambda D: model.log_likelihood(y, D), x, sigma)
    ours = TrainingFree(model, y, rho=constant(1.0))
    given = moments(prior, x, sigma)
    torch.testing.assert_close(ours.shift(given), through, rtol=1e-6, atol=1e-9)
    zero = GaussianLift(model, y, Zero())
    torch.testing.assert_close(ours.shift(given), zero.shift(given), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(ours.log_likelihood(given), zero.log_likelihood(given))
    assert ours.cost == Cost(products=1)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_with_draws_it_is_the_monte_carlo_lift(sigma):
    prior, model, y, x = problem()
    s = 0.8
    lift = MonteCarloLift(model, y, scale=s, draws=10, seed=3)
    ours = TrainingFree(
        model, y, rho=constant(1.0), draws=10, seed=3,
        spread=lambda level: level * s / (level**2 + s**2).sqrt(),
    )  # fmt: skip
    given = moments(prior, x, sigma)
    for a, b in zip(ours.evaluate(given), lift.evaluate(given), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_mean_guidance_alone_is_mpgd(sigma):
    prior, model, y, x = gentle()
    _, u = by_hand(prior, lambda D: model.log_likelihood(y, D), x, sigma)
    ours = TrainingFree(model, y, mu=constant(0.7))
    torch.testing.assert_close(ours.shift(moments(prior, x, sigma)), 0.7 * u, rtol=1e-6, atol=1e-9)
    x0 = prior.denoise(x, sigma)
    alone = Moments(x, torch.full((3, 1), sigma, dtype=DOUBLE), x0)  # without the Jacobian
    torch.testing.assert_close(ours.shift(alone), 0.7 * u, rtol=1e-6, atol=1e-9)
    assert not ours.needs_covariance
    assert ours.cost == Cost()


def test_both_are_the_forward_and_backward_guidance_of_universal_guidance():
    prior, model, y, x = gentle()
    sigma, w, mu, steps = 1.3, 2.0, 0.5, 3
    through, _ = by_hand(prior, lambda D: model.log_likelihood(y, D), x, sigma)
    x0 = prior.denoise(x, sigma)
    z = x0.clone()
    for _ in range(steps):
        at = z.clone().requires_grad_()
        (u,) = torch.autograd.grad(model.log_likelihood(y, at).sum(), at)
        z = z + mu * u
    ours = TrainingFree(model, y, rho=constant(w), mu=constant(mu), iterations=steps)
    expected = w * through + z - x0
    torch.testing.assert_close(ours.shift(moments(prior, x, sigma)), expected, rtol=1e-6, atol=1e-9)


def test_relative_guidance_is_the_published_step_of_freedom():
    """x_t' = c1 D + c2 x_t + c3 z - rho g, |g| scaled to rho_scale c1 sigma |eps| (VP)."""
    prior, model, y, x = problem()
    t, t_next, rho = 0.4, 0.39, 0.2
    schedule = priors.VP()
    alpha, alpha_next = float(schedule.alpha(t)), float(schedule.alpha(t_next))
    sigma, sigma_next = float(schedule.sigma(t)), float(schedule.sigma(t_next))
    at, at_next = alpha**2, alpha_next**2
    x_t = (alpha * x).requires_grad_()
    D = prior.denoise(x_t / alpha, sigma)
    (g,) = torch.autograd.grad(-model.log_likelihood(y, D).sum(), x_t)
    eps = (x_t - alpha * D).detach() / math.sqrt(1 - at)
    c1 = alpha_next * (1 - at / at_next) / (1 - at)
    length = rho * c1 * math.sqrt((1 - at) / at) * eps.norm(dim=1, keepdim=True)
    published = -length * g / g.norm(dim=1, keepdim=True) / alpha_next
    ours = TrainingFree(model, y, rho=constant(rho), relative=True)
    shift = ours.shift(moments(prior, x, sigma))
    # An ancestral step takes the share 1 - sigma'^2 / sigma^2 of x0 + shift.
    moved = (1 - sigma_next**2 / sigma**2) * shift
    torch.testing.assert_close(moved, published, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("part", ["rho", "mu", "both"])
def test_no_step_of_guidance_lowers_the_likelihood(part):
    """Constants a thousand times too large for this noise."""
    prior, model, y, x = problem()
    parts = {
        "rho": constant(1e3) if part != "mu" else None,
        "mu": constant(1e3) if part != "rho" else None,
    }
    ours = TrainingFree(model, y, iterations=5, **parts)
    given = moments(prior, x, 1.0)
    shift, before = ours.evaluate(given)
    if part == "both":  # each climbs from D; their sum is what the paper adds
        assert bool(torch.isfinite(shift).all())
        return
    after = model.log_likelihood(y, given.x0 + shift)
    assert bool((after > before).all())
    if part == "mu":
        assert float(after.mean()) > float(before.mean()) / 4  # negative: four times nearer


def ring(x):
    """A loss of the caller's own: low on the unit circle."""
    return 5 * (x.square().sum(1) - 1).square()


def test_any_loss_guides():
    prior = priors.Gaussian(torch.zeros(2, dtype=DOUBLE), 1.0)
    energy = Energy(ring, (2,))
    posterior = inverse.condition(
        prior, energy, 0, lift=lambda m, y: TrainingFree(m, y, rho=constant(1.0))
    )
    x = inverse.sample(posterior, n=200, steps=50, seed=0, dtype=DOUBLE).x
    free = prior.sample(200, generator=torch.Generator().manual_seed(0))
    assert float(ring(x).mean()) < 0.05 * float(ring(free).mean())
    angle = torch.atan2(x[:, 1], x[:, 0])
    assert float(angle.cos().mean().abs()) < 0.25  # all around the circle


def test_an_energy_is_a_density_without_its_constant():
    energy, x = Energy(ring), torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    y = energy.check_measurement(torch.tensor(0))
    assert torch.equal(energy.log_likelihood(y, x), -ring(x))
    assert y.shape == (1,)
    with pytest.raises(TypeError, match="no measurement to simulate"):
        energy.simulate(x)
    with pytest.raises(TypeError, match="must be a function"):
        Energy(3.0)
    with pytest.raises(ValueError, match=r"expected \(3,\)"):
        Energy(lambda x: x.square()).log_likelihood(y, x)
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor"):
        Energy(lambda x: 0.0).log_likelihood(y, x)


@pytest.mark.parametrize("relative", [False, True])
def test_a_sample_depends_on_no_batch_mate(relative):
    prior, model, y, x = problem()
    ours = TrainingFree(
        model, y, rho=constant(0.5), mu=constant(0.1), spread=constant(0.2), iterations=2,
        relative=relative,
    )  # fmt: skip
    together = ours.evaluate(moments(prior, x, 0.6))
    for i in range(3):
        alone = ours.evaluate(moments(prior, x[i : i + 1], 0.6))
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a, b[i : i + 1], rtol=1e-10, atol=1e-12)


def test_bad_pairs_are_refused_at_construction():
    _, model, y, _ = problem()
    box = from_simulator(lambda x: x.square(), Gaussian(0.1), (6,), differentiable=False)
    with pytest.raises(TypeError, match="black box"):
        TrainingFree(box, y, rho=constant(1.0))
    with pytest.raises(TypeError, match="black box"):
        TrainingFree(Energy(ring, differentiable=False), y, mu=constant(1.0))
    with pytest.raises(ValueError, match="give rho"):
        TrainingFree(model, y)
    with pytest.raises(ValueError, match="iterations must be"):
        TrainingFree(model, y, mu=constant(1.0), iterations=0)
    mixture = priors.Mixture(torch.eye(2), 0.2, torch.tensor([0.5, 0.5]))
    with pytest.raises(TypeError, match="needs a ForwardModel"):
        TrainingFree(Component(mixture), y, rho=constant(1.0))
