"""What a camera does to a picture: masks, blur, sampling, colour."""

from .blur import Blur, gaussian_kernel, motion_kernel
from .masking import Inpainting, box_mask, random_mask
from .resampling import Downsampling

__all__ = [
    "Blur",
    "Downsampling",
    "Inpainting",
    "box_mask",
    "gaussian_kernel",
    "motion_kernel",
    "random_mask",
]
