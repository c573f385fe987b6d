"""The prior contract: what every prior promises, run over one list of factories."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prior_cases import (
    CONTRACT,
    EXACT,
    GAUSSIANS,
    LOADED,
    MIXTURES,
    NETWORKS,
    SINGULAR,
    SMOOTH,
    inner_prior,
    network_prior,
    normal,
    positive,
    spd,
    spectrum,
)

import priors
from priors import Circulant, Empirical, FactorAnalysis, Gaussian, Kronecker, LowRank, Mixture
from priors.analytic.covariance import Dense, Diagonal

LEVELS = (0.05, 0.7, 20.0)


def over(factories):
    return pytest.mark.parametrize("make", factories.values(), ids=factories.keys())


def noisy(prior, sigma, batch=3, seed=5):
    """A batch of noisy images near the prior's mass."""
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(batch, *prior.event_shape, generator=generator, dtype=torch.float64)
    if hasattr(prior, "sample"):
        return prior.sample(batch, generator).double() + sigma * eps
    return 0.5 + 0.3 * eps.flip(0) + sigma * eps


def size_of(prior):
    return math.prod(prior.event_shape)


def close(found, expected, tolerance=1e-8):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def dense_covariance(prior, x, sigma):
    """Cov[x0 | x] of a batch of one, column by column from the products, (D, D)."""
    _, product = prior.covariance(x, sigma)
    size = size_of(prior)
    columns = [product(v.reshape(x.shape)).flatten() for v in torch.eye(size).double()]
    return torch.stack(columns, -1)


# --- what every prior promises -------------------------------------------------------------------


@over(CONTRACT)
@pytest.mark.parametrize("sigma", LEVELS)
def test_covariance_is_the_denoisers_derivative(make, sigma):
    prior = make()
    x = noisy(prior, sigma, batch=1)
    jacobian = torch.autograd.functional.jacobian(lambda z: prior.denoise(z, sigma), x)
    found = dense_covariance(prior, x, sigma)
    expected = sigma**2 * jacobian.reshape(found.shape)
    scale = max(float(expected.abs().max()), 1e-3 * sigma**2)
    close(found / scale, expected / scale)
    close(found / scale, found.T / scale)
    assert float(torch.linalg.eigvalsh((found + found.T) / 2).min()) >= -1e-9 * scale
    close(prior.covariance(x, sigma)[0], prior.denoise(x, sigma), 1e-12)


@over(LOADED)
@pytest.mark.parametrize("sigma", LEVELS)
def test_covariance_products_are_the_denoisers_slopes(make, sigma):
    """u . sigma^2 J v by central differences, for images too large for the whole matrix."""
    prior = make()
    x, u, v = (normal(2, *prior.event_shape, seed=s) for s in (5, 6, 7))
    x, h = 0.5 * x + sigma * u, 1e-4 * sigma
    slope = sigma * 1e4 * (prior.denoise(x + h * v, sigma) - prior.denoise(x - h * v, sigma)) / 2
    x0, product = prior.covariance(x, sigma)
    close(x0, prior.denoise(x, sigma), 1e-12)
    inner = [(a * b).flatten(1).sum(-1) for a, b in ((u, slope), (product(u), v))]
    scale = float(slope.norm() * u.norm())
    close(inner[0] / scale, inner[1] / scale, 1e-6)


@over(CONTRACT | LOADED)
def test_covariance_serves_a_batch_with_a_level_for_each(make):
    prior = make()
    levels = torch.tensor([0.1, 0.8, 9.0], dtype=torch.float64)
    x, v = noisy(prior, 0.5), normal(3, *prior.event_shape, seed=8)
    whole = prior.covariance(x, levels)[1](v)
    for i, sigma in enumerate(levels):
        close(whole[i], prior.covariance(x[i : i + 1], sigma)[1](v[i : i + 1])[0], 1e-10)


@over(CONTRACT | LOADED)
@pytest.mark.parametrize("sigma", LEVELS)
def test_score_and_denoiser_are_tweedies_pair(make, sigma):
    prior = make()
    x = noisy(prior, sigma)
    rebuilt = x + sigma**2 * prior.score(x, sigma)
    close(rebuilt, prior.denoise(x, sigma), 1e-10 * max(1.0, sigma))


