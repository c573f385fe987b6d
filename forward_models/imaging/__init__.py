"""What a camera does to a picture: masks, blur, sampling, colour."""

from .blur import Blur
from .color import BayerMosaic, ChannelMixing, gaussian_responses, greyscale, select_channels
from .kernels import (
    anisotropic_gaussian_kernel,
    disk_kernel,
    gaussian_kernel,
    motion_kernel,
    shake_kernel,
)
from .masking import Inpainting
from .masks import bernoulli_mask, box_mask, centre_box_mask, random_mask
from .resampling import Downsampling
from .resize import Resize
from .varying_blur import VaryingBlur, grid_weights

__all__ = [
    "BayerMosaic",
    "Blur",
    "ChannelMixing",
    "Downsampling",
    "Inpainting",
    "Resize",
    "VaryingBlur",
    "anisotropic_gaussian_kernel",
    "bernoulli_mask",
    "box_mask",
    "centre_box_mask",
    "disk_kernel",
    "gaussian_kernel",
    "gaussian_responses",
    "greyscale",
    "grid_weights",
    "motion_kernel",
    "random_mask",
    "select_channels",
    "shake_kernel",
]
