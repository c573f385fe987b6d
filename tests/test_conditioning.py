"""Exact posteriors: against independent formulas, quadrature, grids, and one another."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from prior_cases import (
    GAUSSIANS,
    MIXTURES,
    AtomLikelihood,
    Matrix,
    linear,
    masked,
    normal,
    positive,
    spd,
)
from scipy import integrate, stats

from forward_models import Inpainting, LinearGaussian, MatrixOperator
from priors import Circulant, Empirical, FactorAnalysis, Gaussian, LowRank, Mixture

PRIORS = {name: make for name, make in (GAUSSIANS | MIXTURES).items() if name != "single value"}
each = pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS.keys())


def close(found, expected, tolerance=1e-8):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def three():
    """A mixture of three in two dimensions."""
    covariances = torch.stack([0.3 * spd(2, seed=k) for k in range(3)])
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    return Mixture(2 * normal(3, 2, seed=4), covariances, weights)


@pytest.mark.parametrize("make", GAUSSIANS.values(), ids=GAUSSIANS.keys())
def test_gaussian_against_the_information_form(make):
    """C' = (C^-1 + A^T S^-1 A)^-1, m' = C' (C^-1 m + A^T S^-1 y), by numpy."""
    prior = make()
    mean, C = (part.numpy() for part in prior.moments())
    D = C.shape[0]
    A, S, y = normal(3, D, seed=1).numpy(), positive(3, seed=2), normal(3, seed=3)
    posterior = prior.condition(linear(torch.as_tensor(A), prior, S), y)
    precision = np.linalg.inv(C) + A.T @ np.diag(1 / S.numpy()) @ A
    covariance = np.linalg.inv(precision)
    expected = covariance @ (np.linalg.solve(C, mean.ravel()) + A.T @ (y / S).numpy())
    assert posterior.event_shape == prior.event_shape
    close(posterior.moments()[0].flatten(), torch.as_tensor(expected))
    close(posterior.moments()[1], torch.as_tensor(covariance))
    evidence = stats.multivariate_normal(A @ mean.ravel(), A @ C @ A.T + np.diag(S.numpy()))
    found = prior.log_evidence(linear(torch.as_tensor(A), prior, S), y)
    assert float(found) == pytest.approx(evidence.logpdf(y.numpy()), rel=1e-10)


@each
def test_bayes_rule_for_densities(make):
    """log p(x | y) = log p(x) + log p(y | x) - log p(y), at every x."""
    prior = make()
    D = math.prod(prior.event_shape)
    A, y = normal(2, D, seed=1), normal(2, seed=2)
    model = linear(A, prior, 0.4)
    x = prior.sample(5, torch.Generator().manual_seed(0)).double()
    likelihood = stats.norm(0, math.sqrt(0.4)).logpdf(y - x.reshape(5, -1) @ A.T).sum(-1)
    expected = prior.log_density(x) + torch.as_tensor(likelihood) - prior.log_evidence(model, y)
    close(prior.condition(model, y).log_density(x), expected)


@each
def test_one_after_the_other_is_both_at_once(make):
    prior = make()
    D = math.prod(prior.event_shape)
    A, y, S = normal(4, D, seed=1), normal(4, seed=2), positive(4, seed=3)
    first, second = linear(A[:1], prior, S[:1]), linear(A[1:], prior, S[1:])
    chained = prior.condition(first, y[:1]).condition(second, y[1:])
    joint = prior.condition(linear(A, prior, S), y)
    for found, expected in zip(chained.moments(), joint.moments(), strict=True):
        close(found, expected)
    x = prior.sample(3, torch.Generator().manual_seed(0)).double()
    close(chained.denoise(x, 0.4), joint.denoise(x, 0.4))
    steps = prior.log_evidence(first, y[:1]) + prior.condition(first, y[:1]).log_evidence(
        second, y[1:]
    )
    close(steps, prior.log_evidence(linear(A, prior, S), y))


