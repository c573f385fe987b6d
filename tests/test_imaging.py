"""Masks, blur, resampling and colour against independent libraries and closed forms."""

import math

import numpy as np
import pytest
import torch
from operator_cases import KERNEL, SOFT, normal, rng
from PIL import Image
from scipy import ndimage, signal

import forward_models as fm
from forward_models.imaging.resize import resampling_matrix

MODES = {"circular": "wrap", "reflect": "mirror", "replicate": "nearest", "constant": "constant"}


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 4), (5, 2), (13, 12), (21, 30)])
@pytest.mark.parametrize("padding", [*MODES, "valid"])
def test_blur_equals_scipy(size, padding):
    x, k = normal(2, 3, 23, 31), normal(*size, seed=1)
    y = fm.Blur(k, padding)(x).numpy()
    for b in range(2):
        for c in range(3):
            image, kernel = x[b, c].numpy(), k.numpy()
            if padding == "valid":
                expected = signal.convolve2d(image, kernel, mode="valid")
            else:
                expected = ndimage.convolve(image, kernel, mode=MODES[padding])
            np.testing.assert_allclose(y[b, c], expected, atol=1e-12)


def test_kernels():
    for k in (fm.gaussian_kernel(1.3), fm.gaussian_kernel(2.0, 8), fm.motion_kernel(7.5, 30)):
        assert float(k.sum()) == pytest.approx(1)
        torch.testing.assert_close(k, k.flip(0, 1))
    assert fm.gaussian_kernel(1.0).shape == (7, 7)
    variance = (torch.arange(-6, 7) ** 2 * fm.gaussian_kernel(2.0).sum(0)).sum()
    assert float(variance) == pytest.approx(4, rel=0.02)
    flat = fm.motion_kernel(5, 0)
    assert float(flat[3].sum()) == pytest.approx(1)
    torch.testing.assert_close(fm.motion_kernel(5, 90), flat.T, atol=1e-12, rtol=0)
    up = fm.motion_kernel(9, 45)
    assert float(up[0, -1] + up[1, -2]) > float(up[0, 0] + up[1, 1])


def test_downsampling_equals_its_definition():
    x = normal(2, 3, 8, 12)
    means = x.reshape(2, 3, 2, 4, 3, 4).mean((3, 5))
    torch.testing.assert_close(fm.Downsampling(4)(x), means)
    expected = fm.Blur(KERNEL)(x)[..., ::4, ::4]
    torch.testing.assert_close(fm.Downsampling(4, KERNEL)(x), expected)
    with pytest.raises(ValueError, match="factor 5 must divide"):
        fm.Downsampling(5)(x)
    with pytest.raises(ValueError, match="known: 'box'"):
        fm.Downsampling(2, "bicubic")


@pytest.mark.parametrize("factor", [2, 4])
def test_downsampling_equals_deepinv(factor):
    physics = pytest.importorskip("deepinv").physics
    x, k = normal(2, 3, 16, 24, dtype=torch.float32), normal(5, 4, seed=1).float()
    other = physics.Downsampling(
        img_size=(3, 16, 24), factor=factor, filter=k[None, None], padding="circular"
    )
    torch.testing.assert_close(fm.Downsampling(factor, k)(x), other(x), rtol=1e-5, atol=1e-5)


def test_mask_equals_its_definition():
    x = normal(2, 3, 9, 7)
    A = fm.Inpainting(SOFT)
    torch.testing.assert_close(A(x), x * SOFT.double())
    assert A.measured.dtype == torch.bool
    assert A(x.to(torch.complex128)).is_complex()
    with pytest.raises(ValueError, match="agree in height and width"):
        A(normal(2, 3, 7, 9))


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (torch.zeros(4, 4), "zero everywhere"),
        (torch.full((4, 4), 1.5), r"\[0, 1\]"),
        (torch.tensor([[1.0, float("nan")]]), r"index \(0, 1\)"),
        (torch.tensor(1.0), "shape"),
    ],
)
def test_bad_masks(mask, match):
    with pytest.raises(ValueError, match=match):
        fm.Inpainting(mask)


