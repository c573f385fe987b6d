"""Hard consistency now and then, and a draw that joins it to the path (ReSample).

    x~ = x0 + (sigma' / sigma) (x - x0)                          a step of DDIM
    z  = argmax log p(y | .), started from x0                    every few steps
    x' ~ N((s z + sigma'^2 x~) / (s + sigma'^2), (1 / s + 1 / sigma'^2)^-1)

The draw is of N(x'; z, sigma'^2) N(x'; x~, s): noise of level sigma' on z, held near the path. The
paper has s in the coordinates of variance preservation, with abar = 1 / (1 + sigma^2):

    s_published = scale (1 - abar') / (1 - abar) (1 - abar / abar'),        scale = 40,

which at abar' is the variance of a state sqrt(abar') x'. Over abar' it is

    s = scale sigma'^2 (1 - sigma'^2 / sigma^2),

the same in all units, so that with q = scale (1 - sigma'^2 / sigma^2) the draw moves by the share
w = q / (1 + q) of the way to z, and has the variance w sigma'^2.

Paper: Song et al., "Solving Inverse Problems with Latent Diffusion Models via Hard Data
Consistency", 2023, https://arxiv.org/abs/2307.08123
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import final

from torch import Tensor

from ..checks import positive, whole
from .ascent import climb
from .updates import DataStep, Split, Update, later


@final
@dataclass(frozen=True)
class Resampled(Update):
    """A step of DDIM, and every `every`-th of them, from the step `first` on, the draw above.

    The step to level 0 returns the data step's z.

    Args:
        data: what gives z.
        scale: see above, > 0.
        every: >= 1. first: >= 0, how many steps are of DDIM alone.
    """

    data: DataStep
    scale: float = 40.0
    every: int = 10
    first: int = 0

    def __post_init__(self) -> None:
        positive(self.scale, "scale")
        whole(self.every, "every")
        whole(self.first, "first", least=0)

    @property
    def draws(self) -> int:  # type: ignore[override]
        return 1 + self.data.draws

    def __call__(self, split: Split) -> tuple[Tensor, Tensor]:
        own = Split(**{**vars(split), "eps": partial(later, split.eps, 1)})
        if split.sigma_next == 0:
            z = self.data(own)
            return z, z
        kept = split.sigma_next / split.sigma
        path = split.x0 + kept * (split.x - split.x0)
        if split.index < self.first or split.index % self.every:
            return path, split.x0
        z, q = self.data(own), self.scale * (1 - kept**2)
        share = q / (1 + q)
        x = path + share * (z - path) + math.sqrt(share) * split.sigma_next * split.eps()
        return x, z


@final
@dataclass(frozen=True)
class Consistent(DataStep):
    """z = argmax log p(y | decode(z)) from the denoised latents x0, by `climb`.

    Before the step `late` the decoded image climbs log p(y | .) and is encoded then, which is cheap
    and stays near the images that the decoder knows; from there on the latents themselves climb,
    through the decoder. A sample stops once its residual is that of the noise (`misfit` <= 1),
    where that is known: beyond lies the noise itself.

    Costs at most about 2 `iterations` gradients of p(y | x0), of p(y | decode(z)) from `late` on;
    one decoder and one encoder call before.

    Args:
        late: >= 0. iterations: of `climb`, >= 1.
    Raises:
        TypeError: a forward model without a gradient, a posterior that is not of latents.
    """

    late: int
    iterations: int = 50

    def __post_init__(self) -> None:
        whole(self.late, "late", least=0)
        whole(self.iterations, "iterations")

    def __call__(self, split: Split) -> Tensor:
        problem, decoder = split.problem, split.problem.decoder
        if decoder is None:
            raise TypeError("Consistent needs a posterior of latents, got one of images")
        if split.index >= self.late:
            return climb(problem, split.x0, math.inf, self.iterations, problem.explained)
        images = problem.of_images()
        image = decoder.apply(split.x0)
        image = climb(images, image, math.inf, self.iterations, images.explained)
        return decoder.prior.encode(image)[0]
