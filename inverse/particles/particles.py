"""What a particle method returns: weighted samples, the evidence, and how sure it is of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .resampling import effective_sample_size, log_mean_exp


@dataclass(frozen=True)
class Particles:
    """What a particle method returns.

    Attributes:
        x: (P K, *event): K particles for each of P measurements, one group after the other.
        log_weights: (P K,), normalised so that the weights of a group sum to 1.
        log_evidence: (P,) log p(y) as estimated; exp of it is unbiased. NaN where a method has
            no estimate.
        log_evidence_error: (P,) its standard error, from how the weight is shared among the
            particles of the start from which the last ones descend; too small once few remain.
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

        The evidence is None where there is no estimate of it.
        """
        figures = {
            "log_evidence": self.log_evidence,
            "log_evidence_error": self.log_evidence_error,
            "effective_samples": self.ess[-1],
            "least_effective_samples": self.ess.amin(0),
            "resampled": self.resampled.sum(0),
            "roots": self.roots,
        }
        shown = {k: v.tolist() if len(v) > 1 else v.item() for k, v in figures.items()}
        if bool(self.log_evidence.isnan().any()):
            return {**shown, "log_evidence": None, "log_evidence_error": None}
        return shown

    @classmethod
    def of(cls, state: dict[str, Tensor], groups: int) -> Particles:
        """Of the state that a run of `groups` groups ended in."""
        log_w = state["log_w"].reshape(groups, -1)
        weights = torch.softmax(log_w, -1)
        count = weights.shape[1]
        root = state["root"].reshape(groups, -1) % count
        shared = torch.zeros_like(weights).scatter_add_(1, root, weights)
        # The weight that descends from each particle of the start, beside its mean 1 / K.
        error = ((shared - 1 / count).square().sum(1)).sqrt()
        return cls(
            x=state["x"],
            log_weights=torch.log_softmax(log_w, -1).flatten(),
            log_evidence=state["log_evidence"] + log_mean_exp(log_w),
            log_evidence_error=error,
            ess=torch.cat([state["ess"], effective_sample_size(log_w)[None]]),
            resampled=state["resampled"],
            roots=torch.tensor([len(set(row.tolist())) for row in root]),
        )