def test_one_dimension_by_quadrature():
    prior = Mixture(
        torch.tensor([[-2.0], [1.0]]),
        torch.tensor([0.3, 1.2]),
        torch.tensor([0.35, 0.65], dtype=torch.float64),
    )
    model, y = linear(torch.tensor([[1.5]]).double(), prior, 0.5), torch.tensor([0.4]).double()

    def joint(x, power=0):
        density = 0.35 * stats.norm(-2, math.sqrt(0.3)).pdf(x)
        density += 0.65 * stats.norm(1, math.sqrt(1.2)).pdf(x)
        return x**power * density * stats.norm(1.5 * x, math.sqrt(0.5)).pdf(0.4)

    evidence, mean, square = (
        integrate.quad(joint, -15, 15, args=(p,), points=[-2, 1], epsabs=1e-13)[0] for p in range(3)
    )
    tolerance = {"rel": 1e-6}  # the variances 0.3 and 1.2 come in float32
    assert float(prior.log_evidence(model, y)) == pytest.approx(math.log(evidence), **tolerance)
    posterior = prior.condition(model, y)
    found_mean, found_variance = posterior.moments()
    assert float(found_mean) == pytest.approx(mean / evidence, **tolerance)
    expected = square / evidence - (mean / evidence) ** 2
    assert float(found_variance) == pytest.approx(expected, **tolerance)


def test_two_dimensions_on_a_grid():
    """Evidence, mean, covariance and denoiser of a mixture's posterior by summation."""
    prior = three()
    A, y, S, sigma = normal(1, 2, seed=6), torch.tensor([0.7]).double(), 0.2, 0.5
    posterior = prior.condition(linear(A, prior, S), y)
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    cell = float(axis[1] - axis[0]) ** 2
    log_joint = prior.log_density(x) - (y - x @ A.T).squeeze(-1) ** 2 / (2 * S)
    weight = (log_joint - math.log(2 * math.pi * S) / 2).exp() * cell
    close(prior.log_evidence(linear(A, prior, S), y), weight.sum().log())
    weight = weight / weight.sum()
    mean = weight @ x
    close(posterior.mean, mean)
    centred = x - mean
    close(posterior.moments()[1], (weight.unsqueeze(-1) * centred).T @ centred)
    noisy = torch.tensor([[0.5, -0.8]]).double()
    seen = weight * (-((noisy - x) ** 2).sum(-1) / (2 * sigma**2)).exp()
    close(posterior.denoise(noisy, sigma)[0], seen @ x / seen.sum())


@pytest.mark.parametrize("noise", ["one", "for each"])
def test_a_mask_without_matrices_equals_one_with(noise):
    mean, variance, y = normal(2, 3), positive(2, 3), normal(2, 3, seed=2)
    measured = torch.tensor([[True, False, True], [False, True, False]])
    S = torch.tensor(0.3, dtype=torch.float64) if noise == "one" else positive(2, 3, seed=3)
    diagonal, dense = Gaussian(mean, variance), Gaussian(mean, torch.diag(variance.flatten()))
    y = torch.where(measured, y, math.nan)
    posterior = diagonal.condition(masked(measured, S), y)
    expected = dense.condition(masked(measured, S), y)
    assert posterior.C.smallest > 0
    close(posterior.moments()[0], expected.moments()[0], 1e-12)
    close(posterior.moments()[1], expected.moments()[1], 1e-12)
    close(diagonal.log_evidence(masked(measured, S), y), dense.log_evidence(masked(measured, S), y))


FACTORS = {
    "low rank": lambda: Gaussian(normal(2, 3), LowRank(normal(6, 2), 0.3)),
    "factor analysis": lambda: Gaussian(normal(2, 3), FactorAnalysis(normal(6, 2), positive(6))),
    "mixture": lambda: Mixture(
        normal(3, 2, 3),
        [
            LowRank(normal(6, 1), 0.2),
            FactorAnalysis(normal(6, 3), positive(6)),
            Gaussian(normal(2, 3), positive(2, 3)).C,
        ],
        torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64),
    ),
}