def test_mask_makers():
    mask = fm.random_mask((10, 10), 0.37, rng())
    assert int(mask.sum()) == 37
    assert torch.equal(mask, fm.random_mask((10, 10), 0.37, rng()))
    box = fm.box_mask((3, 10, 10), 2, 3, 4, 5)
    assert int((~box).sum()) == 3 * 20
    assert not bool(box[0, 2, 3])
    with pytest.raises(ValueError, match="inside"):
        fm.box_mask((10, 10), 8, 0, 4, 4)
    with pytest.raises(TypeError, match=r"top must be an integer.*got 1\.5"):
        fm.box_mask((10, 10), 1.5, 0, 4, 4)
    with pytest.raises(TypeError, match="keep must be a number, got str"):
        fm.random_mask((4, 4), "a")
    with pytest.raises(TypeError, match="probability must be a number"):
        fm.bernoulli_mask((4, 4), None)
    for shape, error in (((4,), ValueError), ((4, 4), TypeError)):
        with pytest.raises(error, match=r"shape must be \(H, W\)|height must be an integer"):
            fm.centre_box_mask(shape, 2.0 if error is TypeError else 2, 2)
    with pytest.raises(TypeError, match="bool"):
        fm.Inpainting(torch.ones(3, 3, dtype=torch.int64))


@pytest.mark.parametrize("padding", ["circular", "reflect", "replicate", "constant", "valid"])
def test_blur_equals_deepinv(padding):
    physics = pytest.importorskip("deepinv").physics
    x, k = normal(1, 3, 16, 21, dtype=torch.float32), fm.gaussian_kernel(1.5).float()
    k = k * torch.linspace(0.5, 1, 11)
    expected = physics.Blur(filter=k[None, None], padding=padding)(x)
    torch.testing.assert_close(fm.Blur(k, padding)(x), expected, rtol=1e-5, atol=1e-6)


# ---- masks ----------------------------------------------------------------------------------


def test_bernoulli_masks_draw_every_entry_on_its_own():
    mask = fm.bernoulli_mask((3, 200, 200), 0.3, rng())
    assert mask.dtype == torch.bool
    assert torch.equal(mask, fm.bernoulli_mask((3, 200, 200), 0.3, rng()))
    deviation = math.sqrt(0.3 * 0.7 / mask.numel())
    assert abs(float(mask.double().mean()) - 0.3) < 5 * deviation
    both = (mask[0] & mask[1]).double().mean()
    assert abs(float(both) - 0.09) < 5 * math.sqrt(0.09 * 0.91 / 200**2)
    counts = {int(fm.bernoulli_mask((50, 50), 0.5, rng(i)).sum()) for i in range(5)}
    assert len(counts) > 1
    with pytest.raises(ValueError, match="random_mask"):
        fm.bernoulli_mask((2, 2), 1e-9, rng())
    with pytest.raises(ValueError, match="probability"):
        fm.bernoulli_mask((2, 2), 0.0)


def test_random_masks_per_channel():
    mask = fm.random_mask((3, 10, 10), 0.5, rng())
    assert int(mask.sum()) == 150
    assert not torch.equal(mask[0], mask[1])


def test_a_box_in_the_middle():
    mask = fm.centre_box_mask((3, 9, 12), 5, 4)
    assert torch.equal(mask, fm.box_mask((3, 9, 12), 2, 4, 5, 4))
    assert torch.equal(mask, mask.flip(-2, -1))
    for box in ((10, 4), (5, 13), (0, 4)):
        with pytest.raises(ValueError, match="inside"):
            fm.centre_box_mask((9, 12), *box)


# ---- kernels --------------------------------------------------------------------------------


def moments(k):
    """Mean row and column, and the covariance, of a kernel as a density."""
    t = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in k.shape]
    rows, columns = torch.meshgrid(*t, indexing="ij")
    points = torch.stack([rows.flatten(), columns.flatten()])
    mean = points @ k.flatten()
    centred = points - mean[:, None]
    return mean, (centred * k.flatten()) @ centred.T


