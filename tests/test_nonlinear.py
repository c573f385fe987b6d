"""The contract of nonlinear operators over one list; then each against independent libraries."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from nonlinear_cases import NONLINEAR, PROBE, SCENE, WINDOWS, Smooth, squares
from operator_cases import KERNEL, SOFT, normal, rng
from scipy import special
from torch import Tensor

import forward_models as fm
import inverse
import priors

LOW = {torch.float64: torch.float32, torch.complex128: torch.complex64}


@pytest.fixture(params=list(NONLINEAR))
def case(request):
    return NONLINEAR[request.param]


def single(x: Tensor) -> Tensor:
    return x.to(LOW[x.dtype])


def like(y: Tensor, seed: int) -> Tensor:
    return torch.randn(y.shape, generator=rng(seed), dtype=y.dtype)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Re <a, b> of each sample."""
    return (a.conj() * b).real.flatten(1).sum(1)


# ---- the contract ---------------------------------------------------------------------------


def test_shapes_and_fields(case):
    f = case.make()
    x = case.x(3)
    before, state = x.clone(), torch.random.get_rng_state()
    y = f(x)
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(f(x), y)
    assert y.shape == (3, *f.output_shape(case.shape))
    assert f.measurement_shape in (None, y.shape[1:])
    assert f.input_shape(tuple(y.shape[1:])) == case.shape
    assert f.measurement_ndim in (None, y.ndim - 1)
    assert f.event_ndim in (None, len(case.shape))
    assert f.measurement_field in ("any", "complex" if y.is_complex() else "real")
    assert y.dtype.to_real() == x.dtype.to_real()
    if f.measured is not None:
        assert f.measured.dtype == torch.bool
        assert f.measured.expand(y.shape[1:]).shape == y.shape[1:]


def test_a_sample_does_not_depend_on_its_batch(case):
    f, x = case.make(), case.x(3)
    for precision in (x, single(x)):
        y = f(precision)
        eps = torch.finfo(y.dtype).eps
        for i in range(3):
            alone = f(precision[i : i + 1])
            scale = float(y.abs().max())
            torch.testing.assert_close(alone, y[i : i + 1], rtol=0, atol=50 * eps * scale)
    first = f(x[:1].expand(2, *case.shape))
    torch.testing.assert_close(first, f(x[:1]).expand(first.shape))


def test_single_precision_is_the_rounded_double(case):
    f, x = case.make(), case.x(2)
    exact, rounded = f(x), f(single(x))
    assert rounded.dtype == LOW[exact.dtype]
    assert float((rounded - exact).norm()) <= case.single * float(exact.norm())


def test_derivative_by_finite_differences(case):
    if not case.exact:
        pytest.skip("a straight-through estimate is no derivative")
    f, x = case.make(), case.x(1).requires_grad_()
    assert torch.autograd.gradcheck(f, (x,), eps=1e-6, atol=1e-5, rtol=1e-3)


def test_jvp_and_vjp_are_adjoint(case):
    f, x = case.make(), case.x(2)
    v = like(x, 1)
    tangent = f.jvp(x, v)
    u = like(tangent, 2)
    assert tangent.dtype == f(x).dtype
    left, right = dot(tangent, u), dot(v, f.vjp(x, u))
    scale = tangent.flatten(1).norm(dim=1) * u.flatten(1).norm(dim=1)
    assert bool((left.sub(right).abs() <= 1e-10 * scale).all())
    assert f.vjp(x, u).grad_fn is None


def test_no_graph_is_kept_when_grad_is_off(case):
    f, x = case.make(), case.x(2)
    assert f(x).grad_fn is None
    with torch.no_grad():
        assert f(x.clone().requires_grad_()).grad_fn is None
    with torch.inference_mode():
        f(x.clone())
    f(x.clone().requires_grad_()).abs().sum().backward()


def test_torch_func(case):
    f, x = case.make(), case.x(2)
    y, pullback = torch.func.vjp(f, x)
    u = like(y, 3)
    torch.testing.assert_close(pullback(u)[0], f.vjp(x, u))
    xs = torch.stack([x, case.x(2, 6)])
    torch.testing.assert_close(torch.func.vmap(f)(xs), torch.stack([f(one) for one in xs]))


def test_record_is_apply(case):
    if not case.recorded:
        pytest.skip("has a true instrument")
    f, x = case.make(), case.x(2)
    assert torch.equal(f.record(x), f(x))


