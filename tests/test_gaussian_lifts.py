"""The Gaussian lifts against closed forms, and what each approximation is exact for."""

from __future__ import annotations

import math

import pytest
import torch
from likelihood_cases import CASES, TABLE, AsNetwork, moments
from problems import DOUBLE, problem

import inverse
import priors
from forward_models import (
    Blur,
    GammaSpeckle,
    Gaussian,
    Identity,
    Inpainting,
    LinearGaussian,
    MatrixOperator,
    Observation,
    Poisson,
    Quantised,
    RealToComplex,
    from_simulator,
    gaussian_kernel,
)
from inverse.likelihoods import (
    DiagonalTweedie,
    FixedPrior,
    GaussianLift,
    Isotropic,
    LinearisedLift,
    Moments,
    SigmaPointLift,
    Tabulated,
    Tweedie,
)
from inverse.recipes import find
from priors.prior import JacobianProduct


def test_tmpd_counts_the_values_that_are_measured():
    """Unmeasured entries hold no data, and a complex value is two."""
    prior = priors.Gaussian(torch.zeros(100, dtype=DOUBLE), 1.0)
    few = LinearGaussian(Inpainting(torch.arange(100) < 10), 0.1)
    A = torch.ones(40, 100, dtype=torch.complex128)
    many = LinearGaussian(MatrixOperator(A) @ RealToComplex(), 0.1)
    for model, y, kind in (
        (few, torch.zeros(1, 100, dtype=DOUBLE), Tweedie),
        (many, torch.zeros(1, 40, dtype=torch.complex128), DiagonalTweedie),
    ):
        recipe = find("tmpd").recipe(inverse.condition(prior, model, y), 10)
        assert isinstance(recipe.prior.likelihoods[0].assumed, kind)


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
    posterior = inverse.condition(prior, model, y)
    samples = inverse.sample(posterior, n=n, method="mmps", steps=60, seed=0)
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


def conditioned(size: int = 40, rows: int = 36):
    """A Gaussian prior of condition 100, and a measurement too large to be assembled by default."""
    g = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(size, size, generator=g, dtype=DOUBLE))[0]
    C = (basis * torch.logspace(-2, 0, size, dtype=DOUBLE)) @ basis.mT
    prior = priors.Gaussian(torch.randn(size, generator=g, dtype=DOUBLE), C)
    A = torch.randn(rows, size, generator=g, dtype=DOUBLE) / size**0.5
    y = torch.randn(1, rows, generator=g, dtype=DOUBLE)
    x = torch.randn(2, size, generator=g, dtype=DOUBLE)
    return prior, LinearGaussian(MatrixOperator(A), 0.1), y, x


def truth(prior, model, y, x, sigma):
    """The exact shift and log p_sigma(y | x) of a Gaussian prior."""
    posterior = prior.condition(model, y)
    m, C = prior.moments()
    A = model.operator.matrix
    K = A @ C @ A.mT + model.noise_variance * torch.eye(len(A), dtype=DOUBLE)
    evidence = torch.distributions.MultivariateNormal(A @ m, K).log_prob(y)
    # log p_sigma(y | x) = log p_sigma(x | y) + log p(y) - log p_sigma(x)
    log_p = posterior.log_density(x, sigma) + evidence - prior.log_density(x, sigma)
    return posterior.denoise(x, sigma) - prior.denoise(x, sigma), log_p


EXACT = {
    "closed form": lambda p, m, y: (p, GaussianLift(m, y, Tweedie())),
    "closed form, few values": lambda p, m, y: (
        p, GaussianLift(LinearGaussian(MatrixOperator(m.operator.matrix[:5]), 0.1), y[:, :5],
                        Tweedie())),
    "a network, assembled": lambda p, m, y: (AsNetwork(p), GaussianLift(m, y, Tweedie(dense=40))),
    "fixed prior": lambda p, m, y: (p, GaussianLift(m, y, FixedPrior(p.C))),
    "linearised": lambda p, m, y: (
        p, LinearisedLift(Observation(m.operator, Gaussian(0.1)), y)),
    "sigma points": lambda p, m, y: (
        p, SigmaPointLift(Observation(m.operator, Gaussian(0.1)), y, directions=40)),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 30.0])
