"""Ranks, their tests and bands, coverage and widths: exact laws under the null, true errors."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from inverse.diagnostics import Coverage, Ranks, band, rank, reached
from inverse.diagnostics.coverage import LEVELS
from inverse.diagnostics.ranks import TESTS
from inverse.diagnostics.widths import far, outside, width

DOUBLE = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=rng(seed), dtype=DOUBLE)


def test_a_rank_counts_and_breaks_ties():
    truth = torch.tensor([2.0, 2.0, 5.0])
    drawn = torch.tensor([[1.0, 3.0, 4.0], [2.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    half = torch.full((3,), 0.5, dtype=DOUBLE)
    expected = torch.tensor([1.5 / 4, 2.5 / 4, 3.5 / 4], dtype=DOUBLE)
    torch.testing.assert_close(rank(truth, drawn, half), expected)
    torch.testing.assert_close(
        rank(truth, drawn, half, torch.full((3, 3), 1 / 3, dtype=DOUBLE)), expected
    )
    # Two effective draws: 1/2 + 1/2 of them below, and a tie that holds none.
    weights = torch.tensor([[0.5, 0.5, 0.0]], dtype=DOUBLE)
    found = rank(torch.tensor([3.5]), torch.tensor([[1.0, 2.0, 3.5]]), half[:1], weights)
    torch.testing.assert_close(found, torch.tensor([2.5 / 3], dtype=DOUBLE))
    several = rank(truth[:, None], drawn[..., None], half[:, None])
    torch.testing.assert_close(several[:, 0], expected)
    with pytest.raises(ValueError, match=r"draws must be \(N, L"):
        rank(truth, drawn[:2], half)
    with pytest.raises(ValueError, match="weights must be"):
        rank(truth, drawn, half, half)


@pytest.mark.parametrize("levels", [2, 7, None], ids=["coin", "few values", "continuous"])
def test_ranks_of_exchangeable_values_are_uniform(levels):
    values = uniform(4000, 10)
    values = values if levels is None else (values * levels).floor()
    ranks = Ranks.of(values[:, 0], values[:, 1:], rng(1), name="T")
    assert ranks.p_value > 1e-4
    assert abs(ranks.mean[0] - 0.5) < 5 * ranks.mean[1]
    again = Ranks.of(values[:, 0], values[:, 1:], rng(1))
    assert torch.equal(ranks.u, again.u)


def test_the_p_values_are_those_of_scipy():
    u = uniform(80, seed=2) ** 1.3
    ranks = Ranks(u)
    kolmogorov = stats.kstest(u.numpy(), "uniform", method="exact")
    assert ranks.distance == pytest.approx(kolmogorov.statistic, abs=1e-12)
    p, z = ranks.p_values, stats.norm.ppf(u.numpy())
    assert p["shape"] == pytest.approx(kolmogorov.pvalue, rel=1e-9)
    assert p["shift"] == pytest.approx(2 * stats.norm.sf(abs(z.sum()) / 80**0.5), rel=1e-9)
    low = stats.combine_pvalues(u.numpy(), method="fisher").pvalue
    assert p["low"] == pytest.approx(2 * min(low, 1 - low), rel=1e-9)
    high = stats.combine_pvalues(1 - u.numpy(), method="fisher").pvalue
    assert p["high"] == pytest.approx(2 * min(high, 1 - high), rel=1e-9)
    assert set(p) == set(TESTS)
    assert ranks.p_value == pytest.approx(min(1, 5 * min(p.values())))
    assert Ranks(torch.tensor([0.0, 1.0, 0.5], dtype=DOUBLE)).p_value > 0


def test_false_alarms_are_as_rare_as_stated():
    u = uniform(300, 40, seed=3)
    p = torch.tensor([list(Ranks(row).p_values.values()) for row in u])
    for k in range(len(TESTS)):
        assert stats.kstest(p[:, k].numpy(), "uniform").pvalue > 1e-4, TESTS[k]
    together = torch.tensor([Ranks(row).p_value for row in u])
    assert int((together < 0.05).sum()) <= stats.binom.isf(1e-4, 300, 0.05)


def test_the_distance_reached_is_that_of_simulated_nulls():
    u = uniform(20000, 60, seed=4).sort(1).values
    steps = torch.arange(61, dtype=DOUBLE) / 60
    distance = torch.maximum(steps[1:] - u, u - steps[:-1]).amax(1)
    for level in (0.1, 0.01):
        share = float((distance > reached(level, 60)).double().mean())
        assert abs(share - level) < 5 * (level / 20000) ** 0.5
    assert reached(1e-3, 500) == pytest.approx(1.95 / 500**0.5, rel=0.02)


def test_the_band_holds_the_whole_curve():
    grid, low, high = band(150, 0.05)
    u = uniform(4000, 150, seed=5).sort(1).values
    curve = torch.searchsorted(u, grid.expand(4000, -1).contiguous(), right=True).double() / 150
    share = float(((curve >= low) & (curve <= high)).all(1).double().mean())
    assert abs(share - 0.95) < 0.02
    axes = Ranks(u[0], "T").plot()
    (line,) = [line for line in axes.lines if len(line.get_xdata()) > 2]
    x, y = torch.tensor(line.get_xdata()), torch.tensor(line.get_ydata())
    direct = (u[0] <= x[:, None]).double().mean(1) - x
    torch.testing.assert_close(y.double(), direct, rtol=0, atol=1e-6)


def test_bad_ranks_are_refused():
    with pytest.raises(TypeError, match="float64"):
        Ranks(torch.rand(5, generator=rng()))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Ranks(torch.tensor([0.5, 1.2], dtype=DOUBLE))
    with pytest.raises(ValueError, match="level must lie"):
        reached(2.0, 10)


def test_coverage_is_the_level_and_its_error_is_over_simulations():
    u = uniform(2000, 30, seed=6)
    cover = Coverage.of(u, "values")
    levels = torch.tensor(LEVELS, dtype=DOUBLE)
    assert bool(((cover.mean - levels).abs() < 5 * cover.error).all())
    # Values that move together are worth one: the error is that of a binomial share.
    alike = Coverage.of(u[:, :1].expand(-1, 30))
    k = LEVELS.index(0.5)
    assert float(alike.error[k]) == pytest.approx((0.25 / 2000) ** 0.5, rel=0.01)
    assert float(alike.error[k]) > 4 * float(cover.error[k])
    repeated = torch.stack([Coverage.of(part[:, :1]).mean[k] for part in u.split(50)])
    one = Coverage.of(u[:50, :1]).error[k]
    assert float(repeated.std()) == pytest.approx(float(one), rel=0.4)
    assert float(Coverage.of(torch.full((20, 3), 0.5, dtype=DOUBLE)).error.min()) > 0
    narrow = Coverage.of(torch.special.ndtr(1.5 * torch.special.ndtri(u)))
    assert narrow.at(0.9)[0] == pytest.approx(0.727, abs=0.01)  # P(|z| < 1.645 / 1.5)
    (container,) = narrow.plot().containers
    assert list(container.lines[0].get_ydata()) == narrow.mean.tolist()
    with pytest.raises(ValueError, match="one of"):
        cover.at(0.123)
    with pytest.raises(ValueError, match=r"\(N, M\)"):
        Coverage.of(u[0])


class Entries:
    """A view, as `width` needs it."""

    words = "these"


@pytest.mark.parametrize("law", ["normal", "skew", "modes"])
@pytest.mark.parametrize("factor", [1.0, 0.8])
def test_the_width_is_unbiased_for_any_law(law, factor):
    g = rng(7)
    shape = (40, 150, 10, 2)
    values = {
        "normal": lambda: torch.randn(shape, generator=g, dtype=DOUBLE),
        "skew": lambda: -torch.rand(shape, generator=g, dtype=DOUBLE).log(),
        "modes": lambda: (
            torch.randint(2, shape, generator=g) * 5.0
            + torch.randn(shape, generator=g, dtype=DOUBLE)
        ),
    }[law]()
    weights = torch.full((150, 9), 1 / 9, dtype=DOUBLE)
    found = []
    for run in values:
        truth, drawn = run[:, 0], run[:, 1:]
        centre = drawn.new_tensor({"normal": 0.0, "skew": 1.0, "modes": 2.5}[law])
        drawn = centre + factor * (drawn - centre)
        one = width(Entries(), truth - drawn.mean(1), drawn.var(1), weights)
        found.append(one.deviation if factor == 1 else (one.value - factor) / one.error)
    scores = torch.tensor(found)
    assert abs(float(scores.mean())) < 5 / 40**0.5
    assert 0.6 < float(scores.std()) < 1.5  # the stated error is the true one


def test_truths_far_outside_are_no_more_often_found_than_stated():
    spread = torch.distributions.Cauchy(0.0, 1.0)
    torch_state = torch.get_rng_state()
    values = spread.icdf(uniform(500, 60, 12, seed=8).clamp(1e-12, 1 - 1e-12)).square()
    assert torch.equal(torch_state, torch.get_rng_state())
    p = torch.tensor([outside(v) for v in values])
    for level in (0.01, 0.1):
        assert int((p < level).sum()) <= stats.binom.isf(1e-4, 500, level)
    values[0, :20, 0] = values[0].max() * 3
    assert int(far(values[0]).sum()) >= 20
    assert outside(values[0]) < 1e-6
