"""The reverse process of the prior, as particle methods discretise it: Gaussian steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..samplers import Ancestral, Multistep, Sampler, Transition


def reverse_process(
    levels: Tensor | Sequence[float], eta: float, order: int, proposal: Sampler | None = None
) -> Sampler:
    """The sampler whose steps are p(x' | x): `proposal`, or one of fresh noise `eta` and `order`.

    Order 1 is Ancestral (DDPM at eta = 1), order 2 Multistep (SDE-DPM-Solver++(2M)).

    Raises:
        TypeError: a proposal that is no sampler. ValueError: numbers out of range; a proposal with
        other levels, or whose steps are not Gaussian with a positive variance: weights need the
        density of a step.
    """
    if proposal is None:
        if not 0 < eta <= 1:
            raise ValueError(f"eta must lie in (0, 1], got {eta}: weights need a density")
        if order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {order}")
        return Ancestral(levels, eta) if order == 1 else Multistep(levels, eta)
    if not isinstance(proposal, Sampler):
        raise TypeError(f"proposal must be a samplers.Sampler, got {proposal!r}")
    if not torch.equal(proposal.path, torch.as_tensor(levels, dtype=torch.float64).cpu()):
        raise ValueError("the proposal must walk the levels of the filter: give both the same")
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    for sigma, sigma_next in pairwise(proposal.path.tolist()):
        law = proposal.transition(nothing, nothing, sigma, sigma_next, ())
        if law is None or (law.c == 0) != (sigma_next == 0):
            raise ValueError(
                f"the steps of {type(proposal).__name__} "
                + ("are not Gaussian" if law is None else f"to {sigma_next:.4g} have no noise")
                + ", so they have no density; take Ancestral, Multistep or EulerMaruyama with "
                "fresh noise"
            )
    return proposal


def step(reverse: Sampler, k: int, x: Tensor, x0: Tensor, before: Tensor) -> Transition:
    """p(x' | x) from levels[k] to levels[k + 1], for x0 = D(x) and what was remembered."""
    levels = reverse.levels.tolist()
    past = tuple(zip(reversed(levels[:k]), before.unbind(1), strict=False))
    law = reverse.transition(x, x0, levels[k], levels[k + 1], past)
    if law is None:
        raise TypeError(f"the steps of {type(reverse).__name__} are not Gaussian")
    return law


def nothing_before(reverse: Sampler, x: Tensor) -> Tensor:
    """(n, memory, *event) room for the denoised images that steps look back at."""
    return x.new_zeros(len(x), reverse.memory, *x.shape[1:])


def remember(x0: Tensor, before: Tensor) -> Tensor:
    """The latest first."""
    return torch.cat([x0[:, None], before], 1)[:, : before.shape[1]]