def test_exact_on_a_gaussian_prior_of_condition_100(name, sigma):
    prior, model, y, x = conditioned()
    denoiser, lift = EXACT[name](prior, model, y)
    if "few" in name:
        model, y = lift.model, lift.y
    expected, log_p = truth(prior, model, y, x, sigma)
    shift, found = lift.evaluate(moments(denoiser, x, sigma))
    assert float((shift - expected).norm() / expected.norm()) < 1e-8
    torch.testing.assert_close(lift.shift(moments(denoiser, x, sigma)), shift, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found, log_p, rtol=1e-8, atol=1e-6)


@pytest.mark.parametrize("name", ["zero", "isotropic", "tabulated", "diagonal", "fixed prior"])
def test_others_are_not_exact_there(name):
    prior, model, y, x = conditioned()
    for sigma in (0.1, 1.0, 10.0):
        exact, _ = truth(prior, model, y, x, sigma)
        shift = CASES[name].make(model, y).shift(moments(prior, x, sigma))
        assert float((shift - exact).norm() / exact.norm()) > 0.05


def test_krylov_log_density_bounds_and_quadrature():
    """Cut short, the quadratic form is too small and the determinant too large; in full, exact."""
    prior, model, y, x = conditioned()
    network = AsNetwork(prior)
    _, expected = truth(prior, model, y, x, 1.0)

    def parts(covariance):
        lift = GaussianLift(model, y, covariance)
        r = lift.measured.residual(prior.denoise(x, 1.0))
        return covariance.solve(moments(network, x, 1.0), lift.measured, r, True)

    full = parts(Tweedie(dense=40))
    assert full.log_density() == pytest.approx(expected, rel=1e-8)
    previous = torch.zeros(2, dtype=DOUBLE)
    for k in (1, 2, 4, 8, 36):
        found = parts(Tweedie(iterations=k, dense=0, probes=1, steps=1)).quadratic
        assert bool((found >= previous - 1e-9).all())
        assert bool((found <= full.quadratic * (1 + 1e-9)).all())
        previous = found
    torch.testing.assert_close(previous, full.quadratic, rtol=1e-8, atol=0)
    short = parts(Tweedie(iterations=1, dense=0, probes=16, steps=2)).log_det
    long = parts(Tweedie(iterations=1, dense=0, probes=16, steps=36)).log_det
    assert bool((short > long).all())
    # The stated error of 16 random vectors, four times over.
    C = network.prior.C.shrink(torch.eye(40, dtype=DOUBLE), 1.0)
    A = model.operator.matrix / 0.1
    values, U = torch.linalg.eigh(A @ C @ A.mT)
    L = (U * values.log1p()) @ U.mT
    error = ((L.square().sum() - L.diagonal().square().sum()) * 2 / 16) ** 0.5
    assert float((long - full.log_det).abs().max()) < 4 * float(error)


