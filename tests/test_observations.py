"""Observations: an operator and its noise, and posteriors of them."""

from __future__ import annotations

import math

import pytest
import torch
from noise_cases import CASES, DOUBLE, N
from operator_cases import normal, rng

import forward_models as fm
import inverse
import priors
from inverse.recipes import exact_posterior

# ---- observations --------------------------------------------------------------------------


def test_unmeasured_entries_of_an_observation_are_no_data():
    mask = torch.tensor([True, False, True])
    for name, case in CASES.items():
        noise = case.make()
        model = fm.Observation(fm.Inpainting(mask), noise)
        x = torch.full((4, 3), case.z[-1], dtype=DOUBLE)
        y = model.simulate(x, rng())
        assert bool((y[:, 1] == 0).all()), name
        other = y.clone()
        other[:, 1] = math.nan
        leaf = x.clone().requires_grad_()
        value = model.log_likelihood(other, leaf)
        assert torch.equal(value.detach(), model.log_likelihood(y, x)), name
        whole = fm.Observation(fm.Identity(), noise).log_likelihood(y[:, ::2], x[:, ::2])
        torch.testing.assert_close(value, whole)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        assert bool(torch.isfinite(gradient).all()), name
        mean, variance = model.gaussian(y, x)
        assert bool(torch.isinf(variance[:, 1]).all())
        assert bool((mean[:, 1] == 0).all())


def test_fields_of_an_observation():
    gaussian = fm.Observation(fm.Identity(), fm.Gaussian(0.1))
    x = torch.ones(1, 4)
    with pytest.raises(TypeError, match="complex"):
        gaussian.log_likelihood(x.to(torch.complex64), x)
    with pytest.raises(TypeError, match="complex"):
        gaussian.log_likelihood(x, x.to(torch.complex64))
    real = fm.Observation(fm.MatrixOperator(normal(3, 4)), fm.Gaussian(0.1))
    assert real.measurement_field == "real"
    rician = fm.Observation(fm.Identity(), fm.Rician(0.1))
    y = rician.simulate(x.to(torch.complex64), rng())
    assert y.dtype == torch.float32
    assert rician.log_likelihood(y, x.to(torch.complex64)).shape == (1,)
    with pytest.raises(ValueError, match="complex"):
        fm.Observation(fm.MatrixOperator(normal(3, 4, dtype=torch.complex128)), fm.Poisson())


def test_complex_information_is_the_mean_over_both_parts():
    z = torch.tensor([[0.4 + 0.3j, -1.0 + 2.0j]], dtype=torch.complex128).expand(N, -1)
    for noise in (fm.Rician(0.5), fm.Gaussian(0.5)):
        y = noise.sample(z, rng())
        score = noise.score(y, z)
        half = score.abs().square() / 2
        assert bool(((half.mean(0) - noise.information(z[:1])[0]).abs()
                     < 5 * half.std(0) / math.sqrt(N)).all())  # fmt: skip
        assert bool((score.mean(0).abs() < 5 * score.abs().std(0) / math.sqrt(N) + 0.02).all())
        leaf = z[:5].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(noise.log_prob(y[:5], leaf).sum(), leaf)
        torch.testing.assert_close(score[:5], gradient)


def test_noise_that_does_not_fit_is_refused_at_once():
    for operator in (fm.Identity((4,)), fm.MatrixOperator(normal(4, 5)) @ fm.Affine(2.0, 1.0)):
        for noise in (
            fm.Gaussian(torch.ones(3)), fm.Poisson(1.0, torch.ones(1)),
            fm.PoissonGaussian(1.0, torch.ones(3)), fm.Laplace(torch.ones(2, 2)),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=r"has shape \(.*measurement, \(4,\)"):
                fm.Observation(operator, noise)
        with pytest.raises(ValueError, match="4 entries, the covariance is of 3"):
            fm.Observation(operator, fm.CorrelatedGaussian(torch.eye(3)))
        fm.Observation(operator, fm.Gaussian(torch.ones(4)))
        fm.Observation(operator, fm.CorrelatedGaussian(torch.eye(4)))
    free = fm.Observation(fm.Identity(), fm.Gaussian(torch.ones(3)))
    with pytest.raises(ValueError, match="has shape"):
        free.log_likelihood(torch.ones(1, 4), torch.ones(1, 4))


