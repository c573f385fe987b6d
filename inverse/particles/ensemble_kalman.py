"""Ensemble Kalman guidance: covariances between particles stand for derivatives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from forward_models import IndependentNoise, LinearGaussian, Observation

from ..checks import whole
from ..posterior import Posterior
from ..samplers import Multistep, Past
from .particle_method import ParticleMethod, State, own_lift
from .transition import nothing_before, remember, step
from .walk import Walk


@final
class EnsembleKalman(ParticleMethod):
    """The particles of a group walk the probability-flow ODE, moved at each level by Kalman steps.

    With x0 = F(x) the end of the ODE that starts at x, and z = f(F(x)) what the operator makes of
    it, a share tau = 1 / N of the likelihood is taken in at each of N levels,

        x_j <- x_j + Cov(x, z) (Cov(z) + S / tau)^-1 (y + (S / tau)^(1/2) eps_j - z_j),

    covariances being those of the group. ODE steps leave F(x) as it is, so for a Gaussian prior, a
    linear f and Gaussian noise the particles end in the posterior: exact as particles and steps
    grow. Of other noise z and S are the mean and the variance of y.
    Otherwise, and with fewer particles than dimensions, in whose span alone they move, an
    approximation. The published step has this direction, a length that is normalised instead, and
    no S: it seeks a mode.

    Nothing is differentiated, neither f nor the network. All particles have equal weights, and
    there is no evidence. 1 + `inner` network calls and one f a step and particle, fewer near
    the end.

    Args:
        levels: see ParticleMethod.
        inner: most steps of the ODE from x to F(x); 1 takes D for it.

    Raises ValueError, when run, for models without an operator and independent noise, and for
    groups of fewer than 2 particles.

    Paper: Zheng et al., "Ensemble Kalman Diffusion Guidance", 2024,
    https://arxiv.org/abs/2409.20175
    """

    def __init__(self, levels: Tensor | Sequence[float], inner: int = 10) -> None:
        super().__init__(levels, resample_below=0)
        self.inner = whole(inner, "inner")
        self.flow = Multistep(self.levels, eta=0.0)

    def calls_before(self, k: int) -> int:
        return sum(len(self._ahead(i)) for i in range(k))

    def _start(self, walk: Walk, x: Tensor, sigma: float) -> State:
        zero, before = x.new_zeros(len(x)), nothing_before(self.flow, x)
        unknown = zero[: walk.groups] + math.nan
        return {"x": x, "before": before, "log_w": zero, "log_evidence": unknown}

    def _refusal(self, posterior: Posterior, count: int) -> str | None:
        if count < 2:
            return f"an ensemble needs at least 2 particles for each measurement, got {count}"
        return not_observed(posterior)

    def _step(self, walk: Walk, state: State, k: int, z: Tensor) -> State:
        x = self._moved(walk, state["x"], k)
        x0 = walk.denoise(x, float(self.levels[k]))
        law = step(self.flow, k, x, x0, state["before"])
        return {"x": law.mean, "x0": x0, "before": remember(x0, state["before"])}

    def _ahead(self, k: int) -> list[int]:
        """Levels of the inner run from level k to the last, at most `inner` steps."""
        last = len(self.levels) - 1
        count = min(self.inner, last - k)
        return [k + round(i * (last - k) / count) for i in range(count + 1)]

    def _end(self, walk: Walk, x: Tensor, k: int) -> Tensor:
        """F(x)."""
        past: Past = ()
        for here, there in itertools.pairwise(self._ahead(k)):
            sigma, sigma_next = float(self.levels[here]), float(self.levels[there])
            x0 = walk.denoise(x, sigma)
            x = self.flow.transition(x, x0, sigma, sigma_next, past).mean
            past = ((sigma, x0),)
        return x

    def _moved(self, walk: Walk, x: Tensor, k: int) -> Tensor:
        """x after the Kalman step of level k."""
        x0 = self._end(walk, x, k)
        if not bool(torch.isfinite(x0).all()):
            return x0
        tau = 1 / (len(self.levels) - 1)
        outputs, misfits = _whitened(walk.posterior, x0, walk.groups)
        eps = walk.noise(1, k + 1, (outputs.shape[1],))
        misfits = misfits + eps / math.sqrt(tau)
        count = walk.n // walk.groups
        rows = range(0, walk.n, count)
        parts = [
            _kalman(x[i : i + count], outputs[i : i + count], misfits[i : i + count], tau)
            for i in rows
        ]
        return torch.cat(parts)


def not_observed(posterior: Posterior) -> str | None:
    """Why the measurements are not all y = f(x0) + independent noise, or None."""
    for model, _ in posterior.factors:
        known = isinstance(model, Observation) and isinstance(model.noise, IndependentNoise)
        if not known and not isinstance(model, LinearGaussian):
            return f"{type(model).__name__} has no operator with independent noise to look at"
    return own_lift(posterior)


def _whitened(posterior: Posterior, x0: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """S^(-1/2) z and S^(-1/2) (y - z) of all data in one row, (B, M) each.

    z = E[y | x0] and S = Var[y | x0] at the group's mean: the noise of any kind by two moments.
    """
    outputs: list[Tensor] = []
    misfits: list[Tensor] = []
    image = x0 if posterior.decoder is None else posterior.decoder.apply(x0)
    for model, y in posterior.factors:
        z = model.operator.apply(image)  # type: ignore[union-attr]
        if isinstance(model, LinearGaussian):
            residual = model.residual(y, image)
            variance = torch.as_tensor(model.noise_variance, dtype=z.dtype.to_real()).to(z.device)
        else:
            assert isinstance(model, Observation)
            measured = model.operator.measured
            assert isinstance(model.noise, IndependentNoise)
            if measured is not None:
                z = torch.where(measured, z, model.noise.neutral)
            centre = z.unflatten(0, (groups, -1)).mean(1).repeat_interleave(len(z) // groups, 0)
            variance, z = model.noise.variance(centre), model.noise.mean(z)
            residual = model.check_measurement(y) - z
            if measured is not None:
                residual = torch.where(measured, residual, 0)
        variance = variance.expand(z.shape)
        root = torch.where(variance > 0, variance.rsqrt(), 0)  # saturated values have none
        for kept, values in ((outputs, root * z), (misfits, root * residual)):
            real = torch.view_as_real(values) if values.is_complex() else values
            kept.append(real.flatten(1))
    return torch.cat(outputs, 1), torch.cat(misfits, 1)


def _kalman(x: Tensor, outputs: Tensor, misfits: Tensor, tau: float) -> Tensor:
    """x_j + Cov(x, z) (Cov(z) + I / tau)^-1 r_j, by the smaller of two equal solves."""
    count = len(x)
    spread = (outputs - outputs.mean(0)) / math.sqrt(count - 1)
    deviations = (x - x.mean(0)).flatten(1) / math.sqrt(count - 1)
    if spread.shape[1] <= count:
        inner = spread.T @ spread
        inner.diagonal().add_(1 / tau)
        shares = spread @ torch.linalg.solve(inner, misfits.T)
    else:
        inner = spread @ spread.T
        inner.diagonal().add_(1 / tau)
        shares = torch.linalg.solve(inner, spread @ misfits.T)
    return x + (shares.T @ deviations).reshape(x.shape)
