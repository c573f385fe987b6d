"""Compressed sensing against scipy, numpy and the definitions."""

import math

import numpy as np
import pytest
import torch
from operator_cases import ROWS, SOFT, normal, rng
from scipy import fft, linalg

import forward_models as fm
from forward_models.sensing.hadamard import sequency_order, walsh_hadamard
from forward_models.sensing.single_pixel import pattern_order


def matrix_of(A) -> np.ndarray:
    """The matrix of A for one channel, (M, H W)."""
    _, height, width = A.event_shape
    units = torch.eye(height * width, dtype=torch.float64).reshape(-1, 1, height, width)
    return A(units).flatten(1).T.numpy()


# ---- transforms -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 8, 64, 128, 1024, 2048])
def test_walsh_hadamard_equals_scipy(n):
    x = normal(3, n)
    h = linalg.hadamard(n)
    np.testing.assert_allclose(walsh_hadamard(x), x.numpy() @ h, atol=1e-11 * n)
    torch.testing.assert_close(walsh_hadamard(walsh_hadamard(x)), n * x)


def test_hadamard_of_an_image_is_separable():
    x = normal(2, 3, 8, 16)
    expected = linalg.hadamard(8) @ x.numpy() @ linalg.hadamard(16) / math.sqrt(8 * 16)
    np.testing.assert_allclose(fm.HadamardTransform((3, 8, 16))(x), expected, atol=1e-12)
    with pytest.raises(ValueError, match=r"pad the image to \(8, 16\)"):
        fm.HadamardTransform((1, 7, 16))
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        fm.HadamardTransform((8, 16))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 3), (9, 4), (17, 23), (64, 64)])
def test_cosine_equals_scipy(size):
    x = normal(2, 3, *size)
    A = fm.CosineTransform((3, *size))
    expected = fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho")
    np.testing.assert_allclose(A(x), expected, atol=1e-12)
    np.testing.assert_allclose(A.adjoint(x), fft.idctn(x.numpy(), axes=(-2, -1), norm="ortho"),
                               atol=1e-12)  # fmt: skip


def test_fourier_equals_numpy():
    x = normal(2, 1, 6, 7)
    A, C = fm.FourierTransform((1, 6, 7)), fm.FourierTransform((1, 6, 7), "complex")
    expected = np.fft.fft2(x.numpy(), norm="ortho")
    np.testing.assert_allclose(A(x), expected, atol=1e-12)
    np.testing.assert_allclose(C(x + 0j), expected, atol=1e-12)
    torch.testing.assert_close(A.adjoint(A(x)), x)
    with pytest.raises(TypeError, match=r"with \.to\(torch\.complex64\)"):
        C(x)
    with pytest.raises(ValueError, match="known: 'real'"):
        fm.FourierTransform((1, 6, 7), "any")


def test_the_spectrum_of_a_real_image_is_redundant():
    """F F^T is the projection on symmetric spectra: noise outside them meets s alone."""
    A = fm.FourierTransform((1, 4, 5))
    r = normal(1, 1, 4, 5, dtype=torch.complex128)
    symmetric = A(A.adjoint(r))
    torch.testing.assert_close(A(A.adjoint(symmetric)), symmetric)
    torch.testing.assert_close(A.solve(r, 2.0, 0.5), symmetric / 2.5 + (r - symmetric) / 0.5)


@pytest.mark.parametrize(
    "make", [fm.HadamardTransform, fm.CosineTransform, fm.FourierTransform,
             fm.RandomConvolution, fm.RandomSigns]
)  # fmt: skip
def test_orthonormal_transforms_keep_lengths(make):
    A = make((2, 8, 16))
    x = normal(3, 2, 8, 16)
    torch.testing.assert_close(A(x).abs().square().sum(), x.square().sum())
    torch.testing.assert_close(A.adjoint(A(x)), x)
    assert A.normal(x) is x
    assert A.norm() == 1


