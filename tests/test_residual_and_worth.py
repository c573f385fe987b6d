"""The residual chi^2 and the effective number of samples: laws, errors, power, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import DOUBLE
from scipy.stats import chi2, genpareto, kstest

import forward_models as fm
import inverse
import priors
from inverse.diagnostics import effective_size, residual_chi2

M = 6


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def posed(sigma: float = 0.3) -> tuple[priors.Mixture, fm.LinearGaussian]:
    means = 2 * torch.randn(3, M, generator=source(0), dtype=DOUBLE)
    prior = priors.Mixture(means, 0.5, torch.tensor([0.5, 0.3, 0.2], dtype=DOUBLE))
    A = torch.randn(M, M, generator=source(1), dtype=DOUBLE)
    return prior, fm.LinearGaussian(fm.MatrixOperator(A), sigma)


def measured(seed: int = 0) -> tuple[priors.Mixture, fm.LinearGaussian, torch.Tensor]:
    prior, model = posed()
    return prior, model, model.simulate(prior.sample(1, source(seed)), source(seed + 1))


def test_simulated_residuals_have_the_law_of_chi2():
    prior, model, y = measured()
    found = residual_chi2(prior.sample(200, source(2)), model, y, replicates=20)
    assert kstest(M * found.simulated.flatten().numpy(), chi2(M).cdf).pvalue > 1e-4
    assert found.expected.value == pytest.approx(1, abs=0.05)
    assert found.expected.error == pytest.approx(math.sqrt(2 / M), rel=0.05)


def test_one_exact_draw_has_a_uniform_rank():
    """Over measurements: of Gaussian noise, and of counts, whose law depends on x."""
    prior, model = posed()
    ranks = []
    for seed in range(300):
        y = model.simulate(prior.sample(1, source(seed)), source(10_000 + seed))
        x = prior.condition(model, y).sample(1, source(20_000 + seed))
        found = residual_chi2(x, model, y, replicates=99, seed=seed)
        ranks.append(float((found.simulated >= found.values[:, None]).double().mean()))
    assert kstest(ranks, "uniform").pvalue > 1e-4

    counts = fm.Observation(fm.MatrixOperator(torch.eye(M)), fm.Poisson(gain=1.0))
    images = 0.5 + 8 * torch.rand(20, M, generator=source(3))
    ranks = []
    for seed in range(300):
        own = source(seed)
        y = counts.simulate(images[torch.randint(20, (1,), generator=own)], own)
        posterior = counts.log_likelihood(y, images).softmax(0)
        x = images[torch.multinomial(posterior, 1, generator=own)]
        found = residual_chi2(x, counts, y, replicates=99, seed=seed)
        # Counts tie: a rank between those of the ties.
        above = (found.simulated > found.values[:, None] + 1e-9).double().mean()
        level = (found.simulated >= found.values[:, None] - 1e-9).double().mean()
        ranks.append(float(above + torch.rand((), generator=own) * (level - above)))
    assert kstest(ranks, "uniform").pvalue > 1e-4


def test_faults_show_and_exact_samples_do_not():
    prior, model, y = measured()
    exact = residual_chi2(prior.condition(model, y).sample(100, source(5)), model, y)
    assert min(exact.misses, exact.overfits) > 0.1
    ignored = residual_chi2(prior.sample(100, source(6)), model, y)
    assert ignored.misses < 0.02
    assert ignored.mean.value > 10
    believed = prior.condition(fm.LinearGaussian(model.operator, 0.01), y)
    followed = residual_chi2(believed.sample(100, source(7)), model, y)
    assert followed.overfits < 0.02
    assert followed.mean.value < 0.05


def test_p_values_of_many_exact_draws_are_valid():
    """Draws of one posterior share y; no more than a share p of p-values lies below p."""
    prior, model = posed()
    found = []
    for seed in range(200):
        y = model.simulate(prior.sample(1, source(seed)), source(30_000 + seed))
        x = prior.condition(model, y).sample(20, source(40_000 + seed))
        one = residual_chi2(x, model, y, replicates=99, seed=seed)
        found.append((one.misses, one.overfits))
    # At most 20 of 200 expected; 41 or more has probability 1e-5.
    assert max((torch.tensor(found) < 0.1).sum(0).tolist()) <= 40


def test_the_error_of_the_mean_is_its_spread():
    prior, model, y = measured()
    exact = prior.condition(model, y)
    found = [
        residual_chi2(exact.sample(50, source(seed)), model, y, replicates=1).mean
        for seed in range(200)
    ]
    spread = torch.tensor([one.value for one in found]).std()
    typical = sum(one.error for one in found) / len(found)
    assert typical == pytest.approx(float(spread), rel=0.25)


def test_whole_weights_count_as_repeated_samples():
    prior, model, y = measured()
    x = prior.sample(4, source(0))
    repeats = torch.tensor([1, 3, 2, 4])
    weighed = residual_chi2(x, model, y, weights=repeats.double(), replicates=2, batch=3)
    repeated = residual_chi2(x.repeat_interleave(repeats, 0), model, y, replicates=2)
    assert weighed.mean.value == pytest.approx(repeated.mean.value, rel=1e-12)
    # It is that of `Samples`, where the factor is the only one.
    samples = inverse.sample(inverse.condition(prior, model, y), n=8, method="exact", seed=0)
    assert residual_chi2(samples.x, model, y).mean.value == pytest.approx(
        samples.diagnostics["reduced_chi2"], rel=1e-6
    )


@pytest.mark.parametrize("n", [5, 200])
def test_effective_sizes_of_extremes(n):
    equal = effective_size(torch.full((n,), 3.0))
    assert equal.size.value == pytest.approx(n)
    assert equal.size.error == pytest.approx(0, abs=1e-9)
    assert math.isnan(equal.tail)
    assert not equal.heavy
    one = torch.zeros(n)
    one[2] = 1
    assert effective_size(one).size.value == pytest.approx(1)


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=60), st.floats(0.1, 10))
def test_the_size_is_between_one_and_n_and_of_no_scale(values, factor):
    w = torch.tensor(values, dtype=DOUBLE)
    found, scaled = effective_size(w), effective_size(factor * w)
    assert 1 - 1e-9 <= found.size.value <= len(w) + 1e-9
    assert scaled.size.value == pytest.approx(found.size.value, rel=1e-9)
    assert scaled.size.error == pytest.approx(found.size.error, rel=1e-6, abs=1e-6)
    assert found.weights.tolist() == sorted(found.weights.tolist(), reverse=True)


def test_the_error_of_the_size_is_its_spread():
    found = [effective_size(torch.rand(300, generator=source(seed))).size for seed in range(200)]
    spread = torch.tensor([one.value for one in found]).std()
    typical = sum(one.error for one in found) / len(found)
    assert typical == pytest.approx(float(spread), rel=0.25)


@pytest.mark.parametrize("k", [0.1, 0.5, 0.9])
def test_the_tail_index_is_that_of_the_law(k):
    w = torch.rand(20_000, generator=source(0), dtype=DOUBLE) ** -k
    found = effective_size(w)
    # The error of an index from 424 weights is (1 + k) / sqrt(424).
    assert found.tail == pytest.approx(k, abs=4 * (1 + k) / math.sqrt(424))
    ordered = w.sort().values
    fitted = genpareto.fit((ordered[-424:] - ordered[-425]).numpy(), floc=0)[0]
    assert found.tail == pytest.approx(fitted, abs=0.1)
    assert found.heavy == (k > 0.7)
    assert ("still to come" in str(found)) == found.heavy


def test_few_weights_tell_no_tail():
    assert math.isnan(effective_size(torch.rand(24, generator=source(0))).tail)
    assert not math.isnan(effective_size(torch.rand(25, generator=source(0))).tail)


def test_pictures_and_words(tmp_path):
    prior, model, y = measured()
    fit = residual_chi2(prior.condition(model, y).sample(20, source(1)), model, y)
    assert str(fit).startswith(f"chi2 {fit.mean.value:.4g} ±")
    worth = effective_size(torch.rand(40, generator=source(1)))
    assert "of 40, tail index" in str(worth)
    axes = fit.plot(tmp_path / "fit.png")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["noise", "samples"]
    held = worth.plot(tmp_path / "worth.png").lines[1].get_ydata()
    assert held[0] == 0
    assert held[-1] == pytest.approx(1)
    assert len(held) == 41
    assert all((tmp_path / name).stat().st_size > 0 for name in ("fit.png", "worth.png"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": 3}, TypeError, "must be a forward_models.ForwardModel"),
        ({"y": torch.zeros(2, M, dtype=DOUBLE)}, ValueError, "one measurement.* got 2"),
        ({"y": torch.full((M,), math.nan, dtype=DOUBLE)}, ValueError, "6"),
        ({"weights": torch.ones(3)}, ValueError, r"shape \(20,\), got \(3,\)"),
        ({"x": torch.zeros(4, 5, dtype=DOUBLE)}, ValueError, "5"),
        ({"replicates": 0}, ValueError, "replicates must be an integer >= 1"),
        ({"batch": 0}, ValueError, "batch"),
    ],
)
def test_residuals_refuse(change, error, words):
    prior, model, y = measured()
    given = {"x": prior.sample(20, source(0)), "model": model, "y": y} | change
    with pytest.raises(error, match=words):
        residual_chi2(**given)


def test_classes_have_no_residual():
    classes = fm.Observation(fm.MatrixOperator(torch.eye(3)), fm.Categorical(3))
    with pytest.raises(TypeError, match="no residual"):
        residual_chi2(torch.zeros(2, 3), classes, torch.tensor([1]))


@pytest.mark.parametrize(
    ("weights", "error"),
    [([1.0], TypeError), (torch.ones(2, 2), ValueError), (torch.ones(0), ValueError),
     (torch.tensor([1.0, -1.0]), ValueError), (torch.zeros(3), ValueError),
     (torch.tensor([1, 2]), TypeError)],
)  # fmt: skip
def test_sizes_refuse(weights, error):
    with pytest.raises(error, match="weights"):
        effective_size(weights)