@pytest.mark.parametrize("make", FACTORS.values(), ids=FACTORS.keys())
def test_factors_under_a_mask_stay_factors(make):
    """The small solve of R factors equals matrices, and serves a second mask as well as one."""
    prior = make()
    measured = torch.tensor([[True, False, True], [False, True, False]])
    y, S = normal(2, 3, seed=2), positive(2, 3, seed=3)
    dense = (
        Gaussian(prior.mean, prior.C.dense())
        if isinstance(prior, Gaussian)
        else Mixture(prior.means, prior.covariances, prior.weights)
    )
    again = masked(~measured, S)
    found = prior.condition(masked(measured, S), torch.where(measured, y, math.nan))
    expected = dense.condition(masked(measured, S), y)
    for posterior, matrices in ((found, expected), (found.condition(again, y), None)):
        matrices = expected.condition(again, y) if matrices is None else matrices
        parts = [posterior.C] if isinstance(posterior, Gaussian) else posterior.C
        assert all(isinstance(C, FactorAnalysis) for C in parts)
        close(posterior.moments()[0], matrices.moments()[0], 1e-10)
        close(posterior.moments()[1], matrices.moments()[1], 1e-10)
        if isinstance(posterior, Mixture):
            close(posterior.weights, matrices.weights, 1e-10)
    close(prior.log_evidence(masked(measured, S), y), dense.log_evidence(masked(measured, S), y))
    nothing = masked(torch.zeros(2, 3, dtype=torch.bool), S)
    close(prior.condition(nothing, y).moments()[1], prior.moments()[1], 1e-10)
    assert float(prior.log_evidence(nothing, y)) == pytest.approx(0.0, abs=1e-12)


def test_few_measurements_of_low_rank_build_no_matrix_of_the_image():
    """R + M eigenvalues and one more."""
    factor = normal(1024, 3) / 30
    low, S = LowRank(factor, 0.2), 0.3
    prior = Gaussian(torch.zeros(1, 32, 32).double(), low)
    A = normal(4, 1024, seed=1) / 30
    y = normal(4, seed=2)
    posterior = prior.condition(linear(A, prior, S), y)
    C = factor @ factor.T @ A.T + 0.2 * A.T  # C A^T
    gain = torch.linalg.solve(A @ C + S * torch.eye(4).double(), C.T).T
    close(posterior.mean.flatten(), gain @ y, 1e-10)
    assert isinstance(posterior.C, LowRank)
    assert posterior.C.basis.shape == (1024, 7)
    v = normal(2, 1, 32, 32, seed=5)
    expected = low.matvec(v).flatten(1) - (v.flatten(1) @ C) @ gain.T
    close(posterior.C.matvec(v).flatten(1), expected, 1e-10)


def test_a_mask_over_a_large_image_builds_no_matrix():
    prior = Gaussian(torch.zeros(3, 128, 128), 2.0)
    measured = torch.arange(128) % 2 == 0
    posterior = prior.condition(masked(measured, 0.5), torch.ones(1, 3, 128, 128))
    close(posterior.mean[..., 0], torch.full((3, 128), 0.8), 1e-6)
    close(posterior.mean[..., 1], torch.zeros(3, 128), 0)
    assert posterior.dtype == torch.float32


