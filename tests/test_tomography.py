"""Tomography: geometry against scikit-image and against line integrals known on paper."""

import math
import os

import numpy as np
import pytest
import torch
from phantoms import disc, rng, smooth_image
from skimage.transform import radon

import forward_models as fm
from forward_models.tomography import sparse_cache


@pytest.mark.parametrize("size", [32, 33, 47, 64])
def test_agrees_with_scikit_image(size):
    angles = [0.0, 17, 45, 90, 123.4, 180, 250, -30]
    x = smooth_image(size, size)
    A = fm.Tomography((size, size), angles)
    expected = radon(x[0, 0].numpy(), angles, circle=False).T
    assert A.measurement_shape == (1, *expected.shape)
    found = A(x)[0, 0].numpy()
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 0.01
    for wrong in (found[:, ::-1], np.roll(found, 1, axis=1), np.roll(found, -1, axis=1)):
        assert np.linalg.norm(wrong - expected) / np.linalg.norm(expected) > 5 * error


def test_the_axis_may_come_from_numpy():
    options = {"pixel_spacing": 0.5, "detectors": 9, "detector_axis": 4}
    A = fm.Tomography((6, 9), [0, 50.0], axis=(3, 4), **options)
    options |= {"detector_axis": np.int64(4)}
    B = fm.Tomography((6, 9), [0, 50.0], axis=(np.int64(3), np.float32(4)), **options)
    x = torch.randn(1, 1, 6, 9, generator=rng(), dtype=torch.float64)
    assert torch.equal(A(x), B(x))
    for wrong in (True, "3", 3j):
        with pytest.raises(TypeError, match="axis must be a number, got"):
            fm.Tomography((6, 9), [0.0], axis=(wrong, 4))


def test_axis_aligned_projections_are_exact_sums():
    x = torch.randn(1, 1, 6, 9, generator=rng(), dtype=torch.float64)
    A = fm.Tomography((6, 9), [0, 90, 180], detectors=13, pixel_spacing=0.5)
    y = A(x)[0, 0]
    columns = torch.zeros(13, dtype=torch.float64)
    columns[6 - 4 : 6 + 5] = 0.5 * x[0, 0].sum(0)
    torch.testing.assert_close(y[0], columns)
    rows = torch.zeros(13, dtype=torch.float64)
    # s = -(row - row0) at 90 degrees: the image's first row is at the detector's far end.
    rows[6 - 2 : 6 + 4] = 0.5 * x[0, 0].sum(1).flip(0)
    torch.testing.assert_close(y[1], rows)
    mirrored = torch.zeros(13, dtype=torch.float64)
    mirrored[6 - 4 : 6 + 5] = 0.5 * x[0, 0].sum(0).flip(0)
    torch.testing.assert_close(y[2], mirrored)


def chord(point, direction, box):
    """Length of a line inside a box (y0, y1, x0, x1), by clipping: an independent method."""
    low, high = -math.inf, math.inf
    for p, d, (a, b) in zip(point, direction, (box[:2], box[2:]), strict=True):
        if abs(d) < 1e-15:
            if not a < p < b:
                return 0.0
            continue
        first, second = sorted(((a - p) / d, (b - p) / d))
        low, high = max(low, first), min(high, second)
    return max(high - low, 0.0)


@pytest.mark.parametrize("angle", [3.0, 30.0, 45.0, 77.7, 121.0, 201.0, 359.0])
def test_entries_are_exact_intersection_lengths(angle):
    dy, dx, spacing = 0.7, 1.1, 0.6
    A = fm.Tomography(
        (4, 5), [angle], detectors=12, detector_spacing=spacing, pixel_spacing=(dy, dx),
        axis=(1.3, 2.2), detector_axis=5.4,
    )  # fmt: skip
    matrix = A(torch.eye(20, dtype=torch.float64).reshape(20, 1, 4, 5))[:, 0, 0]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    for row in range(4):
        for column in range(5):
            y, x = (row - 1.3) * dy, (column - 2.2) * dx
            box = (y - dy / 2, y + dy / 2, x - dx / 2, x + dx / 2)
            for j in range(12):
                s = (j - 5.4) * spacing
                expected = chord((-s * sin, s * cos), (cos, sin), box)
                assert float(matrix[row * 5 + column, j]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("spacing", [1.0, 0.4])
def test_disc_line_integrals(spacing):
    A = fm.Tomography((96, 80), [0, 20.0, 45, 70, 110, 160], pixel_spacing=spacing)
    radius, centre = 28 * spacing, (-3 * spacing, -6 * spacing)
    y = A(disc(A, radius, centre))[0, 0]
    angle = torch.deg2rad(A.angles)[:, None]
    s = (torch.arange(A.detectors) - A.detector_axis)[None, :] * A.detector_spacing
    t = s - (torch.cos(angle) * centre[0] + torch.sin(angle) * centre[1])
    exact = 2 * (radius**2 - t**2).clamp(min=0).sqrt()
    assert float((y - exact).norm() / exact.norm()) < 0.01
    inside = t.abs() < 0.8 * radius
    assert float(((y - exact).abs() / exact.clamp(min=spacing))[inside].max()) < 0.05


def test_second_derivatives_pass_through():
    A = fm.Tomography((5, 4), [0, 33.0])
    x = torch.randn(1, 1, 5, 4, generator=rng(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v: A(v).square(), (x,))


def test_functional_transforms():
    A = fm.Tomography((5, 4), [0, 33.0, 90])
    x = torch.randn(2, 1, 5, 4, generator=rng(), dtype=torch.float64)
    hessian = torch.func.hessian(lambda v: 0.5 * A(v).square().sum())(x)
    v = torch.randn_like(x)
    product = (hessian.reshape(40, 40) @ v.flatten()).reshape(x.shape)
    torch.testing.assert_close(product, A.adjoint(A(v)))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"image_shape": (1, 8, 8)}, r"\(H, W\)"),
        ({"image_shape": (0, 8)}, "positive"),
        ({"angles": []}, "angles"),
        ({"angles": [0.0, math.nan]}, "angles has 1 non-finite"),
        ({"detectors": 0}, "detectors"),
        ({"pixel_spacing": -1.0}, "pixel_spacing"),
        ({"detector_spacing": math.inf}, "detector_spacing"),
        ({"axis": (math.nan, 0.0)}, "axis"),
        ({"axis": 3}, r"axis must be \(row0, column0\)"),
        ({"axis": (3,)}, r"axis must be \(row0, column0\)"),
        ({"pixel_spacing": (1.0, 1.0, 1.0)}, r"\(dy, dx\)"),
        ({"detector_axis": math.inf}, "detector_axis"),
    ],
)
def test_impossible_geometry(arguments, match):
    with pytest.raises(ValueError, match=match):
        fm.Tomography(**({"image_shape": (8, 8), "angles": [0.0, 90.0]} | arguments))


