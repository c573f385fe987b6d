"""Linear operators that the contract of test_operators.py runs over: a new one is one line."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

import forward_models as fm


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


class Dft(fm.LinearOperator):
    """A complex operator as a user would write one: the orthonormal Fourier transform."""

    event_ndim = measurement_ndim = 3
    event_field = measurement_field = "complex"

    def _apply(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x, norm="ortho")

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.fft.ifft2(y, norm="ortho")


def slopes(x: Tensor) -> Tensor:
    """A function of a user's: differences along the rows, summed along the columns."""
    return x.diff(dim=-1).cumsum(-2)


def half_spectrum(x: Tensor) -> Tensor:
    return torch.fft.rfft(x) * 0.5


def twisted(x: Tensor) -> Tensor:
    return torch.fft.fft(x).flip(-2) * (1 + 2j)


SOFT = torch.rand(9, 7, generator=rng(1))
KERNEL = normal(3, 4, seed=2)
LARGE = normal(13, 12, seed=3) / 13
# On an image of one pixel a kernel with a small central tap would test cancellation alone.
BROAD = fm.gaussian_kernel(4.0, 14)[1:, 2:]
MATRIX = normal(5, 9 * 7, seed=4)
SMALL = (9, 7)
KERNELS, LARGES = normal(2, 3, 4, seed=5), normal(2, 13, 12, seed=6) / 13
EDGES = normal(2, 3, 4, seed=8)
OUTER = normal(5, 1, seed=7) * normal(1, 4, seed=8)
WEIGHTS = fm.grid_weights(9, 7, 2, 1)

Case = tuple[Callable[[], fm.LinearOperator], tuple[int, ...]]

# name: (maker, event shape). A new operator is one line.
LINEAR: dict[str, Case] = {
    "identity": (lambda: fm.Identity(), (3, 9, 7)),
    "identity-fixed": (lambda: fm.Identity((4,)), (4,)),
    "matrix": (lambda: fm.MatrixOperator(normal(5, 8)), (8,)),
    "matrix-tall": (lambda: fm.MatrixOperator(normal(11, 4)), (4,)),
    "matrix-image": (lambda: fm.MatrixOperator(MATRIX, event_shape=(1, 9, 7)), (1, 9, 7)),
    "matrix-deficient": (lambda: fm.MatrixOperator(normal(6, 3) @ normal(3, 8, seed=1)), (8,)),
    "matrix-complex": (
        lambda: fm.MatrixOperator(normal(3, 6, dtype=torch.complex128)),
        (6,),
    ),
    "dft": (lambda: Dft(), (2, 9, 7)),
    "masked-dft": (lambda: fm.Inpainting(SOFT) @ Dft(), (1, 9, 7)),
    "blur-then-mask": (lambda: fm.Inpainting(SOFT) @ fm.Blur(KERNEL, "reflect"), (2, 9, 7)),
    "project-blurred": (
        lambda: fm.Tomography(SMALL, [0, 60.0, 120]) @ fm.Blur(KERNEL),
        (1, 9, 7),
    ),
    "sum": (lambda: fm.Identity() + 0.5 * fm.Blur(KERNEL, "replicate"), (2, 9, 7)),
    "difference": (lambda: fm.Blur(KERNEL) - fm.Identity(), (1, 9, 7)),
    "scaled": (lambda: -2.5 * fm.Blur(KERNEL, image_shape=(1, 9, 7)), (1, 9, 7)),
    "stack": (
        lambda: fm.Stack(
            [fm.Tomography(SMALL, [0, 60.0]), fm.Inpainting(SOFT), fm.Blur(KERNEL, "valid")]
        ),
        (1, 9, 7),
    ),
    "adjoint": (lambda: fm.Blur(KERNEL, "reflect").T, (2, 9, 7)),
    "adjoint-valid": (lambda: fm.Blur(KERNEL, "valid").T, (1, 7, 4)),
    "from-function": (lambda: fm.from_function(slopes, (2, 9, 7)), (2, 9, 7)),
    "from-function-complex": (lambda: fm.from_function(half_spectrum, (8,)), (8,)),
    "from-function-unitary": (
        lambda: fm.from_function(twisted, (2, 5), field="complex"),
        (2, 5),
    ),
    "normal": (lambda: fm.Blur(KERNEL, "valid").normal, (2, 9, 7)),
    "normal-matrix": (lambda: fm.MatrixOperator(normal(11, 4)).normal, (4,)),
    "normal-deficient": (
        lambda: fm.MatrixOperator(normal(9, 2) @ normal(2, 5, seed=1)).normal,
        (5,),
    ),
    "mask-after-mask": (
        lambda: fm.Identity() @ (-2 * fm.Inpainting(SOFT > 0.3)) @ fm.Inpainting(SOFT < 0.7),
        (2, 9, 7),
    ),
    "adjoint-matrix": (lambda: fm.MatrixOperator(normal(5, 8)).T, (5,)),
}

