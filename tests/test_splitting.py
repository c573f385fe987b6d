"""Splitting: its parts do what they say, and methods follow their own closed-form recursions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from method_cases import POSTERIORS
from problems import DOUBLE, problem
from splitting_laws import LEVELS, denoised, gaussian_case, law, law_of, recursion

import inverse
import priors
from forward_models import (
    Blur,
    Downsampling,
    Gaussian,
    LinearGaussian,
    MatrixOperator,
    from_simulator,
    gaussian_kernel,
)
from inverse.recipes import find
from inverse.samplers import Ancestral
from inverse.splitting import (
    FlowODE,
    Fresh,
    GaussianDraw,
    Mean,
    Partly,
    Problem,
    ProximalMap,
    Renewed,
    ReverseSDE,
    Slack,
    Split,
    Splitting,
    Without,
)


def seen(posterior, x0, sigma=0.7, before=None, eps=None) -> Split:
    zero = torch.zeros_like(x0)
    return Split(
        Problem(posterior), x0, x0, sigma, sigma / 2,
        eps=eps or (lambda which=0, shape=None: zero), before=before,
    )  # fmt: skip


def noise_of(x0):
    return torch.randn(x0.shape, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)


@pytest.mark.parametrize("key", ["linear", "image"])
@pytest.mark.parametrize("slack", [Slack(), Slack(1 / 8), Slack(ahead=True), Slack(fixed=0.3)])
def test_the_proximal_map_of_a_linear_model_is_where_the_slope_vanishes(key, slack):
    posterior = POSTERIORS[key]()
    x0 = noise_of(torch.empty(3, *posterior.event_shape))
    split = seen(posterior, x0)
    z = ProximalMap(slack)(split)
    _, slope = split.problem.gradient(z)
    v = slack.variance(split)
    torch.testing.assert_close(slope, (z - x0) / v, rtol=1e-6, atol=1e-7)


def test_a_warm_start_leads_to_the_same_point_in_fewer_products():
    prior = priors.Gaussian(torch.zeros(1, 16, 16, dtype=DOUBLE), 1.0)
    calls = []

    class Counted(Blur):
        def _apply(self, x):
            calls.append(1)
            return super()._apply(x)

        svd = None

    model = LinearGaussian(Counted(gaussian_kernel(1.5, 7), "reflect"), 0.02)
    g = torch.Generator().manual_seed(0)
    posterior = inverse.condition(prior, model, torch.randn(1, 16, 16, generator=g, dtype=DOUBLE))
    x0 = noise_of(torch.empty(2, 1, 16, 16))
    cold = ProximalMap(Slack())(seen(posterior, x0))
    near = x0 + 1e-4 * noise_of(x0).flip(0)
    before = ProximalMap(Slack())(seen(posterior, near))
    spent = []
    for start in (None, before):
        calls.clear()
        z = ProximalMap(Slack())(seen(posterior, x0, before=start))
        spent.append(len(calls))
        torch.testing.assert_close(z, cold, rtol=1e-6, atol=1e-7)
    assert spent[1] < 0.8 * spent[0], spent


def test_k_conjugate_gradients_minimise_over_the_krylov_space():
    """On (v A^T A / S + 1) d = b, the k-th iterate is the best in span{b, K b, ... K^(k-1) b}."""
    prior, model, y, x0 = problem(size=6, rows=4)
    posterior, v = inverse.condition(prior, model, y), 0.3
    A = model.operator.matrix.to(DOUBLE)
    K = torch.eye(6, dtype=DOUBLE) + v * A.T @ A / 0.04
    b = v / 0.04 * (y - x0 @ A.T) @ A
    for k in (1, 2, 3):
        span = torch.stack([b @ torch.linalg.matrix_power(K, j) for j in range(k)], 2)
        small = span.mT @ K @ span
        best = (span @ torch.linalg.solve(small, span.mT @ b[..., None]))[..., 0]
        z = ProximalMap(Slack(fixed=v), iterations=k)(seen(posterior, x0))
        torch.testing.assert_close(z - x0, best, rtol=1e-6, atol=1e-8)


def test_climbing_is_conjugate_gradients_where_the_model_is_linear():
    prior, model, y, x0 = problem()
    A = model.operator.matrix.to(DOUBLE)
    hidden = from_simulator(lambda x: x @ A.T.to(x), Gaussian(0.2), (6,))
    z = ProximalMap(Slack(), iterations=12)(seen(inverse.condition(prior, hidden, y), x0))
    exact = ProximalMap(Slack())(seen(inverse.condition(prior, model, y), x0))
    torch.testing.assert_close(z, exact, rtol=1e-4, atol=1e-5)


def test_climbing_ends_where_the_slope_vanishes_and_never_falls():
    posterior = POSTERIORS["curved"]()
    x0 = noise_of(torch.empty(4, 6)) * 2
    split = seen(posterior, x0)
    values = []
    for k in (1, 2, 5, 60):
        z = ProximalMap(Slack(), iterations=k)(split)
        values.append(split.problem.log_likelihood(z) - (z - x0).square().sum(1) / (2 * 0.49))
    assert all(bool((b >= a - 1e-9).all()) for a, b in pairwise(values))
    _, slope = split.problem.gradient(z)
    assert float((slope - (z - x0) / 0.49).abs().max()) < 1e-3
    alone = ProximalMap(Slack(), iterations=5)(seen(posterior, x0[1:2]))
    torch.testing.assert_close(alone, ProximalMap(Slack(), iterations=5)(split)[1:2])


def test_a_gaussian_draw_has_the_exact_mean_and_covariance():
    prior, model, y, x0 = problem()
    posterior, x0, v = inverse.condition(prior, model, y), x0[:1], 0.49
    A = model.operator.matrix.to(DOUBLE)
    precision = A.T @ A / 0.04 + torch.eye(6, dtype=DOUBLE) / v
    mean = torch.linalg.solve(precision, (y @ A / 0.04 + x0 / v)[0])

    def drawn(which_hot=None, place=0):
        def eps(which=0, shape=None):
            z = torch.zeros(1, *(shape or (6,)), dtype=DOUBLE)
            if which == which_hot:
                z[0, place] = 1
            return z

        return GaussianDraw(Slack())(seen(posterior, x0, eps=eps))[0]

    torch.testing.assert_close(drawn(), mean)
    F = torch.stack([drawn(0, i) - mean for i in range(6)] + [drawn(1, i) - mean for i in range(4)])
    torch.testing.assert_close(F.T @ F, torch.linalg.inv(precision))


# --- closed-form recursions on a Gaussian prior ---------------------------------------------------


def proximal_matrices(A, y, v):
    """x0 -> z as (matrix, offset), for S = 0.04."""
    precision = A.T @ A / 0.04 + torch.eye(A.shape[1], dtype=DOUBLE) / v
    return torch.linalg.inv(precision) / v, torch.linalg.solve(precision, A.T @ y / 0.04)


@pytest.mark.parametrize("zeta", [0.0, 0.3, 1.0])
def test_diffpir_follows_its_recursion(zeta):
    """x' = z + sigma' (sqrt(1 - zeta) (x - z) / sigma + sqrt(zeta) e), z the proximal map."""
    posterior, m, C, A, y = gaussian_case()
    eye = torch.eye(6, dtype=DOUBLE)

    def step(sigma, sigma_next):
        D, d = denoised(m, C, sigma)
        P, p = proximal_matrices(A, y, sigma**2 / 8)
        Z, z = P @ D, P @ d + p
        k = math.sqrt(1 - zeta) * sigma_next / sigma
        return (1 - k) * Z + k * eye, (1 - k) * z, zeta * sigma_next**2 * eye

    sampler = Splitting(
        LEVELS, Mean(), Renewed(ProximalMap(Slack(1 / 8)), Partly(zeta=zeta, seen_from="data"))
    )
    for found, expected in zip(law(sampler, posterior), recursion(step, m, C), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_dds_follows_its_recursion():
    """x' = z + sqrt(sigma'^2 - c^2) (x - x0) / sigma + c e, z of (gamma A^T A + 1) z = ..."""
    posterior, m, C, A, y = gaussian_case()
    eye, gamma, eta = torch.eye(6, dtype=DOUBLE), 5.0, 0.85

    def step(sigma, sigma_next):
        D, d = denoised(m, C, sigma)
        P = torch.linalg.inv(gamma * A.T @ A + eye)
        c = eta * sigma_next / sigma * math.sqrt(sigma**2 - sigma_next**2)
        k = math.sqrt(sigma_next**2 - c**2) / sigma
        matrix = P @ D + k * (eye - D)
        return matrix, P @ (d + gamma * A.T @ y) - k * d, c**2 * eye

    recipe = find("dds").recipe(posterior, 4, iterations=6)
    sampler = Splitting(LEVELS, recipe.sampler.denoiser, recipe.sampler.update)
    for found, expected in zip(law(sampler, posterior), recursion(step, m, C), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


# --- the loop -------------------------------------------------------------------------------------


def test_denoisers_without_a_data_step_are_the_samplers_they_are_made_of():
    """The SDE's end has the law of x0 given x, the ODE's end is a point; both from one x."""
    prior, model, y, x = problem()
    posterior = inverse.condition(prior, model, y)
    part = Problem(posterior)
    x = x[:1]
    mean, product = prior.covariance(x, 0.7)
    C = torch.cat([product(row[None]) for row in torch.eye(6, dtype=DOUBLE)])

    def ends(denoiser):
        def run(noise, n):
            return denoiser(part, x.expand(n, -1), 0.7, later(noise))

        return law_of(run, (6,))

    def later(noise):
        return lambda which=0, shape=None: noise.normal(which)

    errors = []
    for steps in (10, 20):
        centre, cov = ends(ReverseSDE(steps))
        errors.append(max(float((centre - mean[0]).norm()), float((cov - C).norm())))
    assert errors[0] < 0.35 * float(C.norm()), errors
    assert 2.5 < errors[0] / errors[1] < 6, errors  # weak order 2
    assert Mean().calls == 1
    assert FlowODE(5).calls == 5
    assert FlowODE(5).draws == 0
    direct = Ancestral(priors.karras(5, (min(prior.sigma_range[0], 0.35), 0.7)), eta=0.0)
    point, spread = ends(FlowODE(5))
    torch.testing.assert_close(point, direct(prior, start=x)[0])
    assert float(spread.norm()) == 0


def test_split_gibbs_with_an_sde_converges_to_the_exact_gaussian_posterior():
    """x ~ p(x) N(x; z, rho^2), z ~ p(y | z) N(z; x, rho^2); the bias falls with rho."""
    posterior, m, C, A, y = gaussian_case()
    precision = torch.linalg.inv(C) + A.T @ A / 0.04
    exact = torch.linalg.inv(precision)
    centre = exact @ (torch.linalg.solve(C, m) + A.T @ y / 0.04)
    means, covariances = [], []
    for rho in (0.4, 0.2):  # what it forgets a step falls as rho^2, so it stays the longer
        levels = torch.tensor([2.0, 1.0, rho, 0.0], dtype=DOUBLE)
        update = Renewed(GaussianDraw(Slack(ahead=True)), Without())
        gibbs = Splitting(levels, ReverseSDE(16), update, held=round(2.4 / rho**2))
        mean, cov = law(gibbs, posterior)
        means.append(float((mean - centre).norm() / centre.norm()))
        covariances.append(float((cov - exact).norm() / exact.norm()))
    assert means[1] < 0.5 * means[0], means
    assert covariances[1] < 0.45 * covariances[0], covariances
    assert max(means[1], covariances[1]) < 0.15, (means, covariances)


def test_time_dependent_factors_are_denoised_with():
    """A classifier known at every level is part of the prior that a splitting denoises by."""
    from problems import Component

    means = torch.tensor([[-3.0, 0.0], [3.0, 0.5]], dtype=DOUBLE)
    mixture = priors.Mixture(means, 0.2, torch.tensor([0.5, 0.5], dtype=DOUBLE))
    model = LinearGaussian(MatrixOperator(torch.tensor([[0.0, 1.0]], dtype=DOUBLE)), 0.1)
    y = torch.tensor([[0.2]], dtype=DOUBLE)
    for label in (0, 1):
        posterior = inverse.condition(mixture, Component(mixture), label).given(model, y)
        samples = inverse.sample(posterior, n=32, method="diffpir", steps=30, seed=0)
        assert bool((samples.x[:, 0].sign() == (1 if label else -1)).all())


def test_a_splitting_needs_a_posterior_and_its_parts_are_checked():
    prior, model, y, _ = problem()
    splitting = Splitting(LEVELS, Mean(), Renewed(ProximalMap(Slack()), Fresh()))
    with pytest.raises(TypeError, match=r"splits a Posterior from .*, got Gaussian"):
        splitting(prior, 2)
    with pytest.raises(TypeError, match=r"needs linear measurements with .*, got Obs"):
        GaussianDraw(Slack())(seen(POSTERIORS["curved"](), torch.zeros(1, 6, dtype=DOUBLE)))
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match="an integer >= 1"):
            FlowODE(bad)
        with pytest.raises(ValueError, match="an integer >= 1"):
            ProximalMap(Slack(), iterations=bad)
    with pytest.raises(ValueError, match="held must be"):
        Splitting(LEVELS, Mean(), Renewed(ProximalMap(Slack()), Fresh()), held=-1)
    with pytest.raises(ValueError, match=r"scale must be a finite number > 0"):
        Slack(0.0)
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        Partly(eta=1.2)
    with pytest.raises(ValueError, match="seen_from must be"):
        Partly(seen_from="y")
    posterior = inverse.condition(prior, model, y)
    with pytest.raises(ValueError, match="no likelihood under a sampler"):
        inverse.sample(posterior, method="diffpir", sampler=Ancestral(LEVELS))
    with pytest.raises(ValueError, match=r"uses p\(y \| x0\) alone"):
        inverse.sample(posterior, method="diffpir", absorb=True)


@pytest.mark.filterwarnings("ignore:.*effective of 3 particles")
@pytest.mark.parametrize("method", ["ddrm", "ddnm", "ddnm-plus", "mcgdiff", "ddsmc"])
def test_an_operator_of_any_size_is_sampled_as_one_of_the_size(method):
    prior = priors.Gaussian(torch.zeros(2, 8, 8), 1.0)
    x = prior.sample(1, torch.Generator().manual_seed(0))
    samples = []
    for operator in (Downsampling(4), Downsampling(4, image_shape=(2, 8, 8))):
        model = LinearGaussian(operator, 0.1)
        y = model.simulate(x, torch.Generator().manual_seed(1))
        posterior = inverse.condition(prior, model, y)
        samples.append(inverse.sample(posterior, n=3, method=method, steps=4, seed=0).x)
    assert torch.equal(*samples)
