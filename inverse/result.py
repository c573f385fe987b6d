"""What sampling returns: the samples, their summaries, and how well they fit the measurement."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .fit import PerSample

PER_SAMPLE = ("residual_sigma", "log_likelihood")
PER_MEASUREMENT = (
    "reduced_chi2", "log_evidence", "log_evidence_error", "effective_samples",
    "least_effective_samples", "resampled", "roots",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Samples:
    """Samples of a posterior (or prior), or of P posteriors where y held P measurements.

    Attributes:
        x: (n, *event), data units; under a latent prior the decoded images (n, *image_shape).
            Samples p n / P ... (p + 1) n / P - 1 are of measurement p.
        diagnostics: what was run and how well it fits, see below.
        latents: (n, *event) that x was decoded from, under a latent prior; else None.
        weights: (n,) of particle methods, summing to 1 for each measurement; None where all
            samples count alike.
        measurements: P.

    Summaries are of x, weighted where there are weights; where P > 1 they are (P, *event), one
    for each measurement, and `of(p)` or `groups` give the samples of one.

    Diagnostics:
        method, seed, n; steps taken from one noise level to the next, or at one; network_calls
        and jacobian_products spent on each sample; seconds.
        residual_sigma: for each measurement, if the noise is independent, per sample: the root
            mean square over measured values of the residual in units of the noise,
            (y - A x) / sigma_y if that is Gaussian; near 1 where samples fit the data as well as
            the truth would.
        reduced_chi2: the weighted mean over samples of its square.
        log_likelihood: for classes instead, per sample.
        Of particle methods: log_evidence, an estimate of log p(y), and log_evidence_error, its
        standard error (None where there is no estimate, the error also where too few roots are
        left to tell it); effective_samples, what the particles are worth at the end, and
        least_effective_samples at the worst step; resampled, at how many steps; roots, how many
        particles of the start still have descendants.

    What is per sample is a list of n, of which more than 8 print as their median and range; what
    is per measurement a number, or a list of P where P > 1; several factors `.given` together make
    a list of these.
    """

    x: Tensor
    diagnostics: dict[str, Any] = field(default_factory=dict)
    latents: Tensor | None = None
    weights: Tensor | None = None
    measurements: int = 1

    def __repr__(self) -> str:
        method = self.diagnostics.get("method")
        of = "" if self.measurements == 1 else f", of {self.measurements} measurements"
        worth = f", effective: {self.worth}" if self.worth else ""
        return f"Samples(x: {tuple(self.x.shape)} {self.x.dtype}, method: {method}{of}{worth})"

    def __len__(self) -> int:
        return self.x.shape[0]

    def of(self, p: int) -> Samples:
        """The samples of measurement p, with its diagnostics."""
        if isinstance(p, bool) or not isinstance(p, int) or not 0 <= p < self.measurements:
            raise ValueError(f"p must be an integer in [0, {self.measurements}), got {p!r}")
        if self.measurements == 1:
            return self
        count = len(self) // self.measurements
        rows = slice(p * count, (p + 1) * count)
        own = {k: _own(k, value, p, rows) for k, value in self.diagnostics.items()}
        return Samples(
            self.x[rows],
            {**own, "n": count, "measurement": p},
            None if self.latents is None else self.latents[rows],
            None if self.weights is None else self.weights[rows],
        )

    @property
    def groups(self) -> tuple[Samples, ...]:
        """The samples of each measurement."""
        return tuple(self.of(p) for p in range(self.measurements))

    @property
    def effective(self) -> float:
        """How many samples of equal weight these are worth: n, or 1 / sum of squared weights.

        By the weights at the end alone: copies that a resampling made count as different samples,
        so that particles which all descend from one of the start may be worth n. How many
        ancestors they have the diagnostics tell (`roots`), and how few counted at the worst step
        (`least_effective_samples`); `worth` names all three.
        """
        self._one("effective")
        if self.weights is None:
            return float(len(self))
        # Rounding of weights that are all alike may give more than there are.
        return min(1 / float(self.weights.square().sum()), float(len(self)))

    @property
    def worth(self) -> str:
        """What weighted samples count as, in words: `effective`, now and at the worst step, and how
        many of the start they descend from; of P > 1 measurements the least. Else empty."""
        if self.weights is None:
            return ""
        groups = self.groups
        words = [f"{min(g.effective for g in groups):.3g} of {len(groups[0])}"]
        told = [g.diagnostics for g in groups if "roots" in g.diagnostics]
        if told:
            words.append(f"{min(d['least_effective_samples'] for d in told):.3g} at the worst step")
            words.append(f"descended from {min(d['roots'] for d in told)} at the start")
        return ("" if len(groups) == 1 else "at least ") + ", ".join(words)

    @property
    def mean(self) -> Tensor:
        """(*event), or (P, *event): the estimate of least mean square error."""
        if self.measurements > 1:
            return torch.stack([group.mean for group in self.groups])
        return (self._shares() * self.x).sum(0)

    @property
    def std(self) -> Tensor:
        """(*event), or (P, *event): the spread per value, unbiased; needs two samples."""
        if self.measurements > 1:
            return torch.stack([group.std for group in self.groups])
        self._needs(2, "a standard deviation")
        shares = self._shares()
        variance = (shares * (self.x - self.mean).square()).sum(0)
        return (variance / (1 - shares.square().sum()).clamp(min=1e-12)).sqrt()

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """(low, high), each (*event): bounds that hold a new sample with probability `level`.

        (P, *event) each for P > 1 measurements. For n exchangeable samples a new one lies
        between order statistics i and j with probability (j - i) / (n + 1); ranks between them
        are interpolated linearly. The range of n samples holds at most (n - 1) / (n + 1), so
        `level` may not exceed that. Weighted samples count as `effective` ones, and bounds are
        quantiles of their weighted law.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), got {level}")
        if self.measurements > 1:
            lows, highs = zip(*(group.interval(level) for group in self.groups), strict=True)
            return torch.stack(lows), torch.stack(highs)
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
        self._one("equal")
        count = min(len(self), len(self) if n is None else n)
        if self.weights is None:
            return self.x[:count]
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(self.weights.double().cpu(), count, True, generator=generator)
        return self.x[drawn.to(self.x.device)]

    def save(self, folder: str | Path) -> Path:
        """Write samples.npy, mean.npy, std.npy (n > P) and diagnostics.json with checksums.

        Under a latent prior latents.npy, too, and weights.npy where there are weights. Each file
        appears whole or not at all. Returns the folder.
        """
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        arrays = {"samples": self.x, "mean": self.mean}
        if len(self) > self.measurements:
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
        report = {**self.diagnostics, "measurements": self.measurements, "sha256": checksums}
        write_bytes(out / "diagnostics.json", (json.dumps(report, indent=2) + "\n").encode())
        return out

    def _needs(self, n: int, what: str) -> None:
        if len(self) < n:
            raise ValueError(f"{what} needs at least {n} samples, got {len(self)}")

    def _one(self, what: str) -> None:
        if self.measurements > 1:
            raise ValueError(
                f"these are samples of {self.measurements} measurements; take those of one: "
                f"samples.of(p).{what}"
            )


def _own(name: str, value: Any, p: int, rows: slice) -> Any:
    """Of a diagnostic of all measurements, what is of measurement p, its samples `rows`."""
    if name not in (*PER_SAMPLE, *PER_MEASUREMENT) or not isinstance(value, list):
        return value
    if isinstance(value[0], list):  # several factors
        return [_own(name, one, p, rows) for one in value]
    return PerSample(value[rows]) if name in PER_SAMPLE else value[p]


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
