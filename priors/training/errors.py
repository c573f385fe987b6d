"""How far a prior's denoiser is from the truth, per noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..analytic.parameters import unit_noise
from ..prior import Prior


@torch.no_grad()
def denoising_error(
    prior: Prior, images: Tensor, sigmas: Sequence[float], seed: int = 0, batch: int = 16
) -> list[float]:
    """Root mean square of D(x0 + sigma eps, sigma) - x0 over images (N, *event), data units.

    Costs one network call per image and level. On images kept out of the training it says how good
    the prior is; where the error on training images is far below it, the network has learned them
    by heart.
    """
    errors = []
    for sigma in sigmas:
        generator = torch.Generator().manual_seed(seed)
        total = 0.0
        for x0 in images.split(batch):
            x = x0 + sigma * unit_noise(tuple(x0.shape), generator, x0)
            total += float((prior.denoise(x, sigma) - x0).double().square().sum())
        errors.append(math.sqrt(total / images.numel()))
    return errors
