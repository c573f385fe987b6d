"""The noise-absorbed likelihood: what it is exact for, and what it is not."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from likelihood_cases import moments
from method_cases import POSTERIORS, able
from problems import DOUBLE, Component, problem

import inverse
import priors
from forward_models import Identity, Inpainting, LinearGaussian, MatrixOperator
from inverse.likelihoods import (
    Absorbed,
    Exact,
    GaussianLift,
    Isotropic,
    Moments,
    PlugIn,
    Tweedie,
)
from inverse.particles import AbsorbingParticles, FilteringPosterior
from inverse.recipes import absorbed, find
from inverse.samplers import (
    Absorbing,
    AdaptiveODE,
    Ancestral,
    AnnealedLangevin,
    Langevin,
    PredictorCorrector,
    TimeTravel,
)

STEPS = 6


def gmm_25():
    """Means (8i, 8j) on a grid of 25 in 8 values, unit covariances, and two measured values."""
    g = torch.Generator().manual_seed(0)
    grid = 8.0 * torch.arange(-2, 3, dtype=DOUBLE)
    means = torch.cartesian_prod(grid, grid).repeat(1, 4)
    weights = torch.rand(25, generator=g, dtype=DOUBLE)
    prior = priors.Mixture(means, 1.0, weights / weights.sum())
    A = torch.randn(2, 8, generator=g, dtype=DOUBLE)
    model = LinearGaussian(MatrixOperator(A), 1.5)
    y = model.simulate(prior.sample(1, g), g)
    return prior, model, y


@pytest.mark.parametrize("noise", ["one number", "one a value"])
@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_density_and_shift_against_the_dense_matrix(fraction, noise):
    prior, model, y, x = problem()
    if noise == "one a value":
        S = torch.tensor([0.2, 0.3, 0.1, 0.5], dtype=DOUBLE)
        model = LinearGaussian(model.operator, S)
    A = model.operator.matrix
    S = torch.as_tensor(model.noise_variance, dtype=DOUBLE).expand(4).diag()
    lift = Absorbed(GaussianLift(model, y, Tweedie()), fraction)
    root = S.sqrt().inverse()
    assert lift.threshold == pytest.approx(fraction / float(torch.linalg.matrix_norm(root @ A, 2)))
    sigma = lift.threshold
    T = S - sigma**2 * A @ A.mT
    shift, log_h = lift.evaluate(moments(prior, x, sigma))
    residual = y - x @ A.mT
    expected = torch.distributions.MultivariateNormal(torch.zeros(4, dtype=DOUBLE), T)
    torch.testing.assert_close(log_h, expected.log_prob(residual), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(shift, sigma**2 * torch.linalg.solve(T, residual.mT).mT @ A)
    assert lift.exact_at(sigma)
    assert not lift.exact_at(1.01 * sigma)


def test_above_the_threshold_it_is_the_lift_and_below_it_takes_no_product():
    prior, model, y, x = problem()
    lift = GaussianLift(model, y, Isotropic())
    absorbed = Absorbed(lift)
    above = moments(prior, x, 2 * absorbed.threshold)
    for a, b in zip(absorbed.evaluate(above), lift.evaluate(above), strict=True):
        assert torch.equal(a, b)
    below = moments(prior, x, absorbed.threshold / 2)
    without = Moments(below.x, below.sigma, below.x0)
    assert absorbed.evaluate(without)[0].shape == x.shape


def test_h_is_the_measurement_with_its_noise_taken_back():
    """E[h(y | x) | x0] = p(y | x0): the Gaussian integral over x = x0 + sigma eps."""
    _, model, y, x0 = problem(rows=1)
    absorbed = Absorbed(PlugIn(model, y), 0.9)
    sigma = absorbed.threshold
    direction = model.operator.matrix[0] / model.operator.matrix[0].norm()
    t = torch.linspace(-9, 9, 4001, dtype=DOUBLE)
    x = x0[:1] + sigma * t[:, None] * direction
    level = torch.full((len(x), 1), sigma, dtype=DOUBLE)
    h = absorbed.log_likelihood(Moments(x, level, x)).exp()
    weight = torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi) * (t[1] - t[0])
    expected = model.log_likelihood(y, x0[:1]).exp()
    assert float(weight @ h) == pytest.approx(float(expected), rel=1e-8)


def test_unguided_steps_carry_a_gaussian_nu_to_the_posterior():
    """nu = N(m, C + s2 I) h in closed form; E[x0 | x] and Cov[x0 | x] of the prior do the rest."""
    prior, model, y, _ = problem()
    absorbed = Absorbed(PlugIn(model, y), 0.9)
    s2 = absorbed.threshold**2
    m, C = prior.moments()
    A, eye = model.operator.matrix, torch.eye(6, dtype=DOUBLE)
    T = model.noise_variance * torch.eye(4, dtype=DOUBLE) - s2 * A @ A.mT
    noisy = C + s2 * eye
    gain = noisy @ A.mT @ torch.linalg.inv(A @ noisy @ A.mT + T)
    mean, covariance = m + (y[0] - A @ m) @ gain.mT, noisy - gain @ A @ noisy
    shrink = C @ torch.linalg.inv(noisy)
    posterior = prior.condition(model, y)
    expected_mean, expected = posterior.moments()
    torch.testing.assert_close(m + shrink @ (mean - m), expected_mean)
    torch.testing.assert_close(shrink @ covariance @ shrink.mT + s2 * shrink, expected)
    # It is not the posterior seen through noise, which is wider.
    assert float((expected + s2 * eye - covariance).diagonal().min()) > 0


def test_unguided_steps_carry_nu_to_the_posterior_of_a_mixture():
    """25 components: particles of the prior weighed by h have the posterior's weights and p(y)."""
    prior, model, y = gmm_25()
    absorbed = Absorbed(GaussianLift(model, y, Tweedie()), 0.9)
    sigma = absorbed.threshold
    g = torch.Generator().manual_seed(1)
    n = 40_000
    x0 = prior.sample(n, g)
    x = x0 + sigma * torch.randn(x0.shape, generator=g, dtype=DOUBLE)
    level = torch.full((n, 1), sigma, dtype=DOUBLE)
    given = Moments(x, level, x)
    # (x0, x) is a particle and what unguided steps make of it; it is weighed at x by h alone.
    log_h, log_p = absorbed.log_likelihood(given), model.log_likelihood(y, x0)
    # Both have the mean p(y), and the same mean of any function of x0: here the components.
    evidence = float(prior.log_evidence(model, y))
    component = prior.responsibilities(x0, 0.0)
    posterior = prior.condition(model, y)
    for log_w in (log_h, log_p):
        w = log_w.exp()
        error = float(w.std() / w.mean()) / math.sqrt(n)
        assert float(w.mean().log()) == pytest.approx(evidence, abs=5 * error)
        weights = (w[:, None] * component).sum(0) / w.sum()
        assert float((weights - posterior.weights).abs().max()) < 5 * error


