"""What sampling returns: the samples, their summaries, and how well they fit the measurement."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forward_models import ForwardModel

from .lift import Model


@dataclass(frozen=True, repr=False)
class Samples:
    """Samples of a posterior (or prior).

    Attributes:
        x: (n, *event), data units; under a latent prior the decoded images (n, *image_shape).
        diagnostics: method, seed, steps; network_calls and jacobian_products spent on each
            sample; seconds; and for each measurement
            `residual_sigma`, the root mean square over measured values of the residual in units
            of the noise, (y - A x) / sigma_y if that is Gaussian, per sample, which is near 1
            where samples fit the data as well as the truth would, and `reduced_chi2`, the mean
            over samples of its square; for classes `log_likelihood` instead, per sample.
        latents: (n, *event) that x was decoded from, under a latent prior; else None.
        weights: (n,) of particle methods, summing to 1; None where all samples count alike.

    Summaries are of x, weighted where there are weights.
    """

    x: Tensor
    diagnostics: dict[str, Any] = field(default_factory=dict)
    latents: Tensor | None = None
    weights: Tensor | None = None

    def __repr__(self) -> str:
        method = self.diagnostics.get("method")
        return f"Samples(x: {tuple(self.x.shape)} {self.x.dtype}, method: {method})"

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def effective(self) -> float:
        """How many samples of equal weight these are worth: n, or 1 / sum of squared weights."""
        if self.weights is None:
            return float(len(self))
        return 1 / float(self.weights.square().sum())

    @property
    def mean(self) -> Tensor:
        """(*event): the estimate of least mean square error."""
        return (self._shares() * self.x).sum(0)

    @property
    def std(self) -> Tensor:
        """(*event): the spread per value, unbiased; needs two samples."""
        self._needs(2, "a standard deviation")
        shares = self._shares()
        variance = (shares * (self.x - self.mean).square()).sum(0)
        return (variance / (1 - shares.square().sum()).clamp(min=1e-12)).sqrt()

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """(low, high), each (*event): bounds that hold a new sample with probability `level`.

        For n exchangeable samples a new one lies between order statistics i and j with
        probability (j - i) / (n + 1); ranks between them are interpolated linearly. The range of
        n samples holds at most (n - 1) / (n + 1), so `level` may not exceed that. Weighted samples
        count as `effective` ones, and bounds are quantiles of their weighted law.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), got {level}")
        n = self.effective
        need = math.ceil((1 + level) / (1 - level) - 1e-9)
        if n < need:
            raise ValueError(
                f"an interval of level {level} needs n >= {need} samples, got {n:.4g}"
                + ("" if self.weights is None else " effective ones")
            )
        ordered, order = self.x.sort(0)
        low, high = (1 - level) / 2, (1 + level) / 2
        if self.weights is None:
            return self._rank(ordered, low), self._rank(ordered, high)
        reached = self.weights[order].cumsum(0)
        return self._quantile(ordered, reached, low), self._quantile(ordered, reached, high)

    def _rank(self, ordered: Tensor, probability: float) -> Tensor:
        rank = min(max(probability * (len(self) + 1) - 1, 0.0), len(self) - 1.0)
        below = min(int(rank), len(self) - 2)
        return torch.lerp(ordered[below], ordered[below + 1], rank - below)

    def _quantile(self, ordered: Tensor, reached: Tensor, probability: float) -> Tensor:
        first = (reached < probability).sum(0, keepdim=True).clamp(max=len(self) - 1)
        return ordered.gather(0, first)[0]

    def _shares(self) -> Tensor:
        """(n, 1, ..., 1) weights."""
        n = len(self)
        flat = self.x.new_full((n,), 1 / n) if self.weights is None else self.weights.to(self.x)
        return flat.reshape(-1, *[1] * (self.x.ndim - 1))

    def equal(self, n: int | None = None, seed: int = 0) -> Tensor:
        """n samples of equal weight, (n, *event), at most and by default all there are.

        The first n, or where there are weights draws in proportion to them, so that a sample of
        large weight comes several times.
        """
        count = min(len(self), len(self) if n is None else n)
        if self.weights is None:
            return self.x[:count]
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(self.weights.double().cpu(), count, True, generator=generator)
        return self.x[drawn.to(self.x.device)]

    def save(self, folder: str | Path) -> Path:
        """Write samples.npy, mean.npy, std.npy (n > 1) and diagnostics.json with checksums.

        Under a latent prior latents.npy, too, and weights.npy where there are weights. Each file
        appears whole or not at all. Returns the folder.
        """
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        arrays = {"samples": self.x, "mean": self.mean}
        if len(self) > 1:
            arrays["std"] = self.std
        if self.latents is not None:
            arrays["latents"] = self.latents
        if self.weights is not None:
            arrays["weights"] = self.weights
        checksums = {}
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array.detach().cpu().numpy(), allow_pickle=False)
            content = buffer.getbuffer()
            checksums[f"{name}.npy"] = hashlib.sha256(content).hexdigest()
            write_bytes(out / f"{name}.npy", content)
        report = {**self.diagnostics, "sha256": checksums}
        write_bytes(out / "diagnostics.json", (json.dumps(report, indent=2) + "\n").encode())
        return out

    def _needs(self, n: int, what: str) -> None:
        if len(self) < n:
            raise ValueError(f"{what} needs at least {n} samples, got {len(self)}")


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write a file under a temporary name in its folder, then rename it: never half a file."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@torch.no_grad()
def measurement_fit(
    x: Tensor,
    factors: Sequence[tuple[Model, Tensor]],
    batch: int = 32,
    weights: Tensor | None = None,
) -> dict[str, Any]:
    """How samples x (n, *event) fit their measurements; see Samples. One entry per factor."""
    shares = [1 / len(x)] * len(x) if weights is None else weights.tolist()
    residuals: list[list[float]] = []
    log_likelihoods: list[list[float]] = []
    for model, y in factors:
        rows = []
        for start in range(0, len(x), batch):
            part = x[start : start + batch]
            own = y if y.shape[0] == 1 else y[start : start + batch]
            if not isinstance(model, ForwardModel):
                continue
            misfit = model.misfit(own, part)
            kind = log_likelihoods if misfit is None else residuals
            rows.append(model.log_likelihood(own, part) if misfit is None else misfit)
        if rows:
            kind.append([float(v) for v in torch.cat(rows)])
    fit: dict[str, Any] = {}
    if residuals:
        fit["residual_sigma"] = residuals[0] if len(residuals) == 1 else residuals
        chi2 = [sum(w * v**2 for w, v in zip(shares, row, strict=True)) for row in residuals]
        fit["reduced_chi2"] = chi2[0] if len(chi2) == 1 else chi2
    if log_likelihoods:
        fit["log_likelihood"] = log_likelihoods[0] if len(log_likelihoods) == 1 else log_likelihoods
    return fit