def test_random_convolution_equals_its_definition():
    A = fm.RandomConvolution((2, 6, 7), rng(3))
    kernel = A(torch.eye(1, 42, dtype=torch.float64).reshape(1, 1, 6, 7).repeat(1, 2, 1, 1))[0, 0]
    phases = np.fft.fft2(kernel.numpy())
    np.testing.assert_allclose(abs(phases), 1, atol=1e-12)
    x = normal(1, 2, 6, 7)
    expected = np.fft.ifft2(phases * np.fft.fft2(x.numpy())).real
    np.testing.assert_allclose(A(x), expected, atol=1e-12)
    assert torch.equal(A(x), fm.RandomConvolution((2, 6, 7), rng(3))(x))
    assert not torch.equal(A(x), fm.RandomConvolution((2, 6, 7), rng(4))(x))


def test_phases_and_signs_are_uniform():
    """Mean and second moment of about 2000 independent phases, five standard errors."""
    A = fm.RandomConvolution((1, 64, 64), rng())
    delta = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    delta[..., 0, 0] = 1
    phases = torch.fft.fft2(A(delta))[0, 0, :, 1:32].flatten()
    limit = 5 / math.sqrt(phases.numel())
    for power in (1, 2, 3):
        assert float((phases**power).mean().abs()) < limit
    signs = fm.RandomSigns((1, 64, 64), rng())(torch.ones(1, 1, 64, 64))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 5 / 64


def test_draws_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    fm.RandomConvolution((1, 4, 4), rng())
    fm.RandomSigns((1, 4, 4), rng())
    fm.gaussian_sensing(2, (4,), rng())
    fm.bernoulli_sensing(2, (4,), rng())
    assert torch.equal(state, torch.get_rng_state())


# ---- rows of a transform --------------------------------------------------------------------


def test_rows_equal_their_definition():
    T = fm.CosineTransform((2, 9, 7))
    x = normal(3, 2, 9, 7)
    A, B = fm.Subsampled(T, ROWS), fm.Subsampled(T, SOFT > 0.5)
    torch.testing.assert_close(A(x), T(x).flatten(2)[..., ROWS])
    torch.testing.assert_close(B(x), T(x)[..., SOFT > 0.5])
    assert A.measurement_shape == (2, 5)
    y = normal(3, 2, 5)
    torch.testing.assert_close(A(A.adjoint(y)), y)
    torch.testing.assert_close(A.solve(y, 2.0, 0.5), y / 2.5)


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 4), (2, 1)])
def test_singular_values_of_real_fourier_rows(size):
    """Against the dense matrix of real and imaginary parts."""
    T = fm.FourierTransform((1, *size))
    mask = torch.rand(size, generator=rng(2)) > 0.6
    mask[0, 0] = True
    A = fm.Subsampled(T, mask)
    dense = matrix_of(A)
    values = linalg.svdvals(np.concatenate([dense.real, dense.imag]))
    found = A.svd.singular_values.sort(descending=True).values
    np.testing.assert_allclose(found, values[: len(found)], atol=1e-12)
    assert values[len(found) :].max(initial=0) < 1e-12
    assert set(np.round(found.numpy() ** 2, 12)) <= {0.5, 1.0}


def test_rows_of_compositions_keep_closed_forms():
    scrambled = 3.0 * fm.CosineTransform((1, 9, 7)) @ fm.RandomSigns((1, 9, 7), rng())
    A = fm.Subsampled(scrambled, ROWS)
    y = normal(2, 1, 5)
    torch.testing.assert_close(A.solve(y, 2.0, 0.5), y / (18 + 0.5))
    assert A.norm() == pytest.approx(3)
    assert fm.Subsampled(fm.Blur(normal(3, 3), image_shape=(1, 9, 7)), ROWS).svd is None


