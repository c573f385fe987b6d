"""p_sigma(y | x) from p(y | x0): exact where it is given, approximated where it is not."""

from .absorbed import Absorbed
from .annealed import ScoreALD
from .covariance import AssumedCovariance
from .draws import Draws
from .exact import Exact
from .fixed_prior import FixedPrior
from .gaussian_lift import GaussianLift
from .glued import Glued
from .isotropic import Isotropic, Switched, Tabulated, Zero
from .learned import Learned, LearnedLift
from .likelihood import Cost, Likelihood, Moments
from .linear_system import Measured
from .linearised_lift import LinearisedLift
from .loss_guidance import TrainingFree
from .monte_carlo_lift import MonteCarloLift
from .normalized import NormalizedPlugIn
from .plug_in import PlugIn
from .pooled_lift import PooledLift
from .reverse_runs import ReverseRunLift
from .scaled import Scaled
from .sigma_points import SigmaPointLift
from .tweedie import DiagonalTweedie, Tweedie

__all__ = [
    "Absorbed",
    "AssumedCovariance",
    "Cost",
    "DiagonalTweedie",
    "Draws",
    "Exact",
    "FixedPrior",
    "GaussianLift",
    "Glued",
    "Isotropic",
    "Learned",
    "LearnedLift",
    "Likelihood",
    "LinearisedLift",
    "Measured",
    "Moments",
    "MonteCarloLift",
    "NormalizedPlugIn",
    "PlugIn",
    "PooledLift",
    "ReverseRunLift",
    "Scaled",
    "ScoreALD",
    "SigmaPointLift",
    "Switched",
    "Tabulated",
    "TrainingFree",
    "Tweedie",
    "Zero",
]
