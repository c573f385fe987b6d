"""The residual chi^2 and the effective number of samples: laws, errors, power, refusals.

Seeds are fixed. Over seeds, all thresholds together would be passed wrongly in less than 1e-3 of
exact runs, but for the tail indices, whose 4 standard errors are those of large n.
"""

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
    assert found.expected.error == pytest.approx(math.sqrt(2 / M), rel=0.08)


def test_one_exact_draw_has_a_uniform_rank():
    """Over measurements: of Gaussian noise, and of counts, whose law depends on x."""
    prior, model = posed()
    ranks = []
    for seed in range(200):
        y = model.simulate(prior.sample(1, source(seed)), source(10_000 + seed))
        x = prior.condition(model, y).sample(1, source(20_000 + seed))
        found = residual_chi2(x, model, y, replicates=99, seed=50_000 + seed)
        ranks.append(float((found.simulated >= found.values[:, None]).double().mean()))
    assert kstest(ranks, "uniform").pvalue > 1e-4

    counts = fm.Observation(fm.MatrixOperator(torch.eye(M)), fm.Poisson(gain=1.0))
    images = 0.5 + 8 * torch.rand(20, M, generator=source(3))
    ranks = []
    for seed in range(200):
        own = source(seed)
        y = counts.simulate(images[torch.randint(20, (1,), generator=own)], own)
        posterior = counts.log_likelihood(y, images).softmax(0)
        x = images[torch.multinomial(posterior, 1, generator=own)]
        found = residual_chi2(x, counts, y, replicates=99, seed=50_000 + seed)
        # Counts tie: a rank between those of the ties.
        above = (found.simulated > found.values[:, None] + 1e-9).double().mean()
        level = (found.simulated >= found.values[:, None] - 1e-9).double().mean()
        ranks.append(float(above + torch.rand((), generator=own) * (level - above)))
    assert kstest(ranks, "uniform").pvalue > 1e-4


def test_faults_show_and_exact_samples_do_not():
    prior, model, y = measured()

    def fit(x):
        return residual_chi2(x, model, y, replicates=400)

    exact = fit(prior.condition(model, y).sample(100, source(5)))
    assert min(exact.misses, exact.overfits) > 0.1
    ignored = fit(prior.sample(100, source(6)))
    assert ignored.misses < 0.02
    assert ignored.mean.value > 10
    believed = prior.condition(fm.LinearGaussian(model.operator, 0.01), y)
    followed = fit(believed.sample(100, source(7)))
    assert followed.overfits < 0.02
    assert followed.mean.value < 0.05


@pytest.mark.parametrize("weights", [None, torch.tensor([0.2, 3.0, 0.0, 1.0])])
def test_p_values_are_twice_the_mean_share_beyond(weights):
    prior, model, y = measured()
    x = prior.condition(model, y).sample(4, source(11))
    found = residual_chi2(x, model, y, weights=weights, replicates=19, seed=5)
    w = [0.25] * 4 if weights is None else (weights / weights.sum()).tolist()
    for p, beyond in ((found.misses, torch.ge), (found.overfits, torch.le)):
        shares = [
            (1 + sum(bool(beyond(one, c)) for one in row)) / 20
            for row, c in zip(found.simulated, found.values, strict=True)
        ]
        expected = 2 * sum(a * b for a, b in zip(w, shares, strict=True))
        assert p == pytest.approx(min(1, expected), rel=1e-6)
    mean = sum(a * float(c) for a, c in zip(w, found.values, strict=True))
    assert found.mean.value == pytest.approx(mean, rel=1e-6)
    assert found.expected.value == pytest.approx(
        sum(a * float(row.mean()) for a, row in zip(w, found.simulated, strict=True)), rel=1e-6
    )


def test_a_part_that_misses_is_told():
    """A third of prior draws among exact ones: the mean of all p-values does not show it."""
    prior, model, y = measured()
    exact = prior.condition(model, y).sample(40, source(1))
    found = residual_chi2(torch.cat([exact, prior.sample(20, source(2))]), model, y)
    assert found.misses > 0.05
    assert found.beyond > 0.25
    assert "% of the samples miss y by more than any noise" in str(found)
    assert "explained" not in str(found)
    assert residual_chi2(exact, model, y).beyond < 0.1


