"""The data step of a Gaussian around the denoised image: its maximum, or a draw.

    log p(y | z) - |z - x0|^2 / (2 v)

has its maximum at the proximal map of -v log p(y | .). For y = A z + N(0, S) that is

    z = x0 + v A^T (S + v A A^T)^-1 (y - A x0),

and adding a perturbation to x0 and to y turns the maximum into an exact draw (Papandreou and
Yuille, "Gaussian Sampling by Local Perturbations", 2010,
https://papers.nips.cc/paper/2010/hash/86b122d4358357d834a87ce618a55de0-Abstract.html).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from forward_models.linear.solvers import conjugate_gradients

from ..checks import whole
from ..likelihoods import Measured
from .ascent import climb
from .updates import DataStep, Slack, Split


@final
@dataclass(frozen=True)
class ProximalMap(DataStep):
    """z = argmax log p(y | z) - |z - x0|^2 / (2 v).

    Linear with Gaussian noise: in closed form by the operator's SVD, its Fourier transform or a
    diagonal A A^T; else by conjugate gradients in the measurement's space, started from the step
    before: at its solution (S + v A A^T) u = r has u = S^-1 (y - A z). Other differentiable
    models: by `climb` from x0.

    Args:
        slack: v.
        iterations: for linear models that many conjugate gradients in the image's space, from x0,
            in place of a solution (DDS); for others how many gradients, 20 by default.
    Raises:
        TypeError: a forward model without a gradient.
    """

    slack: Slack
    iterations: int | None = None

    @property
    def warm(self) -> bool:  # type: ignore[override]
        return self.iterations is None

    def __post_init__(self) -> None:
        if self.iterations is not None:
            whole(self.iterations, "iterations")

    def __call__(self, split: Split) -> Tensor:
        v = self.slack.variance(split)
        measured = split.problem.measured
        if v == 0:
            return split.x0
        if measured is None:
            return climb(split.problem, split.x0, v, self.iterations or 20)
        if self.iterations is None:
            return solved(measured, split.x0, v, measured.residual(split.x0), split.before)
        return split.x0 + _refined(measured, split.x0, v, self.iterations)


@final
@dataclass(frozen=True)
class GaussianDraw(DataStep):
    """z ~ p(y | z) N(z; x0, v I), exactly: linear measurements with Gaussian noise.

    One solve as `ProximalMap`. Raises TypeError for other forward models.
    """

    slack: Slack

    draws = 2

    def __call__(self, split: Split) -> Tensor:
        v = self.slack.variance(split)
        if v == 0:
            return split.x0
        measured = split.problem.linear()
        start = split.x0 + math.sqrt(v) * split.eps()
        noise = measured.system(start).noise.sqrt() * split.eps(1, (measured.size,))
        return solved(measured, start, v, measured.residual(start) + noise, None)


@final
@dataclass(frozen=True)
class ConditionalDraw(DataStep):
    """z = x0 + v A^T (S + v A A^T)^-1 (y + S^(1/2) e - A x0): Matheron's rule.

    If x0 is a draw of N(m, v I), z is one of its conditional given y, and where nothing is
    measured it is x0 itself: the spread comes from x0, which must therefore be a draw of
    p(x0 | x), not its mean or an ODE's end. Linear measurements with Gaussian noise; one solve as
    `ProximalMap`. Raises TypeError for other forward models.

    Paper: Hoffman and Ribak, "Constrained Realizations of Gaussian Fields: A Simple Algorithm",
    1991, https://doi.org/10.1086/186160
    """

    slack: Slack

    draws = 1

    def __call__(self, split: Split) -> Tensor:
        v, x0 = self.slack.variance(split), split.x0
        measured = split.problem.linear()
        noise = measured.system(x0).noise.sqrt() * split.eps(0, (measured.size,))
        return solved(measured, x0, v, measured.residual(x0) + noise, None)


def solved(measured: Measured, x0: Tensor, v: float, r: Tensor, before: Tensor | None) -> Tensor:
    """x0 + v A^T (S + v A A^T)^-1 r, for r (B, M); `before` is a solution nearby, or None."""
    start = None
    if before is not None and measured.model.operator.svd is None:  # else nothing is iterated
        start = measured.residual(before) / measured.system(x0).noise
    u = measured.solve(r, x0.new_full((len(x0),), v), start)
    return x0 + v * measured.system(x0).adjoint(u)


def _refined(measured: Measured, x0: Tensor, v: float, iterations: int) -> Tensor:
    """k conjugate gradients on (A^T S^-1 A + I / v) d = A^T S^-1 (y - A x0), from d = 0.

    With v infinite they are those of least squares.
    """
    system = measured.system(x0)

    def normal(d: Tensor) -> Tensor:
        return d / v + system.adjoint(system.apply(d) / system.noise)

    b = system.adjoint(measured.residual(x0) / system.noise)
    # What least squares leaves open must not be filled by rounding.
    small = torch.finfo(x0.dtype).eps ** 0.75
    return conjugate_gradients(normal, b, tolerance=small, max_iterations=iterations)[0]
