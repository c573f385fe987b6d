"""Priors from files: networks that others have trained, and the bundled ones."""

from .loading import BUNDLED, SCHEDULERS, bundled_names, load
from .published import published_names
from .saving import save

__all__ = ["BUNDLED", "SCHEDULERS", "bundled_names", "load", "published_names", "save"]
