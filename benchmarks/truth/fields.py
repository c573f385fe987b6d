"""A stationary Gaussian field of 16 x 16, whose posteriors are Gaussian and known.

Prior: a Matern field of smoothness 5/2, length 0.15 of the width and variance 1 on a torus, power
(5 + (2 pi 0.15 |k|)^2)^(-7/2) at frequency k, and white noise of variance 1e-4. Measurements, noise
0.1 but for CT:

    pixels  16 of the 256 pixels
    coarse  means of boxes of 2 x 2 pixels
    blur    all pixels behind a Gaussian of width 1
    CT      line integrals at 6 angles, 2 pixels apart, in pixels, noise 1

The truth is a draw of the prior. mean_error and variance: `posed.moments_of`.

Paper: Boys et al., "Tweedie Moment Projected Diffusions for Inverse Problems", 2024,
https://arxiv.org/abs/2310.06721 (a field of 32 x 32, not periodic, of which 16 pixels are seen)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import torch
from pictures import blurred, coarse, pixels, scanned
from posed import Family, Posed, moments_of
from small_problems import Denoiser

from forward_models import LinearGaussian
from priors import Circulant, Gaussian

SIZE, LENGTH, NUGGET = 16, 0.15, 1e-4
SHAPE = (1, SIZE, SIZE)


@cache
def matern() -> Gaussian:
    k = torch.fft.fftfreq(SIZE, dtype=torch.float64) * SIZE
    squared = k[:, None].square() + k.square()
    power = (5 + (2 * math.pi * LENGTH) ** 2 * squared) ** -3.5
    return Gaussian(
        torch.zeros(SHAPE, dtype=torch.float64), Circulant(power / power.mean() + NUGGET, SHAPE)
    )


def pose(model: Callable[[], LinearGaussian], seed: int) -> Posed:
    prior, measured = matern(), model()
    source = torch.Generator().manual_seed(seed)
    y = measured.simulate(prior.sample(1, source), source)
    truth = prior.condition(measured, y)
    return Posed(Denoiser(prior), measured, y, truth.sample, further=moments_of(truth))


FAMILY = Family(
    {
        "fields pixels": partial(pose, lambda: pixels(SHAPE, 16, 0.1)),
        "fields coarse": partial(pose, lambda: coarse(SHAPE, 2, 0.1)),
        "fields blur": partial(pose, lambda: blurred(SHAPE, 1.0, 0.1)),
        "fields CT": partial(pose, lambda: scanned(SHAPE, range(0, 180, 30), 1.0)),
    },
    n=100, seeds=3,
)  # fmt: skip
