"""Score matching in its kinds, each a loss of a Prior; and the Fisher divergence they minimise."""

from .denoising import DenoisingScoreMatching
from .exact import ExactScoreMatching
from .fisher import Divergence, fisher_divergence
from .objective import Objective
from .sliced import SlicedScoreMatching
from .weighting import Weighting

__all__ = [
    "DenoisingScoreMatching",
    "Divergence",
    "ExactScoreMatching",
    "Objective",
    "SlicedScoreMatching",
    "Weighting",
    "fisher_divergence",
]