IMAGING: dict[str, Case] = {
    "mask": (lambda: fm.Inpainting(fm.random_mask((9, 7), 0.4, rng())), (3, 9, 7)),
    "mask-channels": (lambda: fm.Inpainting(SOFT, channels=2), (2, 9, 7)),
    "mask-vector": (lambda: fm.Inpainting(torch.tensor([True, False, True])), (3,)),
    "blur-circular": (lambda: fm.Blur(KERNEL, image_shape=(2, 9, 7)), (2, 9, 7)),
    "blur-wrapped": (lambda: fm.Blur(LARGE, image_shape=(1, 9, 7)), (1, 9, 7)),
    "blur-motion": (
        lambda: fm.Blur(fm.motion_kernel(4.0, 0.0), image_shape=(1, 8, 16)),
        (1, 8, 16),
    ),
    "blur-zero-sum": (
        lambda: fm.Blur(EDGES - EDGES.mean((1, 2), keepdim=True), image_shape=(2, 9, 7)),
        (2, 9, 7),
    ),
    "blur-reflect": (lambda: fm.Blur(KERNEL, "reflect"), (3, 9, 7)),
    "blur-replicate": (lambda: fm.Blur(LARGE, "replicate"), (1, 9, 7)),
    "blur-constant": (lambda: fm.Blur(LARGE, "constant"), (2, 9, 7)),
    "blur-valid": (lambda: fm.Blur(KERNEL, "valid"), (3, 9, 7)),
    "blur-valid-large": (lambda: fm.Blur(LARGE, "valid"), (1, 17, 23)),
    "down-box": (lambda: fm.Downsampling(2, image_shape=(3, 6, 8)), (3, 6, 8)),
    "down-box-free": (lambda: fm.Downsampling(3), (1, 6, 9)),
    "down-kernel": (lambda: fm.Downsampling(2, KERNEL), (2, 6, 8)),
    "down-deficient": (
        lambda: fm.Downsampling(2, torch.full((1, 6), 1 / 6, dtype=torch.float64)),
        (1, 8, 12),
    ),
    "down-odd": (lambda: fm.Downsampling(3, KERNEL, "reflect", (1, 10, 7)), (1, 10, 7)),
    "down-valid": (lambda: fm.Downsampling(2, KERNEL, "valid"), (1, 10, 9)),
    "down-channels": (lambda: fm.Downsampling(2, KERNELS), (2, 6, 8)),
    "mask-entries": (lambda: fm.Inpainting(fm.bernoulli_mask((3, 9, 7), 0.4, rng())), (3, 9, 7)),
    "blur-separable": (lambda: fm.Blur(OUTER, "reflect"), (2, 9, 7)),
    "blur-separable-circular": (lambda: fm.Blur(OUTER, image_shape=(1, 9, 7)), (1, 9, 7)),
    "blur-channels": (lambda: fm.Blur(KERNELS, image_shape=(2, 9, 7)), (2, 9, 7)),
    "blur-channels-large": (lambda: fm.Blur(LARGES, "replicate"), (2, 9, 7)),
    "blur-varying": (lambda: fm.VaryingBlur(KERNELS, WEIGHTS), (3, 9, 7)),
    "blur-varying-large": (lambda: fm.VaryingBlur(LARGES, WEIGHTS, "reflect"), (1, 9, 7)),
    "blur-varying-valid": (lambda: fm.VaryingBlur(KERNELS, WEIGHTS, "valid"), (2, 9, 7)),
    "resize-down": (lambda: fm.Resize((2, 9, 7), (4, 3)), (2, 9, 7)),
    "resize-up": (lambda: fm.Resize((1, 5, 4), (9, 7), "lanczos"), (1, 5, 4)),
    "resize-mixed": (lambda: fm.Resize((3, 9, 4), (5, 11), "hamming"), (3, 9, 4)),
    "grey": (lambda: fm.greyscale(), (3, 9, 7)),
    "mixing-deficient": (
        lambda: fm.ChannelMixing(torch.ones(2, 3, dtype=torch.float64), (3, 4, 3)),
        (3, 4, 3),
    ),
    "channels": (lambda: fm.select_channels([2, 0], 4, (4, 5, 3)), (4, 5, 3)),
    "mixing": (lambda: fm.ChannelMixing(normal(3, 5), (5, 4, 3)), (5, 4, 3)),
    "mixing-tall": (lambda: fm.ChannelMixing(normal(4, 2)), (2, 4, 3)),
    "bayer": (lambda: fm.BayerMosaic("GRBG", (3, 9, 7)), (3, 9, 7)),
    "bayer-free": (lambda: fm.BayerMosaic("BGGR"), (3, 4, 6)),
}