@pytest.mark.parametrize("kind", ["svd", "diagonal", "assembled", "quadrature"])
def test_determinants_of_isotropic_covariances(kind):
    """log det(S + c A A^T) however the operator gives it away, against the dense matrix."""
    g = torch.Generator().manual_seed(4)
    shape = (1, 5, 6) if kind != "quadrature" else (1, 20, 20)
    mask = torch.rand(shape, generator=g) < 0.7
    blur = Blur(gaussian_kernel(1.0, 5).to(DOUBLE), padding="constant")
    S = 0.1 + torch.rand(shape, generator=g, dtype=DOUBLE)
    model = {
        "svd": lambda: LinearGaussian(Inpainting(mask), 0.3),
        "diagonal": lambda: LinearGaussian(Inpainting(mask), S),
        "assembled": lambda: LinearGaussian(blur, S),
        "quadrature": lambda: LinearGaussian(blur, S),
    }[kind]()
    y = torch.randn(1, *shape, generator=g, dtype=DOUBLE)
    lift = GaussianLift(model, y, Isotropic())
    n = math.prod(shape)
    A = model.operator(torch.eye(n, dtype=DOUBLE).reshape(n, *shape)).reshape(n, n).mT
    kept = mask.flatten() if isinstance(model.operator, Inpainting) else torch.ones(n).bool()
    noise = torch.as_tensor(model.noise_variance, dtype=DOUBLE).expand(shape).flatten()
    for c in (1e-4, 0.7, 50.0):
        K = (c * A @ A.mT + noise.diag())[kept][:, kept]
        found = float(lift.measured.log_det(torch.tensor([c], dtype=DOUBLE)))
        # The quadrature has the stated error of 8 random vectors; the others are exact.
        values, U = torch.linalg.eigh(c * A @ A.mT / (noise[:, None] * noise).sqrt())
        L = (U * values.clamp(min=0).log1p()) @ U.mT
        error = ((L.square().sum() - L.diagonal().square().sum()) * 2 / 8) ** 0.5
        tolerance = 1e-9 * n if kind != "quadrature" else 4 * float(error)
        assert found == pytest.approx(float(K.logdet()), abs=tolerance)


def test_a_denoiser_with_a_bad_jacobian_never_counts_finer_than_the_noise():
    """Not symmetric and with negative eigenvalues: the density stays proper, and finite."""
    _, model, y, x = problem()
    J = torch.randn(6, 6, generator=torch.Generator().manual_seed(8), dtype=DOUBLE) - torch.eye(6)

    class Bad(priors.Prior):
        event_shape, sigma_range = (6,), (0.01, 10.0)

        def _denoise(self, x, sigma):
            return x @ J.mT

    lift = GaussianLift(model, y, Tweedie())
    given = moments(Bad(), x, 1.0)
    shift, _ = lift.evaluate(given)
    assert bool(torch.isfinite(shift).all())
    A = model.operator.matrix
    G = A @ J.mT @ A.mT
    values = torch.linalg.eigvalsh((G + G.mT) / 2)
    assert float(values.min()) < 0
    log_det = (values.clamp(min=0) + model.noise_variance).log().sum()
    found = lift.assumed.solve(given, lift.measured, lift.measured.residual(given.x0), True)
    torch.testing.assert_close(found.log_det, log_det.expand(3))


def test_several_products_at_once_are_the_products_one_by_one():
    _, _, _, x = problem()

    class Plain(priors.Prior):
        event_shape, sigma_range = (6,), (0.01, 10.0)

        def _denoise(self, x, sigma):
            return torch.tanh(x) * x.sum(1, keepdim=True)

    v = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    _, product = Plain().covariance(x, 0.7)
    assert isinstance(product, JacobianProduct)
    one_by_one = torch.stack([product(row) for row in v])
    for batched in (True, False):
        product.batched = batched
        torch.testing.assert_close(product.many(v), one_by_one)
        assert product.batched is batched

    class Unbatched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            return torch.from_numpy(2 * grad.numpy())

    leaf = x.clone().requires_grad_()
    stubborn = JacobianProduct(Unbatched.apply(leaf), leaf, torch.ones(3, 1, dtype=DOUBLE), False)
    stubborn.batched = True
    torch.testing.assert_close(stubborn.many(v), 2 * v)
    assert not stubborn.batched