def test_a_number_is_no_noise():
    for sigma in (0.1, 1, torch.ones(4)):
        with pytest.raises(TypeError, match=r"wrap it: Gaussian\(0\.1\)"):
            fm.Observation(fm.Identity((4,)), sigma)
    with pytest.raises(TypeError, match=r"must be a Noise, got str$"):
        fm.Observation(fm.Identity((4,)), "poisson")


# ---- posteriors ----------------------------------------------------------------------------


def small_prior(size: int = 4) -> priors.Gaussian:
    root = normal(size, size, seed=3) / 4
    covariance = root @ root.T + 0.02 * torch.eye(size, dtype=DOUBLE)
    return priors.Gaussian(torch.full((size,), 1.5, dtype=DOUBLE), covariance)


@pytest.mark.parametrize("scale", [0.3, torch.tensor([0.1, 0.4, 1.0])])
def test_gaussian_over_a_linear_operator_has_the_exact_posterior(scale):
    prior, A = small_prior(), fm.MatrixOperator(normal(3, 4))
    y = normal(1, 3, seed=2)
    expected = prior.condition(fm.LinearGaussian(A, scale), y)
    posterior = inverse.condition(prior, fm.Observation(A, fm.Gaussian(scale)), y)
    x = normal(2, 4, seed=6)
    torch.testing.assert_close(exact_posterior(posterior).denoise(x, 0.5), expected.denoise(x, 0.5))


def test_whitening_gives_the_exact_posterior():
    prior, A = small_prior(), fm.MatrixOperator(normal(3, 4))
    root = normal(3, 3, seed=8)
    R = root @ root.T + 0.1 * torch.eye(3, dtype=DOUBLE)
    model, y = fm.Observation(A, fm.CorrelatedGaussian(R)), normal(1, 3, seed=2)
    exact = exact_posterior(inverse.condition(prior, model, y))
    matrix = A.matrix
    root = normal(4, 4, seed=3) / 4
    C = root @ root.T + 0.02 * torch.eye(4, dtype=DOUBLE)
    gain = C @ matrix.T @ torch.linalg.inv(matrix @ C @ matrix.T + R)
    mean = 1.5 + (y - 1.5 * matrix.sum(1)) @ gain.T
    covariance = C - gain @ matrix @ C
    eye = torch.eye(4, dtype=DOUBLE)
    x, s = normal(2, 4, seed=6), 0.5
    denoised = mean + (x - mean) @ (covariance @ torch.linalg.inv(covariance + s**2 * eye)).T
    torch.testing.assert_close(exact.denoise(x, s), denoised)
    z = A(x)
    expected = torch.distributions.MultivariateNormal(z, R).log_prob(y)
    torch.testing.assert_close(model.log_likelihood(y, x), expected)
    draws = model.simulate(x[:1].expand(N, -1), rng()) - A(x[:1])
    error = (draws.T @ draws / N - R).abs()
    limit = 5 * ((R.diag()[:, None] * R.diag() + R**2) / N).sqrt()
    assert bool((error < limit).all())
    torch.testing.assert_close(model.noise.variance(z), R.diag().expand(2, -1))


# Noise that leaves a plug-in of 20 steps stable: information at most near 1 / (prior variance).
MODERATE = {
    "gaussian": fm.Gaussian(0.6),
    "poisson": fm.Poisson(0.2),
    "poisson-gaussian": fm.PoissonGaussian(0.2, 0.3),
    "heteroscedastic": fm.HeteroscedasticGaussian(0.2, 0.3),
    "transmission": fm.Transmission(20.0, 1.0),
    "rician": fm.Rician(0.6),
    "laplace": fm.Laplace(0.4),
    "lognormal": fm.LogNormal(0.4),
    "speckle": fm.GammaSpeckle(5),
    "quantised": fm.Quantised(0.25, 0.5),
    "saturated": fm.Saturated(0.5, 0.0, 2.0),
}


@pytest.mark.parametrize("name", list(MODERATE))
def test_sampling_moves_towards_the_data(name):
    """A few steps of guidance: finite, and a better likelihood than draws of the prior have."""
    prior, model = small_prior(), fm.Observation(fm.Identity(), MODERATE[name])
    truth = torch.tensor([[0.5, 2.4, 1.1, 1.9]], dtype=DOUBLE)
    y = model.simulate(truth, rng(2))
    posterior = inverse.condition(prior, model, y)
    samples = inverse.sample(posterior, n=2, steps=20, method="dps", seed=0)
    assert bool(torch.isfinite(samples.x).all())
    many = inverse.sample(posterior, n=64, steps=20, method="dps", seed=1).x
    unconditional = inverse.sample(prior, n=64, seed=1).x
    fitted, unfitted = (model.log_likelihood(y, x).mean() for x in (many, unconditional))
    assert float(fitted) > float(unfitted)


