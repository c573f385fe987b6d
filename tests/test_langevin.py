"""Langevin samplers: laws known in closed form, the papers' constants, and what annealing mends."""

from __future__ import annotations

import math

import pytest
import torch
from problems import DOUBLE
from test_samplers import gaussian

import forward_models as fm
import inverse
import priors
from inverse.samplers import (
    Ancestral,
    AnnealedLangevin,
    EulerMaruyama,
    Heun,
    Langevin,
    Multistep,
    PredictorCorrector,
    annealing_levels,
    annealing_step,
    largest_distance,
)


class Impulses:
    """Row k holds a 1 at step k: the response of a linear sampler to each of its numbers."""

    def __init__(self, steps: int) -> None:
        self.rows = torch.eye(steps + 1, dtype=DOUBLE)

    def normal(self, step):
        return self.rows[:, step : step + 1]


def law(sampler, prior, shift, variance):
    """Mean and variance at the end, from a start with mean prior.mean + shift and this variance."""
    steps = len(sampler.path) - 1
    centre = float(prior.mean)
    unit = torch.zeros(steps + 1, 1, dtype=DOUBLE)
    unit[0] = math.sqrt(variance)
    response = sampler(prior, start=centre + unit, noise=Impulses(steps)) - centre
    moved = torch.full((steps + 1, 1), centre + shift, dtype=DOUBLE)
    silent = Impulses(steps)
    silent.rows = torch.zeros_like(silent.rows)
    return float(sampler(prior, start=moved, noise=silent)[0]), float((response**2).sum())


# ---- laws on a Gaussian ------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.05, 0.6])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0, 1.9])
def test_langevin_settles_at_the_inflated_variance(sigma, share):
    """v / (1 - a / (2 v)), for a = share * v; and stays there when it starts there."""
    prior = gaussian(1)
    v = 1.3 + sigma**2
    a = share * v
    settled = v / (1 - a / (2 * v))
    mean, variance = law(Langevin(sigma, a, 1), prior, 0.0, settled)
    assert variance == pytest.approx(settled, rel=1e-12)
    long = Langevin(sigma, a, math.ceil(30 / -math.log(max(abs(1 - share), 1e-12))))
    mean, variance = law(long, prior, 5.0, 40.0)
    assert variance == pytest.approx(settled, rel=1e-9)
    assert mean == pytest.approx(0.7, abs=1e-9)


