"""DAPS, split Gibbs and their chains: laws on Gaussians, with and without the known bias."""

from __future__ import annotations

import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_cases import POSTERIORS
from problems import DOUBLE, problem
from splitting_laws import LEVELS, denoised, gaussian_case, law, law_of, recursion
from test_splitting import seen

import inverse
import priors
from inverse.recipes import decoupled, find
from inverse.splitting import (
    ConditionalDraw,
    Fresh,
    HamiltonianChain,
    LangevinChain,
    MetropolisChain,
    Optimised,
    Problem,
    Renewed,
    Slack,
    Splitting,
)
from inverse.splitting.chains import steepest
from inverse.splitting.denoisers import Denoiser

EYE = torch.eye(6, dtype=DOUBLE)


def exact_posterior():
    _, m, C, A, y = gaussian_case()
    cov = torch.linalg.inv(torch.linalg.inv(C) + A.T @ A / 0.04)
    return cov @ (torch.linalg.solve(C, m) + A.T @ y / 0.04), cov


class ExactDraw(Denoiser):
    """p(x0 | x) of N(m, C), drawn exactly."""

    calls, draws = 1, 1

    def __init__(self, C):
        self.C = C

    def __call__(self, problem, x, sigma, eps):
        gain, _ = denoised(torch.zeros(6, dtype=DOUBLE), self.C, sigma)
        root = torch.linalg.cholesky(self.C - gain @ self.C)
        return problem.prior.denoise(x, sigma) + eps() @ root.T


def daps_step(m, C, A, y, ode, euler=False):
    """x -> x' of DAPS with an exact denoiser: (M, c, L L^T) of one step; one of Euler, or all."""

    def step(sigma, ahead):
        v = sigma**2
        D, d = denoised(m, C, sigma)
        spread = C - D @ C
        if ode:  # the flow's end: each eigenvector by itself
            values, U = torch.linalg.eigh(C)
            if not euler:
                D = U @ torch.diag((values / (values + v)).sqrt()) @ U.T
            d = m - D @ m
            P = torch.linalg.inv(A.T @ A / 0.04 + EYE / v)
            M, c, Q = P @ D / v, P @ (d / v + A.T @ y / 0.04), P
        else:
            K = v * A.T @ torch.linalg.inv(0.04 * torch.eye(4, dtype=DOUBLE) + v * A @ A.T)
            N = EYE - K @ A
            M, c, Q = N @ D, N @ d + K @ y, N @ spread @ N.T + 0.04 * K @ K.T
        return M, c, Q + ahead**2 * EYE

    return step


