"""Filtered back-projection and its weights, and units."""

import math

import pytest
import torch
from phantoms import disc, ellipse, rng

import forward_models as fm
from forward_models.tomography.filters import ramp_filter
from forward_models.tomography.scan import is_closed, redundancy, view_shares

FILTERS = ["ramp", "shepp-logan", "cosine", "hamming", "hann"]


def fan(angles, **options):
    defaults = {"source_origin": 160.0, "source_detector": 300.0, "pixel_spacing": 0.8}
    return fm.FanBeam((90, 80), angles, **(defaults | options))


def check_disc(A, found, level, radius, centre, rel=0.01, spread=0.15):
    """The level inside, zero outside, where the whole fan or band of rays saw the pixel."""
    middle = disc(A, 0.7 * radius, centre) == 1
    outside = (disc(A, 1.2 * radius, centre) == 0) & (disc(A, 1.7 * radius) == 1)
    assert float(found[middle].mean()) == pytest.approx(level, rel=rel)
    assert float(found[middle].std()) < spread
    assert abs(float(found[outside].mean())) < spread


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("spread", ["even", "uneven"])
def test_fbp_recovers_a_disc(filter, spread):
    angles = torch.arange(0, 180, 1.5, dtype=torch.float64)
    if spread == "uneven":
        angles = torch.cat([torch.arange(0, 90, 1.0), torch.arange(90, 180, 3.0)]).double()
        angles = angles[torch.randperm(len(angles), generator=rng())]
    A = fm.Tomography((80, 72), angles, pixel_spacing=0.8)
    x = 3.0 * disc(A, 20.0, (-2.0, -4.0))
    check_disc(A, fm.fbp(A, A(x), filter), 3.0, 20.0, (-2.0, -4.0))


SCANS = {
    "full": torch.arange(0, 360, 1.5),
    "uneven": torch.cat([torch.arange(0, 180, 1.0), torch.arange(180, 360, 3.0)]),
    "clockwise": -torch.arange(0, 360, 1.5) + 17,
    "three-quarters": torch.arange(50, 320, 1.5),
    "short": torch.arange(0, 232.0, 1.5),
    "short-backwards": torch.arange(500.0, 268, -1.5),
}


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("detector", ["flat", "curved"])
def test_fan_fbp_recovers_a_disc(detector, scan):
    A = fan(SCANS[scan], detector=detector, detector_axis=64.3)
    x = 3.0 * disc(A, 20.0, (4.0, -2.0))
    check_disc(A, fm.fbp(A, A(x)), 3.0, 20.0, (4.0, -2.0), rel=0.002, spread=0.1)


@pytest.mark.parametrize("filter", FILTERS)
def test_fan_fbp_filters(filter):
    A = fan(SCANS["full"])
    x = 3.0 * disc(A, 20.0)
    check_disc(A, fm.fbp(A, A(x), filter), 3.0, 20.0, (0.0, 0.0), rel=0.002, spread=0.1)


def test_filters_damp_noise_in_their_order():
    A = fan(torch.arange(0, 360, 6.0))
    noise = torch.randn(1, *A.measurement_shape, generator=rng(), dtype=torch.float64)
    spread = [float(fm.fbp(A, noise, name).std()) for name in FILTERS]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 0.6 * spread[0]


def test_fbp_of_a_volume_is_that_of_its_slices():
    angles = torch.arange(0, 360, 20.0)
    small = fm.FanBeam((11, 12), angles, source_origin=20, source_detector=30)
    for A in (small, fm.Tomography((16, 12), angles)):
        stack = fm.SliceStack(A, 3)
        y = torch.randn(2, *stack.measurement_shape, generator=rng(), dtype=torch.float64)
        found = fm.fbp(stack, y, "hann")
        assert found.shape == (2, *stack.event_shape)
        for k in range(3):
            torch.testing.assert_close(found[:, :, k], fm.fbp(A, y[:, :, k], "hann"))


