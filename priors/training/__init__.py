"""Train a prior once: views of images, recipes, the loop, and errors on held-out images."""

from .loop import Augmentation, Images, Recipe, denoising_loss, heldout_error, train, unet
from .noise_levels import Geometric, LogNormal, NoiseLevels, UniformTime
from .objectives import (
    DenoisingScoreMatching,
    ExactScoreMatching,
    Objective,
    SlicedScoreMatching,
    fisher_divergence,
)

__all__ = [
    "Augmentation",
    "DenoisingScoreMatching",
    "ExactScoreMatching",
    "Geometric",
    "Images",
    "LogNormal",
    "NoiseLevels",
    "Objective",
    "Recipe",
    "SlicedScoreMatching",
    "UniformTime",
    "denoising_loss",
    "fisher_divergence",
    "heldout_error",
    "train",
    "unet",
]