TOMOGRAPHY: dict[str, Case] = {
    "tomography": (lambda: fm.Tomography(SMALL, [0, 30.0, 45, 90, 135, 200]), (1, 9, 7)),
    "tomography-mm": (
        lambda: fm.Tomography(
            (8, 5), [10.0, 70], detectors=6, detector_spacing=0.7, pixel_spacing=(0.5, 0.8)
        ),
        (1, 8, 5),
    ),
    "fan-flat": (
        lambda: fm.FanBeam(SMALL, [0, 30.0, 45, 90, 200], source_origin=20, source_detector=33),
        (1, 9, 7),
    ),
    "fan-curved": (
        lambda: fm.FanBeam(
            (8, 5), [10.0, 70, 300], source_origin=9, source_detector=14, detector="curved",
            detectors=11, detector_axis=4.3, pixel_spacing=(0.5, 0.8),
        ),
        (1, 8, 5),
    ),
    "slices": (
        lambda: fm.SliceStack(
            fm.FanBeam(SMALL, [0, 100.0], source_origin=20, source_detector=33), 3
        ),
        (1, 3, 9, 7),
    ),
    "slices-mri": (lambda: fm.SliceStack(fm.MRI(SAMPLED), 9), (1, 9, 9, 7)),
    "slices-mri-lines": (lambda: fm.SliceStack(fm.MRI(LINES, (9, 7)), 3), (1, 3, 9, 7)),
    "slices-coils": (lambda: fm.SliceStack(fm.MultiCoilMRI(LINES, MAPS), 2), (1, 2, 9, 7)),
    "slices-mask": (lambda: fm.SliceStack(fm.Inpainting(SOFT, channels=2), 9), (2, 9, 9, 7)),
}  # fmt: skip

SAMPLED = torch.rand(9, 7, generator=rng(5)) < 0.5
LINES = torch.tensor([True, False, True, True, False, False, True])
PHASE = normal(9, 7, seed=6)
MAPS = normal(3, 9, 7, dtype=torch.complex128, seed=7)
RADIAL = fm.radial_trajectory(5, 8)

MRI: dict[str, Case] = {
    "fourier": (lambda: fm.CenteredFourier((2, 9, 7)), (2, 9, 7)),
    "fourier-free": (lambda: fm.CenteredFourier(), (1, 8, 6)),
    "mri": (lambda: fm.MRI(SAMPLED), (1, 9, 7)),
    "mri-lines": (lambda: fm.MRI(LINES), (1, 9, 7)),
    "mri-lines-fixed": (lambda: fm.MRI(LINES, (9, 7)), (1, 9, 7)),
    "mri-coils": (lambda: fm.MultiCoilMRI(SAMPLED, MAPS), (1, 9, 7)),
    "mri-coils-lines": (lambda: fm.MultiCoilMRI(LINES, MAPS), (1, 9, 7)),
    "coils": (lambda: fm.CoilSensitivities(MAPS * (PHASE > 0)), (1, 9, 7)),
    "real": (lambda: fm.RealToComplex(), (3, 9, 7)),
    "real-phase": (lambda: fm.RealToComplex(PHASE), (2, 9, 7)),
    "channels-complex": (lambda: fm.ChannelsToComplex(), (2, 9, 7)),
    "real-fixed": (lambda: fm.RealToComplex(PHASE, (2, 9, 7)), (2, 9, 7)),
    "real-vector": (lambda: fm.RealToComplex(image_shape=(5,)), (5,)),
    "channels-fixed": (lambda: fm.ChannelsToComplex((2, 9, 7)), (2, 9, 7)),
    "mri-real": (lambda: fm.MRI(SAMPLED) @ fm.RealToComplex(PHASE), (1, 9, 7)),
    "mri-channels": (lambda: fm.MRI(SAMPLED) @ fm.ChannelsToComplex(), (2, 9, 7)),
    "mri-coils-channels": (
        lambda: fm.MultiCoilMRI(LINES, MAPS) @ fm.ChannelsToComplex(),
        (2, 9, 7),
    ),
    "nufft": (lambda: fm.Nufft((9, 7), RADIAL), (2, 9, 7)),
    "nufft-coils": (
        lambda: fm.Nufft((9, 7), RADIAL) @ fm.CoilSensitivities(MAPS) @ fm.RealToComplex(PHASE),
        (1, 9, 7),
    ),
}

