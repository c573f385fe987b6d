"""How a measurement arises from an image: operators, noise, classifiers.

    linear/       the interface of linear operators, matrices, algebra, solves
    imaging/      masks, blur, sampling, colour
    tomography/   CT, and the classical ways back
    sensing/      compressed sensing: fast transforms, patterns, random rows
    mri/          k-space, coils, sampling patterns and trajectories
    nonlinear/    lost phases, saturation, JPEG, scattering, a simulator of your own
    noise/        how a recording scatters around the clean measurement
    classifiers/  the class of an image, clean or noisy

Every public name is reached from here: `forward_models.Blur`.
"""

from . import classifiers, imaging, linear, mri, noise, nonlinear, sensing, tomography
from .affine import Affine
from .classifiers import *
from .energy import Energy
from .forward_model import ForwardModel, TimeDependent
from .imaging import *
from .linear import *
from .mri import *
from .noise import *
from .noised_measurement import NoisedMeasurement
from .nonlinear import *
from .observation import Observation
from .operator import Operator, Pointwise
from .sensing import *
from .tomography import *

__all__ = [
    "Affine",
    "Energy",
    "ForwardModel",
    "NoisedMeasurement",
    "Observation",
    "Operator",
    "Pointwise",
    "TimeDependent",
]
__all__ += linear.__all__
__all__ += imaging.__all__
__all__ += tomography.__all__
__all__ += mri.__all__
__all__ += sensing.__all__
__all__ += noise.__all__
__all__ += nonlinear.__all__
__all__ += classifiers.__all__
