"""Classifiers as forward models: the measurement is the class of an image."""

from .classifier import Classifier, NoisyClassifier
from .network import ConvClassifier, load_classifier, save_classifier, train_classifier

__all__ = [
    "Classifier",
    "ConvClassifier",
    "NoisyClassifier",
    "load_classifier",
    "save_classifier",
    "train_classifier",
]
