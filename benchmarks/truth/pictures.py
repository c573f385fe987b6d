"""What the families of pictures measure of one of shape (1, H, W), with noise sigma.

pixels: so many of them; coarse: means of boxes of factor x factor pixels; blurred: all pixels
behind a Gaussian of a width in pixels; scanned: line integrals at angles in degrees, 2 pixels
apart, in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from forward_models import (
    Blur,
    Downsampling,
    Inpainting,
    LinearGaussian,
    Tomography,
    gaussian_kernel,
    random_mask,
)

Shape = tuple[int, int, int]


def pixels(shape: Shape, count: int, sigma: float) -> LinearGaussian:
    share = count / (shape[1] * shape[2])
    mask = random_mask(shape[1:], share, torch.Generator().manual_seed(5))
    return LinearGaussian(Inpainting(mask.expand(shape)), sigma)


def coarse(shape: Shape, factor: int, sigma: float) -> LinearGaussian:
    return LinearGaussian(Downsampling(factor, image_shape=shape), sigma)


def blurred(shape: Shape, width: float, sigma: float) -> LinearGaussian:
    return LinearGaussian(Blur(gaussian_kernel(width), "circular", image_shape=shape), sigma)


def scanned(shape: Shape, angles: Sequence[float], sigma: float) -> LinearGaussian:
    return LinearGaussian(Tomography(shape[1:], angles, detector_spacing=2.0), sigma)
