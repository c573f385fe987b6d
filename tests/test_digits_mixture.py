"""Methods and densities at image size, on the mixture of digits with its exact posterior."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import inverse
import priors
from forward_models import Inpainting, LinearGaussian


def half_seen() -> tuple[priors.Mixture, LinearGaussian, Tensor]:
    """A draw of the prior, its left half measured."""
    prior = priors.load("digits-mixture")
    assert isinstance(prior, priors.Mixture)
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(1, 28, 28)
    mask[..., 14:] = 0
    model = LinearGaussian(Inpainting(mask), 0.1)
    return prior, model, model.simulate(prior.sample(1, generator), generator)[0]


@pytest.mark.parametrize(
    ("method", "settings"), [("exact", {"n": 64}), ("mmps", {"n": 8, "steps": 40})]
)
def test_inpainting_has_the_exact_mean_and_spread(method, settings):
    """784 means within the error of n draws, and their total variance."""
    prior, model, y = half_seen()
    mean, covariance = prior.condition(model, y).moments()
    variance = covariance.diagonal().reshape(1, 28, 28)
    target = inverse.condition(prior, model, y)
    x = inverse.sample(target, method=method, seed=0, **settings).x.double()
    z = (x.mean(0) - mean) / (variance / len(x)).sqrt()
    assert 0.7 < float(z.square().mean().sqrt()) < 1.3
    assert 0.75 < float(x.var(0).sum() / variance.sum()) < 1.25


@pytest.mark.parametrize(("method", "steps"), [("diffpir", 20), ("dps", 40), ("pigdm", 100)])
def test_rough_methods_come_near_the_measurement_and_the_exact_mean(method, steps):
    """Nearer to the exact mean than the prior's, by more than their own spread."""
    prior, model, y = half_seen()
    mean, covariance = prior.condition(model, y).moments()
    target = inverse.condition(prior, model, y)
    samples = inverse.sample(target, n=2, method=method, steps=steps, seed=0)
    assert 0.7 < math.sqrt(samples.diagnostics["reduced_chi2"]) < 1.5
    error = float((samples.mean - mean).square().mean().sqrt())
    assert error < 2 * float(covariance.diagonal().mean().sqrt())
    assert error < 0.6 * float((prior.moments()[0] - mean).square().mean().sqrt())


def test_exact_draws_choose_components_by_their_evidence():
    """Little is seen, so that several components remain possible."""
    prior, _, _ = half_seen()
    mask = torch.zeros(1, 28, 28)
    mask[:, 12:16, 12:16] = 1
    model = LinearGaussian(Inpainting(mask), 0.3)
    truth = prior.sample(1, torch.Generator().manual_seed(3))
    y = model.simulate(truth, torch.Generator().manual_seed(4))[0]
    posterior = prior.condition(model, y)
    assert int((posterior.weights > 0.03).sum()) >= 3
    n = 400
    target = inverse.condition(prior, model, y)
    x = inverse.sample(target, n=n, method="exact", seed=0).x.double()
    found = posterior.responsibilities(x, 0.0).mean(0)
    error = (posterior.weights * (1 - posterior.weights) / n).sqrt().double()
    assert bool(((found - posterior.weights).abs() <= 5 * error + 1e-3).all())


def other_pictures() -> Tensor:
    """A smooth blob, stripes, a shirt and trousers, (4, 1, 28, 28) in [0, 1]."""
    axis = torch.linspace(-1, 1, 28)
    v, h = torch.meshgrid(axis, axis, indexing="ij")
    blob = (-(v**2 + h**2) / 0.3).exp()
    stripes = (torch.arange(28) % 6 < 3).float().expand(28, 28)
    shirt = ((h.abs() < 0.45) & (v.abs() < 0.85)) | ((h.abs() < 0.9) & (v < -0.3) & (v > -0.85))
    trousers = (h.abs() < 0.5) & (v.abs() < 0.9) & ~((h.abs() < 0.12) & (v > -0.4))
    return torch.stack([blob, stripes, 0.7 * shirt, 0.8 * trousers]).unsqueeze(1)


def test_pictures_of_other_things_are_less_probable_than_digits():
    mixture = priors.load("digits-mixture")
    assert isinstance(mixture, priors.Mixture)
    digits = mixture.sample(40, torch.Generator().manual_seed(5)).clamp(0, 1)
    inside, outside = (mixture.log_density(x, 0.02) for x in (digits, other_pictures()))
    assert float(inside.min()) > float(outside.max())