def test_it_is_no_drift_for_the_posterior_seen_through_noise():
    """Without prior knowledge: 1 / (s^2 - sigma^2) in place of 1 / (s^2 + sigma^2)."""
    prior = priors.Gaussian(torch.zeros(1, dtype=DOUBLE), 1e12)
    model = LinearGaussian(Identity(), 1.0)
    y, x = torch.tensor([[2.0]], dtype=DOUBLE), torch.tensor([[0.5]], dtype=DOUBLE)
    absorbed = Absorbed(GaussianLift(model, y, Tweedie()), 0.9)
    given = moments(prior, x, 0.6)
    assert float(absorbed.shift(given)) == pytest.approx(0.36 * 1.5 / (1 - 0.36))
    assert float(absorbed.lift.shift(given)) == pytest.approx(0.36 * 1.5 / (1 + 0.36))
    # A reverse SDE in s = sigma^2 that adds it at all levels: v' = 1 - 2 v / (1 - s) as s falls,
    # from v = 1 + s.
    v, steps = 1 + 0.81, 20_000
    for s in torch.linspace(0.81, 0, steps, dtype=DOUBLE).tolist():
        v += 0.81 / steps * (1 - 2 * v / (1 - s))
    assert v == pytest.approx(1 / 3, abs=0.1)


def test_absorbed_samples_have_the_spread_of_the_posterior():
    """Also in the measured directions, where Langevin steps have to make nu."""
    prior = priors.Gaussian(torch.zeros(50, dtype=DOUBLE), 1.0)
    model, g = LinearGaussian(Identity(), 1.0), torch.Generator().manual_seed(0)
    y = model.simulate(prior.sample(1, g), g)
    mean, covariance = prior.condition(model, y).moments()
    posterior = inverse.condition(prior, model, y)
    x = inverse.sample(posterior, n=400, method="mmps", steps=80, seed=0, absorb=True).x
    spread = float((x - mean).square().mean() / covariance.diagonal().mean()) ** 0.5
    assert spread == pytest.approx(1, abs=0.02)


