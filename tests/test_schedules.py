"""Schedules: the identities that define each one, exact inverses, and grids of noise levels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from priors import VE, VP, Cosine, Flow, SubVP, geometric, karras

SCHEDULES = {
    "VE": VE(0.01, 50.0),
    "VE wide": VE(1e-3, 1e3),
    "VP": VP(),
    "VP small": VP(0.01, 5.0),
    "SubVP": SubVP(),
    "Cosine": Cosine(),
    "Flow": Flow(),
}
each = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
GRIDS = {"karras": karras, "geometric": geometric} | {
    name: schedule.levels for name, schedule in SCHEDULES.items()
}
grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
TIMES = torch.linspace(1e-3, 0.99, 200, dtype=torch.float64)


@each
def test_t_is_the_inverse_of_sigma(schedule):
    torch.testing.assert_close(schedule.t(schedule.sigma(TIMES)), TIMES, rtol=1e-10, atol=1e-10)


@each
@settings(max_examples=30, deadline=None)
@given(power=st.floats(-2.0, 1.5))
def test_sigma_is_the_inverse_of_t(schedule, power):
    sigma = 10.0**power
    assert float(schedule.sigma(schedule.t(sigma))) == pytest.approx(sigma, rel=1e-10)


@each
def test_sigma_increases_and_alpha_does_not(schedule):
    assert (schedule.sigma(TIMES).diff() > 0).all()
    assert (schedule.alpha(TIMES).diff() <= 0).all()
    assert (schedule.alpha(TIMES) > 0).all()


@each
def test_any_shape_and_float64(schedule):
    for t in (0.5, torch.tensor(0.5), torch.full((2, 1, 3), 0.5)):
        for value in (schedule.alpha(t), schedule.sigma(t), schedule.t(t)):
            assert value.shape == torch.as_tensor(t).shape
            assert value.dtype == torch.float64


@pytest.mark.parametrize("schedule", [VP(), VP(0.3, 7.0), Cosine(), Cosine(0.05)])
def test_variance_preserving(schedule):
    """alpha^2 (1 + sigma^2) is one; the cosine schedule's first time carries no noise."""
    total = schedule.alpha(TIMES) ** 2 * (1 + schedule.sigma(TIMES) ** 2)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


def test_cosine_is_nichol_and_dhariwals():
    """alpha^2(t) = f(t) / f(0), f(t) = cos^2((t + s) / (1 + s) pi / 2), up to the held end."""

    def f(t):
        return torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = f(TIMES) / f(torch.zeros(()))
    torch.testing.assert_close(Cosine().alpha(TIMES) ** 2, expected, rtol=1e-3, atol=1e-4)
    assert math.isfinite(float(Cosine().sigma(1.0)))
    assert float(Cosine().sigma(0.0)) == 0


def test_flow_is_a_straight_line():
    alpha, sigma = Flow().alpha(TIMES), Flow().sigma(TIMES)
    torch.testing.assert_close(alpha + alpha * sigma, torch.ones_like(TIMES), rtol=1e-14, atol=0)
    torch.testing.assert_close(alpha, 1 - TIMES)


def test_ve_runs_geometrically_between_its_ends():
    schedule = VE(0.02, 80.0)
    assert float(schedule.sigma(0.0)) == pytest.approx(0.02, rel=1e-14)
    assert float(schedule.sigma(1.0)) == pytest.approx(80.0, rel=1e-14)
    assert float(schedule.sigma(0.5)) == pytest.approx(math.sqrt(0.02 * 80), rel=1e-14)
    assert (schedule.alpha(TIMES) == 1).all()


def test_subvp_noise_is_one_minus_alpha_squared():
    schedule = SubVP()
    alpha = schedule.alpha(TIMES)
    torch.testing.assert_close(alpha * schedule.sigma(TIMES), 1 - alpha**2, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(alpha, VP().alpha(TIMES), rtol=0, atol=0)


def _drift_and_diffusion(schedule):
    """f = d log alpha / dt and g^2 = alpha^2 d sigma^2 / dt of the SDE behind a schedule."""
    t = TIMES.clone().requires_grad_()
    (f,) = torch.autograd.grad(schedule.alpha(t).log().sum(), t)
    (rate,) = torch.autograd.grad((schedule.sigma(t) ** 2).sum(), t)
    return f, schedule.alpha(TIMES) ** 2 * rate


def test_the_sdes_of_song_et_al():
    beta = 0.1 + TIMES * (20.0 - 0.1)
    integral = 0.1 * TIMES + TIMES**2 * (20.0 - 0.1) / 2
    f, g2 = _drift_and_diffusion(VP(0.1, 20.0))
    torch.testing.assert_close(f, -beta / 2, rtol=1e-10, atol=0)
    torch.testing.assert_close(g2, beta, rtol=1e-10, atol=0)
    f, g2 = _drift_and_diffusion(SubVP(0.1, 20.0))
    torch.testing.assert_close(f, -beta / 2, rtol=1e-10, atol=0)
    torch.testing.assert_close(g2, beta * -torch.expm1(-2 * integral), rtol=1e-10, atol=0)


@grids
@settings(max_examples=20, deadline=None)
@given(steps=st.integers(1, 60), low=st.floats(0.01, 0.5), ratio=st.floats(2.0, 60.0))
def test_levels(grid, steps, low, ratio):
    high = low * ratio
    levels = grid(steps, (low, high))
    assert levels.dtype == torch.float64
    assert levels.shape == (steps + 1,)
    assert (levels.diff() < 0).all()
    assert float(levels[0]) == pytest.approx(high, rel=1e-9)
    assert float(levels[-1]) == 0
    if steps > 1:
        assert float(levels[-2]) == pytest.approx(low, rel=1e-9)


def test_karras_and_geometric_formulas():
    levels = karras(5, (0.002, 80.0), rho=7.0)
    expected = [(80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(5)]
    assert levels[:-1].tolist() == pytest.approx(expected, rel=1e-10)
    ratios = geometric(7, (0.01, 10.0))[:-1]
    torch.testing.assert_close(ratios[1:] / ratios[:-1], torch.full((6,), 1e-3 ** (1 / 6)).double())


@each
def test_levels_are_uniform_in_time(schedule):
    times = schedule.t(schedule.levels(9, (0.05, 20.0))[:-1])
    gaps = times.diff()
    torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps), rtol=1e-7, atol=1e-10)


@grids
@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "10", None])
def test_bad_steps_are_refused(grid, steps):
    with pytest.raises(ValueError, match="steps must be an integer >= 1"):
        grid(steps, (0.1, 1.0))


@grids
@pytest.mark.parametrize(
    "sigma_range", [(0.0, 1.0), (1.0, 0.1), (0.5, 0.5), (-1.0, 1.0), (0.1, math.inf), (math.nan, 1)]
)
def test_bad_ranges_are_refused(grid, sigma_range):
    with pytest.raises(ValueError, match="0 < low < high"):
        grid(4, sigma_range)


@pytest.mark.parametrize(
    ("schedule", "settings", "message"),
    [
        (VE, (0.0, 1.0), "sigma_min"),
        (VE, (2.0, 1.0), "sigma_min"),
        (VE, (1.0, math.inf), "sigma_min"),
        (VP, (5.0, 1.0), "beta_min"),
        (SubVP, (-1.0, 1.0), "beta_min"),
        (Cosine, (0.0,), "offset"),
        (Cosine, (1.5,), "offset"),
    ],
)
def test_bad_schedules_are_refused(schedule, settings, message):
    with pytest.raises(ValueError, match=message):
        schedule(*settings)
