"""Classifiers as forward models: the measurement is the class of an image."""

from .adapters import Attribute, Head, Region
from .calibration import Calibration, calibration_error
from .classifier import Classifier, NoisyClassifier
from .files import bundled_classifiers, load_classifier, save_classifier
from .network import ConvClassifier
from .pretrained import Preprocessed, torchvision_classifier

__all__ = [
    "Attribute",
    "Calibration",
    "Classifier",
    "ConvClassifier",
    "Head",
    "NoisyClassifier",
    "Preprocessed",
    "Region",
    "bundled_classifiers",
    "calibration_error",
    "load_classifier",
    "save_classifier",
    "torchvision_classifier",
]