GUIDED = [m.name for m in inverse.methods() if m.family in ("guidance", "particles")]
ABSORBING = [name for name in GUIDED if not {"linear", "image"}.isdisjoint(able(name))]


@pytest.mark.parametrize("name", ABSORBING)
def test_every_method_that_follows_a_likelihood_absorbs(name, tmp_path):
    """By name, with as many calls as it says, the same in any batch."""
    posterior = POSTERIORS["linear" if "linear" in able(name) else "image"]()
    run = partial(inverse.sample, posterior, 6, method=name, steps=STEPS, seed=3, absorb=True)
    found = run()
    assert found.diagnostics["method"] == f"{name}, absorbed"
    assert found.x.isfinite().all()
    torch.testing.assert_close(run(batch=4).x, found.x)
    recipe = absorbed(find(name).recipe(posterior, STEPS))
    calls = recipe.sampler.network_calls * (1 + recipe.prior.cost.network_calls)
    # Likelihoods that call the network themselves are not asked below the threshold.
    spent = found.diagnostics["network_calls"]
    assert spent == calls or (recipe.prior.cost.network_calls > 0 and spent < calls)
    run(checkpoint=tmp_path)
    torch.testing.assert_close(run(checkpoint=tmp_path).x, found.x)


@pytest.mark.parametrize(
    ("name", "steps"),
    [("ugd", 300), ("dps", 300), ("score-ald", 60), ("fps", 60), ("enkg", 60), ("scg", 60)],
)
def test_whatever_the_guidance_is_worth_its_samples_become_the_posterior(name, steps):
    """On a Gaussian enough Langevin steps forget it; what is left are steps of the prior."""
    g = torch.Generator().manual_seed(2)
    prior = priors.Gaussian(torch.ones(3, dtype=DOUBLE), torch.tensor([1.0, 0.5, 0.8]).double())
    A = torch.tensor([[0.8, 0.6, 0.0], [-0.3, 0.4, 0.5]], dtype=DOUBLE)
    model = LinearGaussian(MatrixOperator(A), 0.8)
    y = model.simulate(prior.sample(1, g), g)
    mean, covariance = prior.condition(model, y).moments()
    posterior = inverse.condition(prior, model, y)
    recipe, n = absorbed(find(name).recipe(posterior, steps)), 1200
    walk = recipe.sampler
    if isinstance(walk, AbsorbingParticles):
        walk = AbsorbingParticles(walk.method, walk.threshold, corrections=80)
    else:
        walk = Absorbing(walk.sampler, walk.threshold, corrections=80)
    x = inverse.sample(recipe.prior, n, sampler=walk, seed=0).x
    z = (x.mean(0) - mean.flatten()) / (covariance.diagonal() / n).sqrt()
    assert float(z.abs().max()) < 4.5
    root = torch.linalg.inv(torch.linalg.cholesky(covariance))
    spread = torch.linalg.eigvalsh(root @ torch.cov(x.T) @ root.mT)
    assert float(spread.min()) > 0.85
    assert float(spread.max()) < 1.15


@pytest.mark.parametrize("corrections", [10, 100])
def test_the_last_step_of_the_vp_grid_adds_no_spread(corrections):
    """It is nine times as long as the one before, over which denoised images cannot be followed."""
    g = torch.Generator().manual_seed(0)
    root = torch.randn(4, 4, generator=g) / 2 + torch.eye(4)
    prior = priors.Gaussian(torch.tensor([1.0, -1.0, 0.0, 0.5]), root @ root.mT)
    model = LinearGaussian(MatrixOperator(torch.randn(2, 4, generator=g)), 0.3)
    posterior = inverse.condition(prior, model, torch.tensor([0.7, -1.2]))
    _, covariance = prior.condition(model, torch.tensor([[0.7, -1.2]])).moments()
    recipe = absorbed(find("dps").recipe(posterior, 200))
    walk = Absorbing(recipe.sampler.sampler, recipe.sampler.threshold, corrections)
    x = inverse.sample(recipe.prior, 2000, sampler=walk, seed=0).x
    whiten = torch.linalg.inv(torch.linalg.cholesky(covariance))
    spread = torch.linalg.eigvalsh(whiten @ torch.cov(x.T).to(whiten) @ whiten.mT)
    assert float(spread.min()) > (0.65 if corrections == 10 else 0.8)
    assert float(spread.max()) < 1.15


