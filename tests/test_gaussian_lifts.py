"""The Gaussian lifts against closed forms, and what each approximation is exact for."""

from __future__ import annotations

import math

import pytest
import torch
from likelihood_cases import CASES, moments
from problems import DOUBLE, problem

import inverse
import priors
from forward_models import (
    GammaSpeckle,
    Gaussian,
    Identity,
    Inpainting,
    LinearGaussian,
    Observation,
    Poisson,
    Quantised,
    from_simulator,
)
from inverse.likelihoods import (
    GaussianLift,
    Isotropic,
    LinearisedLift,
    Moments,
    Tweedie,
)


def test_linearised_is_tweedies_for_linear_gaussian_models():
    prior, linear, y, x = problem()
    observed = Observation(linear.operator, Gaussian(linear.sigma))
    given = moments(prior, x, 0.7)
    expected = GaussianLift(linear, y, Tweedie()).shift(given)
    torch.testing.assert_close(LinearisedLift(observed, y).shift(given), expected)


@pytest.mark.parametrize("noise", [Poisson(0.02), GammaSpeckle(8.0), Quantised(0.25, 0.15)])
def test_linearised_samples_of_one_value_against_quadrature(noise):
    """A Gaussian prior of one value, and noise that is not Gaussian."""
    prior = priors.Gaussian(torch.tensor([1.0], dtype=DOUBLE), 0.09)
    model = Observation(Identity((1,)), noise)
    y = model.simulate(torch.tensor([[1.3]], dtype=DOUBLE), torch.Generator().manual_seed(3))
    grid = torch.linspace(0.01, 3, 6000, dtype=DOUBLE)[:, None]
    log = model.log_likelihood(y, grid) - (grid[:, 0] - 1).square() / 0.18
    weight = torch.softmax(log, 0)
    mean = float(weight @ grid[:, 0])
    std = float((weight @ (grid[:, 0] - mean).square()).sqrt())
    n = 2000
    samples = inverse.sample(inverse.condition(prior, model, y), n=n, steps=60, seed=0)
    assert samples.diagnostics["method"] == "mmps"
    # The stand-in is Gaussian: what it leaves of the skewness is within a tenth of the spread.
    assert abs(float(samples.mean) - mean) < (0.1 + 5 / n**0.5) * std
    assert abs(float(samples.std) / std - 1) < 0.1 + 5 / (2 * n) ** 0.5


def test_masked_and_black_box_observations():
    prior, linear, y, x = problem()
    seen = torch.tensor([True, False, True, True])
    operator = Inpainting(seen) @ linear.operator
    observed = LinearisedLift(Observation(operator, Gaussian(0.3)), y * seen)
    expected = GaussianLift(LinearGaussian(operator, 0.3), y * seen, Tweedie())
    given = moments(prior, x, 0.7)
    torch.testing.assert_close(observed.shift(given), expected.shift(given))
    box = from_simulator(lambda x: x.square(), Gaussian(0.1), (3,), differentiable=False)
    with pytest.raises(TypeError, match="differentiable"):
        LinearisedLift(box, y)
    with pytest.raises(TypeError, match="independent noise"):
        LinearisedLift(linear, y)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 10.0])
def test_tweedie_is_exact_for_gaussian_priors(sigma):
    """Score and log-likelihood against the closed form p_sigma(y | x)."""
    prior, model, y, x = problem()
    lift, given = GaussianLift(model, y, Tweedie()), moments(prior, x, sigma)
    posterior = prior.condition(model, y)
    exact = posterior.denoise(x, sigma) - prior.denoise(x, sigma)
    assert torch.allclose(lift.shift(given), exact, rtol=1e-6, atol=1e-9)
    # log p_sigma(y | x) = log p_sigma(x | y) + log p(y) - log p_sigma(x)
    evidence = priors.Mixture(
        prior.mean[None], prior.C.dense()[None], torch.ones(1, dtype=DOUBLE)
    ).log_evidence(model, y)
    expected = posterior.log_density(x, sigma) + evidence - prior.log_density(x, sigma)
    assert torch.allclose(lift.log_likelihood(given), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("jacobian", [True, False])
@pytest.mark.parametrize("sigma", [0.01, 0.5, 5.0])
def test_isotropic_is_exact_for_isotropic_gaussian_priors(sigma, jacobian):
    prior, model, y, x = problem(isotropic=True)
    lift = GaussianLift(model, y, Isotropic(s=math.sqrt(0.7)), jacobian)
    exact = prior.condition(model, y).denoise(x, sigma) - prior.denoise(x, sigma)
    assert torch.allclose(lift.shift(moments(prior, x, sigma)), exact, rtol=1e-8, atol=1e-10)


def test_isotropic_and_zero_are_not_exact_for_correlated_priors():
    prior, model, y, x = problem()
    exact = prior.condition(model, y).denoise(x, 1.0) - prior.denoise(x, 1.0)
    for name in ("zero", "isotropic", "isotropic, no Jacobian", "normalized"):
        shift = CASES[name].make(model, y).shift(moments(prior, x, 1.0))
        assert (shift - exact).norm() > 0.05 * exact.norm(), name


def test_tweedie_spends_one_product_an_iteration():
    prior, model, y, x = problem()
    for iterations in (1, 2, 3):
        calls = []
        x0, product = prior.covariance(x, 1.0)

        def counted(v, product=product, calls=calls):
            calls.append(1)
            return product(v)

        level = torch.full((3, 1), 1.0, dtype=DOUBLE)
        GaussianLift(model, y, Tweedie(iterations)).shift(Moments(x, level, x0, counted))
        assert len(calls) == iterations


def test_tweedie_truncated_approaches_the_full_solve():
    prior, model, y, x = problem()
    given = moments(prior, x, 1.0)
    full = GaussianLift(model, y, Tweedie()).shift(given)
    errors = [
        float((GaussianLift(model, y, Tweedie(k)).shift(given) - full).norm()) for k in (1, 2, 3, 4)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-8  # four measurements: four iterations are exact