def test_a_matrix_beyond_32_bits_is_refused(monkeypatch):
    monkeypatch.setattr(fm.tomography.rays, "_MOST_ENTRIES", 500)
    assert fm.Tomography((8, 8), [0, 30.0, 90]).matrix.values.numel() < 500
    with pytest.raises(ValueError, match="more than 500 entries; use larger pixels or fewer"):
        fm.Tomography((16, 16), [0, 30.0, 90])


def test_rays_that_miss_everything_measure_zero():
    A = fm.Tomography((4, 4), [0, 45.0], detectors=41)
    y = A(torch.ones(1, 1, 4, 4))
    assert torch.equal(y[..., :10], torch.zeros(1, 1, 2, 10))
    narrow = fm.Tomography((16, 16), [0, 45.0], detectors=3)
    wide = fm.Tomography((16, 16), [0, 45.0], detectors=31)
    x = torch.rand(1, 1, 16, 16, generator=rng())
    torch.testing.assert_close(narrow(x), wide(x)[..., 14:17])


# ---- the cache -------------------------------------------------------------------------------


def build(folder, **changes):
    arguments = {"image_shape": (12, 10), "angles": [0.0, 33.0, 90.0], "cache": folder}
    return fm.Tomography(**(arguments | changes))


@pytest.fixture
def builds(monkeypatch):
    """How often a system matrix was built rather than read."""
    calls = []
    original = fm.Tomography._build

    def counted(self):
        calls.append(self)
        return original(self)

    monkeypatch.setattr(fm.Tomography, "_build", counted)
    return calls


def test_cache_is_read_and_keyed_by_the_geometry(tmp_path, builds):
    first = build(tmp_path)
    second = build(tmp_path)
    assert len(builds) == 1
    x = torch.randn(1, 1, 12, 10, generator=rng())
    assert torch.equal(first(x), second(x))
    assert torch.equal(first.adjoint(first(x)), second.adjoint(second(x)))
    changes = [
        {"angles": [0.0, 33.0, 91.0]}, {"detectors": 15}, {"pixel_spacing": 2.0},
        {"detector_axis": 7.5}, {"axis": (6.0, 5.5)}, {"image_shape": (10, 12)},
    ]  # fmt: skip
    for change in changes:
        build(tmp_path, **change)
    assert len(builds) == 1 + len(changes)
    assert not list(tmp_path.glob("*.part"))
    build(False)
    assert len(builds) == 2 + len(changes)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text", "folder"])
def test_a_damaged_cache_is_rebuilt(tmp_path, builds, damage):
    expected = build(tmp_path).matrix.values
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-9] ^= 4
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(b"" if damage == "empty" else b"no matrix")
    assert torch.equal(build(tmp_path).matrix.values, expected)
    assert len(builds) == 2
    build(tmp_path)
    assert len(builds) == (3 if damage == "folder" else 2)


def test_an_impossible_cache_folder_does_not_matter(tmp_path, builds, monkeypatch):
    file = tmp_path / "file"
    file.write_text("in the way")
    build(file / "below")
    monkeypatch.setattr(sparse_cache.tempfile, "mkstemp", _full_disk)
    build(tmp_path)
    assert len(builds) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def _full_disk(*args, **kwargs):
    raise OSError(28, os.strerror(28))


def test_default_cache_folder(monkeypatch, tmp_path, builds):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fm.tomography.projector, "_WORTH_CACHING", 100)
    build(True)
    build(True)
    assert len(builds) == 1
    assert len(list((tmp_path / "inverse").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/dev/null/nowhere")
    build(True)
    assert len(builds) == 2


# deepinv follows scikit-image only where the padded image has an odd size, as it has for these.
@pytest.mark.parametrize("size", [47, 50, 64])
def test_equals_deepinv(size):
    physics = pytest.importorskip("deepinv").physics
    angles = torch.tensor([0.0, 20.0, 77.0, 135.0])
    x = smooth_image(size, size).float()
    other = physics.Tomography(angles=angles, img_width=size, circle=False, normalize=False)
    expected = other(x)[0, 0].T
    found = fm.Tomography((size, size), angles)(x)[0, 0]
    assert float((found - expected).norm() / expected.norm()) < 0.01
