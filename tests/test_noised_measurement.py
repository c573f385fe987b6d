"""Measurements noised with the image, against the Gaussian whose joint law with x is known."""

from __future__ import annotations

import pytest
import torch
from operator_cases import normal, rng
from problems import DOUBLE, problem

import forward_models as fm
import inverse
import priors


def augmented(prior, A, S, sigma):
    """Mean and covariance of (x, y_sigma) as a linear map of the independent x0, eps and n."""
    mean, C = prior.moments()
    D, M = len(mean), len(A)
    one, zero = torch.eye(D, dtype=DOUBLE), torch.zeros(D, M, dtype=DOUBLE)
    rows = torch.cat(
        [
            torch.cat([one, sigma * one, zero], 1),
            torch.cat([A, sigma * A, torch.eye(M, dtype=DOUBLE)], 1),
        ]
    )
    spread = torch.block_diag(C, one, S)
    return torch.cat([mean, A @ mean]), rows @ spread @ rows.T


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("sigma", [1e-3, 0.3, 1.0, 30.0])
def test_the_score_of_the_augmented_model_is_the_closed_form(sigma, correlated):
    prior, model, y, x = problem()
    A, S = model.operator.matrix, 0.04 * torch.eye(4, dtype=DOUBLE)
    if correlated:
        root = normal(4, 4, seed=9)
        S = root @ root.T / 4 + 0.1 * torch.eye(4, dtype=DOUBLE)
        model = fm.Observation(model.operator, fm.CorrelatedGaussian(S))
    noised = fm.NoisedMeasurement(model, seed=4)
    y_sigma = noised.measurement(y, x, sigma)
    mean, C = augmented(prior, A, S, sigma)
    D = x.shape[1]
    gain = C[:D, D:] @ torch.linalg.inv(C[D:, D:])
    centre = mean[:D] + (y_sigma - mean[D:]) @ gain.T
    spread = C[:D, :D] - gain @ C[D:, :D]
    expected = -torch.linalg.solve(spread, (x - centre).T).T
    found = inverse.condition(prior, noised, y).score(x, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_without_noise_it_is_the_measurement_itself():
    _, model, y, x = problem()
    noised = fm.NoisedMeasurement(model)
    assert torch.equal(noised.log_likelihood(y, x, 0.0), model.log_likelihood(y, x))
    leaf = x.requires_grad_()
    gradients = [
        torch.autograd.grad(values.sum(), leaf)[0]
        for values in (noised.log_likelihood(y, leaf, 1e-9), model.log_likelihood(y, leaf))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


def test_langevin_steps_at_falling_levels_end_in_the_posterior():
    prior = priors.Gaussian(torch.tensor([0.5, -1.0], dtype=DOUBLE), 1.0)
    A = torch.tensor([[1.0, 0.5]], dtype=DOUBLE)
    model, y = fm.LinearGaussian(fm.MatrixOperator(A), 0.7), torch.tensor([1.2], dtype=DOUBLE)
    posterior = inverse.condition(prior, fm.NoisedMeasurement(model, seed=2), y)
    n, step, g = 4000, 0.02, rng(6)
    x = prior.initial(torch.randn(n, 2, generator=g, dtype=DOUBLE), 3.0)
    for sigma in torch.logspace(0.5, -3, 40).tolist():
        for _ in range(15):
            eps = torch.randn(n, 2, generator=g, dtype=DOUBLE)
            x = x + step * posterior.score(x, sigma) + (2 * step) ** 0.5 * eps
    mean, C = prior.condition(model, y).moments()
    assert float(((x.mean(0) - mean) / C.diagonal().sqrt()).abs().max()) < 5 / n**0.5
    assert float((x.T.cov() / C - 1).abs().max()) < 0.15


def test_the_measurement_moves_by_the_noise_that_moved_the_image():
    """y = A x0 exactly, and x and y_sigma share eps: y_sigma = A x."""
    A = fm.Blur(fm.gaussian_kernel(1.0), "reflect")
    x0, eps = normal(2, 3, 9, 7), normal(2, 3, 9, 7, seed=1)
    noised = fm.NoisedMeasurement(fm.LinearGaussian(A, 0.1), eps=eps)
    for sigma in (0.5, torch.tensor([0.1, 40.0])):
        x = x0 + torch.as_tensor(sigma).double().reshape(-1, 1, 1, 1) * eps
        torch.testing.assert_close(noised.measurement(A(x0), x, sigma), A(x))


def test_one_noise_for_all_images_precisions_and_batches():
    model = fm.LinearGaussian(fm.Identity(), 0.5)
    y = torch.zeros(1, 2, 5, 4, dtype=DOUBLE)
    state = torch.random.get_rng_state()
    many = fm.NoisedMeasurement(model, seed=7)
    drawn = many.measurement(y, normal(3, 2, 5, 4), 1.0)
    assert drawn.shape == (1, 2, 5, 4)
    low = fm.NoisedMeasurement(model, seed=7).measurement(y.float(), normal(1, 2, 5, 4).float(), 1)
    assert torch.equal(low, drawn.float())
    expected = torch.randn(1, 2, 5, 4, generator=rng(7), dtype=DOUBLE)
    assert torch.equal(drawn, expected)
    other = fm.NoisedMeasurement(model, seed=8).measurement(y, normal(3, 2, 5, 4), 1.0)
    assert not torch.equal(other, drawn)
    assert torch.equal(state, torch.random.get_rng_state())


def test_complex_noise_has_unit_parts():
    model = fm.LinearGaussian(fm.Identity(), 0.5)
    x = torch.zeros(1, 200, 200, dtype=torch.complex128)
    eps = fm.NoisedMeasurement(model).measurement(x, x, 1.0)
    for part in (eps.real, eps.imag):
        assert abs(float(part.var()) - 1) < 5 * (2 / 40_000) ** 0.5


def test_entries_that_are_not_measured_stay_no_data():
    A = fm.Inpainting(fm.random_mask((9, 7), 0.4, rng()))
    noised = fm.NoisedMeasurement(fm.LinearGaussian(A, 0.2), seed=1)
    x, y = normal(2, 1, 9, 7), normal(1, 1, 9, 7, seed=1)
    other = torch.where(A.measured, y, torch.nan)
    assert torch.equal(noised.log_likelihood(other, x, 0.7), noised.log_likelihood(y, x, 0.7))


def test_refusals():
    A = fm.MatrixOperator(normal(3, 4))
    for model in (A, fm.Classifier(torch.nn.Identity(), 4)):
        with pytest.raises(TypeError, match="linear with Gaussian noise"):
            fm.NoisedMeasurement(model)
    model = fm.LinearGaussian(A, 0.1)
    for seed in (-1, 0.5, True):
        with pytest.raises(ValueError, match="seed"):
            fm.NoisedMeasurement(model, seed=seed)
    with pytest.raises(TypeError, match="int64"):
        fm.NoisedMeasurement(model, eps=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"eps has 1 non-finite|has 1 non-finite"):
        fm.NoisedMeasurement(model, eps=torch.tensor([0.0, 1, 2, torch.inf]))
    with pytest.raises(ValueError, match=r"expected \(B, 4\)"):
        fm.NoisedMeasurement(model, eps=torch.zeros(5))
    each = fm.NoisedMeasurement(model, eps=normal(2, 4))
    with pytest.raises(ValueError, match="in one batch"):
        each.log_likelihood(normal(3), normal(3, 4), 0.5)