def test_a_class_map_guides_its_logits():
    prior = priors.Gaussian(torch.zeros(3, 2, 2, dtype=DOUBLE), 1.0)
    model = fm.Observation(fm.Identity((3, 2, 2)), fm.Categorical(3))
    y = torch.tensor([[[0, 1], [2, 2]]])
    samples = inverse.sample(inverse.condition(prior, model, y), n=64, steps=20, seed=0)
    hit = (samples.x.argmax(1) == y).double().mean()
    assert float(hit) > 0.45


# ---- low-dose CT -----------------------------------------------------------------------------


def test_affine():
    f = fm.Affine(2.0, -0.5)
    x = normal(2, 1, 4, 3)
    assert torch.equal(f(x), 2 * x - 0.5)
    chain = fm.MatrixOperator(normal(3, 12), event_shape=(1, 4, 3)) @ f
    assert chain.event_shape == (1, 4, 3)
    assert chain.input_shape((3,)) == (1, 4, 3)
    for bad in (0, math.nan):
        with pytest.raises(ValueError, match="scale"):
            fm.Affine(bad, 1.0)
    with pytest.raises(TypeError, match="shift"):
        fm.Affine(1.0, x)


def test_affine_gaussian_observations_are_linear_gaussian():
    A = fm.MatrixOperator(normal(3, 4))
    x, y = normal(5, 4, seed=1), normal(1, 3, seed=2)
    root = normal(3, 3, seed=4)
    f = fm.Affine(0.5, 2.0)
    for operator in (A @ f, f @ A, f @ (A @ f), A @ (f @ f)):
        for noise in (fm.Gaussian(0.3), fm.CorrelatedGaussian(root @ root.T)):
            model = fm.Observation(operator, noise)
            linear, moved = model.linear_gaussian(y)
            difference = linear.log_likelihood(moved, x) - model.log_likelihood(y, x)
            torch.testing.assert_close(difference, difference[:1].expand(5), atol=1e-9, rtol=0)


def test_low_dose_ct_in_hounsfield_units():
    A = fm.Tomography((9, 7), [0, 40.0, 90, 130], pixel_spacing=8.0)
    hu = 200 * normal(3, 1, 9, 7)
    projector = A @ fm.attenuation_operator()
    torch.testing.assert_close(projector(hu), A(fm.hounsfield_to_attenuation(hu)))
    model = fm.Observation(projector, fm.Transmission(1e6, 20.0))
    assert model.event_shape == (1, 9, 7)
    counts = model.simulate(hu[:1], rng())
    linear, p = fm.log_transmission(projector, counts, 1e6, 20.0)
    whitened = linear.residual(p, hu[:1]) / linear.sigma
    rays = whitened.numel()
    assert abs(float(whitened.square().mean()) - 1) < 5 * math.sqrt(2 / rays)
    expected, factor = fm.hounsfield_sinogram(A, ((counts - 20) / 1e6).log().neg())
    torch.testing.assert_close(p * factor, expected)
    # With many counts both densities have the same shape around the truth.
    steps = hu[:1] + 3 * normal(4, 1, 9, 7, seed=5)
    gaussian = linear.log_likelihood(p, steps) - linear.log_likelihood(p, hu[:1])
    poisson = model.log_likelihood(counts, steps) - model.log_likelihood(counts, hu[:1])
    torch.testing.assert_close(gaussian, poisson, rtol=0.02, atol=0.02)


def test_log_transmission_of_empty_rays():
    counts = torch.tensor([[4.0, 0.0, 1.0]])
    A = fm.MatrixOperator(normal(3, 4))
    with pytest.raises(ValueError, match=r"1 impossible entries of 3, the first at index \(0, 1\)"):
        fm.log_transmission(A, counts, 10.0)
    model, p = fm.log_transmission(A, counts, 10.0, least=0.5)
    torch.testing.assert_close(p, (10 / torch.tensor([[4.0, 0.5, 1.0]])).log())
    torch.testing.assert_close(model.sigma, torch.tensor([0.25, 2.0, 1.0]).sqrt())
    with pytest.raises(ValueError, match="2 measurements"):
        fm.log_transmission(A, counts.expand(2, 3), 10.0)
    with pytest.raises(ValueError, match="not affine"):
        fm.log_transmission(Square(), counts, 10.0)


class Square(fm.Operator):
    def _apply(self, x):
        return x.square()