@over(CONTRACT | LOADED)
def test_batch_items_do_not_know_each_other(make):
    prior = make()
    x = noisy(prior, 0.5, batch=4)
    levels = torch.tensor([0.02, 0.5, 3.0, 40.0], dtype=torch.float64)
    together, scores = prior.denoise(x, levels), prior.score(x, levels)
    for i, sigma in enumerate(levels):
        one = x[i : i + 1]
        close(together[i : i + 1], prior.denoise(one, float(sigma)), 1e-12)
        close(together[i : i + 1], prior.denoise(one, levels[i : i + 1]), 1e-12)
        close(scores[i : i + 1], prior.score(one, sigma), 1e-10)


@over(CONTRACT | LOADED)
def test_no_noise_leaves_the_image(make):
    prior = make()
    x = noisy(prior, 0.5)
    assert torch.equal(prior.denoise(x, 0.0), x)
    mixed = prior.denoise(x, torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64))
    assert torch.equal(mixed[0], x[0])
    close(mixed[1], prior.denoise(x, 0.5)[1], 1e-12)
    _, product = prior.covariance(x, 0.0)
    assert float(product(torch.ones_like(x)).abs().max()) == 0


@over(CONTRACT | LOADED)
def test_float32(make):
    prior = make()
    x = noisy(prior, 0.5)
    single = x.float()
    assert prior.denoise(single, 0.5).dtype == torch.float32
    assert prior.score(single, 0.5).dtype == torch.float32
    close(prior.denoise(single, 0.5).double(), prior.denoise(x, 0.5), 1e-4)
    x0, product = prior.covariance(single, 0.5)
    assert x0.dtype == torch.float32
    v = torch.ones_like(x)
    close(product(v.float()).double(), prior.covariance(x, 0.5)[1](v), 1e-4)
    if hasattr(prior, "log_density"):
        assert prior.log_density(single, 0.5).dtype == torch.float32
        close(prior.log_density(single, 0.5).double(), prior.log_density(x, 0.5), 1e-4)
    close(prior.denoise(x, 0.5), prior.denoise(x.clone(), 0.5), 1e-15)


@over(CONTRACT | LOADED)
def test_nothing_outside_is_touched(make):
    prior = make()
    x, sigma = noisy(prior, 0.5), torch.full((3,), 0.5, dtype=torch.float64)
    before, state = x.clone(), torch.get_rng_state()
    prior.denoise(x, sigma)
    prior.score(x, sigma)
    prior.covariance(x, sigma)[1](x)
    prior.initial(x, 2.0)
    if hasattr(prior, "sample"):
        prior.sample(2)
        prior.log_density(x, sigma)
    assert torch.equal(x, before)
    assert torch.equal(sigma, torch.full_like(sigma, 0.5))
    assert torch.equal(torch.get_rng_state(), state)
    assert not prior.denoise(x, sigma).requires_grad


@over(CONTRACT | LOADED)
def test_bad_inputs_are_refused(make):
    prior = make()
    x = noisy(prior, 0.5)
    for call in (prior.denoise, prior.score, prior.covariance):
        with pytest.raises(ValueError, match="shape"):
            call(x.unsqueeze(-1), 0.5)
        with pytest.raises(ValueError, match="B >= 1"):
            call(x[:0], 0.5)
        with pytest.raises(TypeError, match=r"floating point, got torch\.int64"):
            call(x.long(), 0.5)
        with pytest.raises(TypeError, match=r"floating point, got torch\.complex128"):
            call(x.to(torch.complex128), 0.5)
        with pytest.raises(TypeError, match="got list"):
            call(x.tolist(), 0.5)
        for bad in (-0.1, math.nan, math.inf, torch.tensor([0.1, -1.0, 0.2])):
            with pytest.raises(ValueError, match="sigma must be finite and >= 0"):
                call(x, bad)
        for bad in (torch.ones(2), torch.ones(3, 1)):
            with pytest.raises(ValueError, match="sigma must be a scalar or have shape"):
                call(x, bad)
    with pytest.raises(ValueError, match="sigma > 0"):
        prior.score(x, 0.0)