def test_langevin_has_the_declared_order_in_its_step():
    prior, v = gaussian(1), 1.3 + 0.2**2
    errors = [abs(law(Langevin(0.2, a, round(40 / a)), prior, 0, 9)[1] - v) for a in (0.2, 0.1)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(Langevin.order, abs=0.1)


@pytest.mark.parametrize("last", [0.0, 0.02])
def test_annealed_langevin_follows_its_recursion(last):
    prior = gaussian(1, variance=0.4)
    levels = [5.0, 1.0, 0.3, 0.1, last]
    sampler = AnnealedLangevin(levels, steps_per_level=3, relative_step=0.3)
    shift, s = 2.0, 25.0
    for sigma in [level for level in levels if level > 0]:
        v, a = 0.4 + sigma**2, 0.3 * sigma**2
        for _ in range(3):
            shift, s = (1 - a / v) * shift, (1 - a / v) ** 2 * s + 2 * a
    if last == 0:
        gain = 0.4 / (0.4 + 0.1**2)
        shift, s = gain * shift, gain**2 * s
    mean, variance = law(sampler, prior, 2.0, 25.0)
    assert mean - 0.7 == pytest.approx(shift, rel=1e-12)
    assert variance == pytest.approx(s, rel=1e-12)
    assert sampler.network_calls == (13 if last == 0 else 15)


def test_annealed_langevin_on_a_posterior_follows_the_recursion_along_each_eigenvector():
    """Mean and covariance within five standard errors, through the front door."""
    prior = priors.Gaussian(torch.tensor([0.5, -1.0], dtype=DOUBLE), 1.0)
    A = torch.tensor([[1.0, 0.5]], dtype=DOUBLE)
    model, y = fm.LinearGaussian(fm.MatrixOperator(A), 0.7), torch.tensor([1.2], dtype=DOUBLE)
    n, c, levels = 2000, 0.1, priors.geometric(30, (0.1, 5.0))
    sampler = AnnealedLangevin(levels, 10, relative_step=c)
    posterior = inverse.condition(prior, model, y)
    for target, exact in ((prior, prior), (posterior, prior.condition(model, y))):
        samples = inverse.sample(target, n=n, sampler=sampler, seed=1, dtype=DOUBLE)
        assert samples.diagnostics["method"] == "AnnealedLangevin"
        assert samples.diagnostics["network_calls"] == sampler.network_calls == 301
        mean, C = exact.moments()
        eigenvalues, basis = torch.linalg.eigh(C)
        s = torch.full((2,), 1.0 + 5.0**2, dtype=DOUBLE)
        shift = (prior.mean - mean) @ basis
        for sigma in levels[:-1].repeat_interleave(10):
            factor = 1 - c * sigma**2 / (eigenvalues + sigma**2)
            shift, s = factor * shift, factor**2 * s + 2 * c * sigma**2
        gain = eigenvalues / (eigenvalues + levels[-2] ** 2)
        shift, s = gain * shift, gain**2 * s
        along = (samples.x - mean) @ basis
        assert float(((along.mean(0) - shift) / (s / n).sqrt()).abs().max()) < 5
        assert float((along.T.cov().diagonal() / s - 1).abs().max()) < 5 * math.sqrt(2 / n)


def test_only_samplers_that_settle_draw_from_a_measurement_that_moves():
    prior = priors.Gaussian(torch.tensor([0.5, -1.0], dtype=DOUBLE), 1.0)
    A = torch.tensor([[1.0, 0.5]], dtype=DOUBLE)
    model, y = fm.LinearGaussian(fm.MatrixOperator(A), 0.7), torch.tensor([1.2], dtype=DOUBLE)
    posterior = inverse.condition(prior, fm.NoisedMeasurement(model, seed=2), y)
    # y moves with x at every level, so p_sigma stays as narrow as p(x0 | y): no level above 1.
    levels = priors.geometric(30, (0.05, 1.0))
    sampler = AnnealedLangevin(levels, 30, relative_step=0.1)
    samples = inverse.sample(posterior, n=2000, seed=3, dtype=DOUBLE, sampler=sampler)
    mean, C = prior.condition(model, y).moments()
    assert float(((samples.x.mean(0) - mean) / C.diagonal().sqrt()).abs().max()) < 0.15
    assert float((samples.x.T.cov().diagonal() / C.diagonal() - 1).abs().max()) < 0.2
    with pytest.raises(ValueError, match="moves with the noise level"):
        inverse.sample(posterior, sampler=PredictorCorrector(EulerMaruyama(levels)))


# ---- the papers' constants ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "largest", "count", "steps", "eps", "digits"),
    [
        (3 * 32**2, 50, 232, 5, 6.2e-6, 2),
        (3 * 64**2, 90, 500, 5, 3.3e-6, 2),
        (3 * 128**2, 190, 1086, 3, 1.8e-6, 2),
        (3 * 256**2, 348, 2311, 3, 0.9e-6, 1),
    ],
    ids=["cifar10", "celeba", "bedroom", "ffhq"],
)
def test_levels_and_step_sizes_are_the_published_ones(size, largest, count, steps, eps, digits):
    """eps of the 2020 paper to its printed digits; the number of levels to 6 percent at overlap
    0.5, which the paper calls approximate, and to 0.5 percent at 0.567, which it seems to use."""
    ratio = (largest / 0.01) ** (1 / (count - 1))
    found = annealing_step(ratio, steps) * 0.01**2
    assert float(f"{found:.{digits - 1}e}") == pytest.approx(eps, rel=1e-9)
    levels = annealing_levels((0.01, largest), size)
    assert len(levels) - 1 == pytest.approx(count, rel=0.06)
    assert float(levels[0]) == pytest.approx(largest)
    assert float(levels[-2]) == pytest.approx(0.01)
    close = annealing_levels((0.01, largest), size, overlap=0.567)
    assert len(close) - 1 == pytest.approx(count, rel=0.005)
    assert AnnealedLangevin(close, steps).relative_step == pytest.approx(eps * 1e4, rel=0.02)


def test_the_step_rule_brings_the_variance_nearest_to_that_of_the_next_level():
    """Measured on one datum: no other step in 0.5 % ... 99 % does better."""
    point = priors.Gaussian(torch.zeros(1, dtype=DOUBLE), 0.0)
    ratio, steps = 1.5, 4

    def miss(c):
        sampler = AnnealedLangevin([1.0, 1e-9], steps, relative_step=c)
        once = Langevin(1.0, c, steps)
        assert sampler.relative_step == c
        return abs(law(once, point, 0.0, ratio**2)[1] - 1)

    best = miss(annealing_step(ratio, steps))
    assert all(miss(k / 200) >= best - 1e-8 for k in range(1, 199))


