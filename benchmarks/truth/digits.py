"""Pictures of 28 x 28 with an exact posterior: a mixture of 30 Gaussians fitted to digits.

The bundled prior "digits-mixture", whose posterior under a linear model with Gaussian noise is a
mixture again; the truth is a draw of it. Measurements:

    pixels  20 of the 784 pixels, noise 0.3
    coarse  means of boxes of 7 x 7 pixels, noise 0.1
    blur    all pixels behind a Gaussian of width 4, noise 0.5; without the twisted filters, whose
            densities of 784 values take hours
    CT      line integrals at 2 angles, 2 pixels apart, in pixels, noise 4

so little that two modes or more remain. 50 samples of 3 instances, since the denoiser takes about
0.03 s for them: about 25 minutes for all methods. Of the pixels 16 % (the border) have a standard
deviation of 0.001, below the noise level at which samplers stop, 0.0025, so that the right
spread elsewhere covers about 0.76, not 0.89 as 50 exact draws do. mean_error and
variance: `posed.moments_of`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from pictures import blurred, coarse, pixels, scanned
from posed import Family, Modes, Posed, moments_of
from small_problems import Denoiser

import priors
from forward_models import LinearGaussian

SHAPE = (1, 28, 28)


@cache
def bundled() -> priors.Mixture:
    prior = priors.load("digits-mixture")
    assert isinstance(prior, priors.Mixture)
    return prior


def pose(model: Callable[[], LinearGaussian], seed: int, without: tuple[str, ...] = ()) -> Posed:
    prior, measured = bundled(), model()
    source = torch.Generator().manual_seed(seed)
    y = measured.simulate(prior.sample(1, source), source)
    truth = prior.condition(measured, y)
    modes = Modes(lambda x: truth.responsibilities(x, 0.0), truth.weights)
    return Posed(
        Denoiser(prior), measured, y, truth.sample, lambda: modes, moments_of(truth),
        without=without,
    )  # fmt: skip


FAMILY = Family(
    {
        "digits pixels": partial(pose, lambda: pixels(SHAPE, 20, 0.3)),
        "digits coarse": partial(pose, lambda: coarse(SHAPE, 7, 0.1)),
        "digits blur": partial(
            pose, lambda: blurred(SHAPE, 4.0, 0.5), without=("tds", "bootstrap")
        ),
        "digits CT": partial(pose, lambda: scanned(SHAPE, (0.0, 90.0), 4.0)),
    },
    n=50, seeds=3,
)  # fmt: skip