def test_absorbing_particles_go_on_from_any_step_and_groups_stay_apart():
    prior, model, y, _ = problem()
    levels = priors.geometric(8, prior.sigma_range)
    both = inverse.condition(prior, model, torch.cat([y, y + 0.2]))
    both = both.lifted(lambda model, y: Absorbed(PlugIn(model, y)))
    threshold = both.likelihoods[0].threshold
    walk, kept = AbsorbingParticles(FilteringPosterior(levels), threshold, corrections=3), {}
    run = partial(walk, seed=1, dtype=DOUBLE)
    first = run(both.paired([0] * 6), 6, keep=kept.__setitem__)
    assert len(walk.path) == len(levels) + 3
    for step in (1, 5, 8, 10):
        again = run(both.paired([0] * 6), 6, state=kept[step], first_step=step)
        torch.testing.assert_close(again.x, first.x)
    pair = run(both.paired([0] * 6 + [1] * 6), 12, groups=2)
    torch.testing.assert_close(pair.x[:6], first.x)


def test_time_travel_turns_back_above_the_threshold_only():
    levels = [4.0, 2.0, 1.0, 0.5, 0.25, 0.0]
    walk = Absorbing(TimeTravel(Ancestral(levels), repeats=2), threshold=0.6, corrections=2)
    expected = [4, 2, 4, 2, 1, 2, 1, 0.5, 0.5, 0.5, 0.25, 0]
    assert walk.path.tolist() == expected
    high = TimeTravel(Ancestral(levels), repeats=2, sigma_range=(0.0, 0.5)).above(0.6)
    assert high.path.tolist() == levels


def test_weights_are_exact_where_particles_weigh_by_what_is_absorbed():
    """ddsmc and a best-of that weighs: modes in their shares, and the evidence."""
    prior, model, y = gmm_25()
    posterior = inverse.condition(prior, model, y)
    exact, evidence = prior.condition(model, y).weights, float(prior.log_evidence(model, y))
    for name, options in (("ddsmc", {}), ("scg", {"greedy": False, "candidates": 2, "begin": 0.0})):
        found = inverse.sample(
            posterior, 1500, method=name, steps=60, seed=2, absorb=True, **options
        )
        w = torch.as_tensor(found.weights)
        shares = (w[:, None] * prior.responsibilities(found.x, 0.0)).sum(0)
        assert float((shares - exact).abs().sum()) / 2 < 0.12, name
        assert abs(found.diagnostics["log_evidence"] - evidence) < 0.5, name


@pytest.mark.parametrize("name", ["exact", "dds", "red-diff"])
def test_what_cannot_absorb_is_refused_in_one_way(name):
    prior, model, y, _ = problem()
    with pytest.raises(ValueError, match="absorb=True cannot be used here: "):
        inverse.sample(inverse.condition(prior, model, y), method=name, steps=5, absorb=True)


@pytest.mark.parametrize(
    "sampler",
    [
        Langevin(0.1, 0.001, 5),
        AdaptiveODE((0.01, 10.0)),
        PredictorCorrector(Ancestral([2.0, 1.0, 0.0])),
        AnnealedLangevin([2.0, 1.0, 0.5]),
    ],
    ids=lambda s: type(s).__name__,
)
def test_samplers_whose_steps_cannot_be_left_to_the_prior_are_refused(sampler):
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    with pytest.raises(ValueError, match=r"absorb=True cannot be used here: .* choose Multistep"):
        inverse.sample(posterior, 2, method="mmps", sampler=sampler, absorb=True)


def test_bad_arguments():
    _, model, y, _ = problem()
    lift = GaussianLift(model, y, Tweedie())
    for fraction in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            Absorbed(lift, fraction)
    mixture = priors.Mixture(torch.zeros(1, 2), 0.2, torch.ones(1))
    with pytest.raises(TypeError, match="LinearGaussian"):
        Absorbed(Exact(Component(mixture), torch.tensor([0])))
    unseen = LinearGaussian(Inpainting(torch.tensor([True, False])), 0.5)
    assert Absorbed(PlugIn(unseen, torch.ones(1, 2)), 0.5).threshold == pytest.approx(0.25)
