"""Instruments that are not linear: lost phases, saturation, JPEG, a user's own simulator."""

from .blur import CameraBlur, NonlinearBlur
from .coded_diffraction import CodedDiffraction, coded_masks
from .detection import Intensity, Magnitude, PhaseObject
from .diffraction import AngularSpectrum
from .helmholtz import Scene
from .jpeg import JPEG
from .phase_retrieval import PhaseRetrieval
from .ptychography import Ptychography
from .scattering import BornScattering, Scattering
from .simulator import Simulator, from_simulator
from .tone import Gamma, HighDynamicRange, LinearLight, Reinhard, Sigmoid

__all__ = [
    "JPEG",
    "AngularSpectrum",
    "BornScattering",
    "CameraBlur",
    "CodedDiffraction",
    "Gamma",
    "HighDynamicRange",
    "Intensity",
    "LinearLight",
    "Magnitude",
    "NonlinearBlur",
    "PhaseObject",
    "PhaseRetrieval",
    "Ptychography",
    "Reinhard",
    "Scattering",
    "Scene",
    "Sigmoid",
    "Simulator",
    "coded_masks",
    "from_simulator",
]