@over(CONTRACT | LOADED)
def test_the_denoiser_is_differentiable(make):
    prior = make()
    x = noisy(prior, 0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.denoise(x, 0.5).square().sum(), x)
    assert bool(torch.isfinite(gradient).all())
    x0, _ = prior.covariance(x, 0.5)
    (again,) = torch.autograd.grad(x0.square().sum(), x)
    close(again, gradient, 1e-10)


# --- what an exact prior promises besides --------------------------------------------------------


@over(EXACT)
@pytest.mark.parametrize("sigma", LEVELS)
def test_score_is_the_derivative_of_the_log_density(make, sigma):
    prior = make()
    x = noisy(prior, sigma).requires_grad_()
    (score,) = torch.autograd.grad(prior.log_density(x, sigma).sum(), x)
    x = x.detach()
    close(prior.score(x, sigma), score)
    close(prior.denoise(x, sigma), x + sigma**2 * score)


@over(SMOOTH)
def test_log_density_without_noise_is_the_limit(make):
    prior = make()
    x = prior.sample(3, torch.Generator().manual_seed(1))
    close(prior.log_density(x), prior.log_density(x, 1e-7), 1e-6)
    x.requires_grad_()
    (score,) = torch.autograd.grad(prior.log_density(x).sum(), x)
    close(prior.score(x.detach(), 1e-7), score, 1e-5)


@over(SINGULAR)
def test_no_density_where_singular_without_noise(make):
    prior = make()
    with pytest.raises(ValueError, match="sigma > 0"):
        prior.log_density(noisy(prior, 0.5))
    assert bool(torch.isfinite(prior.log_density(noisy(prior, 0.5), 0.5)).all())


@over(EXACT)
def test_limits_of_the_denoiser(make):
    """x itself where noise is small and x possible; the mean where noise hides all."""
    prior = make()
    x = prior.sample(3, torch.Generator().manual_seed(2)).double()
    close(prior.denoise(x, 1e-6), x, 1e-5)
    mean = prior.mean.double().expand_as(x)
    close(prior.denoise(x, 1e7), mean, 1e-8)
    low, high = prior.sigma_range
    assert 0 < low < high < math.inf
    close(prior.denoise(x, high), mean, 2e-2 * max(1.0, float(x.abs().max())))


@over(EXACT)
def test_moments_by_the_covariance_without_information(make):
    """Cov[x0 | x] tends to Cov[x0] as sigma grows."""
    prior = make()
    mean, covariance = prior.moments()
    assert mean.shape == prior.event_shape
    close(mean, prior.mean.double(), 1e-12)
    found = dense_covariance(prior, mean[None], 1e6)
    close(found, covariance, 1e-6)
    assert prior.scale == pytest.approx(math.sqrt(float(covariance.trace()) / size_of(prior)))


@over(EXACT)
def test_samples_have_the_moments(make):
    prior = make()
    n = 4000
    draws = prior.sample(n, torch.Generator().manual_seed(3))
    assert draws.shape == (n, *prior.event_shape)
    mean, covariance = prior.moments()
    flat = draws.reshape(n, -1).double() - mean.flatten()
    error = (covariance.diagonal() / n).sqrt()
    assert bool((flat.mean(0).abs() <= 5 * error + 1e-9).all())
    products = flat.unsqueeze(-1) * flat.unsqueeze(-2)
    error = products.std(0) / math.sqrt(n)
    assert bool(((products.mean(0) - covariance).abs() <= 5 * error + 1e-9).all())


@over(EXACT)
def test_samples_come_from_the_generator_alone(make):
    prior = make()
    draws = [prior.sample(5, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5)]
    assert torch.equal(draws[0], draws[1])
    if prior.scale > 0:
        assert not torch.equal(prior.sample(40), prior.sample(40))
        assert not torch.equal(draws[0], draws[2])
    for bad in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="n must be an integer >= 1"):
            prior.sample(bad)


