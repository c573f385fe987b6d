"""p_sigma(y | x) from p(y | x0): exact where it is given, approximated where it is not."""

from .exact import Exact
from .gaussian_lift import GaussianLift, Isotropic, Tweedie, Zero
from .likelihood import Cost, Likelihood, Moments
from .linearised_lift import LinearisedLift
from .plug_in import NormalizedPlugIn, PlugIn

__all__ = [
    "Cost",
    "Exact",
    "GaussianLift",
    "Isotropic",
    "Likelihood",
    "LinearisedLift",
    "Moments",
    "NormalizedPlugIn",
    "PlugIn",
    "Tweedie",
    "Zero",
]
