"""P measurements at once: each has samples, summaries and diagnostics of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from problems import DOUBLE, problem

import inverse
import priors


def three(prior=None):
    known, model, y, _ = problem()
    prior = known if prior is None else prior
    ys = torch.cat([y, y + 1.0, y - 2.0])
    return prior, model, ys, inverse.condition(prior, model, ys)


def mixture() -> priors.Mixture:
    means = torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    return priors.Mixture(2 * means, 0.5, torch.tensor([0.2, 0.3, 0.5], dtype=DOUBLE))


@pytest.mark.parametrize("make", [lambda: None, mixture], ids=["gaussian", "mixture"])
def test_the_exact_method_serves_each_measurement_its_own_posterior(make):
    prior, model, ys, posterior = three(make())
    n = 3000
    samples = inverse.sample(posterior, n=3 * n, seed=0)
    assert samples.diagnostics["method"] == "exact"
    assert samples.mean.shape == samples.std.shape == (3, 6)
    for p in range(3):
        mean, covariance = prior.condition(model, ys[p : p + 1]).moments()
        variance = covariance.diagonal()
        assert ((samples.mean[p] - mean.flatten()) / (variance / n).sqrt()).abs().max() < 5
        assert ((samples.std[p] ** 2 / variance - 1).abs() < 8 * (2 / n) ** 0.5).all()
        assert torch.equal(samples.of(p).x, samples.x[p * n : (p + 1) * n])


def test_the_exact_method_joins_measurements_of_one_and_of_several_rows():
    prior, model, ys, posterior = three()
    both = posterior.given(model, ys[:1])
    assert inverse.sample(both, n=6, seed=0).diagnostics["method"] == "exact"
    closed = inverse.recipes.exact_posterior(both)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    for p in range(3):
        alone = prior.condition(model, ys[p : p + 1]).condition(model, ys[:1])
        torch.testing.assert_close(closed.denoise(x, 0.4)[p], alone.denoise(x, 0.4)[p])
    with pytest.raises(ValueError, match=r"y has 3 rows.*got 2"):
        closed.denoise(x[:2], 0.4)


@pytest.mark.parametrize("method", ["mmps", "tds"])
def test_a_measurements_summaries_are_those_of_its_samples_alone(method):
    _, model, ys, posterior = three()
    samples = inverse.sample(posterior, n=24, method=method, steps=5, seed=0)
    assert samples.measurements == len(samples.groups) == 3
    assert "of 3 measurements" in repr(samples)
    chi2 = samples.diagnostics["reduced_chi2"]
    assert len(chi2) == 3
    for p, group in enumerate(samples.groups):
        assert len(group) == group.diagnostics["n"] == 8
        assert group.diagnostics["measurement"] == p
        assert torch.equal(samples.mean[p], group.mean)
        assert torch.equal(samples.std[p], group.std)
        weights = torch.full((8,), 1 / 8) if group.weights is None else group.weights
        assert float(weights.sum()) == pytest.approx(1)
        torch.testing.assert_close(group.mean, (weights[:, None].to(group.x) * group.x).sum(0))
        residual = (ys[p] - model.operator.apply(group.x)) / 0.2
        per_sample = residual.square().mean(1)
        assert group.diagnostics["residual_sigma"] == pytest.approx(per_sample.sqrt().tolist())
        expected = float((weights * per_sample).sum())
        assert group.diagnostics["reduced_chi2"] == chi2[p] == pytest.approx(expected)
        if method == "tds":
            assert group.diagnostics["log_evidence"] == samples.diagnostics["log_evidence"][p]
            assert group.effective == pytest.approx(group.diagnostics["effective_samples"])
    for what in (lambda: samples.effective, samples.equal):
        with pytest.raises(ValueError, match=r"of 3 measurements; take those of one: samples\.of"):
            what()
    for bad in (3, -1, 1.0, True):
        with pytest.raises(ValueError, match=r"p must be an integer in \[0, 3\)"):
            samples.of(bad)


def test_intervals_and_files_are_of_each_measurement(tmp_path):
    _, _, _, posterior = three()
    samples = inverse.sample(posterior, n=60, seed=0)
    for bound, own in zip(samples.interval(0.8), samples.of(1).interval(0.8), strict=True):
        assert bound.shape == (3, 6)
        assert torch.equal(bound[1], own)
    folder = samples.save(tmp_path / "all")
    assert np.array_equal(np.load(folder / "mean.npy"), samples.mean.numpy())
    assert np.load(folder / "std.npy").shape == (3, 6)
    assert json.loads((folder / "diagnostics.json").read_text())["measurements"] == 3
    single = inverse.sample(posterior, n=3, seed=0).save(tmp_path / "single")
    assert not (single / "std.npy").exists()
    one = samples.of(2).save(tmp_path / "one")
    assert json.loads((one / "diagnostics.json").read_text())["measurement"] == 2


def test_several_factors_of_several_measurements():
    _, model, ys, posterior = three()
    both = inverse.sample(posterior.given(model, ys[:1]), n=6, seed=0)
    chi2 = both.diagnostics["reduced_chi2"]
    assert [len(row) for row in chi2] == [3, 3]
    own = both.of(1).diagnostics
    assert own["reduced_chi2"] == [chi2[0][1], chi2[1][1]]
    assert own["residual_sigma"] == [row[2:4] for row in both.diagnostics["residual_sigma"]]