def test_copies_and_pickles(case):
    f, x = case.make(), case.x(2)
    y = f(x)
    assert torch.equal(copy.deepcopy(f)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(f))(x), y)


def test_refusals(case):
    f, x = case.make(), case.x(2)
    with pytest.raises(TypeError, match=r"torch\.Tensor"):
        f(x.tolist())
    with pytest.raises(TypeError, match="dtype"):
        f(x.real.to(torch.float16))
    if f.event_field == "real":
        with pytest.raises(TypeError, match=r"\.real or \.abs"):
            f(x.to(torch.complex128))
    with pytest.raises(ValueError, match="empty"):
        f(x[:0])
    if f.event_ndim is not None:
        with pytest.raises(ValueError, match="batch axis"):
            f(x[0])
    if f.event_shape is not None:
        with pytest.raises(ValueError, match="expected"):
            f(torch.cat([x, x], -1))
    with pytest.raises(TypeError, match="v has dtype"):
        f.jvp(x, single(x))
    with pytest.raises(ValueError, match="u has shape"):
        f.vjp(x, torch.cat([f(x), f(x)], -1))


def test_an_observation_of_it(case):
    model, x = fm.Observation(case.make(), fm.Gaussian(0.1)), case.x(2)
    y = model.simulate(x, rng(1))
    leaf = x.clone().requires_grad_()
    values = model.log_likelihood(y, leaf)
    assert values.shape == (2,)
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    assert bool(torch.isfinite(torch.view_as_real(gradient) if gradient.is_complex() else
                               gradient).all())  # fmt: skip
    assert float(gradient.abs().sum()) > 0


# ---- chains ---------------------------------------------------------------------------------


class Doubled(fm.Pointwise):
    """An operator of a user's that takes either field and gives back the one it took."""

    event_field = measurement_field = "any"

    def _apply(self, x: Tensor) -> Tensor:
        return 2 * x


def test_a_chain_knows_its_images():
    wave, free = fm.AngularSpectrum(0.6, 2.0, 30.0), Doubled()
    for f in (wave @ free, free @ wave):
        assert (f.event_field, f.measurement_field, f.event_ndim) == ("complex", "complex", 3)
        with pytest.raises(TypeError, match="dtype"):
            f(normal(1, 1, 4, 4))
    assert (free @ fm.Sigmoid()).measurement_field == "real"
    assert (fm.Magnitude() @ free).event_field == "any"
    mask = fm.Inpainting(SOFT > 0.5)
    for f in (free @ (fm.Sigmoid() @ mask), (free @ fm.Sigmoid()) @ mask):
        assert torch.equal(f.measured, mask.measured)
        assert f.measurement_ndim == 3
    narrow = fm.CameraBlur(KERNEL, "valid")
    f = fm.PhaseRetrieval(1.5) @ (fm.JPEG(50) @ narrow)
    assert f.input_shape(f.output_shape((3, 9, 8))) == (3, 9, 8)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        fm.JPEG(50).input_shape((2, 8, 8))


