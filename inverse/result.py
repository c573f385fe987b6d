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

from .posterior import Model


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

    Summaries are of x.
    """

    x: Tensor
    diagnostics: dict[str, Any] = field(default_factory=dict)
    latents: Tensor | None = None

    def __repr__(self) -> str:
        method = self.diagnostics.get("method")
        return f"Samples(x: {tuple(self.x.shape)} {self.x.dtype}, method: {method})"

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def mean(self) -> Tensor:
        """(*event): the estimate of least mean square error."""
        return self.x.mean(0)

    @property
    def std(self) -> Tensor:
        """(*event): the spread per value, unbiased; needs two samples."""
        self._needs(2, "a standard deviation")
        return self.x.std(0)

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """(low, high), each (*event): bounds that hold a new sample with probability `level`.

        For n exchangeable samples a new one lies between order statistics i and j with
        probability (j - i) / (n + 1); ranks between them are interpolated linearly. The range of
        n samples holds at most (n - 1) / (n + 1), so `level` may not exceed that.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), got {level}")
        n = len(self)
        need = math.ceil((1 + level) / (1 - level) - 1e-9)
        if n < need:
            raise ValueError(f"an interval of level {level} needs n >= {need} samples, got {n}")
        ordered = self.x.sort(0).values
        return self._rank(ordered, (1 - level) / 2), self._rank(ordered, (1 + level) / 2)

    def _rank(self, ordered: Tensor, probability: float) -> Tensor:
        rank = min(max(probability * (len(self) + 1) - 1, 0.0), len(self) - 1.0)
        below = min(int(rank), len(self) - 2)
        return torch.lerp(ordered[below], ordered[below + 1], rank - below)

    def save(self, folder: str | Path) -> Path:
        """Write samples.npy, mean.npy, std.npy (n > 1) and diagnostics.json with checksums.

        Under a latent prior latents.npy, too. Each file appears whole or not at all. Returns the
        folder.
        """
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        arrays = {"samples": self.x, "mean": self.mean}
        if len(self) > 1:
            arrays["std"] = self.std
        if self.latents is not None:
            arrays["latents"] = self.latents
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
    x: Tensor, factors: Sequence[tuple[Model, Tensor]], batch: int = 32
) -> dict[str, Any]:
    """How samples x (n, *event) fit their measurements; see Samples. One entry per factor."""
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
        chi2 = [sum(v**2 for v in row) / len(row) for row in residuals]
        fit["reduced_chi2"] = chi2[0] if len(chi2) == 1 else chi2
    if log_likelihoods:
        fit["log_likelihood"] = log_likelihoods[0] if len(log_likelihoods) == 1 else log_likelihoods
    return fit
