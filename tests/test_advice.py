"""What a run warns of, and what its diagnostics count."""

from __future__ import annotations

import warnings

import pytest
import torch
from problems import DOUBLE, problem

import inverse
import priors
from forward_models import Identity, LinearGaussian
from inverse.samplers import MALA, AdaptiveODE, AnnealedLangevin, Heun, Multistep


def mixture() -> priors.Mixture:
    means = torch.tensor([[-2.0] * 128, [2.0] * 128], dtype=DOUBLE)
    return priors.Mixture(means, 0.5, torch.tensor([0.4, 0.6], dtype=DOUBLE))


def quiet(posterior, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return inverse.sample(posterior, seed=0, **options)


def test_levels_that_start_low_or_end_noisy():
    prior = mixture()
    low, high = prior.sigma_range
    quiet(prior, n=2, sampler=Heun(priors.geometric(10, prior.sigma_range)))
    with pytest.warns(RuntimeWarning, match=r"Heun starts at noise level 0.1, below .* start at"):
        inverse.sample(prior, n=2, sampler=Heun([0.1, 0.01, 0.0]))
    with pytest.warns(RuntimeWarning, match=r"MALA starts at noise level"):
        inverse.sample(prior, n=2, sampler=MALA(low, 0.1 * low**2, 3))
    with pytest.warns(RuntimeWarning, match=r"Multistep end at 1: the samples hold noise"):
        noisy = inverse.sample(prior, n=2, sampler=Multistep([high, 1.0]))
    assert noisy.diagnostics["noise_left"] == 1.0
    assert "noise_left" not in quiet(prior, n=2, steps=5).diagnostics


def test_samples_that_miss_their_measurement():
    prior = mixture()
    model = LinearGaussian(Identity(), 0.1)
    g = torch.Generator().manual_seed(0)
    y = model.simulate(prior.sample(1, generator=g), generator=g)
    quiet(inverse.condition(prior, model, y), n=4)
    wrong = inverse.condition(prior, LinearGaussian(Identity(), 5.0), y + 100)
    with pytest.warns(RuntimeWarning, match=r"samples miss the measurement by .* of its noise"):
        inverse.sample(wrong, n=4, seed=0)
    overfit = inverse.condition(prior, LinearGaussian(Identity(), 50.0), prior.mean[None])
    with pytest.warns(RuntimeWarning, match=r"more closely than its noise allows \(0\.0"):
        inverse.sample(overfit, n=4, seed=0)
    # Some believe y, noise and all.
    quiet(inverse.condition(prior, model, y), n=4, method="ddnm", steps=10)
    # A single value may lie two of its standard deviations off.
    one, scalar, _, _ = problem(size=1, rows=1)
    off = one.mean[None] @ scalar.operator.matrix.T + 2.5 * scalar.sigma
    quiet(inverse.condition(one, LinearGaussian(scalar.operator, scalar.sigma), off), n=4)


def test_particles_of_which_few_count():
    prior, model, y, _ = problem()
    posterior = inverse.condition(prior, model, y)
    with pytest.warns(RuntimeWarning, match=r"descend from 1 of 4 at the start.*more particles"):
        inverse.sample(posterior, n=4, method="bootstrap", steps=40, seed=0)
    quiet(posterior, n=400, method="tds", steps=40)


def test_levels_steps_and_network_calls_are_told_apart():
    prior = mixture()
    levels = priors.geometric(7, prior.sigma_range)
    for sampler, steps, calls in ((Heun(levels), 7, 13), (AnnealedLangevin(levels, 3), 22, 22)):
        told = quiet(prior, n=2, sampler=sampler).diagnostics
        assert (told["levels"], told["steps"], told["network_calls"]) == (7, steps, calls)
    told = quiet(prior, n=2, sampler=AdaptiveODE(prior.sigma_range)).diagnostics
    assert told["levels"] == 2
    assert 6 * (told["steps"] - 1) + 2 <= told["network_calls"] <= 6 * told["steps"] + 2
    assert quiet(prior, n=2).diagnostics["steps"] == 0
