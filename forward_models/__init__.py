"""How a measurement arises from an image: operators, noise, classifiers."""

from .algebra import AdjointOperator, Composition, Scaled, Stack, Sum
from .blur import Blur, gaussian_kernel, motion_kernel
from .classifier_network import (
    ConvClassifier,
    load_classifier,
    save_classifier,
    train_classifier,
)
from .classifiers import Classifier, NoisyClassifier
from .fbp import fbp
from .forward_model import ForwardModel, TimeDependent
from .hounsfield import (
    attenuation_to_hounsfield,
    hounsfield_sinogram,
    hounsfield_to_attenuation,
)
from .linear import SVD, LinearOperator
from .masking import Inpainting, box_mask, random_mask
from .matrix import Identity, MatrixOperator
from .noise import LinearGaussian
from .resampling import Downsampling
from .solvers import SolveInfo, conjugate_gradients
from .tomography import Tomography

__all__ = [
    "SVD",
    "AdjointOperator",
    "Blur",
    "Classifier",
    "Composition",
    "ConvClassifier",
    "Downsampling",
    "ForwardModel",
    "Identity",
    "Inpainting",
    "LinearGaussian",
    "LinearOperator",
    "MatrixOperator",
    "NoisyClassifier",
    "Scaled",
    "SolveInfo",
    "Stack",
    "Sum",
    "TimeDependent",
    "Tomography",
    "attenuation_to_hounsfield",
    "box_mask",
    "conjugate_gradients",
    "fbp",
    "gaussian_kernel",
    "hounsfield_sinogram",
    "hounsfield_to_attenuation",
    "load_classifier",
    "motion_kernel",
    "random_mask",
    "save_classifier",
    "train_classifier",
]
