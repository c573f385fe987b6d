"""Priors from files: networks that others have trained, and the bundled ones."""

from .loading import BUNDLED, SCHEDULERS, bundled_names, load
from .saving import save

__all__ = ["BUNDLED", "SCHEDULERS", "bundled_names", "load", "save"]
