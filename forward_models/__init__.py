"""How a measurement arises from an image: operators, noise, classifiers."""

from .algebra import AdjointOperator, Composition, Scaled, Stack, Sum
from .blur import Blur, gaussian_kernel, motion_kernel
from .forward_model import ForwardModel, TimeDependent
from .linear import SVD, LinearOperator
from .masking import Inpainting, box_mask, random_mask
from .matrix import Identity, MatrixOperator
from .noise import LinearGaussian
from .resampling import Downsampling
from .solvers import SolveInfo, conjugate_gradients

__all__ = [
    "SVD",
    "AdjointOperator",
    "Blur",
    "Composition",
    "Downsampling",
    "ForwardModel",
    "Identity",
    "Inpainting",
    "LinearGaussian",
    "LinearOperator",
    "MatrixOperator",
    "Scaled",
    "SolveInfo",
    "Stack",
    "Sum",
    "TimeDependent",
    "box_mask",
    "conjugate_gradients",
    "gaussian_kernel",
    "motion_kernel",
    "random_mask",
]