@over(EXACT)
@pytest.mark.parametrize("sigma", [0.3, 30.0])
def test_initial_has_the_moments_of_the_noisy_density(make, sigma):
    """It is linear in eps: m + R eps, with R R^T = C + sigma^2 I."""
    prior = make()
    size = size_of(prior)
    mean, covariance = prior.moments()
    centre = prior.initial(torch.zeros(1, *prior.event_shape).double(), sigma)
    close(centre[0], mean, 1e-12)
    unit = torch.eye(size, dtype=torch.float64).reshape(size, *prior.event_shape)
    R = (prior.initial(unit, sigma) - centre).reshape(size, size)
    if isinstance(prior, Empirical):
        covariance = torch.diag(covariance.diagonal())
    close(R.T @ R, covariance + sigma**2 * torch.eye(size).double(), 1e-9 * max(1.0, sigma**2))


@over(GAUSSIANS)
def test_gaussian_against_the_dense_formulas(make):
    prior = make()
    mean, covariance = prior.moments()
    x = noisy(prior, 0.5)
    total = covariance + 0.25 * torch.eye(size_of(prior)).double()
    flat, centre = x.reshape(3, -1), mean.flatten()
    reference = torch.distributions.MultivariateNormal(centre, total)
    close(prior.log_density(x, 0.5), reference.log_prob(flat), 1e-9)
    expected = centre + torch.linalg.solve(total, (flat - centre).T).T @ covariance
    close(prior.denoise(x, 0.5).reshape(3, -1), expected, 1e-9)


def test_mixture_against_torch_distributions():
    prior = Mixture(
        2 * normal(3, 2),
        torch.stack([spd(2, seed=k) for k in range(3)]),
        torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
    )
    components = torch.distributions.MultivariateNormal(
        prior.means, prior.covariances + 0.49 * torch.eye(2).double()
    )
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(prior.weights), components
    )
    x = noisy(prior, 0.7, batch=6)
    close(prior.log_density(x, 0.7), reference.log_prob(x), 1e-9)
    joint = components.log_prob(x[:, None]) + prior.weights.log()
    close(prior.responsibilities(x, 0.7), joint.softmax(-1), 1e-9)


def test_a_mixture_of_structured_covariances_is_that_of_their_matrices():
    for name in ("mixture of low rank", "mixture of fields", "mixture of all kinds"):
        prior = MIXTURES[name]()
        dense = Mixture(prior.means, prior.covariances, prior.weights)
        x, v = noisy(prior, 0.5), normal(3, *prior.event_shape, seed=8)
        for sigma in (0.01, torch.tensor([0.1, 0.8, 9.0]).double(), 300.0):
            close(prior.denoise(x, sigma), dense.denoise(x, sigma), 1e-9)
            close(prior.score(x, sigma), dense.score(x, sigma), 1e-9)
            close(prior.log_density(x, sigma), dense.log_density(x, sigma), 1e-9)
            found, expected = (p.covariance(x, sigma)[1](v) for p in (prior, dense))
            close(found, expected, 1e-9)
            close(prior.responsibilities(x, sigma), dense.responsibilities(x, sigma), 1e-9)


def test_one_component_is_a_gaussian_and_equal_ones_too():
    gaussian = Gaussian(normal(3), spd(3))
    for mixture in (
        Mixture(normal(3)[None], spd(3), torch.ones(1)),
        Mixture(normal(3).expand(2, 3), spd(3).expand(2, 3, 3), torch.tensor([0.5, 0.5])),
    ):
        x = noisy(gaussian, 0.5)
        close(mixture.denoise(x, 0.5), gaussian.denoise(x, 0.5), 1e-10)
        close(mixture.log_density(x), gaussian.log_density(x), 1e-10)


def test_a_mixture_of_points_is_a_data_set():
    atoms = normal(5, 2, 2)
    weights = positive(5) / positive(5).sum()
    mixture, data = Mixture(atoms, 0.0, weights), Empirical(atoms, weights)
    for sigma in (0.3, 5.0):
        x = noisy(data, sigma)
        close(mixture.denoise(x, sigma), data.denoise(x, sigma), 1e-10)
        close(mixture.log_density(x, sigma), data.log_density(x, sigma), 1e-10)


