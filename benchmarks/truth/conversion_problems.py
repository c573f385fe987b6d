"""Problems whose p_sigma(y | x) is known at every noise level, by label and seed.

mixture d,m     the mixture of 25 Gaussians, nine cells (mixture_problem.py)
P1 ... P4       the problems of calibration (small_problems.py); the seed draws y alone
ring            P5 with 20 000 draws of its Gaussian for the prior: no closed form is known there
trap, fields, digits    one of each family of `distances`

20 instances of each, 5 of Gaussian fields and at d = 800, 3 of the digits, which take longer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import digits
import fields
import torch
import trap
from mixture_problem import CELLS, problem
from small_problems import PROBLEMS as SMALL
from torch import Tensor

from forward_models import ForwardModel
from priors import Empirical, Gaussian, Mixture

STORED = 20_000
"""Draws that stand for the Gaussian of the ring, .02 apart."""


@dataclass(frozen=True)
class Case:
    """One instance; `fixed` where prior and model are the same at all seeds."""

    prior: Gaussian | Mixture | Empirical
    model: ForwardModel
    y: Tensor
    fixed: bool = True


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(cell: tuple[int, int], seed: int) -> Case:
    p = problem(cell, seed)
    return Case(p.prior.mixture, p.model, p.y, fixed=False)


def small(label: str, seed: int) -> Case:
    p, source = SMALL[label](), rng(seed)
    return Case(p.exact, p.model, p.model.simulate(p.exact.sample(1, source), source))


def ring(seed: int) -> Case:
    case = small("P5", seed)
    return Case(Empirical(case.prior.sample(STORED, rng(10_000))), case.model, case.y)


def posed(label: str, seed: int) -> Case:
    family = {"trap": trap.FAMILY, "fields": fields.FAMILY, "digits": digits.FAMILY}
    p = family[label.partition(" ")[0]].problems[label](seed)
    return Case(p.prior.exact, p.model, p.y)  # type: ignore[attr-defined]


PROBLEMS: dict[str, Callable[[int], Case]] = {
    **{f"mixture {cell[0]},{cell[1]}": partial(mixture, cell) for cell in CELLS},  # type: ignore[arg-type]
    **{label: partial(small, label) for label in ("P1", "P2", "P3", "P4 mask", "P4 blur")},
    "ring": ring,
    **{label: partial(posed, label) for label in ("trap A1, 0.2", "fields CT", "digits pixels")},
}  # fmt: skip
FEWER = {"mixture 800": 5, "P4": 5, "fields": 5, "digits": 3}


def seeds(label: str) -> int:
    """How many instances are looked at."""
    return next((n for start, n in FEWER.items() if label.startswith(start)), 20)