def test_p_values_of_many_exact_draws_are_valid():
    """Draws of one posterior share y; no more than a share p of p-values lies below p."""
    prior, model = posed()
    found = []
    for seed in range(200):
        y = model.simulate(prior.sample(1, source(seed)), source(30_000 + seed))
        x = prior.condition(model, y).sample(20, source(40_000 + seed))
        one = residual_chi2(x, model, y, replicates=99, seed=50_000 + seed)
        found.append((one.misses, one.overfits))
    # At most 20 of 200 expected; 41 or more has probability 1e-5.
    assert max((torch.tensor(found) < 0.1).sum(0).tolist()) <= 40


def test_a_sample_without_mass_has_no_influence():
    prior, model, y = measured()
    x = prior.sample(6, source(0))
    w = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 0.0])
    whole = residual_chi2(x, model, y, weights=w, replicates=3, batch=5)
    less = residual_chi2(x[:5], model, y, weights=w[:5], replicates=3, batch=5)
    assert whole.mean.value == pytest.approx(less.mean.value)
    assert whole.mean.error == pytest.approx(less.mean.error)
    assert whole.misses == pytest.approx(less.misses)
    one = residual_chi2(x, model, y, weights=torch.tensor([0.0, 1, 0, 0, 0, 0]), replicates=3)
    assert math.isnan(one.mean.error)


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
@pytest.mark.parametrize("value", [3.0, 1e-300, 1e308])
def test_equal_weights(n, value):
    equal = effective_size(torch.full((n,), value, dtype=DOUBLE))
    assert equal.size.value == pytest.approx(n)
    assert equal.size.error == pytest.approx(0, abs=1e-9)
    assert math.isnan(equal.tail)
    assert not equal.heavy


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_weights_that_collapsed_are_not_believed(dtype):
    one, four = torch.zeros(2, 1000, dtype=dtype)
    one[2] = 1
    four[:4] = torch.tensor([1.0, 2.0, 0.5, 1.0])
    wide = (300 * torch.randn(1000, generator=source(0), dtype=DOUBLE)).softmax(0).to(dtype)
    for weights, size in ((one, 1), (four, 4.5**2 / 6.25), (wide, 1)):
        found = effective_size(weights)
        assert found.size.value == pytest.approx(size, rel=1e-3)
        assert found.tail == math.inf
        assert found.heavy
        assert "believe no mean" in str(found)


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=60), st.floats(0.1, 10))
def test_the_size_is_between_one_and_n_and_of_no_scale(values, factor):
    w = torch.tensor(values, dtype=DOUBLE)
    found, scaled = effective_size(w), effective_size(factor * w)
    assert 1 - 1e-9 <= found.size.value <= len(w) + 1e-9
    assert scaled.size.value == pytest.approx(found.size.value, rel=1e-9)
    assert scaled.size.error == pytest.approx(found.size.error, rel=1e-6, abs=1e-6)
    assert scaled.tail == pytest.approx(found.tail, abs=1e-3, nan_ok=True)
    assert found.weights.tolist() == sorted(found.weights.tolist(), reverse=True)


@pytest.mark.parametrize("k", [0.0, 0.1])
def test_the_error_of_the_size_is_its_spread(k):
    """Of uniform weights, and of U^-k, whose variance of the size is finite for k < 1/4."""
    drawn = [torch.rand(1000, generator=source(seed), dtype=DOUBLE) for seed in range(200)]
    found = [effective_size(u**-k if k else u).size for u in drawn]
    spread = torch.tensor([one.value for one in found]).std()
    typical = sum(one.error for one in found) / len(found)
    assert typical == pytest.approx(float(spread), rel=0.25)


@pytest.mark.parametrize(
    ("k", "doubt", "heavy"),
    [(0.1, "", False), (0.4, "more than this error", False), (1.1, "come", True)],
)
def test_tails_decide_what_is_said(k, doubt, heavy):
    w = torch.rand(20_000, generator=source(0), dtype=DOUBLE) ** -k
    found = effective_size(w)
    assert found.heavy is heavy
    assert str(found).count(":") == (doubt != "")
    assert doubt in str(found)