@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        (torch.tensor([1, 1]), ValueError, "twice"),
        (torch.tensor([63]), ValueError, r"expected \[0, 62\]"),
        (torch.tensor([-1]), ValueError, r"expected \[0, 62\]"),
        (torch.tensor([], dtype=torch.int64), ValueError, "no row"),
        (torch.zeros(9, 7, dtype=torch.bool), ValueError, "no row"),
        (torch.ones(7, 9, dtype=torch.bool), ValueError, r"\(9, 7\)"),
        (torch.ones(2, 2, dtype=torch.int64), ValueError, r"\(M,\)"),
        (torch.ones(9, 7), TypeError, "bool mask or int64"),
        ([1, 2], TypeError, r"torch\.Tensor"),
    ],
)
def test_bad_rows(rows, error, match):
    with pytest.raises(error, match=match):
        fm.Subsampled(fm.CosineTransform((1, 9, 7)), rows)


def test_bad_transforms():
    with pytest.raises(ValueError, match="image_shape="):
        fm.Subsampled(fm.Blur(normal(3, 3)), ROWS)
    with pytest.raises(TypeError, match="from_function"):
        fm.Subsampled(torch.fft.fft2, ROWS)


def test_sparse_images_are_recovered_from_random_rows():
    """What it is for: 8 spikes of 256 from 80 rows, to 1e-3, by iterative soft thresholding."""
    A = fm.Subsampled(
        fm.RandomConvolution((1, 16, 16), rng(1)), fm.random_mask((16, 16), 80 / 256, rng(2))
    )
    x = torch.zeros(1, 1, 256, dtype=torch.float64)
    x[..., torch.randperm(256, generator=rng(3))[:8]] = normal(8, seed=4).sign()
    x = x.reshape(1, 1, 16, 16)
    y, estimate, momentum = A(x), torch.zeros_like(x), torch.zeros_like(x)
    for k in range(1000):
        step = momentum - A.adjoint(A(momentum) - y)
        new = torch.nn.functional.softshrink(step, 1e-4)
        momentum = new + k / (k + 3) * (new - estimate)
        estimate = new
    assert float((estimate - x).norm() / x.norm()) < 1e-3
    assert float((A.adjoint(y) - x).norm() / x.norm()) > 0.5


# ---- single pixel ---------------------------------------------------------------------------


@pytest.mark.parametrize("ordering", ["natural", "sequency", "cake-cutting"])
def test_single_pixel_equals_its_patterns(ordering):
    h = linalg.hadamard(32)
    signed = fm.SinglePixel((1, 4, 8), 20, values="signed", ordering=ordering)
    binary = fm.SinglePixel((1, 4, 8), 20, ordering=ordering)
    order = signed.order.numpy()
    assert len(set(order)) == 20
    np.testing.assert_allclose(matrix_of(signed), h[order], atol=1e-12)
    np.testing.assert_allclose(matrix_of(binary), (1 + h[order]) / 2, atol=1e-12)
    assert set(np.unique(matrix_of(binary))) == {0.0, 1.0}
    x = normal(2, 3, 4, 8)
    y = fm.SinglePixel((3, 4, 8), ordering=ordering)(x)
    torch.testing.assert_close(y[..., 0], x.sum((-2, -1)))


@pytest.mark.parametrize("n", [1, 2, 16, 64])
def test_sequency_order_counts_sign_changes(n):
    rows = linalg.hadamard(n)[sequency_order(n).numpy()]
    np.testing.assert_array_equal((np.diff(rows, axis=1) != 0).sum(1), np.arange(n))


def test_cake_cutting_order_counts_blocks():
    from scipy.ndimage import label

    h = linalg.hadamard(4 * 8)[pattern_order(4, 8, "cake-cutting").numpy()].reshape(-1, 4, 8)
    blocks = [label(p > 0)[1] + label(p < 0)[1] for p in h]
    assert blocks == sorted(blocks)
    assert blocks[0] == 1
    assert blocks[-1] == 32