def test_unmeasured_rows_are_no_data():
    prior = three()
    A, y = normal(4, 2, seed=1), normal(4, seed=2)
    kept = torch.tensor([True, False, True, False])
    S = positive(4, seed=3)
    dropped = torch.where(kept, y, math.nan)
    found = prior.condition(linear(A, prior, S, measured=kept), dropped)
    expected = prior.condition(linear(A[kept], prior, S[kept]), y[kept])
    close(found.moments()[1], expected.moments()[1])
    close(
        prior.log_evidence(linear(A, prior, S, measured=kept), dropped),
        prior.log_evidence(linear(A[kept], prior, S[kept]), y[kept]),
    )
    nothing = linear(A, prior, S, measured=torch.zeros(4, dtype=torch.bool))
    close(prior.condition(nothing, y).moments()[1], prior.moments()[1])
    assert float(prior.log_evidence(nothing, y)) == pytest.approx(0.0, abs=1e-12)


def test_measurements_of_any_shape_with_or_without_a_batch():
    prior = Gaussian(normal(2, 3), spd(6))
    A, y = normal(4, 6, seed=1), normal(4, seed=2)
    flat = prior.condition(linear(A, prior), y)
    shaped = linear(A, prior, torch.full((2, 2), 0.3), shape=(2, 2))
    for data in (y.reshape(2, 2), y.reshape(1, 2, 2)):
        close(prior.condition(shaped, data).moments()[1], flat.moments()[1], 1e-6)


def test_a_complex_entry_is_two_real_ones():
    prior = Gaussian(normal(3), spd(3))
    A = torch.complex(normal(2, 3, seed=1), normal(2, 3, seed=2))
    y = torch.complex(normal(2, seed=3), normal(2, seed=4))
    S, measured = torch.tensor([0.2, 0.5]).double(), torch.tensor([True, False])
    stacked, data = torch.cat([A.real, A.imag]), torch.cat([y.real, y.imag])
    for kept in (None, measured):
        found = prior.condition(linear(A, prior, S, measured=kept), y)
        rows = None if kept is None else kept.repeat(2)
        expected = prior.condition(linear(stacked, prior, S.repeat(2), measured=rows), data)
        close(found.moments()[0], expected.moments()[0])
        close(found.moments()[1], expected.moments()[1])


def test_an_exact_measurement():
    """S = 0: the posterior lies in the plane A x = y."""
    for prior in (Gaussian(normal(3), spd(3)), Mixture(normal(2, 3), spd(3), torch.ones(2) / 2)):
        A, y = normal(2, 3, seed=1), normal(2, seed=2)
        posterior = prior.condition(linear(A, prior, 0.0), y)
        close(A @ posterior.mean, y, 1e-9)
        draws = posterior.sample(4, torch.Generator().manual_seed(0))
        close(draws @ A.T, y.expand(4, 2), 1e-6)
        x0 = posterior.denoise(draws + 0.1, 0.1)
        close(x0 @ A.T, y.expand(4, 2), 1e-6)


def test_a_measurement_of_little_noise_leaves_a_covariance():
    """Very informative data must not leave negative eigenvalues."""
    prior = Gaussian(normal(8), 1e4 * spd(8))
    posterior = prior.condition(linear(normal(8, 8, seed=1), prior, 1e-10), normal(8, seed=2))
    assert posterior.C.smallest > 0
    A = normal(8, 8, seed=1)
    expected = 1e-10 * torch.linalg.inv(A.T @ A)
    close(posterior.C.dense() / expected.norm(), expected / expected.norm(), 1e-4)


def test_the_toolkits_own_forward_models():
    prior = Gaussian(normal(1, 4, 4), Circulant(torch.ones(4, 4)))
    mask = torch.zeros(1, 4, 4, dtype=torch.float64)
    mask[..., ::2] = 1
    y = mask * normal(1, 4, 4, seed=1)
    posterior = prior.condition(LinearGaussian(Inpainting(mask), 0.5), y)
    close(posterior.mean[..., 1], prior.mean[..., 1], 1e-12)
    close(posterior.mean[..., 0], (0.25 * prior.mean + y)[..., 0] / 1.25, 1e-12)
    flat, A = Gaussian(normal(3), spd(3)), normal(2, 3, seed=1)
    model = LinearGaussian(MatrixOperator(A), 0.5)
    found = flat.condition(model, y.flatten()[:2])
    expected = flat.condition(linear(A, flat, 0.25), y.flatten()[:2])
    close(found.moments()[1], expected.moments()[1], 1e-12)