ROWS = torch.tensor([5, 0, 17, 40, 3])
SENSING: dict[str, Case] = {
    "hadamard": (lambda: fm.HadamardTransform((2, 8, 4)), (2, 8, 4)),
    "cosine": (lambda: fm.CosineTransform((2, 9, 4)), (2, 9, 4)),
    "cosine-line": (lambda: fm.CosineTransform((1, 1, 5)), (1, 1, 5)),
    "fourier-real": (lambda: fm.FourierTransform((2, 9, 4)), (2, 9, 4)),
    "fourier-complex": (lambda: fm.FourierTransform((2, 4, 7), "complex"), (2, 4, 7)),
    "random-convolution": (lambda: fm.RandomConvolution((2, 9, 4), rng()), (2, 9, 4)),
    "random-signs": (lambda: fm.RandomSigns((2, 9, 4), rng()), (2, 9, 4)),
    "rows-cosine": (lambda: fm.Subsampled(fm.CosineTransform((2, 9, 7)), ROWS), (2, 9, 7)),
    "rows-fourier-real": (
        lambda: fm.Subsampled(fm.FourierTransform((2, 6, 8)), SOFT[:6].repeat(1, 2)[:, :8] > 0.5),
        (2, 6, 8),
    ),
    "rows-fourier-complex": (
        lambda: fm.Subsampled(fm.FourierTransform((1, 9, 7), "complex"), SOFT > 0.5),
        (1, 9, 7),
    ),
    "rows-convolution": (
        lambda: fm.Subsampled(fm.RandomConvolution((2, 9, 7), rng()), SOFT > 0.5),
        (2, 9, 7),
    ),
    "rows-scrambled": (
        lambda: fm.Subsampled(
            fm.HadamardTransform((2, 8, 8)) @ fm.RandomSigns((2, 8, 8), rng()), ROWS
        ),
        (2, 8, 8),
    ),
    "rows-blurred": (
        lambda: fm.Subsampled(fm.Blur(KERNEL, image_shape=(1, 9, 7)), ROWS),
        (1, 9, 7),
    ),
    "single-pixel": (lambda: fm.SinglePixel((2, 4, 8), 11), (2, 4, 8)),
    "single-pixel-all": (lambda: fm.SinglePixel((1, 8, 4), ordering="natural"), (1, 8, 4)),
    "single-pixel-one": (lambda: fm.SinglePixel((2, 4, 4), 1), (2, 4, 4)),
    "single-pixel-two": (lambda: fm.SinglePixel((2, 4, 4), 2), (2, 4, 4)),
    "single-pixel-signed": (
        lambda: fm.SinglePixel((2, 4, 8), 11, values="signed", ordering="sequency"),
        (2, 4, 8),
    ),
    "gaussian-sensing": (lambda: fm.gaussian_sensing(6, (2, 3, 4), rng()), (2, 3, 4)),
    "bernoulli-sensing": (lambda: fm.bernoulli_sensing(6, (2, 3, 4), rng()), (2, 3, 4)),
}

PROBE = normal(4, 3, dtype=torch.complex128, seed=11)
WINDOWS = torch.tensor([[0, 0], [3, 2], [5, 1], [2, 4]])