@pytest.mark.parametrize("count", [1, 2, 3, 17, 32])
def test_single_pixel_closed_forms_equal_dense_ones(count):
    A = fm.SinglePixel((1, 4, 8), count)
    dense = matrix_of(A)
    found = A.svd.singular_values.sort(descending=True).values
    np.testing.assert_allclose(found, linalg.svdvals(dense), rtol=1e-12)
    r = normal(2, 1, count)
    gram = 0.7 * dense @ dense.T + 0.3 * np.eye(count)
    expected = np.linalg.solve(gram, r[:, 0].numpy().T).T
    np.testing.assert_allclose(A.solve(r, 0.7, 0.3)[:, 0], expected, rtol=1e-10, atol=1e-12)
    assert A.norm() == pytest.approx(np.linalg.norm(dense, 2))


def test_single_pixel_svd_stays_orthonormal_in_single_precision():
    """The smallest singular value is 1 / 32 of the others: nothing is lost to it."""
    A = fm.SinglePixel((1, 64, 64))
    z = normal(2, 4096, dtype=torch.float32)
    torch.testing.assert_close(A.svd.to_spectral_x(A.svd.from_spectral_x(z)), z, rtol=0, atol=1e-5)
    torch.testing.assert_close(A.svd.to_spectral_y(A.svd.from_spectral_y(z)), z, rtol=0, atol=1e-5)


def test_bad_single_pixel_cameras():
    with pytest.raises(ValueError, match="powers of 2"):
        fm.SinglePixel((1, 6, 8))
    with pytest.raises(ValueError, match="number of pixels, 32"):
        fm.SinglePixel((1, 4, 8), 33)
    for patterns in (0, 2.5, True):
        with pytest.raises(ValueError, match="positive integers"):
            fm.SinglePixel((1, 4, 8), patterns)
    assert fm.SinglePixel((1, 4, 8), np.int64(3)).measurement_shape == (1, 3)
    with pytest.raises(ValueError, match="known: natural, sequency, cake-cutting"):
        fm.SinglePixel((1, 4, 8), ordering="zigzag")
    with pytest.raises(ValueError, match="known: binary, signed"):
        fm.SinglePixel((1, 4, 8), values="grey")


def test_single_pixel_equals_deepinv():
    """Its camera keeps a mask of coefficients of the orthonormal transform of the transposed
    raster; ours lists them in the order shown."""
    physics = pytest.importorskip("deepinv").physics
    x = normal(2, 1, 16, 16, dtype=torch.float32)
    other = physics.SinglePixelCamera(m=40, img_size=(1, 16, 16), fast=True)(x)
    A = fm.SinglePixel((1, 16, 16), 40, values="signed", ordering="sequency")
    ours = torch.zeros(2, 1, 256).index_copy(-1, A.order, A(x.mT.contiguous()) / 16)
    torch.testing.assert_close(ours.reshape(2, 1, 16, 16).mT, other, rtol=1e-4, atol=1e-5)


# ---- random matrices ------------------------------------------------------------------------


def test_random_matrices_have_their_moments():
    for make in (fm.gaussian_sensing, fm.bernoulli_sensing):
        A = make(200, (1, 20, 30), rng())
        entries = A.matrix * math.sqrt(200)
        assert A.matrix.shape == (200, 600)
        assert A.event_shape == (1, 20, 30)
        assert abs(float(entries.mean())) < 5 / math.sqrt(120_000)
        assert abs(float(entries.square().mean()) - 1) < 5 * math.sqrt(2 / 120_000)
        assert torch.equal(A.matrix, make(200, (1, 20, 30), rng()).matrix)
    fourth = fm.gaussian_sensing(200, (600,), rng()).matrix.mul(math.sqrt(200)).pow(4).mean()
    assert abs(float(fourth) - 3) < 5 * math.sqrt(96 / 120_000)
    signs = fm.bernoulli_sensing(200, (600,), rng()).matrix * math.sqrt(200)
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs))
    with pytest.raises(ValueError, match="positive integers"):
        fm.gaussian_sensing(0, (4,))
