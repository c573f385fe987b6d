"""The forward model and the measurement that the options of a command describe."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forward_models import (
    Blur,
    Downsampling,
    Inpainting,
    LinearGaussian,
    LinearOperator,
    Tomography,
    gaussian_kernel,
    hounsfield_sinogram,
    hounsfield_to_attenuation,
    random_mask,
)
from priors import NetworkPrior, Prior

from .io import Image, check_file, read_array, read_image


@dataclass(frozen=True)
class Measurement:
    """A measured image.

    Attributes:
        model: p(y | x0), x0 in the prior's units.
        y: (1, C, ...), linear in x0.
        shown: (C, ...), the measurement in its own unit.
        truth: (1, C, H, W), where the measurement is a simulated one.
        span: the data range of PSNR and SSIM: 1 for pictures, else that of the input.
    """

    model: LinearGaussian
    y: Tensor
    shown: Tensor
    truth: Tensor | None
    span: float


def measure(args: Namespace, prior: NetworkPrior) -> Measurement:
    """Read the measurement, or the image and simulate its measurement."""
    _check_noise(args)
    image = read_image(args.input)
    if image.units == "hounsfield" and not args.simulate:
        raise ValueError(f"{args.input}: a CT slice is an image, no measurement; add --simulate")
    _check_units(args, image, prior)
    data = _fitted(args, image.data, prior)
    generator = torch.Generator().manual_seed(args.seed)
    operator = _operator(args, data, image, prior, generator)
    model, y, shown = _observe(args, operator, data[None], prior, generator)
    low, high = data_range(prior)
    span = 1.0 if image.units == "intensity" else float(data.max() - data.min()) or high - low
    return Measurement(model, y, shown[0], data[None] if args.simulate else None, span)


def forward_model(args: Namespace, prior: Prior) -> LinearGaussian:
    """The forward model of images of the prior's shape (C, H, W), in the prior's units."""
    _check_noise(args)
    hounsfield = in_hounsfield_units(prior)
    image = Image(torch.zeros(prior.event_shape), "hounsfield" if hounsfield else "raw")
    known = Namespace(**{**vars(args), "simulate": True})
    generator = torch.Generator().manual_seed(args.seed)
    operator = _operator(known, image.data, image, prior, generator)
    known.simulate = False
    return _observe(known, operator, operator.apply(image.data[None]), prior, generator)[0]


def _check_noise(args: Namespace) -> None:
    if not 0 < args.sigma < math.inf:
        raise ValueError(f"--sigma {args.sigma}: the noise must be positive; state a small one")


def data_range(prior: Prior) -> tuple[float, float]:
    """What the prior's images span."""
    assert prior.data_range is not None  # a network's prior always states it
    return prior.data_range


def in_hounsfield_units(prior: Prior) -> bool:
    """A prior whose values start at air's -1000 HU or below is one of CT in Hounsfield units."""
    return prior.data_range is not None and prior.data_range[0] <= -1000


def centre(image: Tensor, rows: int, columns: int) -> Tensor:
    """The middle (..., rows, columns) of an image."""
    top, left = (image.shape[-2] - rows) // 2, (image.shape[-1] - columns) // 2
    return image[..., top : top + rows, left : left + columns].contiguous()


def _check_units(args: Namespace, image: Image, prior: NetworkPrior) -> None:
    low, high = data_range(prior)
    if image.units == "hounsfield" and not in_hounsfield_units(prior):
        raise ValueError(
            f"{args.input}: is in Hounsfield units, the prior's images span [{low:g}, {high:g}]; "
            "use a CT prior"
        )
    if image.units == "intensity" and (low, high) != (0.0, 1.0):
        raise ValueError(
            f"{args.input}: is a picture in [0, 1], the prior's images span [{low:g}, {high:g}]; "
            "say --data-range 0 1 if they are the same pictures, or pass an .npy in those units"
        )
    wide = high - low
    least, most = float(image.data.min()), float(image.data.max())
    if args.simulate and not (low - wide <= least and most <= high + wide):
        raise ValueError(
            f"{args.input}: spans [{least:g}, {most:g}], the prior's images [{low:g}, {high:g}]; "
            "convert it to the prior's units"
        )