class OneWay(torch.autograd.Function):
    """x^2 with a backward pass alone, as many a user's function."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, u):
        return 2 * ctx.saved_tensors[0] * u


def test_forward_derivative_of_a_function_with_a_backward_pass_alone():
    f = fm.from_simulator(OneWay.apply, fm.Gaussian(0.1), (3,)).operator
    x, v = normal(2, 3), normal(2, 3, seed=1)
    torch.testing.assert_close(f.jvp(x, v), 2 * x * v)


def test_jacobian_of_a_chain():
    a, b = normal(4, 5, seed=1), normal(3, 4, seed=2)
    f = fm.MatrixOperator(b) @ (fm.Sigmoid() @ fm.MatrixOperator(a))
    x = normal(1, 5)
    z = (a @ x[0]).requires_grad_()
    (slope,) = torch.autograd.grad(fm.Sigmoid()(z[None]).sum(), z)
    expected = b @ torch.diag(slope) @ a
    found = torch.func.jacrev(lambda x: f(x[None])[0])(x[0])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(f.jvp(x, x)[0], expected @ x[0])
    with pytest.raises(ValueError, match="complex"):
        fm.Sigmoid() @ fm.CodedDiffraction(SOFT[None])
    with pytest.raises(ValueError, match="the outer one takes"):
        fm.MatrixOperator(a) @ (fm.Sigmoid() @ fm.MatrixOperator(b))


def test_second_derivatives():
    """The pull-back is differentiable in both arguments, and has no graph when grad is off."""
    x, u = normal(1, 1, 3, 2).requires_grad_(), normal(1, 1, 6, 4, seed=1).requires_grad_()
    for f, w in ((fm.Sigmoid(), u[..., :3, :2]), (fm.PhaseRetrieval(2), u)):
        w = w.detach().requires_grad_()
        assert torch.autograd.gradcheck(f.vjp, (x, w))
        assert torch.autograd.gradcheck(lambda w, f=f: f.vjp(x.detach(), w), (w,))
        with torch.no_grad():
            assert f.vjp(x, w).grad_fn is None


def test_jacobians_by_both_modes():
    f, x = fm.Scattering(**SCENE), torch.rand(1, 1, 5, 4, generator=rng(), dtype=torch.float64)
    backward = torch.func.jacrev(lambda x: torch.view_as_real(f(x)))(x)
    forward = torch.func.jacfwd(lambda x: torch.view_as_real(f(x)))(x)
    torch.testing.assert_close(forward, backward)


def test_a_tone_curve_keeps_what_is_measured():
    mask = SOFT > 0.5
    f = fm.HighDynamicRange() @ fm.Inpainting(mask)
    assert torch.equal(f.measured.expand(9, 7), mask)
    assert f.measurement_ndim == 3
    y = fm.Observation(f, fm.Gaussian(0.1)).simulate(normal(1, 1, 9, 7), rng())
    assert bool((y[0, 0][~mask] == 0).all())


# ---- phases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(6, 5), (5, 8), (1, 1), (7, 7)])
@pytest.mark.parametrize("ratio", [1, 1.5, 2])
def test_phase_retrieval_equals_numpy(size, ratio):
    x = normal(2, 3, *size)
    padded = tuple(round(ratio * n) for n in size)
    expected = np.abs(np.fft.fft2(x.numpy(), s=padded, norm="ortho"))
    np.testing.assert_allclose(fm.PhaseRetrieval(ratio)(x), expected, atol=1e-12)
    np.testing.assert_allclose(fm.PhaseRetrieval(ratio, "intensity")(x), expected**2, atol=1e-12)
    z = torch.complex(x, normal(2, 3, *size, seed=1))
    expected = np.abs(np.fft.fft2(z.numpy(), s=padded, norm="ortho"))
    np.testing.assert_allclose(fm.PhaseRetrieval(ratio)(z), expected, atol=1e-12)


@pytest.mark.parametrize("ratio", [1, 1.01, 4 / 3, 1.5, 2**0.5, 2, 2.5, 4.0, 7.3])
def test_the_size_of_an_image_is_known_from_its_spectrum(ratio):
    f = fm.PhaseRetrieval(ratio)
    padded = [round(ratio * n) for n in range(1, 700)]
    for n in range(1, 700):
        assert f.input_shape(f.output_shape((2, n, 5))) == (2, n, 5)
        assert f.input_shape(f.output_shape((1, 8, n))) == (1, 8, n)
    assert fm.PhaseRetrieval(ratio, image_shape=(1, 5, 4)).input_shape((1, 9, 9)) == (1, 5, 4)
    for m in set(range(1, 600)) - set(padded):
        with pytest.raises(ValueError, match=f"y is .*{m}.*padding by the ratio"):
            f.input_shape((1, m, padded[0]))


def test_phase_retrieval_of_the_benchmark():
    x = torch.rand(1, 3, 32, 32, generator=rng(), dtype=torch.float64)
    pad = int(2.0 / 8 * 32)
    padded = torch.nn.functional.pad(x, (pad,) * 4)
    centred = torch.fft.ifftshift(padded, dim=(-2, -1))
    expected = torch.fft.fftshift(torch.fft.fft2(centred, norm="ortho"), dim=(-2, -1)).abs()
    found = torch.fft.fftshift(fm.PhaseRetrieval(1.5)(x), dim=(-2, -1))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("kind", ["amplitude", "intensity"])
def test_trivial_ambiguities(dtype, kind):
    f, x = fm.PhaseRetrieval(2.0, kind), normal(1, 2, 7, 6, dtype=dtype)
    y = f(x)
    phase = 1j**0.5 if x.is_complex() else -1.0
    torch.testing.assert_close(f(phase * x), y)
    torch.testing.assert_close(f(x.flip((-2, -1)).conj()), y)
    frame = torch.nn.functional.pad(x, (0, 3, 2, 1))
    moved = frame.roll((-1, 2), (-2, -1))
    torch.testing.assert_close(f(moved), f(frame))
    circular = fm.PhaseRetrieval(1.0, kind)
    torch.testing.assert_close(circular(x.roll((3, 4), (-2, -1))), circular(x))
    for other in (x.flip(-1), x.mT.contiguous().mT.flip(-2), x.roll(1, -1)):
        assert float((f(other) - y).norm() / y.norm()) > 0.05


def test_coded_masks_leave_the_sign_alone():
    f = fm.Intensity() @ fm.CodedDiffraction(fm.coded_masks(4, (7, 6), "ternary", rng()))
    x = normal(1, 1, 7, 6, dtype=torch.complex128)
    y = f(x)
    torch.testing.assert_close(f(1j * x), y)
    for other in (x.flip((-2, -1)).conj(), x.roll(1, -1)):
        assert float((f(other) - y).norm() / y.norm()) > 0.1


def test_the_derivative_at_zero_amplitude_is_zero():
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    for f in (fm.PhaseRetrieval(), fm.PhaseRetrieval(kind="intensity"), fm.Magnitude()):
        y = f(x)
        assert float(y.detach().abs().max()) == 0
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(gradient, torch.zeros_like(x))
        assert torch.equal(f.jvp(x.detach(), torch.ones_like(x)), torch.zeros_like(y))


def test_phase_retrieval_equals_deepinv():
    physics = pytest.importorskip("deepinv").physics
    linear = physics.LinearPhysics(A=torch.fft.fft2, A_adjoint=torch.fft.ifft2)
    x = normal(2, 1, 12, 10, dtype=torch.complex64)
    expected = physics.PhaseRetrieval(B=linear)(x) / 120
    found = fm.PhaseRetrieval(1.0, "intensity")(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_moments_of_coded_masks():
    n = 200_000
    for kind, power, fourth in (("octanary", 1, 2), ("ternary", 0.5, 0.5), ("unimodular", 1, 1)):
        d = fm.coded_masks(1, (n, 1), kind, rng()).flatten()
        assert abs(complex(d.mean())) < 5 / n**0.5
        for moment, value in ((2, power), (4, fourth)):
            samples = d.abs() ** moment
            assert abs(float(samples.mean()) - value) <= 5 * float(samples.std()) / n**0.5 + 1e-9
    assert abs(complex((fm.coded_masks(1, (n, 1), "octanary", rng()) ** 2).mean())) < 0.02
    a, b = (fm.coded_masks(2, (3, 4), generator=rng(3)) for _ in range(2))
    assert torch.equal(a, b)
    with pytest.raises(ValueError, match=r"size must be \(H, W\), got \(4,\)"):
        fm.coded_masks(2, (4,))


def test_a_gaussian_beam_spreads_as_theory_says():
    wavelength, pixel, waist, n = 0.5, 1.0, 10.0, 256
    r = (torch.arange(n, dtype=torch.float64) - n / 2) * pixel
    square = r[:, None] ** 2 + r**2
    beam = torch.exp(-square / waist**2).to(torch.complex128)[None, None]
    rayleigh = np.pi * waist**2 / wavelength
    for distance in (rayleigh, -2 * rayleigh):
        width = waist * (1 + (distance / rayleigh) ** 2) ** 0.5
        expected = (waist / width) ** 2 * torch.exp(-2 * square / width**2)
        wave = fm.AngularSpectrum(wavelength, pixel, distance)
        found = fm.Intensity()(wave(beam))[0, 0]
        assert float((found - expected).abs().max()) < 2e-3
        torch.testing.assert_close(wave.adjoint(wave(beam)), beam)
    with pytest.raises(ValueError, match="evanescent"):
        fm.AngularSpectrum(1.0, 0.5, -1.0)


def test_ptychography_equals_its_definition():
    x = normal(2, 1, 9, 7, dtype=torch.complex128)
    y = fm.Ptychography(PROBE, WINDOWS, (9, 7))(x)
    for j, (row, column) in enumerate(WINDOWS.tolist()):
        window = x[:, :, row : row + 5, column : column + 4].numpy() * PROBE.numpy()
        np.testing.assert_allclose(y[:, j], np.fft.fft2(window, norm="ortho"), atol=1e-12)
    scan = fm.Ptychography(PROBE, WINDOWS, (9, 7))
    coded = fm.CodedDiffraction(fm.coded_masks(3, (9, 7), generator=rng()))
    wave = fm.AngularSpectrum(0.6, 2.0, 30.0)
    for A in (scan, coded, wave):
        torch.testing.assert_close(A._normal(x), A.adjoint(A(x)))
    with pytest.raises(ValueError, match="position 1"):
        fm.Ptychography(PROBE, torch.tensor([[0, 0], [5, 0]]), (9, 7))


# ---- brightness -----------------------------------------------------------------------------


def test_hdr_of_the_benchmark():
    v = normal(1, 3, 8, 8).clamp(-1, 1)
    expected = (v * 2).clip(-1, 1)
    torch.testing.assert_close(2 * fm.HighDynamicRange()((v + 1) / 2) - 1, expected)
    x = torch.tensor([[0.1, 0.4, 0.9]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(fm.HighDynamicRange()(x).sum(), x)
    assert gradient.tolist() == [[0.0, 2.0, 0.0]]
    assert fm.HighDynamicRange().measured is None


def test_gamma_is_srgb_and_its_inverse():
    color = pytest.importorskip("kornia.color")
    x = torch.linspace(0, 1, 3000, dtype=torch.float64).reshape(1, 3, 10, 100)
    torch.testing.assert_close(fm.Gamma()(x), color.linear_rgb_to_rgb(x), atol=1e-4, rtol=0)
    torch.testing.assert_close(fm.LinearLight()(x), color.rgb_to_linear_rgb(x), atol=1e-4, rtol=0)
    wide = torch.linspace(-0.5, 2, 1001, dtype=torch.float64)[None]
    for curve in (fm.Gamma(), fm.Gamma(1 / 0.45, 0.099)):
        torch.testing.assert_close(curve.inverse(curve(wide)), wide)
        torch.testing.assert_close(curve(curve.inverse(wide)), wide)
        for end in (curve._dark - 1e-9, curve._dark + 1e-9):
            slope = curve.jvp(torch.full((1, 1), end).double(), torch.ones(1, 1).double())
            assert float(slope) == pytest.approx(curve._bright / curve._dark, rel=1e-6)
    with pytest.raises(ValueError, match="toe"):
        fm.Gamma(1.05, 0.06)


def test_tone_curves_rise_between_their_fixed_points():
    x = torch.linspace(-1, 4, 2001, dtype=torch.float64)[None]
    for curve in (fm.Reinhard(), fm.Reinhard(3.0), fm.Sigmoid(8.0, 0.4), fm.Gamma()):
        assert bool((curve(x).diff() > 0).all())
        assert float(curve(torch.zeros(1, 1))) == pytest.approx(0, abs=1e-7)
    assert float(fm.Sigmoid(8.0, 0.4)(torch.ones(1, 1))) == pytest.approx(1)
    assert float(fm.Reinhard(3.0)(torch.full((1, 1), 3.0))) == pytest.approx(1)
    assert float(fm.Reinhard()(torch.full((1, 1), 3.0))) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="no contrast"):
        fm.Sigmoid(50.0, 3.0)


def test_camera_blur():
    flat = torch.full((1, 1, 9, 9), 0.4, dtype=torch.float64)
    f = fm.CameraBlur(fm.gaussian_kernel(1.0))
    torch.testing.assert_close(f(flat), flat)
    point = 0.1 * flat
    point[..., 4, 4] = 1
    assert float(f(point)[..., 4, 6]) > float(fm.Blur(fm.gaussian_kernel(1.0))(point)[..., 4, 6])
    assert float(fm.CameraBlur(torch.ones(1, 1), exposure=9.0)(flat).min()) == pytest.approx(1)
    with pytest.raises(TypeError, match="Gamma"):
        fm.CameraBlur(KERNEL, response=fm.Sigmoid())


def test_network_blur_is_the_network():
    network, code, x = Smooth(4), normal(4), normal(3, 2, 6, 5)
    expected = network(x, code.expand(3, 4))
    torch.testing.assert_close(fm.NonlinearBlur(network, code)(x), expected)
    with pytest.raises(ValueError, match=r"network\.eval"):
        fm.NonlinearBlur(Smooth().train())
    with pytest.raises(TypeError, match="from_simulator"):
        fm.NonlinearBlur(lambda x: x)
    flat = torch.nn.Sequential(torch.nn.Flatten()).eval()
    with pytest.raises(ValueError, match="changes the shape"):
        fm.NonlinearBlur(flat)(x)
    with pytest.raises(ValueError, match=r"image_shape must be \(C, H, W\)"):
        fm.NonlinearBlur(network, image_shape=(4, 4))


# ---- JPEG -----------------------------------------------------------------------------------


def photograph(*size: int) -> Tensor:
    data = pytest.importorskip("skimage.data")
    picture = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255.0
    return picture[..., 90 : 90 + size[0], 120 : 120 + size[1]].double()


def codec(x: Tensor, **options: object) -> Tensor:
    import io

    from PIL import Image

    file = io.BytesIO()
    array = (255 * x[0]).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(array).save(file, "JPEG", **options)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255.0


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(128, 128), (61, 47), (2, 3), (1, 1)])
def test_jpeg_imitates_libjpeg(subsampling, size):
    x = photograph(*size)
    for quality in (5, 50, 95):
        f = fm.JPEG(quality, subsampling)
        true = f.record(x)
        expected = codec(x, quality=quality, subsampling=subsampling)
        torch.testing.assert_close(true, expected.double(), atol=1e-7, rtol=0)
        error = 255 * float((f(x) - true).abs().mean())
        assert error < (1 if min(size) > 3 else 2)
        codec_error = 255 * float((x - true).abs().mean())
        if quality == 5 and min(size) > 3:
            assert codec_error > 20 * error


def test_jpeg_of_grey_pictures_and_batches():
    x = photograph(33, 20)[:, 1:2]
    f = fm.JPEG(40)
    assert 255 * float((f(x) - f.record(x)).abs().mean()) < 0.5
    both = torch.cat([x, x.flip(-1)])
    torch.testing.assert_close(f.record(both)[1:], f.record(both[1:]))
    with pytest.raises(ValueError, match="1 or 3 channels"):
        f(torch.zeros(1, 2, 8, 8))
    for bad in (0, 101):
        with pytest.raises(ValueError, match="1 to 100"):
            fm.JPEG(bad)
    with pytest.raises(TypeError, match="integer"):
        fm.JPEG(50.0)


def test_jpeg_tables_are_those_of_pillow():
    from PIL import Image, JpegImagePlugin  # noqa: F401

    for quality in (1, 10, 49, 50, 75, 100):
        import io

        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        tables = Image.open(file).quantization
        for index, chroma in ((0, False), (1, True)):
            found = fm.JPEG(quality)
            table = (found._chroma if chroma else found._luma).value.flatten()
            assert sorted(table.int().tolist()) == sorted(tables[index])
            assert table.int().tolist()[:3] == list(tables[index])[:3]


def test_straight_through_is_the_derivative_without_rounding():
    """With every rounding the identity the codec in full colour is the identity."""
    x = 0.3 + 0.4 * torch.rand(1, 3, 16, 8, generator=rng(), dtype=torch.float64)
    v = normal(1, 3, 16, 8)
    torch.testing.assert_close(fm.JPEG(60, "4:4:4").jvp(x, v), v)
    clipped = torch.full_like(x, 1.5)
    assert float(fm.JPEG(60).vjp(clipped, v).abs().max()) == 0


def test_simulate_starts_from_the_true_codec():
    x = photograph(16, 16)
    model = fm.Observation(fm.JPEG(20), fm.Gaussian(1e-6))
    y = model.simulate(x, rng())
    torch.testing.assert_close(y, fm.JPEG(20).record(x), atol=1e-5, rtol=0)
    soft = fm.JPEG(20, rounding="soft")
    chain = fm.HighDynamicRange(1.0) @ soft
    torch.testing.assert_close(chain.record(x), soft.record(x))


# ---- simulators -----------------------------------------------------------------------------


def one_by_one(image: np.ndarray) -> np.ndarray:
    assert image.ndim == 3
    return np.cumsum(image**2)[::3]


def test_simulators_of_every_kind_agree():
    x = 0.1 + torch.rand(3, 2, 3, 4, generator=rng(), dtype=torch.float64)
    expected = squares(x)
    batch = fm.Simulator(squares, (2, 3, 4), (8,))
    single_ = fm.Simulator(lambda x: squares(x[None])[0], (2, 3, 4), batched=False)
    array = fm.Simulator(one_by_one, (2, 3, 4), differentiable=False, batched=False,
                         interface="numpy")  # fmt: skip
    for f in (batch, single_, array):
        torch.testing.assert_close(f(x), expected)
        torch.testing.assert_close(f(x.float()), expected.float())
        assert f.measurement_shape == (8,)
    torch.testing.assert_close(single_.vjp(x, expected), batch.vjp(x, expected))
    assert array(x.clone().requires_grad_()).grad_fn is None
    for call in (array.jvp, array.vjp):
        with pytest.raises(RuntimeError, match="black box"):
            call(x, x)
    assert not (fm.Sigmoid() @ array).differentiable


def draws(x: Tensor) -> Tensor:
    return x + torch.rand(x.shape, generator=DICE)


DICE = rng(1)


@pytest.mark.parametrize(
    ("f", "options", "error", "match"),
    [
        (3, {}, TypeError, "must be a function"),
        (lambda x: x.numpy(), {}, TypeError, "what f returns"),
        (lambda x: x.double(), {}, TypeError, "same precision"),
        (lambda x: x.sum(), {}, ValueError, "batch axis comes first"),
        (lambda x: x.flatten(1), {"measurement_shape": (3,)}, ValueError, r"expected \(2, 3\)"),
        (lambda x: x - x.mean(0), {}, ValueError, "alone"),
        (draws, {}, ValueError, "two results"),
        (lambda x: x.mul_(2), {"differentiable": False}, ValueError, "in place"),
        (lambda x: x / 0, {}, ValueError, "not finite"),
        (lambda x: x.detach() * 2, {}, ValueError, "differentiable=False"),
        (lambda x: x.argmax(-1), {"differentiable": False}, TypeError, "same precision"),
        (np.sin, {"interface": "numpy"}, ValueError, "autograd does not see"),
        (np.sin, {"interface": "jax"}, ValueError, "known: torch, numpy"),
        (lambda x: x, {"field": "foo"}, ValueError, "known: real, complex"),
        (
            lambda x: x > 0,
            {"interface": "numpy", "differentiable": False},
            TypeError,
            "array of floats",
        ),
        (lambda x: x, {"trial": torch.ones(1, 4)}, ValueError, "one image"),
        (lambda x: x, {"trial": torch.ones(2, 3)}, ValueError, "expected"),
    ],
)
def test_simulators_that_break_a_promise(f, options, error, match):
    with pytest.raises(error, match=match):
        fm.from_simulator(f, fm.Gaussian(0.1), (4,), **options)


def test_a_black_box_is_refused_by_gradients_and_served_by_densities():
    model = fm.from_simulator(
        one_by_one, fm.Gaussian(0.1), (1, 2, 3), differentiable=False, batched=False,
        interface="numpy",
    )  # fmt: skip
    prior = priors.Gaussian(torch.zeros(1, 2, 3), 1.0)
    x = normal(1, 1, 2, 3).float()
    y = model.simulate(x, rng())
    assert model.log_likelihood(y, x).shape == (1,)
    posterior = inverse.condition(prior, model, y)
    for method in ("dps", "mmps"):
        with pytest.raises(ValueError, match=r"black box|no method|not linear"):
            inverse.sample(posterior, n=1, method=method, steps=3, seed=0)
    served = inverse.sample(posterior, n=1, steps=3, seed=0)
    assert served.diagnostics["method"] == "unscented"
    assert bool(torch.isfinite(served.x).all())


def test_a_differentiable_simulator_is_sampled():
    model = fm.from_simulator(lambda x: torch.tanh(squares(x)), fm.Gaussian(0.5), (1, 2, 3))
    prior = priors.Gaussian(torch.zeros(1, 2, 3), 1.0)
    y = model.simulate(normal(1, 1, 2, 3).float(), rng())
    samples = inverse.sample(
        inverse.condition(prior, model, y), n=2, method="dps", steps=50, seed=0
    )
    assert bool(torch.isfinite(samples.x).all())


# ---- scattering -----------------------------------------------------------------------------


def cylinder(permittivity: float, a: float, k: float, radius: float, count: int) -> np.ndarray:
    """What a round dielectric cylinder scatters from a plane wave: its multipole series."""
    m, n = permittivity**0.5, np.arange(-30, 31)
    inside, slope = special.jv(n, m * k * a), m * special.jvp(n, m * k * a)
    numerator = special.jvp(n, k * a) * inside - slope * special.jv(n, k * a)
    denominator = slope * special.hankel1(n, k * a) - special.h1vp(n, k * a) * inside
    angle = 2 * np.pi / count * np.arange(count)
    waves = special.hankel1(n, k * radius) * np.exp(1j * np.outer(angle, n))
    return waves @ (1j**n * numerator / denominator)


def disk(size: int, pixel: float, a: float) -> Tensor:
    """The share of each pixel within a disk of radius a, (size, size)."""
    t = (torch.arange(16 * size, dtype=torch.float64) + 0.5) / 16 * pixel - size * pixel / 2
    inside = (t[:, None] ** 2 + t**2 < a * a).double()
    return inside.reshape(size, 16, size, 16).mean((1, 3))


@pytest.mark.parametrize("contrast", [0.001, 0.5, 1.5])
def test_scattering_by_a_cylinder(contrast):
    expected = cylinder(1 + contrast, 0.5, 2 * np.pi, 3.0, 24)
    errors = []
    for size in (16, 32, 64):
        pixel = 1.2 / size
        f = fm.Scattering((size, size), pixel, 1.0, illuminations=1, receivers=24, radius=3.0)
        y = f(contrast * disk(size, pixel, 0.5)[None, None])[0, 0].numpy()
        errors.append(np.linalg.norm(y - expected) / np.linalg.norm(expected))
    assert errors[-1] < 4e-3
    assert errors[0] / errors[1] > 3
    assert errors[1] / errors[2] > 3


def test_scattering_obeys_its_symmetries():
    size = 12
    scene = {"illuminations": 4, "receivers": 4, "radius": 2.0, "source": "line"}
    f = fm.Scattering((size, size), 0.08, 1.0, **scene)
    x = torch.rand(1, 1, size, size, generator=rng(), dtype=torch.float64)
    y = f(x)
    torch.testing.assert_close(y, y.mT)
    quarter = torch.rot90(x, 1, (-2, -1))
    torch.testing.assert_close(f(quarter), y.roll((1, 1), (1, 2)))
    wide = fm.Scattering((8, 12), 0.08, 1.0, **scene)
    tall = fm.Scattering((12, 8), 0.08, 1.0, **scene)
    x = x[..., 2:10, :]
    torch.testing.assert_close(tall(torch.rot90(x, 1, (-2, -1))), wide(x).roll((1, 1), (1, 2)))


def test_born_is_the_derivative_at_zero():
    f = fm.Scattering(**SCENE)
    x = torch.rand(2, 1, 5, 4, generator=rng(), dtype=torch.float64)
    torch.testing.assert_close(f.jvp(torch.zeros_like(x), x), f.born(x))
    torch.testing.assert_close(f.vjp(torch.zeros_like(x), f.born(x)), f.born.adjoint(f.born(x)))
    errors = [float((f(s * x) - f.born(s * x)).norm() / f.born(s * x).norm()) for s in (1e-2, 1e-3)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)


def test_the_field_solves_the_lippmann_schwinger_equation():
    f = fm.Scattering(**SCENE)
    x = 2 * torch.rand(1, 1, 5, 4, generator=rng(), dtype=torch.float64)
    u = f.total_field(x)
    basis = torch.eye(20, dtype=torch.complex128).reshape(20, 5, 4)
    g = f.scene.green(basis).flatten(1).T
    torch.testing.assert_close(g, g.T)
    system = torch.eye(20) - g @ torch.diag(x.flatten().to(g))
    expected = torch.linalg.solve(system, f.scene.incident.value.T).T
    torch.testing.assert_close(u.reshape(2, 20), expected)
    tiny = fm.Scattering(**(SCENE | {"image_shape": (1, 2), "receivers": 1}))
    assert torch.autograd.gradgradcheck(tiny, (x[..., :1, :2].clone().requires_grad_(),))


def test_scattering_refusals():
    with pytest.raises(ValueError, match="surround"):
        fm.Scattering(**(SCENE | {"radius": 0.5}))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        fm.Scattering(**(SCENE | {"image_shape": (5,)}))
    with pytest.raises(TypeError, match="must be a Scene"):
        fm.BornScattering(SCENE)
    with pytest.raises(ValueError, match="plane, line"):
        fm.Scattering(**(SCENE | {"source": "point"}))
    stuck = fm.Scattering(**SCENE, max_iterations=1)
    with pytest.warns(RuntimeWarning, match="relative residual"):
        stuck(torch.full((1, 1, 5, 4), 3.0))