def test_the_largest_distance_between_data():
    data = torch.randn(700, 2, 3, generator=torch.Generator().manual_seed(0))
    assert largest_distance(data) == pytest.approx(float(torch.pdist(data.flatten(1)).max()), 1e-6)


# ---- two modes and a gap -----------------------------------------------------------------


def heavy(x):
    """The share of samples in the mode of weight 0.8."""
    return float((x.sum(1) > 0).double().mean())


def test_langevin_fails_on_two_modes_with_a_gap_and_annealing_does_not():
    """Weights 0.2 and 0.8, modes 5.7 apart and 0.22 wide; exact scores, n = 2000, a standard error
    of 0.009. Plain Langevin keeps the weights of its start, whatever they are."""
    modes = torch.tensor([[-2.0, -2.0], [2.0, 2.0]])
    mixture = priors.Mixture(modes, 0.05, torch.tensor([0.2, 0.8]))
    n, error = 2000, math.sqrt(0.8 * 0.2 / 2000)
    uniform = torch.rand(n, 2, generator=torch.Generator().manual_seed(0)) * 8 - 4
    plain = Langevin(sigma=0.1, step_size=0.006, steps=600)
    x = plain(mixture, start=uniform)
    crossed = float(((x.sum(1) > 0) != (uniform.sum(1) > 0)).double().mean())
    assert abs(heavy(x) - 0.5) < 4 * math.sqrt(0.25 / n), "half of a uniform start, not 0.8"
    assert heavy(x) < 0.8 - 20 * error
    assert crossed < 0.005, "the modes do not exchange samples"
    # It did settle inside each mode, so more steps would not help.
    for mode in (x[x.sum(1) > 0], x[x.sum(1) <= 0]):
        settled = 0.06 / (1 - 0.006 / 0.12)
        expected = pytest.approx(settled, rel=5 * math.sqrt(2 / len(mode)))
        assert mode.var(0).tolist() == [expected, expected]
    light = modes[0] + 0.2 * torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    x = Langevin(sigma=0.1, step_size=0.006, steps=200)(mixture, start=light)
    assert heavy(x) == 0, "frozen in the mode it starts in"

    annealed = AnnealedLangevin(priors.geometric(40, (0.1, 8.0)), 15, relative_step=0.1)
    assert annealed.network_calls == plain.steps + 1
    for start in (2 * uniform, 8 * light):
        x = annealed(mixture, start=start)
        assert abs(heavy(x) - 0.8) < 3 * error, heavy(x)
        for mode, centre in ((x[x.sum(1) > 0], modes[1]), (x[x.sum(1) <= 0], modes[0])):
            assert float((mode.mean(0) - centre).norm()) < 0.05
            assert float((mode.var(0) / 0.045 - 1).abs().max()) < 0.25


# ---- predictor-corrector -----------------------------------------------------------------