WAVES: dict[str, Case] = {
    "coded-diffraction": (
        lambda: fm.CodedDiffraction(fm.coded_masks(3, SMALL, generator=rng())),
        (2, 9, 7),
    ),
    "coded-diffraction-real": (
        lambda: fm.CodedDiffraction(SOFT[None]) @ fm.RealToComplex(),
        (1, 9, 7),
    ),
    "angular-spectrum": (lambda: fm.AngularSpectrum(0.6, 2.0, 30.0), (2, 9, 7)),
    "angular-spectrum-fine": (lambda: fm.AngularSpectrum(0.6, 0.3, 0.1), (1, 9, 7)),
    "ptychography": (lambda: fm.Ptychography(PROBE, WINDOWS, SMALL), (1, 9, 7)),
    "born": (
        lambda: fm.BornScattering(fm.Scene(SMALL, 0.1, 0.8, 2, 3, 1.0, "line")),
        (1, 9, 7),
    ),
}

FAMILIES = (LINEAR, IMAGING, TOMOGRAPHY, MRI, SENSING, WAVES)
OPERATORS = {name: case for family in FAMILIES for name, case in family.items()}

# Operators of any size, and those that were built with theirs, shape and all.
WITH_SIZE: dict[str, tuple[Callable[[], fm.LinearOperator], Callable[[], fm.LinearOperator]]] = {
    "identity": (lambda: fm.Identity(), lambda: fm.Identity((3, 9, 7))),
    "mask": (lambda: fm.Inpainting(SOFT), lambda: fm.Inpainting(SOFT, channels=3)),
    "blur": (lambda: fm.Blur(KERNEL), lambda: fm.Blur(KERNEL, image_shape=(2, 9, 7))),
    "down": (lambda: fm.Downsampling(3), lambda: fm.Downsampling(3, image_shape=(2, 9, 6))),
    "grey": (lambda: fm.greyscale(), lambda: fm.greyscale(image_shape=(3, 9, 7))),
    "bayer": (lambda: fm.BayerMosaic(), lambda: fm.BayerMosaic(image_shape=(3, 9, 7))),
    "fourier": (lambda: fm.CenteredFourier(), lambda: fm.CenteredFourier((1, 9, 7))),
    "mri-lines": (lambda: fm.MRI(LINES), lambda: fm.MRI(LINES, (9, 7))),
    "real": (lambda: fm.RealToComplex(PHASE), lambda: fm.RealToComplex(PHASE, (2, 9, 7))),
    "channels": (lambda: fm.ChannelsToComplex(), lambda: fm.ChannelsToComplex((2, 9, 7))),
    "scaled": (
        lambda: -2 * fm.Downsampling(3),
        lambda: -2 * fm.Downsampling(3, image_shape=(1, 9, 6)),
    ),
    "normal": (
        lambda: fm.Downsampling(3).normal,
        lambda: fm.Downsampling(3, image_shape=(1, 9, 6)).normal,
    ),
    "composed": (
        lambda: fm.MRI(LINES) @ fm.ChannelsToComplex(),
        lambda: fm.MRI(LINES, (9, 7)) @ fm.ChannelsToComplex((2, 9, 7)),
    ),
    "composed-in-part": (
        lambda: fm.Inpainting(SOFT) @ fm.CosineTransform((2, 9, 7)),
        lambda: fm.Inpainting(SOFT, channels=2) @ fm.CosineTransform((2, 9, 7)),
    ),
}

Shape3 = tuple[int, int, int]


def powers_of_two(shape: Shape3) -> bool:
    return all(n & (n - 1) == 0 for n in shape[1:])


SIZES = ((1, 1), (2, 3), (17, 23), (64, 64), (61, 47))
CHANNELS = (1, 3, 4)

