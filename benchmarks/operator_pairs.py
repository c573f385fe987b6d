"""The operators that operators.py times, each beside the same operator of its peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import forward_models as fm

Projector = tuple[Callable[[Tensor], object], Callable[[Tensor], object] | None]


@dataclass(frozen=True)
class Pair:
    """One operator of ours and the peers that compute the same.

    make: side of a square image -> our operator. peers: name -> (side, our operator) -> (forward,
    adjoint); it raises ImportError if the peer is not installed. note: why ours is slower, if so.
    """

    name: str
    make: Callable[[int], Any]
    peers: dict[str, Callable[[int, Any], Projector]] = field(default_factory=dict)
    channels: int = 3
    complex: bool = False
    note: str = ""

    def shape(self, size: int) -> tuple[int, ...]:
        return (self.channels, size, size)


def _physics() -> Any:
    import deepinv.physics

    return deepinv.physics


def _linear(other: Any) -> Projector:
    return (lambda x: other.A(x), lambda y: other.A_adjoint(y))


def _random_kernel(size: int) -> Tensor:
    kernel = torch.rand(size, size, generator=torch.Generator().manual_seed(0)).double()
    return kernel / kernel.sum()


KERNELS = {
    "Gaussian 7x7": fm.gaussian_kernel(1.0),  # an outer product
    "7x7": _random_kernel(7),
    "31x31": _random_kernel(31),
}
SMALL = KERNELS["Gaussian 7x7"]


def _mask(size: int) -> Tensor:
    return fm.random_mask((size, size), 0.5, torch.Generator().manual_seed(0))


def _blur(name: str, padding: Any) -> Pair:
    kernel = KERNELS[name].float()[None, None]
    return Pair(
        f"blur {name} {padding}",
        lambda n: fm.Blur(KERNELS[name], padding),
        {
            "deepinv": lambda n, A: _linear(
                _physics().BlurFFT(img_size=(3, n, n), filter=kernel)
                if padding == "circular"
                else _physics().Blur(filter=kernel, padding=padding)
            ),
        },
    )


def _coil_maps(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, size, size, generator=generator, dtype=torch.complex64)


def _channels(y: Tensor) -> Tensor:
    """Complex (B, C, H, W) as real (B, 2, C, H, W), without a copy."""
    return torch.view_as_real(y).movedim(-1, 1)


def _single_coil(size: int, A: Any) -> Projector:
    other = _physics().MRI(mask=_mask(size).float()[None, None], img_size=(2, size, size))
    return (lambda x: other.A(x), lambda y: other.A_adjoint(_channels(y)[:, :, 0]))


def _multi_coil(size: int, A: Any) -> Projector:
    other = _physics().MultiCoilMRI(
        mask=_mask(size).float()[None, None], coil_maps=_coil_maps(size)[None],
        img_size=(2, size, size),
    )  # fmt: skip
    return (
        lambda x: other.A(x),
        lambda y: other.A_adjoint(_channels(y)),
    )


def _spokes(size: int) -> Tensor:
    return fm.radial_trajectory(size // 4, 2 * size)


def _finufft(size: int, A: Any) -> Projector:
    import finufft

    k = 2 * torch.pi * _spokes(size).float()
    rows, columns = (axis.contiguous().numpy() for axis in k.T)
    settings = {"eps": 1e-6, "nthreads": torch.get_num_threads()}
    return (
        lambda x: finufft.nufft2d2(rows, columns, x[:, 0].numpy(), isign=-1, **settings),
        lambda y: finufft.nufft2d1(
            rows, columns, y[:, 0].numpy(), (size, size), isign=1, **settings
        ),
    )


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _varying_kernels() -> Tensor:
    return torch.stack([fm.gaussian_kernel(width, 15) for width in (0.5, 1.0, 1.5, 2.0)])


def _varying(size: int, A: Any) -> Projector:
    weights = fm.grid_weights(size, size, 2, 2).float()[None, None].expand(1, 3, 4, size, size)
    kernels = _varying_kernels().float()[None, None].expand(1, 3, 4, 15, 15)
    # deepinv has no zero padding here; reflection costs the same.
    other = _physics().SpaceVaryingBlur(filters=kernels, multipliers=weights, padding="reflect")
    return _linear(other)


def _interpolated(size: int, A: Any) -> Projector:
    from torch.nn.functional import interpolate

    coarse = (size // 4, size // 4)
    return (lambda x: interpolate(x, coarse, mode="bicubic", antialias=True), None)


def _kornia_blur(size: int, A: Any) -> Projector:
    from kornia.filters import filter2d

    kernel = SMALL.float()[None]
    return (lambda x: filter2d(x, kernel, border_type="reflect"), None)


def _mosaic(size: int, A: Any) -> Projector:
    # It keeps the mosaic as three channels with zeros.
    other = _physics().Demosaicing(img_size=(3, size, size))
    return (lambda x: other.A(x), None)


def _matrix(size: int, A: Any) -> Projector:
    return _linear(_physics().CompressedSensing(m=100, img_size=(1, size, size)))


def _camera(size: int, A: Any) -> Projector:
    other = _physics().SinglePixelCamera(
        m=size * size // 4, img_size=(1, size, size), ordering="cake_cutting"
    )
    # It returns its measurement on the grid of the image.
    like = other.A(torch.zeros(1, 1, size, size))
    grids: dict[int, Tensor] = {}

    def adjoint(y: Tensor) -> object:
        grid = grids.setdefault(len(y), like.expand(len(y), *like.shape[1:]).contiguous())
        return other.A_adjoint(grid)

    return (lambda x: other.A(x), adjoint)


def _scipy_cosine(size: int, A: Any) -> Projector:
    from scipy.fft import dctn, idctn

    axes = {"axes": (-2, -1), "norm": "ortho"}
    return (lambda x: dctn(x.numpy(), **axes), lambda y: idctn(y.numpy(), **axes))


def _structured(size: int, A: Any) -> Projector:
    other = _physics().StructuredRandom(
        img_size=(1, size, size), output_size=(1, size // 2, size // 2)
    )
    return (lambda x: other.A(x), lambda y: other.A_adjoint(y.reshape(-1, 1, size // 2, size // 2)))


def _random_rows(size: int) -> fm.LinearOperator:
    shape = (1, size, size)
    rows = torch.randperm(size * size, generator=_seeded())[: size * size // 4]
    signs = fm.RandomSigns(shape, _seeded())
    return fm.Subsampled(fm.CosineTransform(shape) @ signs, rows)


def with_gradient(forward: Callable[[Tensor], Tensor]) -> Projector:
    """A nonlinear map and, in place of an adjoint, the gradient of |f(x)|^2 by autograd."""

    def gradient(x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(forward(leaf).square().sum(), leaf)[0]

    return forward, gradient


def _phase_retrieval(size: int, A: Any) -> Projector:
    physics = _physics()
    B = physics.LinearPhysics(
        A=lambda x: torch.fft.fft2(torch.nn.functional.pad(x, [size // 2] * 4), norm="ortho"),
        A_adjoint=None,
    )
    other = physics.PhaseRetrieval(B=B)
    return with_gradient(lambda x: other.A(x))


def _kornia_jpeg(size: int, A: Any) -> Projector:
    from kornia.enhance import jpeg_codec_differentiable

    quality = torch.tensor([50.0])
    return with_gradient(lambda x: jpeg_codec_differentiable(x, quality))


def _ptychography(size: int) -> Any:
    probe = fm.gaussian_kernel(size / 16, size // 4).to(torch.complex128)
    steps = torch.linspace(0, size - size // 4, 5).round().long()
    return fm.Ptychography(probe, torch.cartesian_prod(steps, steps), (size, size))


PAIRS: list[Pair] = [
    Pair(
        "mask",
        lambda n: fm.Inpainting(_mask(n)),
        {
            "deepinv": lambda n, A: _linear(
                _physics().Inpainting(img_size=(3, n, n), mask=_mask(n).float().expand(3, n, n))
            )
        },
    ),
    *(
        _blur(name, padding)
        for name in KERNELS
        for padding in ("circular", "reflect", "replicate", "constant", "valid")
    ),
    Pair(
        "downsampling x4 by a kernel",
        lambda n: fm.Downsampling(4, SMALL),
        {
            "deepinv": lambda n, A: _linear(
                _physics().Downsampling(
                    img_size=(3, n, n),
                    factor=4,
                    filter=SMALL.float()[None, None],
                    padding="circular",
                )
            )
        },
    ),
    Pair(
        "MRI, one coil",
        lambda n: fm.MRI(_mask(n)) @ fm.ChannelsToComplex(),
        {"deepinv": _single_coil},
        channels=2,
    ),
    Pair(
        "MRI, 8 coils",
        lambda n: fm.MultiCoilMRI(_mask(n), _coil_maps(n)) @ fm.ChannelsToComplex(),
        {"deepinv": _multi_coil},
        channels=2,
    ),
    Pair(
        "MRI, n / 4 radial spokes of 2 n samples",
        lambda n: fm.Nufft((n, n), _spokes(n)),
        {"finufft alone": _finufft},
        channels=1,
        complex=True,
    ),
    Pair(
        "blur Gaussian 7x7 reflect, kornia",
        lambda n: fm.Blur(SMALL, "reflect"),
        {"kornia": _kornia_blur},
    ),
    Pair(
        "blur varying, 4 kernels 15x15",
        lambda n: fm.VaryingBlur(_varying_kernels(), fm.grid_weights(n, n, 2, 2)),
        {"deepinv": _varying},
    ),
    Pair("downsampling x4, boxes", lambda n: fm.Downsampling(4)),
    Pair(
        "resize x1/4, bicubic",
        lambda n: fm.Resize((3, n, n), (n // 4, n // 4)),
        {
            "deepinv": lambda n, A: _linear(_physics().DownsamplingMatlab(factor=4)),
            "torch": _interpolated,
        },
    ),
    Pair(
        "grey",
        lambda n: fm.greyscale(),
        {"deepinv": lambda n, A: _linear(_physics().Decolorize())},
    ),
    Pair(
        "Bayer mosaic",
        lambda n: fm.BayerMosaic(),
        {
            "deepinv": _mosaic,
        },
        note="ours adds three sampled channels into one; the peer multiplies by a mask and keeps "
        "three channels with zeros",
    ),
    Pair(
        "matrix, 100 rows",
        lambda n: fm.gaussian_sensing(100, (1, n, n), _seeded()),
        {"deepinv": _matrix},
        channels=1,
    ),
    Pair(
        "single pixel, n^2 / 4 patterns",
        lambda n: fm.SinglePixel((1, n, n), n * n // 4),
        {"deepinv": _camera},
        channels=1,
    ),
    Pair(
        "random signs, n^2 / 4 cosine rows",
        _random_rows,
        {"deepinv (sines along rows)": _structured},
        channels=1,
        note="a two-dimensional transform; the peer's is one-dimensional, along the rows only",
    ),
    Pair("random convolution", lambda n: fm.RandomConvolution((1, n, n), _seeded()), channels=1),
    Pair(
        "phase retrieval",
        lambda n: fm.PhaseRetrieval(2.0, "intensity"),
        {"deepinv": _phase_retrieval},
        channels=1,
    ),
    Pair("JPEG, quality 50", lambda n: fm.JPEG(50), {"kornia": _kornia_jpeg}),
    Pair("ptychography, 25 probes", _ptychography, channels=1, complex=True),
    Pair(
        "cosine transform",
        lambda n: fm.CosineTransform((1, n, n)),
        {"scipy": _scipy_cosine},
        channels=1,
        note="torch has no cosine transform: ours is made of its Fourier transforms, on any device "
        "and differentiable; scipy's is native, on a CPU alone and without derivatives",
    ),
    Pair("Hadamard transform", lambda n: fm.HadamardTransform((1, n, n)), channels=1),
    Pair("Fourier transform", lambda n: fm.FourierTransform((1, n, n)), channels=1),
    Pair("channel mixing 3 to 2", lambda n: fm.ChannelMixing(torch.ones(2, 3) / 3)),
    Pair(
        "coded diffraction, 4 masks",
        lambda n: fm.CodedDiffraction(fm.coded_masks(4, (n, n), generator=_seeded())),
        channels=1,
        complex=True,
    ),
    Pair(
        "angular spectrum",
        lambda n: fm.AngularSpectrum(0.5, 2.0, 600.0),
        channels=1,
        complex=True,
    ),
    Pair("saturation", lambda n: fm.HighDynamicRange()),
    Pair("blur in light", lambda n: fm.CameraBlur(SMALL)),
]
