"""The figures of generated digits, on points whose figures are known."""

from __future__ import annotations

import importlib
import math
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def metrics(benchmarks: None) -> ModuleType:
    return importlib.import_module("class_metrics")


def normal(count: int, size: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator, dtype=torch.float64)


def test_the_mean_distance_of_two_normal_points(metrics):
    """|x - x'| is sqrt(2) times a chi variable."""
    chi = math.sqrt(2) * math.gamma(2.5) / math.gamma(2.0)
    found, error = metrics.over_classes(
        lambda c, p: metrics.mean_distance(p), {0: normal(300), 1: normal(300, seed=1)}
    )
    assert abs(found - math.sqrt(2) * chi) < 4 * error
    assert 0.01 < error < 0.05


def test_the_jackknife_of_a_mean_is_its_standard_error(metrics):
    classes = {c: normal(20, 1, seed=c) for c in range(3)}
    value, error = metrics.over_classes(lambda c, p: p.mean(), classes)
    variances = torch.stack([p.var() / len(p) for p in classes.values()])
    assert value == pytest.approx(float(torch.stack([p.mean() for p in classes.values()]).mean()))
    assert error == pytest.approx(float(variances.sum().sqrt()) / 3, rel=1e-10)


def test_what_real_points_cover(metrics):
    """The chance that none of N fresh points falls into a ball that holds k / N of the class."""
    real, count = normal(400), 16
    found = torch.stack([
        metrics.coverage(normal(count, seed=seed), real, count) for seed in range(1, 41)
    ])  # fmt: skip
    assert abs(found.mean() - (1 - (1 - 3 / count) ** count)) < 0.02


def test_points_that_collapse_cover_little_and_are_precise(metrics):
    real = normal(400)
    one = real[:1].expand(16, -1) + 1e-6
    assert metrics.precision(one, real) == 1
    assert metrics.coverage(one, real, 16) < 0.45
    assert metrics.mean_distance(one) < 1e-5


def test_points_far_away_are_not_precise(metrics):
    real = normal(400)
    far = normal(16, seed=1) + 20
    assert metrics.precision(far, real) == 0
    assert metrics.coverage(far, real, 16) == 0


def test_shares_keep_an_error_where_all_are_right(metrics):
    assert metrics.share(torch.ones(38, dtype=torch.bool)) == (1.0, pytest.approx(0.0247, abs=1e-4))
    value, error = metrics.share(torch.tensor([True] * 500 + [False] * 500))
    assert (value, error) == (0.5, pytest.approx(math.sqrt(0.25 / 1000), rel=2e-3))


def test_frequencies_as_expected_have_a_large_p(metrics):
    class Reader:
        def __call__(self, x):
            return torch.nn.functional.one_hot(x, 10)

    expected = torch.full((10,), 0.1, dtype=torch.float64)
    even = metrics.frequencies(Reader(), torch.arange(100) % 10, expected)
    assert even["chi_square"] == 0
    assert even["p_value"] == 1
    # 16.92 is the 95 % point of chi-square with 9 degrees of freedom.
    skew = torch.tensor([0] * 148 + [k for k in range(10) for _ in range(95)])[:1000]
    uneven = metrics.frequencies(Reader(), skew, expected)
    assert uneven["p_value"] == pytest.approx(_tail(uneven["chi_square"]), abs=2e-3)


def _tail(chi2: float) -> float:
    """P(chi^2_9 > chi2), by integrating the density."""
    t = torch.linspace(chi2, 200, 200001, dtype=torch.float64)
    density = t**3.5 * torch.exp(-t / 2) / (2**4.5 * math.gamma(4.5))
    return float(torch.trapezoid(density, t))