def test_anisotropic_gaussian_has_the_covariance_it_says():
    k = fm.anisotropic_gaussian_kernel(3.0, 1.5, 30, size=41)
    mean, covariance = moments(k)
    turn = math.radians(30)
    # Rows run down, so that a direction counter-clockwise from the right is (-sin, cos).
    first, second = (-math.sin(turn), math.cos(turn)), (-math.cos(turn), -math.sin(turn))
    axes = torch.tensor([first, second], dtype=torch.float64).T
    expected = axes @ torch.diag(torch.tensor([9.0, 2.25], dtype=torch.float64)) @ axes.T
    torch.testing.assert_close(covariance, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mean, torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    round_one = fm.anisotropic_gaussian_kernel(1.3, 1.3, 77)
    torch.testing.assert_close(round_one, fm.gaussian_kernel(1.3))


@pytest.mark.parametrize("radius", [0.3, 0.5, 0.6, 1.0, 2.5, 3.7])
def test_disk_kernel_is_the_area_that_pixels_share_with_a_disk(radius):
    k = fm.disk_kernel(radius)
    fine = 200
    t = (torch.arange(len(k) * fine, dtype=torch.float64) + 0.5) / fine - len(k) / 2
    inside = (t[:, None].square() + t.square() <= radius**2).double()
    counted = inside.reshape(len(k), fine, len(k), fine).mean((1, 3)) / (math.pi * radius**2)
    torch.testing.assert_close(k, counted, atol=2e-3 / radius**2, rtol=0)
    assert float(k.sum()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(k, k.T)
    torch.testing.assert_close(k, k.flip(0, 1))
    assert float(k.diagonal()[0]) >= 0


def test_disk_kernel_spreads_as_a_disk():
    _, covariance = moments(fm.disk_kernel(6.3))
    # The variance of a uniform disk along an axis is r^2 / 4; pixels add their own, 1 / 12.
    assert covariance.diagonal().tolist() == pytest.approx(2 * [6.3**2 / 4 + 1 / 12], rel=1e-2)


def test_shake_kernel():
    k = fm.shake_kernel(15, generator=rng())
    assert k.shape == (17, 17)
    assert float(k.sum()) == pytest.approx(1, abs=1e-12)
    assert float(k.min()) >= 0
    torch.testing.assert_close(
        moments(k)[0], torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0
    )
    assert torch.equal(k, fm.shake_kernel(15, generator=rng()))
    assert not torch.equal(k, fm.shake_kernel(15, generator=rng(1)))
    for seed in range(20):
        assert float(fm.shake_kernel(9.4, 1000.0, rng(seed)).sum()) == pytest.approx(1, abs=1e-12)
    straight = fm.shake_kernel(12, 1e-6, rng())
    start = torch.rand((), generator=_after_turns(12), dtype=torch.float64)
    torch.testing.assert_close(
        straight, fm.motion_kernel(12, 360 * float(start)), atol=1e-6, rtol=0
    )


def _after_turns(length):
    generator = rng()
    torch.randn(32 * (2 * math.ceil(length / 2) + 1), generator=generator, dtype=torch.float64)
    return generator


def test_bad_kernels():
    with pytest.raises(ValueError, match="radius"):
        fm.disk_kernel(0)
    with pytest.raises(ValueError, match="angle"):
        fm.motion_kernel(3, math.nan)
    with pytest.raises(ValueError, match="angle"):
        fm.anisotropic_gaussian_kernel(1, 2, math.inf)
    with pytest.raises(ValueError, match="expected \\(h, w\\)"):
        fm.Blur(torch.ones(3))
    with pytest.raises(ValueError, match="2 kernels"):
        fm.Blur(torch.ones(2, 3, 3))(normal(1, 3, 8, 8))
    with pytest.raises(ValueError, match="2 kernels"):
        fm.Blur(torch.ones(2, 3, 3)).adjoint(normal(1, 3, 8, 8))
    with pytest.raises(ValueError, match="known: circular"):
        fm.Blur(torch.ones(3, 3), "mirror")


# ---- blur -----------------------------------------------------------------------------------

OUTER = [normal(h, 1, seed=h) * normal(1, w, seed=w + 50) for h, w in ((5, 4), (1, 9), (25, 12))]


@pytest.mark.parametrize("kernel", OUTER, ids=["small", "row", "large"])
@pytest.mark.parametrize("padding", [*MODES, "valid"])
def test_separable_blur_equals_scipy(kernel, padding):
    x = normal(1, 1, 29, 31)
    y = fm.Blur(kernel, padding)(x)[0, 0].numpy()
    image, k = x[0, 0].numpy(), kernel.numpy()
    if padding == "valid":
        expected = signal.convolve2d(image, k, mode="valid")
    else:
        expected = ndimage.convolve(image, k, mode=MODES[padding])
    np.testing.assert_allclose(y, expected, atol=1e-11)


@pytest.mark.parametrize("size", [(3, 4), (13, 12)])
@pytest.mark.parametrize("padding", [*MODES, "valid"])
def test_blur_per_channel_is_one_blur_per_channel(size, padding):
    x, kernels = normal(2, 3, 17, 23), normal(3, *size, seed=1)
    A = fm.Blur(kernels, padding)
    singles = [fm.Blur(kernel, padding) for kernel in kernels]
    y = torch.cat([single(x[:, c : c + 1]) for c, single in enumerate(singles)], 1)
    torch.testing.assert_close(A(x), y, atol=1e-11, rtol=0)
    back = torch.cat([single.adjoint(y[:, c : c + 1]) for c, single in enumerate(singles)], 1)
    torch.testing.assert_close(A.adjoint(y), back, atol=1e-10, rtol=0)


SIZES = [(1, 1), (2, 3), (17, 23), (61, 47)]
TAPS = {
    "one": normal(1, 1), "even": KERNEL, "wide": normal(13, 12, seed=3) / 13,
    "outer": OUTER[0], "outer-large": OUTER[2],
}  # fmt: skip


@pytest.mark.parametrize("taps", list(TAPS))
@pytest.mark.parametrize("padding", list(MODES))
def test_blur_of_any_size_by_any_kernel(padding, taps):
    """Kernels larger than the image, one-pixel images: scipy continues them likewise."""
    A = fm.Blur(TAPS[taps], padding)
    for height, width in SIZES:
        x = normal(1, 4, height, width)
        y = A(x)
        expected = ndimage.convolve(x[0, 3].numpy(), TAPS[taps].numpy(), mode=MODES[padding])
        np.testing.assert_allclose(y[0, 3].numpy(), expected, atol=1e-11)
        z = normal(*y.shape, seed=2)
        scale = float(y.norm() * z.norm())
        assert abs(float((y * z).sum() - (x * A.adjoint(z)).sum())) <= 1e-13 * scale


def test_blur_equals_kornia():
    filters = pytest.importorskip("kornia.filters")
    x, k = normal(2, 3, 16, 21, dtype=torch.float32), normal(5, 7, seed=1).float()
    # kornia correlates: flip the kernel.
    expected = filters.filter2d(x, k.flip(0, 1)[None], border_type="reflect")
    torch.testing.assert_close(fm.Blur(k, "reflect")(x), expected, rtol=1e-5, atol=1e-5)


def test_circular_blur_equals_deepinv_fft():
    physics = pytest.importorskip("deepinv").physics
    x, k = normal(1, 3, 16, 21, dtype=torch.float32), normal(6, 5, seed=1).float()
    expected = physics.BlurFFT(img_size=(3, 16, 21), filter=k[None, None])(x)
    torch.testing.assert_close(fm.Blur(k)(x), expected, rtol=1e-5, atol=1e-5)


# ---- varying blur ---------------------------------------------------------------------------


def test_grid_weights_interpolate_between_their_nodes():
    w = fm.grid_weights(9, 7, 3, 2)
    torch.testing.assert_close(w.sum(0), torch.ones(9, 7, dtype=torch.float64))
    for number, (i, j) in enumerate([(0, 0), (0, 6), (4, 0), (4, 6), (8, 0), (8, 6)]):
        assert float(w[number, i, j]) == pytest.approx(1)
    assert float(w[0, 2, 3]) == pytest.approx(0.25)
    assert torch.equal(fm.grid_weights(4, 5, 1, 1), torch.ones(1, 4, 5, dtype=torch.float64))
    assert float(w.min()) >= 0


@pytest.mark.parametrize("padding", [*MODES, "valid"])
@pytest.mark.parametrize("size", [(3, 4), (12, 13)])
def test_varying_blur_is_a_sum_of_blurs(padding, size):
    kernels, weights = normal(4, *size, seed=1), fm.grid_weights(17, 15, 2, 2)
    x = normal(2, 3, 17, 15)
    A = fm.VaryingBlur(kernels, weights, padding)
    blurs = [fm.Blur(kernel, padding) for kernel in kernels]
    expected = sum(blur(w * x) for blur, w in zip(blurs, weights, strict=True))
    torch.testing.assert_close(A(x), expected, atol=1e-11, rtol=0)


def test_varying_blur_spreads_a_point_by_the_kernel_at_its_place():
    kernels = torch.stack([fm.gaussian_kernel(0.7, 7), fm.gaussian_kernel(1.4, 7)])
    A = fm.VaryingBlur(kernels, fm.grid_weights(20, 31, 1, 2))
    x = torch.zeros(1, 1, 20, 31, dtype=torch.float64)
    x[0, 0, 10, 15] = 1.0
    torch.testing.assert_close(A(x)[0, 0, 7:14, 12:19], kernels.mean(0))
    assert float(A(x).sum()) == pytest.approx(1)


def test_varying_blur_equals_deepinv():
    physics = pytest.importorskip("deepinv").physics
    kernels, weights = normal(4, 5, 3, seed=1).float(), fm.grid_weights(16, 15, 2, 2).float()
    x = normal(2, 3, 16, 15, dtype=torch.float32)
    other = physics.SpaceVaryingBlur(
        filters=kernels[None, None], multipliers=weights[None, None], padding="reflect"
    )
    expected = other(x)
    found = fm.VaryingBlur(kernels, weights, "reflect")(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_bad_varying_blur():
    kernels, weights = torch.ones(2, 3, 3), torch.ones(2, 8, 8)
    with pytest.raises(ValueError, match="2 kernels and 1 weights"):
        fm.VaryingBlur(kernels, weights[:1])
    with pytest.raises(ValueError, match=r"expected \(R, h, w\)"):
        fm.VaryingBlur(kernels[0], weights)
    with pytest.raises(ValueError, match="leaves nothing"):
        fm.VaryingBlur(torch.ones(2, 9, 9), weights, "valid")
    with pytest.raises(ValueError, match="height and width"):
        fm.VaryingBlur(kernels, weights)(normal(1, 1, 7, 8))
    with pytest.raises(ValueError, match="positive"):
        fm.grid_weights(4, 4, 0, 2)


# ---- resize ---------------------------------------------------------------------------------

PILLOW = {
    "box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING, "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}  # fmt: skip
RESIZES = [
    ((64, 64), (16, 16)), ((61, 47), (13, 50)), ((17, 23), (40, 31)), ((5, 4), (1, 1)),
    ((1, 1), (3, 2)), ((2, 3), (7, 9)), ((12, 10), (12, 5)), ((30, 20), (20, 30)),
]  # fmt: skip


@pytest.mark.parametrize("method", list(PILLOW))
@pytest.mark.parametrize(("old", "new"), RESIZES)
def test_resize_equals_pillow(method, old, new):
    x = torch.rand(2, 1, *old, generator=rng(), dtype=torch.float64)
    A = fm.Resize((1, *old), new, method)
    for image, y in zip(x.float(), A(x.float().double()), strict=True):
        picture = Image.fromarray(image[0].numpy()).resize(new[::-1], PILLOW[method])
        np.testing.assert_allclose(y[0].numpy(), np.asarray(picture), atol=1e-6)
        single = A(image[None])[0, 0].numpy()
        np.testing.assert_allclose(single, np.asarray(picture), atol=2e-6)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_resize_equals_torch_interpolate(method):
    x = normal(1, 3, 24, 30, dtype=torch.float32)
    for size in ((12, 10), (7, 11), (31, 64)):
        expected = torch.nn.functional.interpolate(x, size=size, mode=method, antialias=True)
        y = fm.Resize((3, 24, 30), size, method)(x)
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


def test_resize_by_a_box_is_the_mean_of_boxes():
    x = normal(2, 3, 12, 20)
    torch.testing.assert_close(fm.Resize((3, 12, 20), (3, 5), "box")(x), fm.Downsampling(4)(x))


def test_resize_keeps_what_it_should():
    for method in PILLOW:
        rows = resampling_matrix(37, 11, method)
        torch.testing.assert_close(rows.sum(1), torch.ones(11, dtype=torch.float64))
        same = resampling_matrix(9, 9, method)
        torch.testing.assert_close(same, torch.eye(9, dtype=torch.float64), atol=1e-15, rtol=0)


def test_resize_decomposition_is_complete():
    A = fm.Resize((1, 6, 5), (4, 7))
    columns = A(torch.eye(30, dtype=torch.float64).reshape(30, 1, 6, 5)).flatten(1)
    expected = torch.linalg.svdvals(columns)
    found = A.svd.singular_values.sort(descending=True).values
    torch.testing.assert_close(found, expected[: len(found)])


def test_bad_resize():
    with pytest.raises(ValueError, match="known: box, bilinear"):
        fm.Resize((3, 8, 8), (4, 4), "nearest")
    for size in ((4,), 2):
        with pytest.raises(ValueError, match=r"size must be two integers \(H', W'\)"):
            fm.Resize((3, 8, 8), size)
    with pytest.raises(ValueError, match=r"image_shape must be \(C, H, W\)"):
        fm.Resize((8, 8), (4, 4))
    with pytest.raises(ValueError, match="positive"):
        fm.Resize((3, 8, 8), (4, 0))


# ---- colour ---------------------------------------------------------------------------------


def test_greyscale():
    x = normal(2, 3, 5, 4)
    expected = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    torch.testing.assert_close(fm.greyscale()(x)[:, 0], expected)
    picture = (torch.rand(6, 5, 3, generator=rng()) * 255).byte()
    pillow = np.asarray(Image.fromarray(picture.numpy()).convert("L"))
    ours = fm.greyscale()(picture.movedim(-1, 0)[None].double())[0, 0]
    assert float((ours - torch.from_numpy(pillow.astype(float))).abs().max()) <= 1


def test_greyscale_equals_deepinv():
    physics = pytest.importorskip("deepinv").physics
    x = normal(2, 3, 5, 4, dtype=torch.float32)
    torch.testing.assert_close(fm.greyscale()(x), physics.Decolorize()(x), atol=3e-4, rtol=1e-4)


def test_channel_mixing_is_a_matrix_at_every_pixel():
    M, x = normal(4, 3), normal(2, 3, 5, 6, seed=1)
    y = fm.ChannelMixing(M)(x)
    torch.testing.assert_close(y[1, :, 4, 2], M @ x[1, :, 4, 2])
    chosen = fm.select_channels([2, 0], 3)
    torch.testing.assert_close(chosen(x), x[:, [2, 0]])
    with pytest.raises(ValueError, match="expected 3 channels"):
        chosen(normal(1, 4, 5, 6))
    with pytest.raises(ValueError, match=r"\[0, 3\)"):
        fm.select_channels([3], 3)
    for bad in ([0.5, 1.9], [True], ["a"]):
        with pytest.raises(TypeError, match="indices must be integers"):
            fm.select_channels(bad, 3)
    assert torch.equal(fm.select_channels(np.array([2, 0]), 3)(x), chosen(x))


def test_spectral_responses():
    wavelengths = [400.0 + 10 * i for i in range(31)]
    M = fm.gaussian_responses(wavelengths, [450, 550, 650], 25)
    torch.testing.assert_close(M.sum(1), torch.ones(3, dtype=torch.float64))
    assert M.argmax(1).tolist() == [5, 15, 25]
    assert float(M[1, 15] / M[1, 10]) == pytest.approx(math.exp(0.5 * (50 / 25) ** 2))
    with pytest.raises(ValueError, match="sees none"):
        fm.gaussian_responses(wavelengths, [450, 9000], 5)


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_bayer_mosaic(pattern):
    A, x = fm.BayerMosaic(pattern), normal(2, 3, 5, 7)
    y = A(x)
    for i in range(5):
        for j in range(7):
            colour = "RGB".index(pattern[2 * (i % 2) + j % 2])
            assert torch.equal(y[:, 0, i, j], x[:, colour, i, j])
    torch.testing.assert_close(A(A.adjoint(y)), y)
    with pytest.raises(ValueError, match="known: RGGB"):
        fm.BayerMosaic("RGBG")
    with pytest.raises(ValueError, match="3 channels"):
        A(x[:, :2])


def test_operators_under_torch_func():
    for A in (
        fm.Blur(KERNEL, "replicate"), fm.Blur(OUTER[0], "reflect"), fm.Blur(OUTER[2]),
        fm.VaryingBlur(normal(2, 3, 3), fm.grid_weights(9, 7, 2, 1)),
        fm.Resize((3, 9, 7), (4, 5)), fm.greyscale(), fm.BayerMosaic(),
        fm.Downsampling(2, OUTER[0], "reflect", (3, 9, 7)),
    ):  # fmt: skip
        xs = normal(4, 2, 3, 9, 7)
        ys = torch.stack([A(x) for x in xs])
        torch.testing.assert_close(torch.func.vmap(A)(xs), ys)
        backs = torch.stack([A.adjoint(y) for y in ys])
        torch.testing.assert_close(torch.func.vmap(A.adjoint)(ys), backs)
        torch.testing.assert_close(torch.func.jvp(A, (xs[0],), (xs[1],))[1], ys[1])
