"""p_sigma(y | x) from p(y | x0): exact where it is given, approximated where it is not."""

from .exact import Exact
from .gaussian_lift import GaussianLift, Isotropic, Tweedie, Zero
from .likelihood import Likelihood, Moments
from .plug_in import NormalizedPlugIn, PlugIn

__all__ = [
    "Exact",
    "GaussianLift",
    "Isotropic",
    "Likelihood",
    "Moments",
    "NormalizedPlugIn",
    "PlugIn",
    "Tweedie",
    "Zero",
]