def test_the_table_is_the_denoising_error():
    """On N(m, C) tr C (C + sigma^2)^-1 sigma^2 / n; between levels 1 / c is linear in sigma^-2."""
    prior, _, _, _ = problem()
    levels = torch.tensor([0.1, 1.0, 10.0])
    g = torch.Generator().manual_seed(0)
    table = Tabulated.measure(prior, levels, generator=g, count=20000, batch=20000)
    c = prior.C.eigenvalues
    for sigma, found in zip(levels.tolist(), table.errors.tolist(), strict=True):
        assert found == pytest.approx(float((c * sigma**2 / (c + sigma**2)).mean()), rel=0.03)
    low, mid, high = table.errors.tolist()
    at = table.variance(torch.tensor([[0.01], [0.1], [50.5**-0.5], [1.0], [500.0]]))
    expected = [low / 100, low, 2 / (1 / low + 1 / mid), mid, high]
    assert at.flatten().tolist() == pytest.approx(expected, rel=1e-5)
    given = Tabulated.measure(prior, levels, prior.sample(64, g), generator=g)
    assert given.errors.tolist() == pytest.approx([low, mid, high], rel=0.3)
    with pytest.raises(ValueError, match="no exact draws"):
        Tabulated.measure(AsNetwork(prior), levels, generator=g)
    with pytest.raises(ValueError, match="increasing"):
        Tabulated([1.0, 0.5], [0.1, 0.2])


def test_a_table_of_few_draws_is_exact_for_an_isotropic_gaussian():
    """At its levels, between and beyond them: sigma^2 s^2 / (sigma^2 + s^2)."""
    prior = priors.Gaussian(torch.tensor([1.0, -1.0, 0.0, 0.5], dtype=DOUBLE), 0.8)
    levels = priors.geometric(20, prior.sigma_range)[:-1].flip(0)
    g = torch.Generator().manual_seed(0)
    table = Tabulated.measure(prior, levels, generator=g)
    sigma = torch.logspace(-5, 4, 200, dtype=DOUBLE)
    expected = Isotropic(s=prior.scale).variance(sigma)
    torch.testing.assert_close(table.variance(sigma), expected, rtol=0.02, atol=0)
    few = Tabulated.measure(prior, levels, generator=g, count=64).variance(sigma)
    small = sigma < 0.1
    torch.testing.assert_close(few[small], expected[small], rtol=0.01, atol=0)


@pytest.mark.parametrize(("jacobian", "threshold"), [(True, None), (False, None), (True, 0.2)])
def test_optimal_covariance_samples_an_isotropic_gaussian(jacobian, threshold):
    g, eye = torch.Generator().manual_seed(0), torch.eye(4)
    prior = priors.Gaussian(torch.tensor([1.0, -1.0, 0.0, 0.5]), 0.8)
    A = torch.randn(2, 4, generator=g)
    model = LinearGaussian(MatrixOperator(A), 0.3)
    posterior = inverse.condition(prior, model, torch.tensor([0.7, -1.2]))
    samples = inverse.sample(
        posterior, 6000, method="optimal-covariance", seed=7, jacobian=jacobian, threshold=threshold
    )
    precision = eye / 0.8 + A.mT @ A / 0.09
    root = torch.linalg.cholesky(precision)
    spread = torch.linalg.eigvalsh(root.mT @ torch.cov(samples.x.T) @ root)
    assert float(spread.min()) > 0.93
    assert float(spread.max()) < 1.1


def test_fixed_priors_estimated_from_samples():
    g = torch.Generator().manual_seed(0)
    k = torch.fft.fftfreq(6, dtype=DOUBLE) * 6
    spectrum = 2 / (1 + k[:, None] ** 2 + k[None] ** 2)
    field = priors.Gaussian(
        torch.ones(1, 6, 6, dtype=DOUBLE), priors.Circulant(spectrum, (1, 6, 6))
    )
    images = field.sample(20000, g)
    C = field.C.dense()
    eye = torch.eye(36, dtype=DOUBLE).reshape(36, 1, 6, 6)
    level = torch.full((36, 1, 1, 1), 0.8, dtype=DOUBLE)
    given = Moments(eye, level, eye)
    exact = torch.linalg.inv(torch.linalg.inv(C) + torch.eye(36) / 0.64)
    found = FixedPrior.circulant(images).product(given, eye).flatten(1)
    torch.testing.assert_close(found, exact, rtol=0, atol=0.02)
    alone = FixedPrior.diagonal(images).product(given, eye).flatten(1)
    variance = float(C[0, 0])
    expected = torch.eye(36, dtype=DOUBLE) * variance * 0.64 / (variance + 0.64)
    torch.testing.assert_close(alone, expected, rtol=0, atol=0.02)
    with pytest.raises(ValueError, match="two images"):
        FixedPrior.diagonal(images[:1])


