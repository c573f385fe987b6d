"""When a linear measurement can be taken direction by direction of an SVD."""

from __future__ import annotations

import torch

from forward_models import LinearGaussian


def not_spectral(model: LinearGaussian) -> str | None:
    """Why a linear measurement is not one with an SVD and white noise, or None."""
    if model.operator.svd is None:
        return f"the singular value decomposition of {type(model.operator).__name__} is not known"
    if white_sigma(model) is None:
        return "the noise is not white: sigma differs from entry to entry of y"
    return None


def white_sigma(model: LinearGaussian) -> float | None:
    """sigma_y where it is one number, else None."""
    sigma = torch.as_tensor(model.sigma, dtype=torch.float64).flatten()
    return float(sigma[0]) if bool((sigma == sigma[0]).all()) else None
