"""Train a prior once: views of images, recipes, the loop, and errors on held-out images."""

from .loop import Augmentation, Images, Recipe, denoising_loss, heldout_error, train, unet

__all__ = [
    "Augmentation",
    "Images",
    "Recipe",
    "denoising_loss",
    "heldout_error",
    "train",
    "unet",
]
