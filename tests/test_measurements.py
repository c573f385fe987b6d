"""P measurements at once: each has samples, summaries and diagnostics of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from problems import DOUBLE, problem
from splitting_laws import law_of
from test_splitting import seen

import inverse
import priors
from forward_models import MRI, Inpainting, LinearGaussian, RealToComplex
from inverse.lift import joint
from inverse.splitting import GaussianDraw, Slack


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


def test_progress_of_exact_draws_is_told_measurement_by_measurement():
    *_, posterior = three()
    steps = []
    samples = inverse.sample(posterior, n=6, seed=0, callback=steps.append)
    assert [(step.index, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(torch.cat([step.x for step in steps]), samples.x)


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
    with pytest.raises(ValueError, match=r"y has 3 rows.*got 2"):
        inverse.sample(closed, n=2)


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


def complex_and_real():
    """Lines of k-space and some pixels of a real image, noise apart; and all of it as matrices."""
    g = torch.Generator().manual_seed(3)
    root = torch.randn(30, 30, generator=g, dtype=DOUBLE) / 5 + 0.5 * torch.eye(30, dtype=DOUBLE)
    prior = priors.Gaussian(torch.zeros(1, 5, 6, dtype=DOUBLE), root @ root.T)
    lines = torch.tensor([True, False, True, True, False, False]).expand(5, 6)
    seen = torch.rand(1, 5, 6, generator=g) < 0.5
    models = (
        LinearGaussian(MRI(lines) @ RealToComplex(), 0.3),
        LinearGaussian(Inpainting(seen), 0.2),
    )
    x = prior.denoise(torch.randn(1, 1, 5, 6, generator=g, dtype=DOUBLE), 1.0)
    ys = [m.simulate(x, g) for m in models]
    eye = torch.eye(30, dtype=DOUBLE).reshape(30, 1, 5, 6)
    F, M = (m.operator.apply(eye).flatten(1).T for m in models)
    values = torch.cat([ys[0].flatten().real, ys[0].flatten().imag, ys[1].flatten()])
    k, s = lines.reshape(-1), seen.reshape(-1)
    data = torch.cat([k, k, s])
    A = torch.cat([F.real, F.imag, M])[data]
    S = torch.cat([torch.full((60,), 0.09), torch.full((30,), 0.04)]).to(DOUBLE)[data]
    return prior, root @ root.T, models, ys, A, S, values[data]


@pytest.mark.parametrize("complex_first", [True, False])
def test_complex_and_real_measurements_go_together(complex_first):
    """Against dense matrices: Re and Im of k-space each with the noise that the model states."""
    prior, C, models, ys, A, S, y = complex_and_real()
    factors = list(zip(models, ys, strict=True))
    (first, y1), (second, y2) = factors if complex_first else factors[::-1]
    posterior = inverse.condition(prior, first, y1).given(second, y2)
    ((stacked, stacked_y),) = joint(posterior.factors)
    assert stacked_y.dtype == DOUBLE
    x = torch.randn(3, 1, 5, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    apart = sum(m.log_likelihood(v, x) for m, v in factors)
    torch.testing.assert_close(stacked.log_likelihood(stacked_y, x), apart)

    inside = A.T @ (A / S[:, None])
    for sigma in (0.3, 2.0):
        eye = torch.eye(30, dtype=DOUBLE)
        precision = torch.linalg.inv(C) + eye / sigma**2 + inside
        ahead = x.flatten(1) / sigma**2 + A.T @ (y / S)
        expected = torch.linalg.solve(precision, ahead.T).T
        found = posterior.denoise(x, sigma).flatten(1)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_splitting_draws_from_complex_and_real_measurements():
    """The exact law of p(y | z) N(z; x0, v I), by the noise that the draw is an affine map of."""
    prior, _, models, ys, A, S, y = complex_and_real()
    posterior = inverse.condition(prior, models[0], ys[0]).given(models[1], ys[1])
    x0, sigma = torch.full((1, 1, 5, 6), 0.3, dtype=DOUBLE), 0.7

    def run(noise, n):
        eps = lambda which=0, shape=None: (  # noqa: E731
            noise.normal(which) if shape is None else noise.beside(1, shape).normal(which)
        )
        split = seen(posterior, x0.expand(n, -1, -1, -1), sigma=sigma, eps=eps)
        return GaussianDraw(Slack())(split)

    mean, covariance = law_of(run, (1, 5, 6))
    precision = A.T @ (A / S[:, None]) + torch.eye(30, dtype=DOUBLE) / sigma**2
    expected = torch.linalg.solve(precision, x0.flatten() / sigma**2 + A.T @ (y / S))
    torch.testing.assert_close(mean, expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(covariance, torch.linalg.inv(precision), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", ["mmps", "pigdm", "dps", "ddnm", "dds", "daps"])
def test_methods_take_complex_and_real_measurements(method):
    prior, _, models, ys, *_ = complex_and_real()
    posterior = inverse.condition(prior, models[0], ys[0]).given(models[1], ys[1])
    samples = inverse.sample(posterior, n=2, method=method, steps=4, seed=0)
    assert samples.x.dtype in (torch.float32, DOUBLE)
    assert bool(torch.isfinite(samples.x).all())
