"""Fan beam: geometry against line integrals known on paper, the parallel limit and deepinv."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from phantoms import ellipse, rng, smooth_image

import forward_models as fm

DETECTORS = pytest.mark.parametrize("detector", ["flat", "curved"])


def fan(shape, angles, **options):
    defaults = {"source_origin": 3.0 * max(shape), "source_detector": 5.0 * max(shape)}
    return fm.FanBeam(shape, angles, **(defaults | options))


def endpoints(A):
    """Source and bins in mm, (A, 1, 2) and (A, J, 2), written out from the geometry."""
    a = torch.deg2rad(A.angles)
    source = A.source_origin * torch.stack([a.sin(), -a.cos()], -1)
    along = torch.stack([a.cos(), a.sin()], -1)
    towards = -source / A.source_origin
    u = (torch.arange(A.detectors, dtype=torch.float64) - A.detector_axis) * A.detector_spacing
    D = A.source_detector
    if A.detector == "flat":
        across, ahead = u, torch.full_like(u, D)
    else:
        across, ahead = D * torch.sin(u / D), D * torch.cos(u / D)
    bins = across[:, None] * along[:, None] + ahead[:, None] * towards[:, None]
    return source[:, None], source[:, None] + bins


def through_ellipse(A, radii, centre):
    """Exact chord lengths (A, J) of the rays in an ellipse."""
    source, bins = endpoints(A)
    scale = torch.tensor(radii, dtype=torch.float64)
    p = (source - torch.tensor(centre, dtype=torch.float64)) / scale
    d = bins - source
    length = d.norm(dim=-1)
    d = d / scale
    # |p + t d|^2 = 1: the difference of the two roots, times the length of d before scaling.
    dd, pd, pp = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1)
    return 2 * length * (pd.square() - dd * (pp - 1)).clamp(min=0).sqrt() / dd


def box_chord(p, q, box):
    """Length of the line through p and q inside a box ((x0, x1), (y0, y1)), by clipping."""
    low, high, length = -math.inf, math.inf, math.dist(p, q)
    for a, b, (start, stop) in zip(p, q, box, strict=True):
        if abs(b - a) < 1e-12:
            if not start < a < stop:
                return 0.0
            continue
        first, second = sorted(((start - a) / (b - a), (stop - a) / (b - a)))
        low, high = max(low, first), min(high, second)
    return max(high - low, 0.0) * length


@DETECTORS
@pytest.mark.parametrize("angle", [0.0, 31.0, 90.0, 135.0, 250.3])
def test_entries_are_exact_intersection_lengths(detector, angle):
    dy, dx = 0.7, 1.1
    A = fm.FanBeam(
        (4, 5), [angle], source_origin=6.0, source_detector=9.0, detectors=14, detector=detector,
        detector_spacing=0.8, pixel_spacing=(dy, dx), axis=(1.3, 2.2), detector_axis=5.4,
    )  # fmt: skip
    matrix = A(torch.eye(20, dtype=torch.float64).reshape(20, 1, 4, 5))[:, 0, 0]
    source, bins = endpoints(A)
    for row in range(4):
        for column in range(5):
            x, y = (column - 2.2) * dx, -(row - 1.3) * dy
            box = ((x - dx / 2, x + dx / 2), (y - dy / 2, y + dy / 2))
            for j in range(14):
                expected = box_chord(source[0, 0].tolist(), bins[0, j].tolist(), box)
                assert float(matrix[row * 5 + column, j]) == pytest.approx(expected, abs=1e-9)


def scans(detector):
    """One geometry over ever smaller pixels."""
    for pixels in (24, 48, 96, 192):
        yield fm.FanBeam(
            (pixels, pixels), [0.0, 33, 90, 141, 200, 290.5], detector=detector, source_origin=130,
            source_detector=200, pixel_spacing=96 / pixels, detectors=60, detector_spacing=2.5,
            detector_axis=27.3,
        )  # fmt: skip


@DETECTORS
def test_line_integrals_of_an_ellipse_converge(detector):
    """The error is that of the edge pixels: it falls with their size."""
    radii, centre, errors = (26.0, 15.0), (6.0, -9.0), []
    for A in scans(detector):
        exact = through_ellipse(A, radii, centre)
        y = A(ellipse(A, radii, centre))[0, 0]
        errors.append(float((y - exact).norm() / exact.norm()))
    assert all(b < 0.65 * a for a, b in itertools.pairwise(errors))
    assert errors[-1] < 0.008


@DETECTORS
def test_line_integrals_of_a_gaussian_converge(detector):
    """Constant pixels are of first order along an axis, and of a higher one across many pixels."""
    width, centre, errors = 9.0, torch.tensor([7.0, -12.0], dtype=torch.float64), []
    for A in scans(detector):
        y, x = (torch.from_numpy(line.copy()) for line in A.grid.lines())
        square = (x - centre[0]).square() + (y[:, None] - centre[1]).square()
        image = torch.exp(-square / (2 * width**2))[None, None]
        source, bins = endpoints(A)
        d = (bins - source) / (bins - source).norm(dim=-1, keepdim=True)
        p = centre - source
        distance = d[..., 0] * p[..., 1] - d[..., 1] * p[..., 0]
        exact = math.sqrt(2 * math.pi) * width * torch.exp(-distance.square() / (2 * width**2))
        errors.append(float((A(image)[0, 0] - exact).norm() / exact.norm()))
    assert all(b < 0.85 * a for a, b in itertools.pairwise(errors))
    assert errors[-1] < min(0.003, errors[0] / 10)


@DETECTORS
def test_a_far_source_measures_what_parallel_rays_do(detector):
    angles = [0.0, 20, 45, 111, 200, 300]
    x = smooth_image(30, 22)
    options = {"pixel_spacing": (0.9, 1.2), "axis": (13.0, 9.5), "detectors": 47}
    parallel = fm.Tomography((30, 22), angles, detector_spacing=0.8, detector_axis=22.2, **options)(
        x
    )
    R = 1e6
    far = fm.FanBeam(
        (30, 22), angles, source_origin=R, source_detector=2 * R, detector_spacing=1.6,
        detector_axis=22.2, detector=detector, **options,
    )  # fmt: skip
    torch.testing.assert_close(far(x), parallel, atol=2e-4, rtol=0)


def test_flat_and_curved_detectors_share_their_rays():
    """Both measure functions of the angle to the central ray; at equal angles, the same."""
    x = smooth_image(40, 40)
    curved = fan((40, 40), [10.0, 200], detector="curved", detectors=801, detector_spacing=0.2)
    flat = fan((40, 40), [10.0, 200], detectors=61, detector_spacing=2.0)
    found = flat(x)[0, 0].numpy()
    for row, other in zip(found, curved(x)[0, 0].numpy(), strict=True):
        expected = np.interp(flat.fan_angles, curved.fan_angles, other)
        np.testing.assert_allclose(row, expected, atol=0.02 * found.max())


def test_default_detector_sees_the_whole_image():
    for detector in ("flat", "curved"):
        for shape, axis in (((20, 33), None), ((8, 5), (0.0, 4.0))):
            A = fan(shape, torch.arange(0.0, 360, 7), detector=detector, axis=axis)
            wide = fan(
                shape, A.angles, detector=detector, axis=axis, detectors=A.detectors + 40,
                detector_axis=A.detector_axis + 20,
            )  # fmt: skip
            y = wide(torch.ones(1, 1, *shape))
            assert float(y[..., :20].abs().max()) == float(y[..., -20:].abs().max()) == 0
            torch.testing.assert_close(y[..., 20:-20], A(torch.ones(1, 1, *shape)))


def test_a_shifted_detector_and_a_virtual_one_measure_the_same_rays():
    x = smooth_image(16, 16)
    A = fan((16, 16), [0.0, 77], detectors=41)
    shifted = fan((16, 16), [0.0, 77], detectors=20, detector_axis=A.detector_axis - 11)
    torch.testing.assert_close(shifted(x), A(x)[..., 11:31])
    virtual = fan(
        (16, 16), [0.0, 77], detectors=41, source_detector=A.source_origin,
        detector_spacing=A.detector_spacing * A.source_origin / A.source_detector,
    )  # fmt: skip
    torch.testing.assert_close(virtual(x), A(x))


def test_opposite_rays_measure_the_same():
    """(beta, gamma) and (beta + 180 - 2 gamma, -gamma) are one line."""
    A = fan((20, 20), [40.0], detector="curved", detectors=31)
    gamma = A.fan_angles[4]
    other = fan((20, 20), [40.0 + 180 - 2 * math.degrees(gamma)], detector="curved", detectors=31)
    x = torch.rand(1, 1, 20, 20, generator=rng(), dtype=torch.float64)
    torch.testing.assert_close(A(x)[..., 4], other(x)[..., 26])


# deepinv turns the source by 90 degrees, counts G pixels of the padded image where its grid has
# G - 1 between the first and the last, and sums bilinear samples that lie 1 / cos(gamma) apart.
@pytest.mark.parametrize("size", [48, 64])
def test_equals_deepinv(size):
    physics = pytest.importorskip("deepinv").physics
    angles = torch.tensor([0.0, 20.0, 77.0, 135.0, 290.0])
    J, R = 2 * size, 3.0 * size
    other = physics.Tomography(
        angles=angles + 90, img_width=size, fan_beam=True, normalize=False,
        fan_parameters={
            "pixel_spacing": 1.0, "source_radius": R, "detector_radius": R,
            "n_detector_pixels": J, "detector_spacing": 1.5,
        },
    )  # fmt: skip
    x = smooth_image(size, size).float()
    G = math.ceil(math.sqrt(2) * size)
    axis = (G - 1) / 2 - (G // 2 - size // 2)
    A = fm.FanBeam(
        (size, size), angles, source_origin=R, source_detector=2 * R, detectors=J,
        detector_spacing=1.5, pixel_spacing=G / (G - 1), axis=(axis, axis),
    )  # fmt: skip
    samples = other(x)[0, 0].T
    expected = samples / torch.from_numpy(np.cos(A.fan_angles)).float() * G / (G - 1)
    found = A(x)[0, 0]
    error = float((found - expected).norm() / expected.norm())
    assert error < 0.02
    mirrored = float((found.flip(1) - expected).norm() / expected.norm())
    assert mirrored > 10 * error


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"source_origin": 5.0}, "the image reaches 5.65685 mm .* circles at 5 mm"),
        ({"source_origin": 5.6568}, "inside"),
        ({"source_origin": -9.0}, "source_origin"),
        ({"source_detector": math.nan}, "source_detector"),
        ({"detector": "round"}, "known: flat, curved"),
        ({"detector_spacing": 0.0}, "detector_spacing"),
        ({"detectors": 0}, "detectors"),
        ({"axis": (40.0, 4.0)}, "the image reaches"),
        ({"detector": "curved", "detectors": 400}, "half circle"),
        ({"angles": []}, "angles"),
        ({"axis": (math.nan, 4)}, "axis must be finite"),
    ],
)
def test_impossible_geometry(arguments, match):
    defaults = {
        "image_shape": (8, 8), "angles": [0.0], "source_origin": 20.0, "source_detector": 40.0
    }  # fmt: skip
    with pytest.raises(ValueError, match=match):
        fm.FanBeam(**(defaults | arguments))


def test_the_cache_tells_geometries_apart(tmp_path):
    options = {"source_origin": 30.0, "source_detector": 50.0, "cache": tmp_path, "detectors": 11}
    first = fm.FanBeam((8, 8), [0.0, 50], **options)
    again = fm.FanBeam((8, 8), [0.0, 50], **options)
    assert torch.equal(first.matrix.values, again.matrix.values)
    assert len(list(tmp_path.iterdir())) == 1
    changes = (
        {"source_origin": 31.0}, {"source_detector": 51.0}, {"detector": "curved"},
        {"detector_axis": 4.0}, {"detector_spacing": 2.0},
    )  # fmt: skip
    for count, change in enumerate(changes, start=2):
        fm.FanBeam((8, 8), [0.0, 50], **(options | change))
        assert len(list(tmp_path.iterdir())) == count
    fm.Tomography((8, 8), [0.0, 50], detectors=11, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 + len(changes)


# ---- slices ----------------------------------------------------------------------------------


def test_slices_are_measured_alone():
    A = fan((9, 7), [0.0, 80, 200])
    volume = torch.randn(2, 1, 5, 9, 7, generator=rng(), dtype=torch.float64)
    stack = fm.SliceStack(A, 5)
    y = stack(volume)
    assert y.shape == (2, 1, 5, 3, A.detectors)
    for k in range(5):
        torch.testing.assert_close(y[:, :, k], A(volume[:, :, k]))
    assert copy.deepcopy(stack).event_shape == (1, 5, 9, 7)


def test_slices_of_channels_and_masks():
    mask = torch.rand(4, 6, generator=rng()) > 0.5
    A = fm.SliceStack(fm.Inpainting(mask, channels=2), 3)
    x = torch.randn(2, 2, 3, 4, 6, generator=rng())
    torch.testing.assert_close(A(x), x * mask)
    assert A.measured.expand(A.measurement_shape).shape == A.measurement_shape
    with pytest.raises(ValueError, match="fixes its shapes"):
        fm.SliceStack(fm.Inpainting(mask), 3)
    with pytest.raises(ValueError, match="slices"):
        fm.SliceStack(fan((4, 4), [0.0]), 0)
    with pytest.raises(TypeError, match="LinearOperator of one slice, got int"):
        fm.SliceStack(3, 3)
    with pytest.raises(TypeError, match="got Sigmoid"):
        fm.SliceStack(Sigmoid(), 3)


class Sigmoid(fm.Operator):
    def _apply(self, x):
        return x.sigmoid()


@pytest.mark.parametrize("slices", [3, 9])
@pytest.mark.parametrize("coils", [1, 2])
@pytest.mark.parametrize("shape", [(7,), (9, 7)], ids=["lines", "samples"])
def test_what_is_measured_of_a_slice_is_measured_of_all(shape, coils, slices):
    """As many slices as rows, too, where a mask along the wrong axis would have a fitting shape."""
    mask = torch.rand(shape, generator=rng()) > 0.5
    one = fm.MRI(mask, (9, 7))
    if coils > 1:
        one = fm.MultiCoilMRI(mask, torch.randn(2, 9, 7, generator=rng(1), dtype=torch.complex128))
    A = fm.SliceStack(one, slices)
    x = torch.randn(2, *A.event_shape, generator=rng(2), dtype=torch.complex128)
    single, volume = fm.LinearGaussian(one, 0.1), fm.LinearGaussian(A, 0.1)
    y = volume.simulate(x, rng(3))
    assert volume.count(y) == slices * single.count(y[:, :, 0])
    assert bool(((y != 0) == mask.expand(y.shape)).all())
    residual = volume.residual(y, x)
    for k in range(slices):
        torch.testing.assert_close(residual[:, :, k], single.residual(y[:, :, k], x[:, :, k]))
    total = sum(single.log_likelihood(y[:, :, k], x[:, :, k]) for k in range(slices))
    torch.testing.assert_close(volume.log_likelihood(y, x), total)
