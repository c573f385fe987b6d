"""Noise models: how a recording scatters around the clean measurement."""

from .gaussian import LinearGaussian

__all__ = ["LinearGaussian"]