# name: maker of an operator for images (C, H, W) of every size above, or None where it has none.
# To join is one line: GRID["name"] = lambda shape: ..., built from `shape` alone.
GRID: dict[str, Callable[[Shape3], fm.LinearOperator | None]] = {
    "identity": lambda shape: fm.Identity(shape),
    "mask": lambda shape: fm.Inpainting(fm.random_mask(shape[1:], 0.5, rng())),
    "blur-circular": lambda shape: fm.Blur(KERNEL),
    "blur-reflect": lambda shape: fm.Blur(KERNEL, "reflect"),
    "blur-replicate": lambda shape: fm.Blur(BROAD, "replicate"),
    "blur-constant": lambda shape: fm.Blur(BROAD, "constant"),
    "blur-valid": lambda shape: fm.Blur(KERNEL[: shape[1], : shape[2]], "valid"),
    "down-kernel": lambda shape: fm.Downsampling(2, KERNEL, "reflect", shape),
    "mask-entries": lambda shape: fm.Inpainting(fm.random_mask(shape, 0.5, rng())),
    "blur-separable": lambda shape: fm.Blur(fm.gaussian_kernel(1.5), "reflect"),
    "blur-channels": lambda shape: fm.Blur(BROAD.expand(shape[0], -1, -1), "replicate"),
    "blur-varying": lambda shape: fm.VaryingBlur(
        BROAD.expand(4, -1, -1), fm.grid_weights(*shape[1:], 2, 2), "constant"
    ),
    "resize": lambda shape: fm.Resize(shape, (shape[1] // 2 + 1, 2 * shape[2])),
    "mixing": lambda shape: fm.ChannelMixing(normal(3, shape[0])),
    "bayer": lambda shape: fm.BayerMosaic() if shape[0] == 3 else None,
    "down-1": lambda shape: fm.Downsampling(1),
    "down-box": lambda shape: fm.Downsampling(4) if shape[1] % 4 == 0 else None,
    "mask-soft": lambda shape: fm.Inpainting(
        torch.rand(shape[1:], generator=rng(1), dtype=torch.float64)
    ),
    "grey": lambda shape: fm.greyscale() if shape[0] == 3 else None,
    "matrix": lambda shape: (
        fm.MatrixOperator(normal(5, math.prod(shape)), shape) if shape[1] < 61 else None
    ),
    "from-function": lambda shape: fm.from_function(slopes, shape) if shape[2] > 1 else None,
    "tomography": lambda shape: (
        fm.Tomography(shape[1:], [0, 30.0, 90, 200]) if shape[0] == 1 else None
    ),
    "fan": lambda shape: (
        fm.FanBeam(shape[1:], [0, 30.0, 90, 200], source_origin=90, source_detector=120)
        if shape[0] == 1
        else None
    ),
    "fan-curved": lambda shape: (
        fm.FanBeam(shape[1:], [10.0, 300], source_origin=90, source_detector=120, detector="curved")
        if shape[0] == 1
        else None
    ),
}


def lines(width: int) -> Tensor:
    return fm.random_lines(width, 1.5, 1, rng())


def coil_maps(shape: Shape3) -> Tensor:
    return normal(*shape, dtype=torch.complex128, seed=7)


GRID |= {
    "fourier": lambda shape: fm.CenteredFourier(),
    "mri": lambda shape: fm.MRI(fm.random_mask(shape[1:], 0.5, rng())) if shape[0] == 1 else None,
    "mri-coils": lambda shape: (
        fm.MultiCoilMRI(lines(shape[2]), coil_maps(shape)) if shape[0] == 1 else None
    ),
    "nufft": lambda shape: fm.Nufft(shape[1:], RADIAL),
    "coils-adjoint": lambda shape: fm.CoilSensitivities(coil_maps(shape)).T,
    "real": lambda shape: fm.RealToComplex(normal(*shape[1:], seed=6)),
    "channels-adjoint": lambda shape: fm.ChannelsToComplex().T if shape[0] == 1 else None,
    "cosine": fm.CosineTransform,
    "fourier-real": fm.FourierTransform,
    "fourier-complex": lambda shape: fm.FourierTransform(shape, "complex"),
    "random-convolution": lambda shape: fm.RandomConvolution(shape, rng()),
    "rows-fourier": lambda shape: fm.Subsampled(
        fm.FourierTransform(shape), fm.random_mask(shape[1:], 0.4, rng())
    ),
    "hadamard": lambda shape: fm.HadamardTransform(shape) if powers_of_two(shape) else None,
    "single-pixel": lambda shape: fm.SinglePixel(shape) if powers_of_two(shape) else None,
}

GRID |= {
    "angular-spectrum": lambda shape: fm.AngularSpectrum(0.6, 2.0, 30.0),
    "coded-diffraction": lambda shape: fm.CodedDiffraction(
        fm.coded_masks(2, shape[1:], generator=rng())
    ),
    "born": lambda shape: (
        fm.BornScattering(fm.Scene(shape[1:], 0.1, 0.8, 3, 4, 9.0)) if shape[0] == 1 else None
    ),
    "ptychography": lambda shape: (
        fm.Ptychography(PROBE[:1], WINDOWS[:3], shape[1:]) if min(shape[1:]) > 5 else None
    ),
}
