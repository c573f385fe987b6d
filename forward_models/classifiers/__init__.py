"""Classifiers as forward models: the measurement is the class of an image."""

from .adapters import Attribute, Head, Region
from .classifier import Classifier, NoisyClassifier
from .files import load_classifier, save_classifier
from .network import ConvClassifier
from .pretrained import Preprocessed, torchvision_classifier
from .training import train_classifier

__all__ = [
    "Attribute",
    "Classifier",
    "ConvClassifier",
    "Head",
    "NoisyClassifier",
    "Preprocessed",
    "Region",
    "load_classifier",
    "save_classifier",
    "torchvision_classifier",
    "train_classifier",
]
