"""Posterior samples from a pretrained score prior and a measurement.

grad log p_sigma(x | y) = grad log p_sigma(x) + grad log p_sigma(y | x)
    posterior               prior               forward model at noise level sigma
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import diagnostics, likelihoods, particles, samplers
    from .diagnostics import Calibration, calibrate
    from .distillation import distil
    from .learned_files import load_learned, save_learned
    from .learning import learn
    from .pool import Pool
    from .posterior import Posterior, condition
    from .recipes import Method, methods
    from .result import Samples
    from .sampling import sample

__all__ = [
    "Calibration",
    "Method",
    "Pool",
    "Posterior",
    "Samples",
    "calibrate",
    "condition",
    "diagnostics",
    "distil",
    "learn",
    "likelihoods",
    "load_learned",
    "methods",
    "particles",
    "plots",
    "sample",
    "samplers",
    "save_learned",
]

# Imported at first use, so that `inverse --help` does not wait for torch.
_HOME = {
    "Calibration": "diagnostics",
    "Method": "recipes",
    "Pool": "pool",
    "Posterior": "posterior",
    "Samples": "result",
    "calibrate": "diagnostics",
    "condition": "posterior",
    "distil": "distillation",
    "learn": "learning",
    "load_learned": "learned_files",
    "methods": "recipes",
    "sample": "sampling",
    "save_learned": "learned_files",
}


def __getattr__(name: str) -> Any:
    if name in ("diagnostics", "likelihoods", "particles", "plots", "samplers"):
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
