"""p_sigma(y | x) from p(y | x0): exact where it is given, approximated where it is not."""

from .annealed import ScoreALD
from .exact import Exact
from .gaussian_lift import GaussianLift, Isotropic, Tweedie, Zero
from .likelihood import Cost, Likelihood, Moments
from .linearised_lift import LinearisedLift
from .loss_guidance import TrainingFree
from .monte_carlo_lift import MonteCarloLift
from .plug_in import NormalizedPlugIn, PlugIn
from .reverse_runs import ReverseRunLift
from .scaled import Scaled

__all__ = [
    "Cost",
    "Exact",
    "GaussianLift",
    "Isotropic",
    "Likelihood",
    "LinearisedLift",
    "Moments",
    "MonteCarloLift",
    "NormalizedPlugIn",
    "PlugIn",
    "ReverseRunLift",
    "Scaled",
    "ScoreALD",
    "TrainingFree",
    "Tweedie",
    "Zero",
]
