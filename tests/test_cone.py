"""Cone beam through diffct: balls, the fan in the middle plane, exact adjoints."""

import copy
import math
import pickle
import sys

import pytest
import torch
from phantoms import rng

import forward_models as fm

GEOMETRY = {
    "volume_shape": (5, 12, 9), "angles": [0.0, 33, 90, 200, 301], "source_origin": 40.0,
    "source_detector": 70.0, "detector_shape": (7, 25), "detector_spacing": (1.3, 1.1),
    "voxel_spacing": (1.5, 0.8, 1.2), "axis": (2.0, 5.1, 3.7), "detector_axis": (3.0, 11.3),
}  # fmt: skip


@pytest.fixture(scope="module")
def cone():
    pytest.importorskip("diffct")
    return fm.ConeBeam(**GEOMETRY)


def draw(A, batch=2, seed=0, dtype=torch.float64):
    return torch.randn(batch, *A.event_shape, generator=rng(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_adjoint_is_exact(cone, dtype):
    bound = 1e-6 if dtype == torch.float32 else 1e-13
    x = draw(cone, dtype=dtype)
    ax = cone(x)
    assert ax.dtype == dtype
    for y in (torch.randn(ax.shape, generator=rng(5), dtype=dtype), ax):
        back = cone.adjoint(y)
        assert back.shape == x.shape
        error = abs(float((ax * y).sum() - (x * back).sum())) / float(ax.norm() * y.norm())
        assert error < bound


def test_linear_batched_and_differentiable(cone):
    x, z = draw(cone), draw(cone, seed=1)
    y = cone(x)
    torch.testing.assert_close(cone(2 * x - 3 * z), 2 * y - 3 * cone(z))
    torch.testing.assert_close(cone(x[1:]), y[1:])
    leaf = x.clone().requires_grad_()
    w = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(cone(leaf), leaf, w)
    torch.testing.assert_close(gradient, cone.adjoint(w))
    assert cone(x).grad_fn is None
    torch.testing.assert_close(torch.func.jvp(cone, (x,), (z,))[1], cone(z))


def test_the_middle_plane_is_a_fan_beam(cone):
    A = fm.FanBeam(
        (12, 9), GEOMETRY["angles"], source_origin=40.0, source_detector=70.0, detectors=25,
        detector_spacing=1.1, pixel_spacing=(0.8, 1.2), axis=(5.1, 3.7), detector_axis=11.3,
    )  # fmt: skip
    x = draw(cone)
    torch.testing.assert_close(cone(x)[:, :, :, 3], A(x[:, :, 2]), rtol=1e-10, atol=1e-10)


def test_a_volume_of_one_slice_is_a_fan_beam():
    pytest.importorskip("diffct")
    common = {"source_origin": 30.0, "source_detector": 44.0}
    cone = fm.ConeBeam(
        (1, 8, 11), [10.0, 250], detector_shape=(1, 20), detector_spacing=1.5, **common
    )
    fan = fm.FanBeam((8, 11), [10.0, 250], detectors=20, detector_spacing=1.5, **common)
    x = draw(cone)
    torch.testing.assert_close(cone(x)[:, :, :, 0], fan(x[:, :, 0]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("source_detector", [10.0, 30, 34, 36])
def test_rays_run_through_the_volume_wherever_the_detector_is(source_detector):
    """Before it, inside it (a virtual detector through the axis) and behind it."""
    pytest.importorskip("diffct")
    common = {
        "angles": [0.0, 37, 90, 200], "source_origin": 30.0, "source_detector": source_detector
    }  # fmt: skip
    spacing, middle = 1.5 * source_detector / 30, 8.3
    cone = fm.ConeBeam(
        (1, 8, 11), detector_shape=(1, 20), detector_spacing=spacing, axis=(0, 2.8, 6.1),
        detector_axis=(0, middle), **common,
    )  # fmt: skip
    fan = fm.FanBeam(
        (8, 11), detectors=20, detector_spacing=spacing, axis=(2.8, 6.1), detector_axis=middle,
        **common,
    )  # fmt: skip
    x = draw(cone)
    torch.testing.assert_close(cone(x)[:, :, :, 0], fan(x[:, :, 0]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(cone.adjoint(cone(x))[:, :, 0], fan.adjoint(fan(x[:, :, 0])))


def test_a_detector_in_the_volume_measures_what_one_behind_it_does():
    pytest.importorskip("diffct")
    x = torch.randn(1, 1, 6, 9, 8, generator=rng(), dtype=torch.float64)
    measured = []
    for magnification in (0.4, 1.0, 3.0):
        A = fm.ConeBeam(
            (6, 9, 8), [10.0, 250], source_origin=20.0, source_detector=20.0 * magnification,
            detector_shape=(7, 13), detector_axis=(2.2, 6.7),
            detector_spacing=(1.1 * magnification, 1.3 * magnification),
        )  # fmt: skip
        measured.append(A(x))
    torch.testing.assert_close(measured[0], measured[2])
    torch.testing.assert_close(measured[1], measured[2])


def test_chords_of_a_ball():
    """Exact line integrals of a ball off the axis, above the plane of the source."""
    pytest.importorskip("diffct")
    n, d, R, D = 48, 0.5, 60.0, 90.0
    A = fm.ConeBeam(
        (n, n, n), [0.0, 70, 215], source_origin=R, source_detector=D, detector_shape=(20, 30),
        detector_spacing=(1.9, 1.7), voxel_spacing=d, detector_axis=(8.3, 14.1),
    )  # fmt: skip
    centre, radius = torch.tensor([2.0, -3.0, 2.5], dtype=torch.float64), 6.0
    fine = (torch.arange(3 * n, dtype=torch.float64) + 0.5) * d / 3 - n * d / 2
    # Slices count up, rows down, columns to the right.
    z, y, x = fine[:, None, None], -fine[None, :, None], fine[None, None, :]
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < radius**2
    ball = torch.nn.functional.avg_pool3d(inside.double()[None, None], 3)

    a = torch.deg2rad(A.angles)[:, None, None]
    v = ((torch.arange(20, dtype=torch.float64) - 8.3) * 1.9)[None, :, None]
    u = ((torch.arange(30, dtype=torch.float64) - 14.1) * 1.7)[None, None, :]
    source = R * torch.stack([a.sin(), -a.cos(), 0 * a], -1)
    ray = torch.stack(
        torch.broadcast_tensors(-D * a.sin() + u * a.cos(), D * a.cos() + u * a.sin(), v + 0 * a),
        -1,
    )
    ray = ray / ray.norm(dim=-1, keepdim=True)
    p = centre - source
    distance = (p.square().sum(-1) - (p * ray).sum(-1).square()).clamp(min=0)
    exact = 2 * (radius**2 - distance).clamp(min=0).sqrt()
    found = A(ball)[0, 0]
    # The voxels at its edge hold the share of the ball in them.
    assert float((found - exact).norm() / exact.norm()) < 0.05
    for wrong in (found.flip(1), found.flip(2)):
        assert float((wrong - exact).norm() / exact.norm()) > 0.2


def test_copies_and_inference_mode(cone):
    x = draw(cone)
    y = cone(x)
    assert torch.equal(copy.deepcopy(cone)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(cone)).adjoint(y), cone.adjoint(y))
    fresh = fm.ConeBeam(**GEOMETRY)
    with torch.inference_mode():
        fresh.adjoint(fresh(x.clone()))
    leaf = x.clone().requires_grad_()
    torch.autograd.grad(fresh(leaf).square().sum(), leaf)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"source_origin": 6.0}, "the volume reaches"),
        ({"volume_shape": (4, 4)}, r"\(D, H, W\)"),
        ({"detector_shape": (4, 4, 4)}, r"\(rows, columns\)"),
        ({"voxel_spacing": (1.0, 1.0)}, "voxel_spacing must have 3"),
        ({"detector_spacing": -1.0}, "detector_spacing"),
        ({"angles": []}, "angles"),
        ({"axis": (0.0, math.nan, 0.0)}, "axis"),
    ],
)
def test_impossible_geometry(change, match):
    pytest.importorskip("diffct")
    with pytest.raises(ValueError, match=match):
        fm.ConeBeam(**(GEOMETRY | change))


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffct", None)
    with pytest.raises(ImportError, match=r"pip install inverse\[ct3d\]"):
        fm.ConeBeam(**GEOMETRY)
