"""Particle methods: resampling, seeds, groups, restarts and refusals, for every class."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from particle_cases import GAUSSIAN, PARTICLES, SEVERAL_CALLS
from problems import DOUBLE, problem

import inverse
import priors
from forward_models import LinearGaussian, MatrixOperator
from inverse.particles import effective_sample_size, log_mean_exp, systematic
from inverse.running import Counted
from inverse.samplers import DivergenceError

every_method = pytest.mark.parametrize("make", PARTICLES.values(), ids=PARTICLES.keys())


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=40), st.floats(0, 0.999999))
def test_systematic_resampling_copies_each_particle_its_share_of_times(log_weights, u):
    log_w = torch.tensor([log_weights], dtype=DOUBLE)
    share = len(log_weights) * torch.softmax(log_w, -1)[0]
    chosen = systematic(log_w, torch.tensor([u], dtype=DOUBLE))[0]
    copies = torch.bincount(chosen, minlength=len(log_weights))
    assert (copies >= (share - 1e-9).floor()).all()
    assert (copies <= (share + 1e-9).ceil()).all()
    assert copies.sum() == len(log_weights)


def test_systematic_resampling_is_unbiased():
    log_w = torch.tensor([[0.3, -1.0, 2.0, 0.0]], dtype=DOUBLE)
    comb = (torch.arange(1000, dtype=DOUBLE) + 0.5) / 1000
    chosen = systematic(log_w.expand(1000, -1), comb)
    mean = torch.stack([(chosen == i).sum(1) for i in range(4)], 1).double().mean(0)
    torch.testing.assert_close(mean, 4 * torch.softmax(log_w, -1)[0], atol=5e-3, rtol=0)


def test_effective_samples_and_mean_weight():
    even = torch.zeros(2, 5, dtype=DOUBLE) + 3
    assert effective_sample_size(even).tolist() == pytest.approx([5, 5])
    assert log_mean_exp(even).tolist() == pytest.approx([3, 3])
    one = torch.tensor([[0.0, -math.inf, -math.inf]], dtype=DOUBLE)
    assert effective_sample_size(one).item() == pytest.approx(1)
    assert log_mean_exp(one).item() == pytest.approx(-math.log(3))


def gaussian_problem():
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    mean, covariance = prior.condition(model, y).moments()
    A = model.operator.apply(torch.eye(len(mean), dtype=DOUBLE)).T
    prior_mean, prior_covariance = prior.moments()
    noise = model.sigma**2 * torch.eye(len(A), dtype=DOUBLE)
    marginal = torch.distributions.MultivariateNormal(
        A @ prior_mean, A @ prior_covariance @ A.T + noise
    )
    return posterior, mean, covariance, float(marginal.log_prob(y[0]))


def levels(posterior, steps: int):
    return priors.geometric(steps, posterior.sigma_range)


@pytest.mark.parametrize("name", sorted(PARTICLES.keys() - GAUSSIAN))
def test_modes_get_their_weights(name):
    """Two modes that y cannot tell apart but for their prior weights, .8 and .2."""
    means = torch.tensor([[-4.0, 1.0], [4.0, 1.0]], dtype=DOUBLE)
    prior = priors.Mixture(means, 0.3, torch.tensor([0.8, 0.2], dtype=DOUBLE))
    model = LinearGaussian(MatrixOperator(torch.tensor([[0.0, 1.0]], dtype=DOUBLE)), 0.2)
    posterior = inverse.condition(prior, model, torch.tensor([1.1], dtype=DOUBLE))
    found = PARTICLES[name](levels(posterior, 60))(posterior, 1500, seed=3, dtype=DOUBLE)
    left = float(found.log_weights.exp()[found.x[:, 0] < 0].sum())
    assert abs(left - 0.8) < 5 * math.sqrt(0.16 / float(found.roots)), (left, found.roots)


@every_method
def test_a_run_follows_its_seed_whatever_the_network_batch(make):
    posterior, *_ = gaussian_problem()
    method = make(levels(posterior, 8))
    run = lambda **k: method(posterior, 8, groups=2, dtype=DOUBLE, **k)  # noqa: E731
    whole = run(seed=5)
    for batch in (1, 3):
        torch.testing.assert_close(run(seed=5, batch=batch).x, whole.x)
        torch.testing.assert_close(run(seed=5, batch=batch).log_weights, whole.log_weights)
    assert not torch.allclose(run(seed=6).x, whole.x)


@every_method
def test_groups_are_independent_problems(make):
    """A group gives what it gives beside others: only resampling couples, inside a group."""
    prior, model, y, _ = problem()
    ys = torch.cat([y, y + 0.2])
    both = inverse.condition(prior, model, ys).paired([0] * 12 + [1] * 12)
    method = make(levels(both, 8))
    found = method(both, 24, groups=2, seed=2, dtype=DOUBLE)
    first = method(inverse.condition(prior, model, y), 12, seed=2, dtype=DOUBLE)
    torch.testing.assert_close(found.x[:12], first.x)
    torch.testing.assert_close(found.log_evidence[:1], first.log_evidence, equal_nan=True)


@every_method
def test_going_on_from_any_step_gives_the_same_particles(make):
    posterior, *_ = gaussian_problem()
    method = make(levels(posterior, 8))
    kept = {}
    whole = method(posterior, 10, seed=1, dtype=DOUBLE, keep=kept.__setitem__)
    for step in (1, 4, 8):
        again = method(posterior, 10, seed=1, dtype=DOUBLE, state=kept[step], first_step=step)
        for field in dataclasses.fields(whole):
            then, now = getattr(whole, field.name), getattr(again, field.name)
            torch.testing.assert_close(now, then, equal_nan=True)


@pytest.mark.parametrize("name", PARTICLES)
def test_network_calls_are_the_stated_ones_and_one_a_step(name):
    posterior, *_ = gaussian_problem()
    method = PARTICLES[name](levels(posterior, 8))
    counted = Counted(posterior.prior)
    method(posterior.over(counted), 4, seed=1, dtype=DOUBLE)
    assert counted.network_calls == method.network_calls
    assert (method.network_calls == 8) == (name not in SEVERAL_CALLS)


@every_method
def test_nan_is_refused_with_step_and_level(make):
    prior, model, y, _ = problem()

    class Broken(priors.Prior):
        event_shape, sigma_range = prior.event_shape, prior.sigma_range

        def _denoise(self, x, sigma):
            x0 = prior.denoise(x, sigma.flatten())
            return x0 * float("nan") if float(sigma.max()) < 1 else x0

        def _covariance(self, x, sigma):
            _, product = prior.covariance(x, sigma.flatten())
            return self._denoise(x, sigma), product

    posterior = inverse.condition(Broken(), model, y)
    with pytest.raises(DivergenceError, match=r"step \d+/8, sigma = "):
        make(levels(posterior, 8))(posterior, 4, dtype=DOUBLE)


@every_method
def test_bad_arguments_are_refused(make):
    posterior, *_ = gaussian_problem()
    with pytest.raises(ValueError, match="multiple of groups, got 5 and 2"):
        make(levels(posterior, 4))(posterior, 5, groups=2)
    with pytest.raises(ValueError, match="last level of 0"):
        make(torch.tensor([2.0, 1.0]))


def test_samples_carry_their_weights_and_the_evidence():
    posterior, _, covariance, log_evidence = gaussian_problem()
    samples = inverse.sample(posterior, n=400, method="tds", seed=0)
    assert samples.weights.sum().item() == pytest.approx(1)
    assert samples.effective == pytest.approx(1 / samples.weights.square().sum().item())
    assert abs(samples.diagnostics["log_evidence"] - log_evidence) < 0.5
    torch.testing.assert_close(samples.mean, samples.weights @ samples.x)
    low, high = samples.interval(0.8)
    held = ((samples.x >= low) & (samples.x <= high)).to(DOUBLE)
    assert ((samples.weights @ held - 0.8).abs() < 0.03).all()
    assert (samples.std / covariance.diagonal().sqrt() - 1).abs().max() < 0.3


def test_bootstrap_needs_more_particles_than_guided_proposals():
    posterior, *_ = gaussian_problem()
    least = [
        inverse.sample(posterior, n=400, method=name, seed=0).diagnostics["roots"]
        for name in ("tds", "bootstrap")
    ]
    assert least[0] > 2 * least[1], least


def test_a_collapse_of_ancestors_shows_in_what_is_printed():
    """The weights at the end are worth half of the particles, which are a few times copied."""
    posterior, *_ = gaussian_problem()
    samples = inverse.sample(posterior, n=400, method="bootstrap", steps=60, seed=0)
    roots = samples.diagnostics["roots"]
    least = samples.diagnostics["least_effective_samples"]
    assert samples.effective > 5 * roots
    told = f"{samples.effective:.3g} of 400, {least:.3g} at the worst step, descended from {roots} "
    assert repr(samples).endswith(f", effective: {told}at the start)")
    model, y = posterior.factors[0]
    several = inverse.condition(posterior.prior, model, y.repeat(2, 1))
    both = inverse.sample(several, n=200, method="bootstrap", steps=60, seed=0)
    fewest = min(both.diagnostics["roots"])
    assert both.worth.startswith(f"at least {min(g.effective for g in both.groups):.3g} of 100, ")
    assert both.worth.endswith(f"descended from {fewest} at the start")
    assert inverse.Samples(samples.x).worth == ""


def test_absorbed_measurements_cost_nothing_and_stay_exact():
    """Below the threshold no guidance, no weights, no products; the law stays the posterior."""
    posterior, mean, covariance, log_evidence = gaussian_problem()
    plain, absorbed = (
        inverse.sample(posterior, n=1500, method="tds", seed=1, absorb=absorb)
        for absorb in (False, True)
    )
    assert absorbed.diagnostics["method"] == "tds, absorbed"
    spent = [s.diagnostics["jacobian_products"] for s in (plain, absorbed)]
    assert spent[1] < 0.7 * spent[0]
    z = (absorbed.mean - mean) / (covariance.diagonal() / absorbed.effective).sqrt()
    assert z.abs().max() < 5, z
    assert (absorbed.std / covariance.diagonal().sqrt() - 1).abs().max() < 0.15
    assert abs(absorbed.diagnostics["log_evidence"] - log_evidence) < 0.5


def test_equal_draws_follow_the_weights():
    x = torch.arange(4.0)[:, None]
    weights = torch.tensor([0.7, 0.3, 0.0, 0.0])
    weighted = inverse.Samples(x.repeat(1000, 1), {}, None, weights.repeat(1000) / 1000)
    drawn = weighted.equal(seed=1)
    assert drawn.shape == (4000, 1)
    assert abs(float((drawn == 0).double().mean()) - 0.7) < 5 * (0.21 / 4000) ** 0.5
    assert drawn.max() == 1
    assert torch.equal(inverse.Samples(x).equal(2), x[:2])