def test_a_data_set_in_pieces_is_the_same(monkeypatch):
    data = normal(29, 3)
    x = noisy(Empirical(data), 0.5)
    whole = Empirical(data)
    monkeypatch.setattr("priors.analytic.empirical._CHUNK", 12)
    parts = Empirical(data)
    close(parts.denoise(x, 0.5), whole.denoise(x, 0.5), 1e-12)
    close(parts.log_density(x, 0.5), whole.log_density(x, 0.5), 1e-12)
    close(parts.covariance(x, 0.5)[1](x), whole.covariance(x, 0.5)[1](x), 1e-12)
    close(parts.moments()[1], whole.moments()[1], 1e-12)


def test_a_data_set_far_from_zero_in_float32():
    """Distances are not differences of large squares."""
    data = 1000 + normal(20, 4)
    x = (data[:3] + 1e-2 * normal(3, 4, seed=2)).float()
    denoised = Empirical(data.float()).denoise(x, 0.01)
    close(denoised, data[:3].float(), 1e-6)


@settings(max_examples=25, deadline=None)
@given(sigma=st.floats(1e-3, 1e3), shift=st.floats(-20.0, 20.0), seed=st.integers(0, 1000))
def test_denoisers_stay_in_the_hull_and_follow_a_shift(sigma, shift, seed):
    """A mixture of points denoises into their hull; moving the prior moves its denoiser."""
    atoms, x = normal(4, 2, seed=seed), 3 * normal(3, 2, seed=seed + 1)
    data = Empirical(atoms)
    x0 = data.denoise(x, sigma)
    assert bool((x0 <= atoms.amax(0) + 1e-9).all())
    assert bool((x0 >= atoms.amin(0) - 1e-9).all())
    moved = Empirical(atoms + shift).denoise(x + shift, sigma)
    close(moved, x0 + shift, 1e-6)


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sigma", [0.02, 0.4, 5.0])
def test_a_perfect_network_is_the_exact_prior(name, sigma):
    """In every parametrisation and schedule; data in (0, 1), the network in (-1, 1)."""
    inner = inner_prior()
    prior = network_prior(name, inner)
    x = 0.5 + 0.3 * normal(3, *prior.event_shape) + sigma * normal(3, *prior.event_shape, seed=1)
    expected = (inner.denoise(2 * x - 1, 2 * sigma) + 1) / 2
    close(prior.denoise(x, sigma), expected, 1e-10)
    levels = sigma * torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    close(prior.denoise(x, levels), (inner.denoise(2 * x - 1, 2 * levels) + 1) / 2, 1e-10)


# --- covariance matrices -------------------------------------------------------------------------

MATRICES = {
    "one variance": lambda: Diagonal(0.6, 6),
    "diagonal": lambda: Diagonal(positive(2, 3)),
    "dense": lambda: Dense(spd(6)),
    "circulant": lambda: Circulant(spectrum(2, 3)),
    "circulant, even sizes": lambda: Circulant(spectrum(1, 2), event_shape=(3, 1, 2)),
    "kronecker": lambda: Kronecker(spd(3), spd(2)),
    "kronecker, three axes and noise": lambda: Kronecker(
        spd(1), spd(3, seed=1), spd(2), variance=0.3
    ),
    "low rank": lambda: LowRank(normal(6, 2), 0.2),
    "full factor": lambda: LowRank(normal(6, 8), 0.2),
    "factor analysis": lambda: FactorAnalysis(normal(6, 2), positive(6)),
}


@over(MATRICES)
def test_covariance_matrix_against_its_dense_form(make):
    matrix = make()
    C, v, eye = matrix.dense(), normal(3, 6), torch.eye(6, dtype=torch.float64)
    assert matrix.size == 6
    close(C, C.T, 1e-12)
    low, high = torch.linalg.eigvalsh(C)[[0, -1]].tolist()
    assert matrix.smallest <= low + 1e-12
    assert matrix.std_range()[0] <= math.sqrt(low) + 1e-9
    assert matrix.std_range()[1] >= math.sqrt(high) - 1e-9
    assert matrix.trace() == pytest.approx(float(C.trace()))
    close(matrix.matvec(v), v @ C, 1e-12)
    for s2 in (0.0, 0.3, torch.tensor([0.0, 0.3, 50.0], dtype=torch.float64)):
        for i, level in enumerate(torch.as_tensor(s2, dtype=torch.float64).expand(3)):
            total = C + level * eye
            inverse = torch.linalg.inv(total)
            close(matrix.solve(v, s2)[i], inverse @ v[i], 1e-9)
            close(matrix.shrink(v, s2)[i], C @ inverse @ v[i], 1e-9)
            close(matrix.logdet(s2).double().expand(3)[i], torch.logdet(total), 1e-9)
        if not torch.as_tensor(s2).ndim:
            R = matrix.sqrt(eye, s2)
            close(R.T @ R, C + s2 * eye, 1e-9)
    levels = torch.linspace(0.1, 2, 6).double()
    each = torch.stack([matrix.sqrt(eye[i : i + 1], s2)[0] for i, s2 in enumerate(levels)])
    close(matrix.sqrt(eye, levels), each, 1e-12)