@pytest.mark.parametrize("k", [0.1, 0.5, 0.9])
def test_the_tail_index_is_that_of_the_law(k):
    w = torch.rand(20_000, generator=source(0), dtype=DOUBLE) ** -k
    found = effective_size(w)
    # The error of an index from 424 weights is (1 + k) / sqrt(424).
    assert found.tail == pytest.approx(k, abs=4 * (1 + k) / math.sqrt(424))
    ordered = w.sort().values
    fitted = genpareto.fit((ordered[-424:] - ordered[-425]).numpy(), floc=0)[0]
    assert found.tail == pytest.approx(fitted, abs=0.1)


def test_few_weights_tell_no_tail():
    assert math.isnan(effective_size(torch.rand(24, generator=source(0))).tail)
    assert not math.isnan(effective_size(torch.rand(25, generator=source(0))).tail)


def test_pictures_and_words(tmp_path):
    prior, model, y = measured()
    fit = residual_chi2(prior.condition(model, y).sample(20, source(1)), model, y)
    assert str(fit).startswith(
        f"chi2 {fit.mean.value:.4g} ± {fit.mean.error:.2g} where noise gives"
    )
    assert "explained by noise" in str(fit)
    one = residual_chi2(prior.sample(1, source(3)), model, y)
    assert "±" not in str(one)
    assert str(one).endswith("100 % of the samples miss y by more than any noise drawn, p = 0.0099")
    one.plot(tmp_path / "one.png")
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
        ({"y": torch.full((M,), math.nan, dtype=DOUBLE)}, ValueError, "y has 6 non-finite"),
        ({"weights": torch.ones(3)}, ValueError, r"shape \(20,\), got \(3,\)"),
        (
            {"x": torch.zeros(20, 5, dtype=DOUBLE)},
            ValueError,
            r"x must be \(n, 6\).* got \(20, 5\)",
        ),
        ({"x": inverse.Samples(torch.zeros(20, M), {})}, TypeError, "got Samples; give its .x"),
        ({"x": [1.0]}, TypeError, "x must be a floating tensor .*, got list"),
        ({"x": torch.zeros(20, M, dtype=torch.int64)}, TypeError, "got torch.int64"),
        ({"x": torch.zeros(0, M)}, ValueError, r"n >= 1, got shape \(0, 6\)"),
        ({"x": torch.full((20, M), math.nan)}, ValueError, "x must be finite; 20 of 20"),
        ({"replicates": 0}, ValueError, "replicates must be an integer >= 1"),
        ({"batch": 0}, ValueError, "batch must be an integer >= 1"),
        ({"seed": 1.5}, ValueError, "seed must be an integer"),
    ],
)
def test_residuals_refuse(change, error, words):
    prior, model, y = measured()
    given = {"x": prior.sample(20, source(0)), "model": model, "y": y} | change
    with pytest.raises(error, match=words):
        residual_chi2(**given)


@pytest.mark.parametrize("to", [3, True])
def test_pictures_go_to_axes_or_files(to, tmp_path):
    worth = effective_size(torch.rand(40, generator=source(1)))
    with pytest.raises(TypeError, match="axes or the path of a picture, got"):
        worth.plot(to)
    with pytest.raises(ValueError, match="got the folder"):
        worth.plot(tmp_path)


def test_classes_have_no_residual():
    classes = fm.Observation(fm.MatrixOperator(torch.eye(3)), fm.Categorical(3))
    with pytest.raises(TypeError, match="no residual"):
        residual_chi2(torch.zeros(2, 3), classes, torch.tensor([1]))


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        ([1.0], TypeError, "got list"),
        (None, TypeError, "without weights are worth their number"),
        (inverse.Samples(torch.zeros(2, 2), {}), TypeError, "give its .weights"),
        (torch.tensor([1, 2]), TypeError, "got torch.int64"),
        (torch.ones(2, 2), ValueError, r"got \(2, 2\)"),
        (torch.ones(0), ValueError, "n >= 1"),
        (torch.tensor([1.0, -1.0]), ValueError, "1 of 2 are not, the first is -1.0 at 1"),
        (torch.tensor([math.nan, 1.0]), ValueError, "the first is nan at 0"),
        (torch.zeros(3), ValueError, "must not all be 0; all 3 are"),
    ],
)
def test_sizes_refuse(weights, error, words):
    with pytest.raises(error, match=words):
        effective_size(weights)
