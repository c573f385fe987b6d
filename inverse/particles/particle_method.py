"""The frame of all particle methods: many samples that look at each other."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from priors import Prior

from ..lift import default_lift
from ..likelihoods import Absorbed
from ..posterior import Posterior
from ..randomness import NoiseStream, uniform
from ..samplers import Callback, DivergenceError, Step
from ..samplers.sampler import check_levels, setting
from .particles import Particles
from .resampling import effective_sample_size, log_mean_exp, systematic
from .walk import Walk

State = dict[str, Tensor]
"""Everything a run needs to go on: tensors whose first axis is the particle, (P K, ...), except
those called `log_evidence` (P,), `ess` and `resampled` (steps, P)."""

PER_RUN = ("log_evidence", "ess", "resampled")


class ParticleMethod(ABC):
    """K particles walk down noise levels, weighed by what they explain of y, and resampled.

    The target at level sigma is p_sigma(x) g_sigma(x), with g a likelihood at that level (the
    twist), and p(y | x0) itself at the end. With transitions p(x' | x) of the prior's reverse
    process and proposals q(x' | x), a particle's weight is multiplied by

        p(x' | x) g'(x') / (q(x' | x) g(x)),

    so that whatever g and q are, weighted averages over the particles converge to the posterior of
    the discretised prior as K grows; g and q decide how many particles that takes.

    Args:
        levels: (N + 1,) strictly decreasing noise levels, the last one 0.
        resample_below: resample when the effective sample size of a group falls below this
            fraction of K; 1 does so always, 0 never.
    """

    absorbs: bool = False
    """Whether it leaves off guiding and weighing by itself where the noise absorbs y: where
    `Posterior.exact_at` says so. Others do under `AbsorbingParticles`."""

    def __init__(self, levels: Tensor | Sequence[float], resample_below: float = 0.5) -> None:
        self.levels = check_levels(levels)
        if float(self.levels[-1]) != 0:
            raise ValueError(f"particles need a last level of 0, got {float(self.levels[-1])}")
        if not 0 <= resample_below <= 1:
            raise ValueError(f"resample_below must lie in [0, 1], got {resample_below}")
        self.resample_below = float(resample_below)

    @property
    def path(self) -> Tensor:
        return self.levels

    @property
    def network_calls(self) -> int:
        """Network calls of one run for each particle."""
        return self.calls_before(len(self.path) - 1)

    def calls_before(self, k: int) -> int:
        """Network calls of the start and the first k steps."""
        return min(k + 1, len(self.path) - 1)

    def settings(self) -> list[Any]:
        """All that tells this method from others, for `checkpoint.fingerprint`."""
        return [type(self).__name__, [(k, setting(v)) for k, v in sorted(vars(self).items())]]

    def refusal(self, posterior: Prior, count: int) -> str | None:
        """Why `count` particles a measurement cannot sample this posterior, or None."""
        if not isinstance(posterior, Posterior):
            return "particles are weighed by a measurement, and a prior has none"
        return self._refusal(posterior, count)

    def _refusal(self, posterior: Posterior, count: int) -> str | None:
        return None

    @torch.no_grad()
    def __call__(
        self,
        posterior: Posterior,
        n: int,
        *,
        groups: int = 1,
        seed: int = 0,
        batch: int | None = None,
        state: State | None = None,
        first_step: int = 0,
        callback: Callback | None = None,
        keep: Callable[[int, State], None] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Particles:
        """Run n particles, n / groups for each group.

        Args:
            posterior: a posterior whose y serves all n particles or has a row for each.
            n, groups: n must be a multiple of groups; group p is particles p K ... p K + K - 1,
                weighed among themselves.
            seed: the run follows (seed, particle, step) alone.
            batch: particles taken through the network together; by default all.
            state, first_step: to go on from a state that `keep` was given.
            callback: called after every step with a `Step`; keep: with (steps done, state).
        Raises:
            ValueError: n and groups that do not fit; what this method cannot sample.
            DivergenceError: values that are not finite, or a group all of whose particles have
            weight zero.
        """
        if n < 1 or groups < 1 or n % groups:
            raise ValueError(f"n must be a positive multiple of groups, got {n} and {groups}")
        why = self.refusal(posterior, n // groups)
        if why is not None:
            raise ValueError(f"{type(self).__name__} cannot sample this posterior: {why}")
        noise = NoiseStream(seed, range(n), posterior.event_shape, dtype, device)
        walk = Walk(posterior, n, groups, batch or n, noise)
        path = self.path.tolist()
        if state is None:
            state = self._start(walk, posterior.initial(noise.normal(0), path[0]), path[0])
            root = torch.arange(n, device=state["x"].device)
            state = {"log_evidence": state["x"].new_zeros(groups), **state, "root": root}
            state |= {name: state["x"].new_zeros(0, groups) for name in ("ess", "resampled")}
        total = len(path) - 1
        bound = 1e6 * max(path[0], float(state["x"].abs().max()))
        for k in range(first_step, total):
            state = self._resample(state, groups, uniform(seed, groups, k))
            drawn = noise.normal(k + 1)
            state = {**state, **self._step(walk, state, k, drawn)}
            self._check(state, groups, k, path[k + 1], bound)
            if keep is not None:
                keep(k + 1, state)
            if callback is not None:
                x0 = state.get("x0", state["x"])
                callback(Step(k + 1, total, path[k + 1], state["x"], x0))
        return Particles.of(state, groups)

    @abstractmethod
    def _start(self, walk: Walk, x: Tensor, sigma: float) -> State:
        """The state of fresh particles x at the first level: at least x and log_w.

        A log_evidence (P,) in it is what log p(y) starts from: NaN if there is no estimate.
        """

    @abstractmethod
    def _step(self, walk: Walk, state: State, k: int, z: Tensor) -> State:
        """What changes in the state from levels[k] to levels[k + 1], with unit noise z.

        log_w is added to, never normalised.
        """

    def _resample(self, state: State, groups: int, u: Tensor) -> State:
        """The state after resampling those groups that need it; the evidence gathers weights."""
        log_w = state["log_w"].reshape(groups, -1)
        count = log_w.shape[1]
        ess = effective_sample_size(log_w)
        low = (ess < self.resample_below * count) | (self.resample_below == 1)
        kept = torch.arange(count, device=log_w.device).expand(groups, -1)
        chosen = torch.where(low[:, None], systematic(log_w, u.to(log_w.device)), kept)
        rows = (chosen + count * torch.arange(groups, device=log_w.device)[:, None]).flatten()
        gathered = {k: v if k in PER_RUN else v[rows] for k, v in state.items()}
        return {
            **gathered,
            "log_w": torch.where(low[:, None], 0.0, log_w).flatten(),
            "log_evidence": state["log_evidence"] + torch.where(low, log_mean_exp(log_w), 0.0),
            "ess": torch.cat([state["ess"], ess[None]]),
            "resampled": torch.cat([state["resampled"], low[None].to(ess)]),
        }

    def _check(self, state: State, groups: int, k: int, sigma: float, bound: float) -> None:
        where = f"at step {k + 1}/{len(self.path) - 1}, sigma = {sigma:.4g}"
        bad = ~(state["x"].abs().reshape(len(state["x"]), -1).amax(1) < bound)
        # A particle may have weight zero; it may not have one that is no number.
        bad |= state["log_w"].isnan() | (state["log_w"] == math.inf)
        if bool(bad.any()):
            raise DivergenceError(
                f"the run diverged {where}, particles {bad.nonzero().flatten().tolist()[:8]}; try "
                "more steps, a larger measurement sigma, or another method"
            )
        dead = (state["log_w"].reshape(groups, -1) == -math.inf).all(1)
        if bool(dead.any()):
            raise DivergenceError(
                f"all particles of groups {dead.nonzero().flatten().tolist()} have weight zero "
                f"{where}: none explains the measurement; try more particles"
            )


def own_lift(posterior: Posterior) -> str | None:
    """For methods that bring their own view of y: why not, where the posterior has one too."""
    absorbed = all(isinstance(likelihood, Absorbed) for likelihood in posterior.likelihoods)
    if posterior.lift is default_lift or absorbed:
        return None
    return "it has a lift of its own, of which this method would make no use; tds and bootstrap do"


def weighed(log_w: Tensor, log_ratio: Tensor) -> Tensor:
    """log_w + log_ratio; a particle of weight zero keeps it, whatever its ratio became."""
    return torch.where(log_w == -math.inf, log_w, log_w + log_ratio)
