"""Magnetic resonance imaging against numpy, exact sums, deepinv, sigpy and its own theory."""

import math
import sys

import numpy as np
import pytest
import torch
from operator_cases import LINES, MAPS, MRI, PHASE, SAMPLED, normal, rng

import forward_models as fm

COMPLEX = torch.complex128


def centred_dft(n):
    """The matrix of the transform of n samples with origin n // 2."""
    k = torch.arange(n, dtype=torch.float64) - n // 2
    return torch.polar(torch.full((n, n), n**-0.5).double(), -2 * math.pi / n * k[:, None] * k)


# ---- Cartesian ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 6), (9, 7), (4, 4), (6, 5), (1, 2)])
def test_fourier_equals_its_sum_and_is_unitary(size):
    A = fm.CenteredFourier()
    x = normal(2, 3, *size, dtype=COMPLEX)
    torch.testing.assert_close(A(x), centred_dft(size[0]) @ x @ centred_dft(size[1]).T)
    shifted = np.fft.ifftshift(x.numpy(), (-2, -1))
    expected = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), (-2, -1))
    np.testing.assert_allclose(A(x), expected, atol=1e-13)
    torch.testing.assert_close(A.T(A(x)), x)
    point = torch.zeros(1, 1, *size, dtype=COMPLEX)
    point[..., size[0] // 2, size[1] // 2] = 1
    torch.testing.assert_close(A(point), torch.full_like(point, math.prod(size) ** -0.5))


def test_mri_is_a_masked_transform():
    x = normal(2, 1, 9, 7, dtype=COMPLEX)
    torch.testing.assert_close(fm.MRI(SAMPLED)(x), SAMPLED * fm.to_kspace(x))
    torch.testing.assert_close(fm.MRI(LINES)(x), LINES * fm.to_kspace(x))
    torch.testing.assert_close(fm.MRI(LINES.int())(x), fm.MRI(LINES, (9, 7))(x))
    assert torch.equal(fm.MRI(SAMPLED).measured, SAMPLED)
    full = fm.MultiCoilMRI(SAMPLED, MAPS)(x)
    for c in range(3):
        torch.testing.assert_close(full[:, c : c + 1], fm.MRI(SAMPLED)(MAPS[c] * x))


@pytest.mark.parametrize("mask", [SAMPLED, LINES], ids=["points", "lines"])
def test_entries_that_were_not_measured_are_ignored(mask):
    x = normal(2, 1, 9, 7, dtype=COMPLEX)
    for A in (fm.MRI(mask), fm.MultiCoilMRI(mask, MAPS)):
        y = A(x)
        hole = torch.where(A.measured.expand(y.shape), y, 7.0)
        torch.testing.assert_close(A.adjoint(hole), A.adjoint(y))
        hole = torch.where(A.measured.expand(y.shape), y, torch.nan)
        model = fm.LinearGaussian(A, 0.1)
        assert torch.equal(model.log_likelihood(hole, x), model.log_likelihood(y, x))
        assert model.count(y) == 2 * int(A.measured.expand(y.shape[1:]).sum())


@pytest.mark.parametrize("mask", [SAMPLED, LINES], ids=["points", "lines"])
def test_normal_equals_the_adjoint_of_the_measurement(mask):
    x = normal(2, 1, 9, 7, dtype=COMPLEX)
    for A in (
        fm.MRI(mask),
        fm.MultiCoilMRI(mask, MAPS),
        fm.CoilSensitivities(MAPS),
        fm.CenteredFourier(),
    ):
        torch.testing.assert_close(A.normal(x), A.adjoint(A(x)))


def test_fully_sampled_normalised_coils_preserve_norms():
    maps = MAPS / torch.linalg.vector_norm(MAPS, dim=0)
    A = fm.MultiCoilMRI(torch.ones(9, 7), maps)
    x = normal(2, 1, 9, 7, dtype=COMPLEX)
    torch.testing.assert_close(A.adjoint(A(x)), x)
    torch.testing.assert_close(fm.root_sum_of_squares(fm.to_image(A(x))), x.abs())
    once = fm.CoilSensitivities(MAPS)
    torch.testing.assert_close(
        fm.root_sum_of_squares(once(x)), x.abs() * once.svd.singular_values.reshape(9, 7)
    )


def test_noiseless_solve_fills_zeros():
    x = normal(1, 1, 9, 7, dtype=COMPLEX)
    A = fm.MRI(SAMPLED)
    torch.testing.assert_close(A.adjoint(A.solve(A(x), 1.0, 0.0)), A.adjoint(A(x)))


def test_real_images_enter_complex_operators():
    x = normal(2, 1, 9, 7)
    z = fm.RealToComplex(PHASE)(x)
    torch.testing.assert_close(z, torch.polar(torch.ones_like(x), PHASE) * x)
    torch.testing.assert_close(fm.RealToComplex(PHASE).adjoint(z), x)
    two = normal(2, 2, 9, 7)
    z = fm.ChannelsToComplex()(two)
    torch.testing.assert_close(z, torch.complex(two[:, :1], two[:, 1:]))
    torch.testing.assert_close(fm.ChannelsToComplex().adjoint(z), two)
    assert fm.RealToComplex(PHASE, (1, 9, 7)).svd.singular_values.tolist() == [1.0] * 63
    assert fm.ChannelsToComplex((2, 9, 7)).svd.singular_values.tolist() == [1.0] * 126
    assert fm.RealToComplex(PHASE).svd is None
    assert fm.ChannelsToComplex().svd is None
    # A real image is known from half of its k-space, which a complex one is not.
    half = torch.zeros(9, 8, dtype=torch.bool)
    half[4:] = True
    A = fm.MRI(half) @ fm.RealToComplex()
    x = normal(1, 1, 9, 8)
    gram = lambda v: A.adjoint(A(v))  # noqa: E731
    found, _ = fm.conjugate_gradients(gram, A.adjoint(A(x)), tolerance=1e-13)
    torch.testing.assert_close(found, x)


def test_noise_is_whitened():
    mix = normal(3, 3, dtype=COMPLEX)
    white = normal(3, 20000, dtype=COMPLEX, seed=1) * math.sqrt(2)
    covariance = fm.noise_covariance(mix @ white)
    assert float((covariance - mix @ mix.mH).norm() / covariance.norm()) < 0.05
    y = (mix @ white)[None].reshape(1, 3, 100, 200)
    clean = fm.prewhiten(y, covariance)
    identity = torch.eye(3, dtype=COMPLEX)
    torch.testing.assert_close(fm.noise_covariance(clean.reshape(3, -1)), identity)
    assert float(clean.real.std()) == pytest.approx(1, rel=0.01)
    with pytest.raises(ValueError, match="positive definite"):
        fm.prewhiten(y, -identity)
    with pytest.raises(ValueError, match="as many"):
        fm.noise_covariance(white[:, :2])


@pytest.mark.parametrize("lines", [False, True])
def test_mri_equals_deepinv(lines):
    physics = pytest.importorskip("deepinv").physics
    mask = fm.random_lines(22, 3, 4, rng()) if lines else torch.rand(18, 22, generator=rng()) < 0.4
    full = mask.expand(18, 22).float()[None, None]
    x = normal(2, 1, 18, 22, dtype=torch.complex64)
    two = torch.cat([x.real, x.imag], 1)
    other = physics.MRI(mask=full, img_size=(2, 18, 22))
    y = fm.MRI(mask)(x)
    torch.testing.assert_close(torch.cat([y.real, y.imag], 1), other.A(two))
    torch.testing.assert_close(fm.ChannelsToComplex().adjoint(fm.MRI(mask).adjoint(y)),
                               other.A_adjoint(other.A(two)))  # fmt: skip
    maps = normal(4, 18, 22, dtype=torch.complex64, seed=1)
    other = physics.MultiCoilMRI(mask=full, coil_maps=maps[None], img_size=(2, 18, 22))
    A = fm.MultiCoilMRI(mask, maps)
    y = A(x)
    torch.testing.assert_close(torch.stack([y.real, y.imag], 1), other.A(two))
    torch.testing.assert_close(fm.ChannelsToComplex().adjoint(A.adjoint(y)),
                               other.A_adjoint(other.A(two)))  # fmt: skip


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: fm.MRI(torch.zeros(4, 4)), ValueError, "zero everywhere"),
        (lambda: fm.MRI(torch.full((4, 4), 0.5)), ValueError, "0 and 1"),
        (lambda: fm.MRI(torch.full((4, 4), torch.nan)), ValueError, "0 and 1"),
        (lambda: fm.MRI(torch.ones(1, 4, 4)), ValueError, r"mask\[0\]"),
        (lambda: fm.MRI(torch.ones(4, 4) + 0j), TypeError, "bool"),
        (lambda: fm.MRI(torch.ones(4), (5, 3)), ValueError, "image_shape"),
        (lambda: fm.MRI(torch.ones(4, 4))(normal(1, 2, 4, 4) + 0j), ValueError, "expected"),
        (lambda: fm.MRI(torch.ones(4))(normal(1, 2, 4, 4) + 0j), ValueError, "MultiCoilMRI"),
        (lambda: fm.MultiCoilMRI(torch.ones(4, 4), MAPS), ValueError, "height and width"),
        (lambda: fm.MultiCoilMRI(LINES, MAPS.real), TypeError, "complex64"),
        (lambda: fm.CoilSensitivities(0 * MAPS), ValueError, "no coil"),
        (lambda: fm.CoilSensitivities(torch.nan * MAPS), ValueError, "non-finite"),
        (lambda: fm.ChannelsToComplex()(normal(1, 3, 4, 4)), ValueError, "two channels"),
        (lambda: fm.RealToComplex(PHASE)(normal(1, 1, 4, 4)), ValueError, "agree"),
        (lambda: fm.RealToComplex(PHASE + 0j), TypeError, "imaginary"),
        (lambda: fm.RealToComplex(PHASE, (1, 7, 9)), ValueError, "agree"),
        (lambda: fm.RealToComplex(PHASE, (9, 7)), ValueError, r"\(C, H, W\)"),
        (lambda: fm.ChannelsToComplex((3, 9, 7)), ValueError, "two channels"),
        (lambda: fm.random_lines(8, 4, 3), ValueError, "lower one"),
        (lambda: fm.random_lines(8, 0.5), ValueError, "at least 1"),
        (lambda: fm.equispaced_lines(8, 2, offset=2), ValueError, "offset"),
        (lambda: fm.poisson_disc_mask((8,), 2), ValueError, r"\(H, W\)"),
        (lambda: fm.poisson_disc_mask((8, 8), 2, decay=-1.0), ValueError, "decay"),
    ],
)
def test_bad_arguments(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize("name", list(MRI))
def test_conjugated_views_are_read_as_their_values(name):
    """torch conjugates lazily, by a flag that a library without it would miss."""
    make, shape = MRI[name]
    A = make()
    x = normal(2, *shape, dtype=COMPLEX if A.event_field == "complex" else torch.float64)
    y = A(x)
    if x.is_complex():
        torch.testing.assert_close(A(x.conj()), A(x.conj().resolve_conj()))
    plain = y.conj().resolve_conj()
    torch.testing.assert_close(A.adjoint(y.conj()), A.adjoint(plain))
    if A.svd is not None:
        torch.testing.assert_close(A.svd.to_spectral_y(y.conj()), A.svd.to_spectral_y(plain))


# ---- sampling patterns ----------------------------------------------------------------------


@pytest.mark.parametrize("maker", [fm.random_lines, fm.gaussian_lines])
@pytest.mark.parametrize(("width", "factor", "center"), [(64, 4, 8), (65, 3.3, 7), (9, 1, 2)])
def test_line_masks(maker, width, factor, center):
    mask = maker(width, factor, center, generator=rng())
    assert mask.shape == (width,)
    assert mask.dtype == torch.bool
    assert int(mask.sum()) == round(width / factor)
    start = width // 2 - center // 2
    assert bool(mask[start : start + center].all())
    assert torch.equal(mask, maker(width, factor, center, generator=rng()))
    state = torch.get_rng_state()
    others = [maker(width, factor, center, generator=rng(seed)) for seed in range(5)]
    assert torch.equal(state, torch.get_rng_state())
    assert factor == 1 or any(not torch.equal(mask, other) for other in others)


def test_density_of_line_masks():
    uniform = torch.stack([fm.random_lines(32, 4, 4, rng(i)) for i in range(400)]).double().mean(0)
    # 4 of the 28 lines outside the centre: a frequency of 1 / 7, within 5 standard errors.
    outside = torch.cat([uniform[:14], uniform[18:]])
    assert float((outside - 1 / 7).abs().max()) < 5 * math.sqrt(6 / 49 / 400)
    masks = [fm.gaussian_lines(32, 4, 4, generator=rng(i)) for i in range(400)]
    density = torch.stack(masks).double().mean(0)
    assert float(density[8:14].mean()) > 3 * float(density[:6].mean()) > 0


def test_regular_masks():
    mask = fm.equispaced_lines(12, 4, center=2, offset=1)
    assert mask.nonzero().flatten().tolist() == [1, 5, 6, 9]
    assert fm.acceleration(mask) == 3
    spokes = fm.radial_mask((16, 16), 2)
    assert bool(spokes[8, :].all())
    assert bool(spokes[:, 8].all())
    assert int(spokes.sum()) == 31


@pytest.mark.parametrize(("shape", "factor", "decay"), [((48, 40), 4, 2.0), ((33, 47), 6.5, 0.0)])
def test_poisson_disc(shape, factor, decay):
    mask = fm.poisson_disc_mask(shape, factor, center=6, decay=decay, generator=rng())
    assert int(mask.sum()) == round(math.prod(shape) / factor)
    top, left = shape[0] // 2 - 3, shape[1] // 2 - 3
    assert bool(mask[top : top + 6, left : left + 6].all())
    mask[top : top + 6, left : left + 6] = False

    def scale(points):
        """The largest r0 for which all pairs keep their distance, and the radii over r0."""
        half = torch.tensor(shape).double() / 2
        radius = 1 + decay * ((points - half.floor()) / half).norm(dim=1)
        pairs = torch.cdist(points, points).fill_diagonal_(torch.inf)
        return float((pairs / torch.minimum(radius[:, None], radius)).min()), radius

    r0, radius = scale(mask.nonzero().double())
    # Random sequential packing leaves about 0.7 points per r^2.
    row, column = (torch.arange(n, dtype=torch.float64) - n // 2 for n in shape)
    rho = torch.hypot(row[:, None] / (shape[0] / 2), column / (shape[1] / 2))
    packed = math.sqrt(0.7 * float((1 + decay * rho).pow(-2).sum()) / int(mask.sum()))
    assert 0.75 * packed < r0 < 1.4 * packed
    random, _ = scale(
        torch.rand(mask.shape, generator=rng()).lt(mask.double().mean()).nonzero() + 0.0
    )
    assert r0 > 1.3 * random
    if decay:
        assert float(radius.mean()) < 0.95 * float((1 + decay * rho).mean())


# ---- off the grid ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(9, 7), (16, 22)])
def test_nufft_equals_the_sum(size):
    k = torch.rand(50, 2, generator=rng(), dtype=torch.float64) - 0.5
    x = normal(2, 3, *size, dtype=COMPLEX)
    row, column = (torch.arange(n, dtype=torch.float64) - n // 2 for n in size)
    wave = -2 * math.pi * (k[:, :1, None] * row[:, None] + k[:, 1:, None] * column)
    waves = torch.polar(torch.ones_like(wave), wave) / math.sqrt(math.prod(size))
    exact = torch.einsum("mhw,bchw->bcm", waves, x)
    A = fm.Nufft(size, k)
    assert float((A(x) - exact).norm() / exact.norm()) < 1e-13
    single = A(x.to(torch.complex64))
    assert float((single - exact).norm() / exact.norm()) < 3e-7
    back = torch.einsum("mhw,bcm->bchw", waves.conj(), exact)
    assert float((A.adjoint(exact) - back).norm() / back.norm()) < 1e-13


@pytest.mark.parametrize("size", [(8, 6), (9, 7)])
def test_nufft_on_the_grid_is_the_centred_transform(size):
    axes = ((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in size)
    A = fm.Nufft(size, torch.cartesian_prod(*axes))
    x = normal(2, 1, *size, dtype=COMPLEX)
    torch.testing.assert_close(A(x), fm.to_kspace(x).flatten(2), atol=1e-13, rtol=0)


@pytest.mark.parametrize("size", [(9, 7), (24, 32)])
def test_nufft_normal_is_a_convolution(size):
    A = fm.Nufft(size, fm.spiral_trajectory(3, 200, 4))
    x = normal(2, 3, *size, dtype=COMPLEX)
    expected = A.adjoint(A(x))
    assert float((A.normal(x) - expected).norm() / expected.norm()) < 1e-13
    single = A.normal(x.to(torch.complex64))
    assert single.dtype == torch.complex64
    assert float((single - expected).norm() / expected.norm()) < 1e-6
    z = normal(2, 3, *size, dtype=COMPLEX, seed=1)
    left, right = (A.normal(x).conj() * z).sum(), (x.conj() * A.normal(z)).sum()
    assert abs(left - right) < 1e-12 * abs(left)


def test_nufft_under_torch_func():
    A = fm.Nufft((9, 7), fm.radial_trajectory(5, 8))
    x, v = normal(2, 1, 9, 7, dtype=COMPLEX), normal(2, 1, 9, 7, dtype=COMPLEX, seed=1)
    y, pullback = torch.func.vjp(A, x)
    torch.testing.assert_close(pullback(y)[0], A.adjoint(y))
    torch.testing.assert_close(torch.func.jvp(A, (x,), (v,))[1], A(v))
    both = torch.stack([x, v], 1)
    torch.testing.assert_close(torch.func.vmap(A, 1)(both), torch.stack([A(x), A(v)]))


def test_trajectories():
    k = fm.radial_trajectory(3, 8, golden=False).reshape(3, 8, 2)
    torch.testing.assert_close(k[0, :, 1], (torch.arange(8) - 4.0).double() / 8)
    assert float(k[0, :, 0].abs().max()) == 0
    assert float(k[:, 4].abs().max()) == 0
    torch.testing.assert_close(k[1, 0].norm(), torch.tensor(0.5).double())
    golden = fm.radial_trajectory(2, 2)[2]
    turn = math.degrees(math.atan2(-golden[0], -golden[1]))
    assert turn == pytest.approx(111.2461, abs=1e-4)
    spiral = fm.spiral_trajectory(4, 100, 3.0).reshape(4, 100, 2)
    assert float(spiral[:, 0].abs().max()) == 0
    torch.testing.assert_close(spiral[:, -1].norm(dim=1), torch.full((4,), 0.495).double())
    quarter = torch.stack([spiral[0, :, 1], -spiral[0, :, 0]], 1)
    torch.testing.assert_close(spiral[1], quarter)


def test_visibilities_of_a_star():
    pixel, east, north = 1e-6, 3, -2
    sky = torch.zeros(1, 1, 16, 16, dtype=COMPLEX)
    sky[..., 8 + north, 8 + east] = 1
    baselines = (torch.rand(20, 2, generator=rng(), dtype=torch.float64) - 0.5) / pixel
    found = 16 * fm.Nufft((16, 16), fm.interferometer_trajectory(baselines, pixel))(sky)[0, 0]
    phase = -2 * math.pi * pixel * (baselines[:, 0] * east + baselines[:, 1] * north)
    torch.testing.assert_close(found, torch.polar(torch.ones_like(phase), phase))
    with pytest.raises(ValueError, match="at most 2"):
        fm.interferometer_trajectory(baselines.new_tensor([[0.0, 0.25]]), 4.0)


def test_nufft_refuses_what_it_cannot_serve(monkeypatch):
    for k, match in (
        (torch.full((3, 2), 0.6), "2 pi"),
        (torch.zeros(3, 3), r"\(M, 2\)"),
        (torch.full((3, 2), torch.nan), "non-finite"),
    ):
        with pytest.raises(ValueError, match=match):
            fm.Nufft((8, 8), k)
    with pytest.raises(ValueError, match="expected"):
        fm.Nufft((8, 8), torch.zeros(3, 2))(normal(1, 1, 8, 9) + 0j)
    monkeypatch.setitem(sys.modules, "finufft", None)
    with pytest.raises(ImportError, match=r"inverse\[mri\]"):
        fm.Nufft((8, 8), torch.zeros(3, 2))


# ---- coil sensitivities ---------------------------------------------------------------------


def coils_and_object(height, width, coils=6):
    """Smooth complex sensitivities around an ellipse with some structure."""
    row = ((torch.arange(height, dtype=torch.float64) - height // 2) / height)[:, None]
    column = (torch.arange(width, dtype=torch.float64) - width // 2) / width
    maps = []
    for angle in torch.arange(coils, dtype=torch.float64) * 2 * math.pi / coils:
        sin, cos = angle.sin(), angle.cos()
        distance = (row - 0.6 * sin).square() + (column - 0.6 * cos).square()
        maps.append(torch.polar(torch.exp(-2 * distance), 2.5 * (cos * row + sin * column) + angle))
    inside = (row / 0.38).square() + (column / 0.33).square() < 1
    structure = 1 + 0.3 * torch.cos(20 * row) * torch.cos(25 * column)
    return torch.stack(maps), inside * structure


@pytest.mark.parametrize("size", [(48, 40), (33, 47)])
def test_espirit_finds_smooth_maps(size):
    true, image = coils_and_object(*size)
    true = true / torch.linalg.vector_norm(true, dim=0)
    kspace = fm.to_kspace(true * image)
    maps, eigenvalues = fm.espirit(kspace, 16, kernel=5, threshold=0.001)
    inside = image > 0
    # The sine of the angle between estimate and truth, whatever their phases.
    cosine = (maps.conj() * true).sum(0).abs()
    error = (1 - cosine.square()).clamp(min=0).sqrt()[inside]
    assert float(error.max()) < 0.005
    assert float(error.median()) < 0.001
    assert float(eigenvalues[inside].min()) > 0.999
    assert float(eigenvalues.max()) < 1 + 1e-9
    found = torch.linalg.vector_norm(maps, dim=0)
    torch.testing.assert_close(found[eigenvalues > 0.9], torch.ones_like(found[eigenvalues > 0.9]))
    assert float(found[eigenvalues <= 0.9].sum()) == 0
    # The image in these coordinates is the true one up to that smooth phase.
    back = fm.MultiCoilMRI(torch.ones(size), maps).adjoint(kspace[None])[0, 0]
    assert float((back.abs() - image).norm() / image.norm()) < 1e-3
    again = fm.espirit(kspace.to(torch.complex64), 16, kernel=5, threshold=0.001).maps
    assert again.dtype == torch.complex64
    torch.testing.assert_close(again.to(COMPLEX)[:, inside], maps[:, inside], atol=1e-3, rtol=0)


def test_the_phase_reference_is_the_principal_virtual_coil():
    true, image = coils_and_object(40, 32)
    kspace = fm.to_kspace(true * image * torch.polar(torch.ones(40, 32).double(), image))
    maps = fm.espirit(kspace, 16, kernel=5).maps
    center = kspace[:, 12:28, 8:24].reshape(6, -1)
    u = torch.linalg.svd(center, full_matrices=False)[0][:, 0]
    virtual = (u.conj()[:, None, None] * maps).sum(0)
    relative = virtual / virtual[20, 16]
    assert float(relative.imag.abs().max()) < 1e-9
    assert float(relative.real.min()) > -1e-9


def test_espirit_equals_sigpy():
    mri = pytest.importorskip("sigpy.mri")
    true, image = coils_and_object(48, 40)
    kspace = fm.to_kspace(true * image)
    kspace = kspace + 1e-4 * kspace.abs().max() * normal(6, 48, 40, dtype=COMPLEX)
    maps, eigenvalues = fm.espirit(kspace, 20, crop=0.9)
    theirs, values = mri.app.EspiritCalib(
        kspace.numpy(), calib_width=20, crop=0.9, output_eigenvalue=True, show_pbar=False
    ).run()
    inside = image > 0
    torch.testing.assert_close(eigenvalues[inside], torch.from_numpy(values[0])[inside],
                               atol=1e-4, rtol=0)  # fmt: skip
    cosine = (maps.conj() * torch.from_numpy(theirs)).sum(0).abs()[inside]
    assert float(cosine.min()) > 1 - 1e-6


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_cg_sense(scale):
    true, image = coils_and_object(32, 24)
    x = torch.polar(image, image)[None, None]
    A = fm.MultiCoilMRI(fm.equispaced_lines(24, 2, 6), scale * true)
    y = A(x)
    found = fm.cg_sense(A, y, 0.0, tolerance=1e-13, max_iterations=500)
    assert float((found - x).norm() / x.norm()) < 1e-6
    hole = torch.where(A.measured, y, torch.nan)
    noisy = fm.cg_sense(A, hole, 0.1, tolerance=1e-13)
    exact = A.adjoint(A.solve(y, 1.0, 0.1, tolerance=1e-13))
    torch.testing.assert_close(noisy, exact, rtol=1e-8, atol=1e-9)
    off = fm.Nufft((32, 24), fm.radial_trajectory(24, 64)) @ fm.CoilSensitivities(scale * true)
    y = off(x)
    found = fm.cg_sense(off, y, 0.1, tolerance=1e-13)
    gradient = off.adjoint(off(found) - y) + 0.1 * found
    assert float(gradient.norm() / off.adjoint(y).norm()) < 1e-11
    y = A(x)
    with pytest.raises(ValueError, match="regularization"):
        fm.cg_sense(A, y, -1.0)
    with pytest.raises(ValueError, match="y has shape"):
        fm.cg_sense(A, y[:, :1], 0.1)
    y[0, 1, 16, 12] = torch.nan
    with pytest.raises(ValueError, match=r"y has 1 non-finite .*\(0, 1, 16, 12\)"):
        fm.cg_sense(A, y, 0.1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"calibration": 50}, "larger"),
        ({"calibration": 4}, "kernel 6 exceeds"),
        ({"threshold": 1.0}, "threshold"),
        ({"crop": -0.1}, "crop"),
        ({"hole": True}, "fully sampled"),
        ({"noise": True, "crop": 0.999}, "no pixel"),
    ],
)
def test_espirit_refuses_what_it_cannot_use(change, match):
    settings = dict(change)
    kspace = normal(3, 24, 24, dtype=COMPLEX)
    if settings.pop("hole", False):
        kspace[:, 12, 12] = 0
    if settings.pop("noise", False):
        settings["threshold"] = 0.9
    settings.setdefault("calibration", 16)
    with pytest.raises(ValueError, match=match):
        fm.espirit(kspace, **settings)