def test_fbp_is_linear_and_differentiable():
    A = fm.FanBeam((6, 5), torch.arange(0, 360, 40.0), source_origin=9, source_detector=15)
    y = torch.randn(1, *A.measurement_shape, generator=rng(), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: fm.fbp(A, v), (y.requires_grad_(),))
    single = fm.fbp(A, y.detach().float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, fm.fbp(A, y.detach()).float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arc", [60, 120, 180, 204, 230, 270, 340, 360])
@pytest.mark.parametrize("turn", [1, -1])
def test_every_measured_line_counts_once(arc, turn):
    """The weights of the two rays along one line add up to one; a ray without a twin has one."""
    start = 37.0 if turn > 0 else 37.0 - arc
    angles = start + torch.arange(0, arc, 2.0, dtype=torch.float64)
    degrees = torch.arange(-12, 13)
    order = torch.randperm(len(angles), generator=rng())
    weights = torch.empty(len(angles), len(degrees), dtype=torch.float64)
    weights[order] = redundancy(angles[order] + 360, torch.deg2rad(degrees.double()))
    twin = (torch.arange(len(angles))[:, None] + 90 - degrees) % 180
    measured = twin < len(angles)
    mirrored = weights.flip(1).gather(0, twin.clamp(max=len(angles) - 1))
    total = weights + torch.where(measured, mirrored, 0.0)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_view_shares():
    even = view_shares(torch.arange(0, 180, 10.0), 180.0)
    torch.testing.assert_close(even, torch.full((18,), 10.0, dtype=torch.float64))
    for angles in ([0.0], [0.0, 180.0], [5.0, 100, 30, 30, 275], [0.0, 90, 100, 200]):
        for period in (180.0, 360.0):
            assert is_closed(torch.tensor(angles), period)
            assert float(view_shares(torch.tensor(angles), period).sum()) == pytest.approx(period)
    uneven = view_shares(torch.tensor([0.0, 30, 90]), 180.0)
    torch.testing.assert_close(uneven, torch.tensor([60.0, 45, 75]).double())
    arc = torch.tensor([350.0, 0, 20, 10, 20])
    expected = torch.tensor([10.0, 10, 5, 10, 5], dtype=torch.float64)
    for period in (180.0, 360.0):
        assert not is_closed(arc, period)
        torch.testing.assert_close(view_shares(arc, period), expected)
    half = torch.arange(0, 180, 10.0)
    assert is_closed(half, 180.0)
    assert not is_closed(half, 360.0)


def parallel_errors(angles, step):
    """Root mean square errors of a phantom: by fbp, and with `step` degrees for every view."""
    A = fm.Tomography((64, 64), angles)
    x = disc(A, 26.0) - 0.8 * disc(A, 23.0) + 0.3 * disc(A, 6.0, (8.0, 9.0))
    x = x + 0.5 * ellipse(A, (4.0, 9.0), (-8.0, -3.0))
    y = A(x)
    uniform = math.radians(step) * A.adjoint(ramp_filter(y, A.detector_spacing, "ramp"))
    return [float((found - x).square().mean().sqrt()) for found in (fm.fbp(A, y), uniform)]


@pytest.mark.parametrize("span", [180, 150, 120, 90])
def test_views_beside_a_missing_wedge_count_like_the_others(span):
    angles = torch.arange(0, span, 1.0)
    even, uniform = parallel_errors(angles, 1.0)
    assert even == pytest.approx(uniform)
    assert even <= 1.02 * parallel_errors(angles, 180 / span)[1]
    shuffled = angles[torch.randperm(span, generator=rng())] - 720
    assert parallel_errors(shuffled, 1.0)[0] == pytest.approx(uniform)
    descending = angles.flip(0) + 33
    assert parallel_errors(descending, 1.0)[0] == pytest.approx(parallel_errors(descending, 1.0)[1])
    twice = torch.cat([angles, angles[10:40], angles[:20] + 180])
    found, uniform = parallel_errors(twice, 1.0)
    assert found == pytest.approx(even)
    assert found < uniform


@pytest.mark.parametrize("span", [180.0, 100.0])
def test_random_views_count_by_their_gaps(span):
    for seed in range(3):
        angles = span * torch.rand(180, generator=rng(seed))
        found, uniform = parallel_errors(angles, span / 180)
        assert found < uniform


def test_fbp_refuses():
    A = fm.Tomography((8, 8), [0, 90.0])
    with pytest.raises(ValueError, match="known: ramp"):
        fm.fbp(A, torch.zeros(1, 1, 2, 12), "butterworth")
    with pytest.raises(ValueError, match="expected"):
        fm.fbp(A, torch.zeros(1, 1, 2, 11))
    with pytest.raises(ValueError, match="non-finite"):
        fm.fbp(A, torch.full((1, 1, 2, 12), math.nan))
    with pytest.raises(TypeError, match="Blur"):
        fm.fbp(fm.Blur(torch.ones(3, 3)), torch.zeros(1, 1, 2, 12))


# ---- units -----------------------------------------------------------------------------------


def test_hounsfield_units():
    hu = torch.tensor([-1000.0, 0.0, 1000.0])
    torch.testing.assert_close(
        fm.hounsfield_to_attenuation(hu), torch.tensor([0.0, 0.0193, 0.0386])
    )
    torch.testing.assert_close(fm.attenuation_to_hounsfield(fm.hounsfield_to_attenuation(hu)), hu)
    with pytest.raises(ValueError, match="mu_water"):
        fm.hounsfield_to_attenuation(hu, 0.0)
    with pytest.raises(TypeError, match="LinearOperator, got NoneType"):
        fm.hounsfield_sinogram(None, hu)
    with pytest.raises(ValueError, match="any size"):
        fm.hounsfield_sinogram(fm.Identity(), hu)


@pytest.mark.parametrize("beam", ["parallel", "fan", "slices"])
def test_sinograms_in_hounsfield_units(beam):
    A = fm.Tomography((9, 7), [0, 20.0, 80], pixel_spacing=0.7)
    if beam != "parallel":
        A = fm.FanBeam(
            (9, 7), [0, 20.0, 80], source_origin=30.0, source_detector=50.0, pixel_spacing=0.7
        )
    if beam == "slices":
        A = fm.SliceStack(A, 2)
    x = 500 * torch.randn(2, *A.event_shape, generator=rng(), dtype=torch.float64)
    p = A(fm.hounsfield_to_attenuation(x, 0.02))
    y, factor = fm.hounsfield_sinogram(A, p, 0.02)
    torch.testing.assert_close(y, A(x), atol=1e-8, rtol=0)
    moved, _ = fm.hounsfield_sinogram(A, p + 0.01, 0.02)
    torch.testing.assert_close(moved - y, torch.full_like(y, 0.01 * factor))
