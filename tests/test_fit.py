"""Mixtures fitted to images: as probable on held-out draws as the mixture that made them."""

from __future__ import annotations

import itertools

import pytest
import torch
from prior_cases import factor_mixture

from priors import fit_mixture

pytest.importorskip("sklearn")


def draws(n, seed):
    return factor_mixture().sample(n, torch.Generator().manual_seed(seed))


def test_the_fit_approaches_the_truth():
    """Above the truth's own log-likelihood no fit comes on average; ours, within 0.1 nats of it."""
    state = torch.get_rng_state()
    images, held_out = draws(6000, 0), draws(4000, 1)
    fitted = fit_mixture(images, 2, 2, iterations=20)
    assert torch.equal(torch.get_rng_state(), state)
    gap = (factor_mixture().log_density(held_out) - fitted.log_density(held_out)).mean()
    assert -0.02 < float(gap) < 0.1
    assert sorted(fitted.weights.tolist()) == pytest.approx([0.3, 0.7], abs=0.03)
    again = fit_mixture(images, 2, 2, iterations=20)
    assert torch.equal(again.means, fitted.means)


def test_each_step_makes_the_images_more_probable():
    images = draws(400, 0).double()
    found = [
        float(fit_mixture(images, 2, 3, iterations=n).log_density(images).mean())
        for n in (1, 2, 4, 8, 16)
    ]
    assert all(b >= a - 1e-6 for a, b in itertools.pairwise(found))
    assert found[-1] > found[0]


def test_values_that_never_change_keep_the_smallest_deviation():
    images = torch.cat([draws(200, 0).flatten(1), torch.zeros(200, 1)], -1)
    fitted = fit_mixture(images, 2, 2, iterations=3, smallest_std=0.01)
    for C in fitted.C:
        assert float(C.dense()[-1, -1]) == pytest.approx(1e-4, rel=1e-3)


def test_refusals():
    images = draws(60, 0)
    for bad, settings, message in (
        (images[:20], (2, 5), "need at least 24 images, got 20"),
        (images, (0, 2), "components must be an integer >= 1, got 0"),
        (images, (2, 12), "rank must be below the 12 values"),
        (images.long(), (2, 2), "floating tensor"),
        (torch.full_like(images, torch.nan), (2, 2), "720 values are not"),
        (torch.ones_like(images), (2, 2), "all equal"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_mixture(bad, *settings)
    with pytest.raises(ValueError, match="smallest_std"):
        fit_mixture(images, 2, 2, smallest_std=0.0)