def test_a_conditioned_sde_follows_its_recursion():
    posterior, m, C, A, y = gaussian_case()
    sampler = Splitting(LEVELS, ExactDraw(C), Renewed(ConditionalDraw(Slack()), Fresh()))
    step = daps_step(m, C, A, y, ode=False)
    for found, expected in zip(law(sampler, posterior), recursion(step, m, C), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_daps_with_an_sde_converges_to_the_posterior_and_with_an_ode_to_twice_its_width():
    """By the exact recursion; where nothing is measured an ODE's end leaves 2 C, not C."""
    _, m, C, A, y = gaussian_case()
    mean, cov = exact_posterior()
    unseen = torch.linalg.svd(A)[2][4:]
    errors = []
    for steps in (200, 800, 3200):
        levels = priors.karras(steps, (0.03, 50.0))
        found, width = recursion(daps_step(m, C, A, y, ode=False), m, C, levels)
        errors.append(max(float((found - mean).norm() / mean.norm()),
                          float((width - cov).norm() / cov.norm())))  # fmt: skip
    assert errors[2] < 0.006, errors
    assert all(fine < 0.5 * coarse for coarse, fine in pairwise(errors)), errors
    _, wide = recursion(daps_step(m, C, A, y, ode=True), m, C, levels)
    _, right = recursion(daps_step(m, C, A, y, ode=True, euler=True), m, C, levels)
    for v in unseen:
        assert float(v @ wide @ v / (v @ cov @ v)) == pytest.approx(2.0, abs=0.06)
        assert float(v @ right @ v / (v @ cov @ v)) == pytest.approx(1.0, abs=0.02)


def test_the_named_methods_show_it():
    """daps with an SDE has the posterior's width, with its ODE too much; pnp-dm comes near."""
    posterior, _, _, A, _ = gaussian_case()
    mean, cov = exact_posterior()
    v = torch.linalg.svd(A)[2][4:]

    def width(name, **options):
        x = inverse.sample(posterior, n=2000, method=name, seed=0, **options).x
        assert float((x.mean(0) - mean).norm()) < 0.1 * float(mean.norm())
        return ((x @ v.T).var(0) / (v @ cov @ v.T).diagonal()).tolist()

    for ratio in width("daps", sde=True, ode_steps=10, steps=300, end=0.05):
        assert 0.87 < ratio < 1.2, ratio
    for ratio in width("daps"):
        assert ratio > 1.3, ratio  # five steps of Euler shrink what would be 2
    for ratio in width("pnp-dm", end=0.1, steps=120, sde_steps=10):
        assert 0.8 < ratio < 1.2, ratio


def test_daps_ends_without_the_noise_of_its_last_level():
    """One Euler step is the mean; the last data step is x0 + K (y + e - A x0), by its recursion.

    So nothing is added where nothing is measured, and the noise of y, once, where something is.
    """
    posterior, m, C, A, y = gaussian_case()
    sampler = find("daps").recipe(posterior, 12, end=0.3).sampler
    last = float(sampler.levels[-2])

    def step(sigma, ahead, noisy=False):
        D, d = denoised(m, C, sigma)
        v = sigma**2
        if ahead > 0 or noisy:
            P = torch.linalg.inv(A.T @ A / 0.04 + EYE / v)
            return P @ D / v, P @ (d / v + A.T @ y / 0.04), P + ahead**2 * EYE
        K = v * A.T @ torch.linalg.inv(0.04 * torch.eye(4, dtype=DOUBLE) + v * A @ A.T)
        return (EYE - K @ A) @ D, (EYE - K @ A) @ d + K @ y, 0.04 * K @ K.T

    found = law(sampler, posterior)
    for value, expected in zip(found, recursion(step, m, C, sampler.levels), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
    _, drawn = recursion(lambda s, ahead: step(s, ahead, noisy=True), m, C, sampler.levels)
    for v in torch.linalg.svd(A)[2][4:]:
        assert float(v @ (drawn - found[1]) @ v) == pytest.approx(last**2, rel=1e-6)
    assert find("daps").recipe(POSTERIORS["black box"](), 5).sampler.update.last is None


def distance(found, exact) -> float:
    """Wasserstein-2 between two Gaussians, (mean, covariance) each."""

    def root(S):
        values, U = torch.linalg.eigh(S)
        return U @ torch.diag(values.clamp(min=0).sqrt()) @ U.T

    (m, S), (mean, cov) = found, exact
    cross = root(root(cov) @ S @ root(cov))
    return float((m - mean).square().sum() + torch.trace(S + cov - 2 * cross)) ** 0.5


@pytest.mark.parametrize(
    ("name", "option", "inner", "steps"),
    [("daps", "ode_steps", 5, 200), ("pnp-dm", "sde_steps", 20, 100)],
)
def test_few_calls_go_to_many_steps(name, option, inner, steps):
    """The paper's split at its number of steps; below it one that is nearer to the posterior."""
    posterior, *_ = gaussian_case()

    def sampler(count, **options):
        return find(name).recipe(posterior, count, **options).sampler

    assert sampler(steps).network_calls == sampler(steps, **{option: inner}).network_calls
    assert sampler(2 * steps).network_calls == 2 * steps * inner
    calls = [sampler(k).network_calls for k in range(1, steps + 1)]
    assert all(few < more for few, more in pairwise(calls))
    assert calls[24] == 25
    kept = sampler(100 // inner, **{option: inner})
    most = max(k for k, c in enumerate(calls, 1) if c <= kept.network_calls)
    exact = exact_posterior()
    assert distance(law(sampler(most), posterior), exact) < 0.5 * distance(
        law(kept, posterior), exact
    )


def target(posterior, x0, v):
    """Mean and covariance of p(y | z) N(z; x0, v I)."""
    _, _, _, A, y = gaussian_case()
    cov = torch.linalg.inv(A.T @ A / 0.04 + EYE / v)
    return cov @ (A.T @ y / 0.04 + x0[0] / v), cov


def test_langevin_chains_have_the_law_of_their_target():
    """In its eigenbasis: variance 1 / (h (1 - a h / 2)), reached like (1 - a h)^(2 k)."""
    posterior, *_ = gaussian_case()
    x0, sigma = torch.full((1, 6), 0.3, dtype=DOUBLE), 0.3
    mean, cov = target(posterior, x0, sigma**2)
    chain = LangevinChain(Slack(), 150, relative_step=0.2)
    L = float(steepest(Problem(posterior), x0, sigma**2))
    assert 0.9 < L / float(torch.linalg.eigvalsh(torch.linalg.inv(cov))[-1]) < 1.0001

    def run(noise, n):
        eps = lambda which=0, shape=None: noise.normal(which)  # noqa: E731
        return chain(seen(posterior, x0.expand(n, -1), sigma=sigma, eps=eps))

    centre, found = law_of(run, (6,))
    curvature, U = torch.linalg.eigh(torch.linalg.inv(cov))
    a = 0.2 / L
    shrunk = (1 - a * curvature) ** (2 * 150)
    variance = (1 - shrunk) / (curvature * (1 - a * curvature / 2))
    torch.testing.assert_close(found, U @ torch.diag(variance) @ U.T, rtol=1e-4, atol=1e-6)
    left = U @ ((1 - a * curvature) ** 150 * (U.T @ (x0[0] - mean)))
    torch.testing.assert_close(centre, mean + left, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "chain",
    [HamiltonianChain(Slack(), 60), MetropolisChain(Slack(), 600)],
    ids=["hamiltonian", "metropolis"],
)
def test_chains_that_refuse_have_the_law_of_their_target(chain):
    posterior, *_ = gaussian_case()
    n, sigma = 1500, 0.3
    x0 = torch.full((n, 6), 0.3, dtype=DOUBLE)
    mean, cov = target(posterior, x0, sigma**2)
    g = torch.Generator().manual_seed(2)

    def eps(which=0, shape=None):
        return torch.randn(n, *(shape or (6,)), generator=g, dtype=DOUBLE)

    z = chain(seen(posterior, x0, sigma=sigma, eps=eps))
    white = (z - mean) @ torch.linalg.inv(torch.linalg.cholesky(cov)).T
    assert float(white.mean(0).abs().max()) < 0.2
    assert float((white.T @ white / n - EYE).abs().max()) < 0.25


def test_metropolis_needs_no_gradient_and_langevin_says_so():
    posterior = POSTERIORS["black box"]()
    x0 = torch.zeros(2, 6, dtype=DOUBLE)
    MetropolisChain(Slack(), 5)(seen(posterior, x0))
    for chain in (LangevinChain(Slack(), 5), HamiltonianChain(Slack(), 5)):
        with pytest.raises(TypeError, match="black box: log p"):
            chain(seen(posterior, x0))


def test_optimised_inputs_explain_the_measurement_and_no_more():
    """SITCOM's D(v): the misfit falls to that of the noise, and v stays at x where it is there."""
    posterior = POSTERIORS["curved"]()
    problem = Problem(posterior)
    x = 2 * torch.randn(8, 6, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    (model, y), = posterior.factors  # fmt: skip

    def misfits(iterations):
        return model.misfit(y, Optimised(iterations, lam=1e-3, rate=0.05)(problem, x, 0.5, None))

    before = model.misfit(y, posterior.prior.denoise(x, 0.5))
    after = misfits(100)
    assert bool((after < torch.maximum(before, torch.tensor(1.05))).all())
    assert float(after.median()) < 0.6 * float(before.median())
    assert Optimised(20).calls == 21
    fine = x[before <= 1]
    if len(fine):
        same = Optimised(50)(problem, fine, 0.5, None)
        torch.testing.assert_close(same, posterior.prior.denoise(fine, 0.5))


def test_sitcom_goes_as_far_in_few_iterations():
    """iterations * steps * rate of the paper; 90 calls fit y better so than by its split."""
    posterior, *_ = gaussian_case()
    for steps, iterations, rate in ((20, 20, 0.01), (40, 20, 0.01), (10, 10, 0.04), (4, 4, 0.1)):
        denoiser = find("sitcom").recipe(posterior, steps).sampler.denoiser
        assert denoiser.iterations == iterations
        assert denoiser.rate == pytest.approx(rate)

    def misfit(steps, **options):
        few = {"n": 200, "method": "sitcom", "steps": steps, "seed": 0, **options}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return inverse.sample(posterior, **few).diagnostics["reduced_chi2"]

    assert misfit(9) < 0.5 * misfit(4, iterations=20, rate=0.01)


def test_dcdp_fits_linear_measurements_by_least_squares():
    """Four values of six: ten conjugate gradients of four directions solve for them, from x0."""
    posterior, _, _, A, y = gaussian_case()
    data = find("dcdp").recipe(posterior, 5).sampler.update.data
    x0 = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    expected = x0 + (y - x0 @ A.T) @ torch.linalg.pinv(A).T
    torch.testing.assert_close(data(seen(posterior, x0)), expected, rtol=1e-6, atol=1e-7)
    fit = inverse.sample(posterior, n=4, method="dcdp", steps=20, seed=0).diagnostics
    assert fit["reduced_chi2"] < 1e-6  # y is believed, noise and all


def test_annealing_of_pnp_dm():
    recipe = find("pnp-dm").recipe(POSTERIORS["opaque"](), 100)
    path = recipe.sampler.path
    assert len(path) == 101
    assert float(path[0]) == 10
    assert float(path[1]) == pytest.approx(9)
    assert path[-3:].tolist() == pytest.approx([0.3, 0.3, 0.0])
    few = find("pnp-dm").recipe(POSTERIORS["opaque"](), 4).sampler.path
    assert few.tolist() == pytest.approx([10, 10 * 0.03 ** (1 / 3), 10 * 0.03 ** (2 / 3), 0.3, 0])


def test_options_are_checked():
    posterior = POSTERIORS["opaque"]()
    for name, options, why in [
        ("daps", {"inner": "mala"}, "inner must be one of exact, langevin"),
        ("daps", {"length": 0, "inner": "hmc"}, "length must be an integer"),
        ("daps", {"sde": True, "inner": "hmc"}, "sde=True takes linear"),
        ("pnp-dm", {"decay": 1.5}, r"decay must lie in \(0, 1\)"),
        ("pnp-dm", {"end": 20.0}, "end must be below"),
        ("sitcom", {"lam": -1.0}, "lam must be"),
        ("dcdp", {"iterations": 0}, "iterations must be"),
    ]:
        with pytest.raises(ValueError, match=why):
            inverse.sample(posterior, method=name, steps=3, **options)
    with pytest.raises(ValueError, match="sde=True takes linear"):
        inverse.sample(POSTERIORS["curved"](), method="daps", sde=True)
    with pytest.raises(ValueError, match="relative_step must lie"):
        LangevinChain(Slack(), 5, relative_step=1.5)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("daps", {"ode_steps": 0}, "ode_steps must be an integer >= 1"),
        ("pnp-dm", {"sde_steps": 0}, "sde_steps must be an integer >= 1"),
        ("daps", {"length": -5}, "length must be an integer"),
        ("pnp-dm", {"length": 3}, "the draw is exact here"),
        ("daps", {"sde": True, "length": 5}, "no `inner` or `length`"),
        ("daps", {"sde": "no"}, "sde must be True or False"),
        ("daps", {"end": 1e9}, "end must be below the level that is started from"),
        ("pnp-dm", {"start": 0.1, "end": 0.3}, "end must be below"),
        ("pnp-dm", {"decay": 1.0}, "decay must lie in"),
        ("d-flow", {"blend": 7.0}, "blend must lie in"),
        ("dmplug", {"recompute": "x"}, "recompute must be True or False"),
    ],
)
def test_options_that_would_be_ignored_or_clipped_are_refused(name, options, said):
    with pytest.raises(ValueError, match=said):
        find(name).recipe(POSTERIORS["linear" if name in ("daps", "pnp-dm") else "curved"](), 5,
                          **options)  # fmt: skip


@given(st.floats(0.5, 20), st.floats(0.5, 0.97), st.integers(1, 30), st.integers(1, 40))
def test_annealed_levels_fall_whatever_the_rounding(start, decay, k, steps):
    """Also where `end` is start decay^k, which logarithms miss by a rounding error."""
    levels, held = decoupled._annealed(steps, start, decay, start * decay**k)
    assert bool((levels.diff() < 0).all())
    assert len(levels) - 1 + held == steps


def test_no_method_calls_a_prior_beyond_its_noise_levels():
    """A network trained up to 5 says nothing of level 10."""

    class Bounded(priors.Prior):
        event_shape, sigma_range, scale = (6,), (0.02, 5.0), 1.0

        def _denoise(self, x, sigma):
            assert float(sigma.max()) < 5.001
            return x / (1 + sigma**2)

    _, model, y, _ = problem()
    posterior = inverse.condition(Bounded(), model, y)
    for method in inverse.methods(posterior):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inverse.sample(posterior, 2, method=method.name, steps=4, seed=0)