def test_the_diagonal_is_exact_where_the_measured_values_are_independent():
    C = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=DOUBLE)
    prior = priors.Gaussian(torch.zeros(4, dtype=DOUBLE), C)
    model = LinearGaussian(Inpainting(torch.tensor([True, False, True, True])), 0.3)
    y = torch.tensor([[1.0, 0.0, -1.0, 2.0]], dtype=DOUBLE)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    for sigma in (0.1, 2.0):
        a = CASES["diagonal"].make(model, y).evaluate(moments(prior, x, sigma))
        b = CASES["tweedie"].make(model, y).evaluate(moments(prior, x, sigma))
        for i in (0, 1):
            torch.testing.assert_close(a[i], b[i])


def test_sigma_points_see_what_a_linearisation_cannot():
    """y = x^2 at D = 0 has no slope. Mean and spread of x^2 are exact: E = v, Var = 2 v^2."""
    prior = priors.Gaussian(torch.zeros(1, dtype=DOUBLE), 1.0)
    box = from_simulator(lambda x: x.square(), Gaussian(0.1), (1,), differentiable=False)
    y, x = torch.tensor([[0.7]], dtype=DOUBLE), torch.zeros(1, 1, dtype=DOUBLE)
    v = 4.0 / 5.0  # Cov[x0 | x] at sigma = 2
    found = SigmaPointLift(box, y).log_likelihood(moments(prior, x, 2.0))
    expected = torch.distributions.Normal(v, (2 * v**2 + 0.01) ** 0.5).log_prob(y[0, 0])
    assert float(found) == pytest.approx(float(expected.double()), abs=1e-6)


def test_sigma_points_along_the_leading_directions():
    """With C of rank 3 in 12 values, three directions are all; with one of 12 they are not."""
    g = torch.Generator().manual_seed(0)
    F = torch.randn(12, 3, generator=g, dtype=DOUBLE)
    prior = priors.Gaussian(torch.zeros(12, dtype=DOUBLE), priors.LowRank(F))
    model = LinearGaussian(MatrixOperator(torch.randn(4, 12, generator=g, dtype=DOUBLE)), 0.3)
    y, x = (torch.randn(n, d, generator=g, dtype=DOUBLE) for n, d in ((1, 4), (2, 12)))
    given = moments(prior, x, 0.8)
    exact = GaussianLift(model, y, Tweedie()).evaluate(given)
    observed = Observation(model.operator, Gaussian(0.3))
    for directions, close in ((3, True), (1, False)):
        found = SigmaPointLift(observed, y, directions=directions).evaluate(given)
        assert torch.allclose(found[0], exact[0], rtol=1e-6, atol=1e-8) is close
        assert torch.allclose(found[1], exact[1], rtol=1e-6, atol=1e-8) is close