def test_a_data_set_under_a_nonlinear_model(monkeypatch):
    monkeypatch.setattr("priors.analytic.empirical._CHUNK", 4)
    atoms, weights = normal(9, 2), positive(9) / positive(9).sum()
    y = torch.tensor(1.2).double()
    prior = Empirical(atoms, weights)
    joint = weights * AtomLikelihood().log_likelihood(y, atoms).exp()
    assert float(prior.log_evidence(AtomLikelihood(), y)) == pytest.approx(float(joint.sum().log()))
    close(prior.condition(AtomLikelihood(), y).weights, joint / joint.sum(), 1e-12)


class Affine(Matrix):
    def __call__(self, x):
        return super().__call__(x) + 1


class Square(Matrix):
    def __call__(self, x):
        return super().__call__(x) ** 2


def test_refusals(monkeypatch):
    A, y = normal(2, 3, seed=1), normal(2, seed=2)
    for prior in (
        Gaussian(normal(3), spd(3)),
        Gaussian(normal(3), 1.0),
        Mixture(normal(2, 3), 1.0, torch.ones(2) / 2),
    ):
        good = linear(A, prior)
        bad_models = [
            object(),
            SimpleNamespace(operator=good.operator),
            SimpleNamespace(operator=lambda x: x, noise_variance=1.0),
            SimpleNamespace(noise_variance=1.0),
        ]
        for model in bad_models:
            with pytest.raises(TypeError, match="needs a linear-Gaussian forward model"):
                prior.condition(model, y)
            with pytest.raises(TypeError, match="needs a linear-Gaussian forward model"):
                prior.log_evidence(model, y)
        for operator in (Affine(A, (3,)), Square(A, (3,))):
            with pytest.raises(TypeError, match="needs a linear operator"):
                prior.condition(SimpleNamespace(operator=operator, noise_variance=1.0), y)
        for wrong in (normal(3), normal(2, 2), normal(1, 1, 2), torch.tensor(1.0)):
            with pytest.raises(ValueError, match="y must be one measurement of shape"):
                prior.condition(good, wrong)
        with pytest.raises(TypeError, match="int64"):
            prior.condition(good, y.long())
        with pytest.raises(TypeError, match="got list"):
            prior.condition(good, y.tolist())
        with pytest.raises(ValueError, match="1 entries are not"):
            prior.condition(good, torch.tensor([1.0, math.nan]))
        with pytest.raises(ValueError, match="noise variance must be finite and >= 0"):
            prior.condition(linear(A, prior, -1.0), y)
        with pytest.raises(ValueError, match="does not fit the measurement's shape"):
            prior.condition(linear(A, prior, torch.ones(3)), y)
        with pytest.raises(ValueError, match=r"A C A\^T \+ S is singular"):
            prior.condition(linear(torch.ones(2, 3).double(), prior, 0.0), y)
    with pytest.raises(TypeError, match="needs a forward model with log_likelihood"):
        Empirical(normal(2, 3)).condition(object(), y)
    monkeypatch.setattr("priors.analytic.linear_gaussian.LIMIT", 8)
    with pytest.raises(ValueError, match="method='mmps'"):
        prior.condition(good, y)


def test_a_complex_measurement_of_a_real_model_is_refused():
    prior = Gaussian(normal(3), spd(3))
    with pytest.raises(TypeError, match="y must be real"):
        prior.condition(linear(normal(2, 3), prior), torch.ones(2, dtype=torch.complex128))
    diagonal = Gaussian(normal(3), 1.0)
    with pytest.raises(TypeError, match="y must be real"):
        diagonal.condition(
            masked(torch.ones(3, dtype=torch.bool)), torch.ones(3, dtype=torch.complex128)
        )