def _fitted(args: Namespace, data: Tensor, prior: NetworkPrior) -> Tensor:
    """The image or measurement, in a size whose image the prior takes."""
    if args.forward == "ct" and not args.simulate:
        return data
    if args.forward == "downsample" and (args.factor is None or args.factor < 1):
        raise ValueError("--factor: downsample needs a whole number of at least 1; state it")
    factor = args.factor if args.forward == "downsample" else 1
    enlarge = 1 if args.simulate else factor
    channels, height, width = data.shape
    if channels != prior.event_shape[0]:
        raise ValueError(
            f"{args.input}: has {channels} channels, the prior takes {prior.event_shape[0]}; "
            "convert it, or choose another prior"
        )
    if prior.any_size:
        grain = math.lcm(prior.stride, factor)
        allowed = f"multiples of {grain}"
        size = tuple(n * enlarge // grain * grain for n in (height, width))
    else:
        allowed = f"{prior.event_shape[1]} x {prior.event_shape[2]}"
        size = prior.event_shape[1:]
    if (height * enlarge, width * enlarge) == size:
        return data
    rows, columns = size[0] // enlarge, size[1] // enlarge
    if not args.crop or min(rows, columns) < 1 or rows > height or columns > width:
        advice = "choose another image" if args.crop else "add --crop, or resize it"
        raise ValueError(
            f"{args.input}: the image is {height * enlarge} x {width * enlarge}, the prior takes "
            f"{allowed} pixels; {advice}"
        )
    return centre(data, rows, columns)


def _operator(
    args: Namespace, data: Tensor, image: Image, prior: Prior, generator: torch.Generator
) -> LinearOperator:
    if args.forward == "blur":
        return Blur(_kernel(args), args.padding)
    if args.forward == "downsample":
        return Downsampling(args.factor)
    if args.forward == "ct":
        return _tomography(args, data, image, prior)
    if (args.mask is None) == (args.keep is None) or (args.keep and not args.simulate):
        raise ValueError(
            "--forward inpaint: needs --mask, or --keep where y is simulated (reconstruct: with "
            "--simulate); give one of them"
        )
    if args.mask is None:
        return Inpainting(random_mask(tuple(data.shape[-2:]), args.keep, generator))
    mask = _read_mask(args.mask, tuple(image.data.shape[-2:]))
    return Inpainting(centre(mask, *data.shape[-2:]))


def _kernel(args: Namespace) -> Tensor:
    if (args.blur_sigma is None) == (args.kernel is None):
        raise ValueError("--forward blur: needs --blur-sigma or --kernel; give one of them")
    if args.kernel is None:
        return gaussian_kernel(args.blur_sigma)
    kernel = read_image(args.kernel)
    if kernel.data.shape[0] != 1 or not float(kernel.data.sum()) > 0:
        raise ValueError(f"{args.kernel}: a kernel has one channel and a positive sum; fix it")
    taps = kernel.data[0].double()
    return taps if kernel.units == "raw" else taps / taps.sum()


def _read_mask(path: Path, size: tuple[int, ...]) -> Tensor:
    """A bool mask (H, W) of the image as read."""
    if path.suffix == ".npy":
        values = torch.from_numpy(read_array(path)).double()
    else:
        values = read_image(path).data.amax(0).double()
    if tuple(values.shape) != size:
        raise ValueError(
            f"{path}: has shape {tuple(values.shape)}, the image {size}; make them one"
        )
    levels = values.unique().tolist()
    if len(levels) > 2 or levels[0] < 0 or levels[-1] <= 0 or (len(levels) == 2 and levels[0] != 0):
        raise ValueError(
            f"{path}: has {len(levels)} values, expected 0 (missing) and one other (seen); "
            "threshold it"
        )
    return values > 0


def _tomography(args: Namespace, data: Tensor, image: Image, prior: Prior) -> Tomography:
    angles = _angles(args)
    if prior.event_shape[0] != 1:
        raise ValueError(f"--prior {args.prior}: ct needs images of one channel; use a CT prior")
    spacing: Any = (image.spacing or 1.0) if args.spacing is None else args.spacing
    if args.simulate:
        return Tomography(tuple(data.shape[-2:]), angles, pixel_spacing=spacing)
    if data.shape[0] != 1 or data.shape[1] != len(angles):
        raise ValueError(
            f"{args.input}: a sinogram has shape (angles, detectors) = ({len(angles)}, any), got "
            f"{tuple(data.shape[1:])}; check --angles, or transpose it"
        )
    height, width = args.size or prior.event_shape[1:]
    return Tomography((height, width), angles, pixel_spacing=spacing, detectors=data.shape[2])


def _angles(args: Namespace) -> Tensor:
    """In degrees."""
    if (args.angles is None) == (args.angles_file is None):
        raise ValueError("--forward ct: needs --angles or --angles-file; give one of them")
    if args.angles is not None:
        if args.angles < 1:
            raise ValueError(f"--angles {args.angles}: must be at least 1; choose more")
        return torch.arange(args.angles, dtype=torch.float64) * (180 / args.angles)
    if args.angles_file.suffix == ".npy":
        return torch.from_numpy(read_array(args.angles_file))
    check_file(args.angles_file)
    words = args.angles_file.read_text(encoding="utf-8", errors="replace").split()
    try:
        return torch.tensor([float(word) for word in words], dtype=torch.float64)
    except ValueError as error:
        raise ValueError(f"{args.angles_file}: {error}; list degrees, one a line") from None


def _observe(
    args: Namespace,
    operator: LinearOperator,
    y: Tensor,
    prior: Prior,
    generator: torch.Generator,
) -> tuple[LinearGaussian, Tensor, Tensor]:
    """The model, y linear in the prior's units, and y as measured; y comes in as the input."""
    model = LinearGaussian(operator, args.sigma)
    if not (isinstance(operator, Tomography) and in_hounsfield_units(prior)):
        y = model.simulate(y, generator) if args.simulate else y
        return model, y, y
    if args.simulate:
        y = model.simulate(hounsfield_to_attenuation(y, args.mu_water), generator)
    linear, factor = hounsfield_sinogram(operator, y, args.mu_water)
    return LinearGaussian(operator, factor * args.sigma), linear, y
