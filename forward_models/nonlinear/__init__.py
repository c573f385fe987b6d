"""Instruments that are not linear: lost phases, saturation, JPEG, a user's own simulator."""

from .blur import CameraBlur, NonlinearBlur
from .coded_diffraction import CodedDiffraction, coded_masks
from .detection import Intensity, Magnitude, PhaseObject
from .diffraction import AngularSpectrum
from .jpeg import JPEG
from .phase_retrieval import PhaseRetrieval
from .ptychography import Ptychography
from .simulator import Simulator, from_simulator
from .tone import Gamma, HighDynamicRange, LinearLight, Reinhard, Sigmoid

__all__ = [
    "JPEG",
    "AngularSpectrum",
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
    "Sigmoid",
    "Simulator",
    "coded_masks",
    "from_simulator",
]