@pytest.mark.parametrize("lift", [LinearisedLift, SigmaPointLift])
def test_densities_of_nonlinear_observations_against_quadrature(lift):
    """E[p(y | f(x0)) | x] of a Gaussian prior and a weakly curved f."""
    prior = priors.Gaussian(torch.ones(1, dtype=DOUBLE), 0.09)
    model = from_simulator(lambda x: x + 0.2 * x.square(), Gaussian(0.2), (1,))
    x = torch.tensor([[1.2]], dtype=DOUBLE)
    given = moments(prior, x, 0.5)
    v = 0.09 * 0.25 / 0.34
    grid = given.x0 + v**0.5 * torch.linspace(-7, 7, 2001, dtype=DOUBLE)[:, None]
    weight = torch.softmax(-(grid[:, 0] - given.x0).square()[0] / (2 * v), 0)
    worst, plug_in = 0.0, 0.0
    for y in torch.linspace(0.7, 2.3, 9, dtype=DOUBLE).reshape(-1, 1, 1):
        exact = float((weight * model.log_likelihood(y, grid).exp()).sum().log())
        worst = max(worst, abs(float(lift(model, y).log_likelihood(given)) - exact))
        plug_in = max(plug_in, abs(float(model.log_likelihood(y, given.x0)) - exact))
    assert worst < 0.25
    assert plug_in > 10 * worst


def test_a_covariance_that_is_not_assumable_has_no_product():
    with pytest.raises(TypeError, match="Tweedie has no product of its own"):
        Tweedie().product(None, None)


def test_without_a_covariance_samples_over_fit_and_with_tweedies_they_do_not():
    """sigma_y = 0.1 beside a prior N(0, 1): the exact posterior leaves residuals of sigma_y.

    The score of the plug-in holds y - E[x0 | x] to sigma_y at every level, where its variance is
    sigma_y^2 + Cov[x0 | x]; what is left at the end is half of the posterior's variance.
    """
    prior = priors.Gaussian(torch.zeros(50, dtype=DOUBLE), 1.0)
    model, g = LinearGaussian(Identity(), 0.1), torch.Generator().manual_seed(0)
    y = model.simulate(prior.sample(1, g), g)
    posterior, exact = inverse.condition(prior, model, y), prior.condition(model, y).moments()[1]
    shares = {}
    for name, steps in (("plug-in", 1000), ("mmps", 300)):
        x = inverse.sample(posterior, n=200, method=name, steps=steps, seed=0).x
        residual = float(((y - x) / 0.1).square().mean())
        shares[name] = residual, float(x.var(0).mean() / exact.diagonal().mean())
    assert max(shares["plug-in"]) < 0.6
    assert shares["mmps"] == pytest.approx((1, 1), abs=0.1)


def test_mmps_takes_the_iterations_of_its_paper():
    prior, model, y, _ = problem()
    square = Observation(from_simulator(torch.square, Gaussian(0.1), (6,)).operator, Gaussian(0.1))
    for m, z, kind in ((model, y, "assumed"), (square, torch.ones(1, 6), "covariance")):
        posterior = inverse.condition(prior, m, z.to(DOUBLE))
        (lift,) = find("mmps").recipe(posterior, 10, iterations=2).prior.likelihoods
        assert getattr(lift, kind).iterations == 2
    with pytest.raises(ValueError, match="iterations must be an integer >= 1"):
        find("mmps").recipe(posterior, 10, iterations=0)


def test_a_network_is_sampled_by_optimal_covariance_with_a_table_alone():
    prior, model, y, _ = problem()
    posterior = inverse.condition(AsNetwork(prior), model, y)
    samples = inverse.sample(posterior, 2, method="optimal-covariance", steps=3, table=TABLE)
    assert samples.x.shape == (2, 6)
    with pytest.raises(ValueError, match=r"no exact draws .* pass table=likelihoods.Tabulated"):
        inverse.sample(posterior, 2, method="optimal-covariance", steps=3)


def test_the_table_of_errors_ends_at_the_threshold():
    prior, model, y, _ = problem()
    recipe = find("optimal-covariance").recipe(
        inverse.condition(prior, model, y), 10, table=TABLE, threshold=0.2
    )
    sigma = torch.tensor([0.1, 0.19, 0.21, 2.0], dtype=DOUBLE)
    c = recipe.prior.likelihoods[0].assumed.variance(sigma)
    wide = Isotropic(s=prior.scale).variance(sigma)
    torch.testing.assert_close(c[:2], TABLE.variance(sigma)[:2])
    torch.testing.assert_close(c[2:], wide[2:])
