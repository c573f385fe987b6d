"""Noise models: how a recording scatters around the clean measurement."""

from .gaussian import CorrelatedGaussian, Gaussian
from .linear_gaussian import LinearGaussian
from .noise import IndependentNoise, Noise

__all__ = ["CorrelatedGaussian", "Gaussian", "IndependentNoise", "LinearGaussian", "Noise"]
