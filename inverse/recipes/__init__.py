"""The published methods by name, each a short recipe of a likelihood and a sampler."""

from .absorb import absorbed
from .auto import nearest
from .catalogue import choose, find, methods
from .exact import exact_posterior
from .recipe import Method, Recipe, moving

__all__ = [
    "Method",
    "Recipe",
    "absorbed",
    "choose",
    "exact_posterior",
    "find",
    "methods",
    "moving",
    "nearest",
]
