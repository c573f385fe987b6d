"""What a particle method returns: weighted samples, the evidence, and how sure it is of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .resampling import effective_sample_size, log_mean_exp

FEWEST = 3
"""Effective particles of the start, with fewer of which the evidence has no known error."""


@dataclass(frozen=True)
class Particles:
    """What a particle method returns.

    Attributes:
        x: (P K, *event): K particles for each of P measurements, one group after the other.
        log_weights: (P K,), normalised so that the weights of a group sum to 1.
        log_evidence: (P,) log p(y) as estimated, for the prior as the steps discretise it. NaN
            where a method has no estimate. The average of exp of it over runs is right; its own is
            low by half of its variance, and where few roots are left one run tells little.
        log_evidence_error: (P,) its standard deviation over runs; see `evidence_error`. NaN where
            the run cannot tell.
        ess: (steps, P) effective sample size before resampling, from 1 to K.
        resampled: (steps, P) whether it was followed by resampling.
        roots: (P,) how many particles of the start still have descendants.
    """

    x: Tensor
    log_weights: Tensor
    log_evidence: Tensor
    log_evidence_error: Tensor
    ess: Tensor
    resampled: Tensor
    roots: Tensor

    def diagnostics(self) -> dict[str, Any]:
        """What a report shows, one figure for each measurement where there are several.

        The evidence is None where there is no estimate of it, its error where it is not known.
        """
        figures = {
            "log_evidence": self.log_evidence,
            "log_evidence_error": self.log_evidence_error,
            "effective_samples": self.ess[-1],
            "least_effective_samples": self.ess.amin(0),
            "resampled": self.resampled.sum(0),
            "roots": self.roots,
        }
        return {name: _shown(values) for name, values in figures.items()}

    @classmethod
    def of(cls, state: dict[str, Tensor], groups: int) -> Particles:
        """Of the state that a run of `groups` groups ended in."""
        log_w = state["log_w"].reshape(groups, -1)
        weights = torch.softmax(log_w, -1)
        count = weights.shape[1]
        root = state["root"].reshape(groups, -1) % count
        log_evidence = state["log_evidence"] + log_mean_exp(log_w)
        error = evidence_error(torch.zeros_like(weights).scatter_add_(1, root, weights))
        return cls(
            x=state["x"],
            log_weights=torch.log_softmax(log_w, -1).flatten(),
            log_evidence=log_evidence,
            log_evidence_error=torch.where(log_evidence.isnan(), math.nan, error),
            ess=torch.cat([state["ess"], effective_sample_size(log_w)[None]]),
            resampled=state["resampled"],
            roots=torch.tensor([len(set(row.tolist())) for row in root]),
        )


def evidence_error(shares: Tensor) -> Tensor:
    """The standard deviation of log Z over runs, (P,), for Z the estimate of p(y).

    With S_i (P, K) the weight that descends from particle i of the start, which sums to 1, and
    C = sum_i S_i^2, the genealogy's estimate of Var(Z) is Z^2 V with

        1 - V = (1 - C) / (1 - 1 / K),

    which is unbiased where nothing was resampled, and consistent as K grows where something was.
    The published correction (1 - 1 / K)^-r for r resamplings is for multinomial ones; systematic
    ones add so little noise that it overshoots. Where Z is log-normal, as it becomes when steps
    grow with K, E[Z^2 V] = Var(Z) says V = 1 - exp(-variance of log Z), so the deviation is

        sqrt(log(1 - 1 / K) - log(1 - C)).

    Few roots say little, and nothing of what all particles have missed: NaN for 1 / C < FEWEST.

    Papers: Chan and Lai, "A general theory of particle filters in hidden Markov models and some
    applications", 2013, https://arxiv.org/abs/1312.5114; Lee and Whiteley, "Variance estimation in
    the particle filter", 2018, https://arxiv.org/abs/1509.00394; Berard et al., "A lognormal
    central limit theorem for particle approximations of normalizing constants", 2014,
    https://arxiv.org/abs/1307.0181
    """
    concentration = shares.square().sum(1)
    variance = math.log1p(-1 / max(shares.shape[1], 2)) - torch.log1p(-concentration)
    return torch.where(concentration * FEWEST > 1, math.nan, variance.clamp(min=0).sqrt())


def _shown(values: Tensor) -> Any:
    """A number, or a list of them where there are several; None for NaN."""
    shown = [None if value != value else value for value in values.tolist()]
    return shown if len(shown) > 1 else shown[0]
