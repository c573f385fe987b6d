"""Train a prior once: recipes, views of images, objectives, the loop, and denoising errors."""

from .checkpoint import Checkpoint
from .errors import denoising_error
from .fit import PriorTraining
from .images import Augmentation, Images
from .loop import Optimizer, Step, train
from .networks import unet
from .noise_levels import Geometric, LogNormal, NoiseLevels, UniformTime
from .objectives import (
    DenoisingScoreMatching,
    ExactScoreMatching,
    Objective,
    SlicedScoreMatching,
    fisher_divergence,
)
from .planned import train_as
from .processes import Processes, local_device
from .recipe import Recipe
from .recipe_file import read_recipe, recipe_text

__all__ = [
    "Augmentation",
    "Checkpoint",
    "DenoisingScoreMatching",
    "ExactScoreMatching",
    "Geometric",
    "Images",
    "LogNormal",
    "NoiseLevels",
    "Objective",
    "Optimizer",
    "PriorTraining",
    "Processes",
    "Recipe",
    "SlicedScoreMatching",
    "Step",
    "UniformTime",
    "denoising_error",
    "fisher_divergence",
    "local_device",
    "read_recipe",
    "recipe_text",
    "train",
    "train_as",
    "unet",
]