def test_the_corrector_settles_at_the_variance_its_ratio_allows():
    """1 + r^2 of the variance in many dimensions; the rule holds for each sample alone."""
    size, r, v = 2000, 0.6, 1.0 + 0.5**2
    prior = priors.Gaussian(torch.zeros(size, dtype=DOUBLE), 1.0)
    corrector = PredictorCorrector(EulerMaruyama([0.6, 0.5]), corrections=40, snr=r)
    start = 1.5 * torch.randn(8, size, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    x = corrector(prior, start=start)
    error = math.sqrt(2 / x.numel())
    assert abs(float(x.var()) / (v * (1 + r**2)) - 1) < 5 * error + 2 / size


def energy_distance(x, y):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|: zero only for equal laws."""
    mean = [float(torch.cdist(a, b).mean()) for a, b in ((x, y), (x, x), (y, y))]
    return 2 * mean[0] - mean[1] - mean[2]


@pytest.mark.parametrize("predictor", [EulerMaruyama, lambda s: Ancestral(s, eta=0.0)])
def test_a_corrector_improves_a_first_order_predictor_at_equal_levels(predictor):
    """A mixture in 16 dimensions, 12 levels; energy distance to exact draws, 0.003 at best."""
    g = torch.Generator().manual_seed(5)
    means = torch.randn(3, 16, generator=g, dtype=DOUBLE)
    mixture = priors.Mixture(means, 0.1, torch.tensor([0.2, 0.3, 0.5], dtype=DOUBLE))
    truth = mixture.sample(2000, g)
    levels = priors.geometric(12, (0.05, 20.0))
    far, near = (
        energy_distance(sampler(mixture, n=2000, seed=1, dtype=DOUBLE), truth)
        for sampler in (predictor(levels), PredictorCorrector(predictor(levels), 4))
    )
    assert near < 0.75 * far, (near, far)


def test_one_score_that_vanishes_keeps_its_step_finite():
    prior = gaussian(1)
    sampler = PredictorCorrector(EulerMaruyama([2.0, 1.0, 0.5]))
    x = sampler(prior, start=torch.full((3, 1), 0.7, dtype=DOUBLE))
    assert bool(x.isfinite().all())
    assert float((x - 0.7).abs().max()) < 10


def test_a_sample_does_not_depend_on_its_batch_mates_through_the_norm():
    prior = gaussian(30)
    start = torch.randn(4, 30, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    sampler = PredictorCorrector(EulerMaruyama([2.0, 1.0, 0.5]), 3)
    start[1:] *= 100
    alone = sampler(prior, start=start[:1])
    assert torch.allclose(sampler(prior, start=start)[:1], alone, rtol=0, atol=1e-12)


# ---- refusals ----------------------------------------------------------------------------


def test_arguments_that_mean_nothing_are_refused():
    for bad in (0.0, -1.0, math.inf, math.nan, True, "1"):
        with pytest.raises(ValueError, match="sigma must be a finite number > 0"):
            Langevin(bad, 0.1, 5)
        with pytest.raises(ValueError, match="step_size must be a finite number > 0"):
            Langevin(0.1, bad, 5)
        with pytest.raises(ValueError, match="relative_step must be a finite number > 0"):
            AnnealedLangevin([1.0, 0.0], 5, bad)
        with pytest.raises(ValueError, match="snr must be a finite number > 0"):
            PredictorCorrector(Heun([1.0, 0.0]), snr=bad)
    for bad in (0, 2.0, True):
        with pytest.raises(ValueError, match="steps must be an integer >= 1"):
            Langevin(0.1, 0.1, bad)
        with pytest.raises(ValueError, match="steps_per_level must be an integer >= 1"):
            AnnealedLangevin([1.0, 0.0], bad)
        with pytest.raises(ValueError, match="corrections must be an integer >= 1"):
            PredictorCorrector(Heun([1.0, 0.0]), bad)
    with pytest.raises(ValueError, match="relative_step must be below 2"):
        AnnealedLangevin([1.0, 0.0], 5, 2.0)
    with pytest.raises(ValueError, match="levels must"):
        AnnealedLangevin([1.0, 1.0])
    with pytest.raises(ValueError, match=r"snr must lie in \(0, 1\)"):
        PredictorCorrector(Heun([1.0, 0.0]), snr=1.0)
    with pytest.raises(ValueError, match="looks back"):
        PredictorCorrector(Multistep([1.0, 0.0]))
    for inner in (AnnealedLangevin([1.0, 0.0]), PredictorCorrector(Heun([1.0, 0.0]))):
        with pytest.raises(ValueError, match="takes Langevin steps itself"):
            PredictorCorrector(inner)
    with pytest.raises(TypeError, match="predictor must be a Sampler"):
        PredictorCorrector([1.0, 0.0])
    with pytest.raises(ValueError, match="at least 5 values"):
        annealing_levels((0.01, 1.0), 4)
    with pytest.raises(ValueError, match="0 < low < high"):
        annealing_levels((1.0, 0.01), 40)
    with pytest.raises(ValueError, match="overlap must lie"):
        annealing_levels((0.01, 1.0), 40, 1.0)
    with pytest.raises(ValueError, match="ratio must be"):
        annealing_step(0.9, 5)
    with pytest.raises(ValueError, match="N >= 2"):
        largest_distance(torch.zeros(1, 3))


def test_a_step_too_large_stops_the_run():
    prior = gaussian(2, variance=0.01)
    with pytest.raises(inverse.samplers.DivergenceError, match="the run diverged"):
        Langevin(0.1, 1.0, 200)(prior, n=2)