def test_factor_analysis_and_low_rank_agree():
    factor = normal(5, 2)
    low, analysis = (
        LowRank(factor, 0.4),
        FactorAnalysis(factor, torch.full((5,), 0.4, dtype=torch.float64)),
    )
    v = normal(3, 5)
    close(low.dense(), analysis.dense(), 1e-12)
    close(low.solve(v, 0.2), analysis.solve(v, 0.2), 1e-11)
    close(low.logdet(0.2), analysis.logdet(0.2), 1e-11)


def test_a_circulant_covariance_is_stationary():
    C = Circulant(spectrum(4, 3)).dense().reshape(4, 3, 4, 3)
    moved = C.roll((1, 2, 1, 2), (0, 1, 2, 3))
    close(moved, C, 1e-12)
    close(torch.fft.fft2(C[0, 0]).real, spectrum(4, 3), 1e-12)


def test_a_kronecker_covariance_is_separable():
    A, B, C = spd(2), spd(3, seed=1), spd(2, seed=2)
    expected = torch.einsum("ad,be,cf->abcdef", A, B, C).reshape(12, 12)
    close(Kronecker(A, B, C).dense(), expected, 1e-12)
    close(Kronecker(A, B).dense(), torch.kron(A, B), 1e-12)
    noisy_one = Kronecker(A, B, variance=0.4).dense()
    close(noisy_one, torch.kron(A, B) + 0.4 * torch.eye(6).double(), 1e-12)


def test_covariance_matrix_refuses():
    matrix = Dense(spd(3))
    with pytest.raises(ValueError, match="of 3 values each"):
        matrix.matvec(normal(2, 4))
    with pytest.raises(ValueError, match="s2 must be >= 0"):
        matrix.shrink(normal(2, 3), -1.0)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        matrix.shrink(normal(2, 3), torch.ones(3))
    with pytest.raises(ValueError, match="singular"):
        Dense(torch.ones(2, 2)).solve(normal(1, 2))
    with pytest.raises(ValueError, match="singular"):
        Dense(torch.ones(2, 2)).logdet()


# --- refusals at construction --------------------------------------------------------------------

HALF = torch.tensor([0.5, 0.5])
REFUSED = {
    "negative variance": (lambda: Gaussian(normal(2), -0.5), "-0.5"),
    "negative diagonal": (lambda: Gaussian(normal(2), torch.tensor([1.0, -0.2])), "-0.2"),
    "negative eigenvalue": (
        lambda: Gaussian(normal(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]])),
        "smallest is -1",
    ),
    "asymmetric": (
        lambda: Gaussian(normal(2), torch.tensor([[1.0, 0.3], [0.1, 1.0]])),
        "differ from the transpose by 0.2",
    ),
    "covariance of another size": (lambda: Gaussian(normal(2), spd(3)), r"got shape \(3, 3\)"),
    "matrix of another size": (lambda: Gaussian(normal(2), LowRank(normal(3, 1))), "3 values"),
    "infinite mean": (lambda: Gaussian(torch.tensor([1.0, math.inf]), 1.0), "finite"),
    "NaN covariance": (lambda: Gaussian(normal(2), math.nan), "finite"),
    "odd spectrum": (lambda: Circulant(torch.tensor([[1.0, 2.0, 3.0]])), "even"),
    "negative spectrum": (lambda: Circulant(-torch.ones(2, 2)), ">= 0, got -1"),
    "flat spectrum": (lambda: Circulant(torch.ones(3)), r"\(3,\)"),
    "spectrum of another size": (lambda: Circulant(torch.ones(2, 2), (3, 3)), r"\(3, 3\)"),
    "factor": (lambda: LowRank(normal(3)), r"\(D, R\)"),
    "several variances": (lambda: LowRank(normal(3, 1), positive(3)), "FactorAnalysis"),
    "zero diagonal": (lambda: FactorAnalysis(normal(2, 1), torch.tensor([1.0, 0.0])), "LowRank"),
    "short diagonal": (lambda: FactorAnalysis(normal(2, 1), torch.ones(3)), "needs 2 values"),
    "no factors": (lambda: Kronecker(), "one factor for each axis"),
    "a factor that is no matrix": (lambda: Kronecker(spd(2), positive(3)), r"factor 1 .* \(3,\)"),
    "a factor with a negative eigenvalue": (lambda: Kronecker(spd(2), -spd(2)), "negative"),
    "negative white noise": (lambda: Kronecker(spd(2), variance=-0.1), ">= 0, got -0.1"),
    "too few covariances": (
        lambda: Mixture(normal(3, 2), [LowRank(normal(2, 1), 1.0)], torch.ones(3) / 3),
        "each of the 3 means, got 1",
    ),
    "a component of another size": (
        lambda: Mixture(normal(2, 2), [LowRank(normal(3, 1), 1.0)] * 2, HALF),
        "3 values",
    ),
    "weights": (lambda: Mixture(normal(2, 2), 1.0, torch.tensor([0.5, 0.6])), "got 1.1"),
    "negative weight": (lambda: Mixture(normal(2, 2), 1.0, torch.tensor([1.5, -0.5])), "-0.5"),
    "weights' shape": (lambda: Mixture(normal(2, 2), 1.0, torch.ones(1)), r"\(2,\), got \(1,\)"),
    "covariances' shape": (lambda: Mixture(normal(2, 2), torch.ones(3), HALF), r"\(3,\)"),
    "one bad component": (
        lambda: Mixture(normal(2, 2), torch.stack([spd(2), -spd(2)]), HALF),
        "negative eigenvalue",
    ),
    "no atoms": (lambda: Empirical(torch.zeros(0, 2)), r"\(0, 2\)"),
    "NaN atoms": (lambda: Empirical(torch.tensor([[math.nan]])), "1 values are not"),
    "atoms' weights": (lambda: Empirical(normal(2, 2), torch.ones(2)), "divide by their sum"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match="complex"):
        Gaussian(torch.ones(2, dtype=torch.complex64), 1.0)
    with pytest.raises(TypeError, match="int64"):
        Empirical(torch.ones(2, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="list"):
        Empirical([[1.0]])


def test_a_float32_sample_covariance_is_taken_as_it_is():
    """Rounding leaves eigenvalues a little below zero; that is no mistake of the caller."""
    data = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    prior = Gaussian(torch.zeros(20), torch.cov(data.T))
    assert prior.C.smallest == 0
    assert prior.sample(2).dtype == torch.float32


class Mistaken(priors.Prior):
    """A denoiser with a mistake of its author's."""

    event_shape, sigma_range = (2,), (0.01, 10.0)

    def __init__(self, mistake):
        self.mistake = mistake

    def _denoise(self, x, sigma):
        return self.mistake(x / (1 + sigma**2))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [(lambda x0: x0[:, :1], r"a tensor \(3, 2\) as x is, got \(3, 1\)"),
     (lambda x0: x0.tolist(), "as x is, got list")],
)  # fmt: skip
def test_a_denoiser_of_another_shape_is_refused(mistake, words):
    with pytest.raises(ValueError, match=words):
        Mistaken(mistake).denoise(torch.zeros(3, 2), 1.0)


def test_a_denoiser_without_a_gradient_is_told_of():
    prior = Mistaken(torch.Tensor.detach)
    prior.denoise(torch.zeros(3, 2), 1.0)
    with pytest.raises(TypeError, match="_denoise cuts the gradient"):
        prior.covariance(torch.zeros(3, 2), 1.0)
