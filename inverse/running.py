"""Running a recipe: batches, counts, progress and restarts."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from priors import Prior
from priors.prior import CovarianceProduct

from .checkpoint import Checkpoint
from .particles import ParticleMethod, State
from .posterior import Posterior
from .randomness import NoiseStream
from .recipes import Recipe
from .recipes.exact import RowByRow
from .samplers import Callback, Sampler, Step
from .variational import VariationalMethod


@dataclass(frozen=True)
class Settings:
    """How a run is made: n samples in `groups` measurements, `batch` of them at a time."""

    n: int
    groups: int
    batch: int
    seed: int
    dtype: torch.dtype
    device: torch.device | str
    callback: Callback | None


@final
class Counted(Prior):
    """A prior that counts its network calls and Jacobian products."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.event_shape, self.data_range = prior.event_shape, prior.data_range
        self.sigma_range, self.scale = prior.sigma_range, prior.scale
        self.exact_covariance = prior.exact_covariance
        self.network_calls = self.jacobian_products = self.images = 0
        if hasattr(prior, "log_density"):  # in closed form, without network calls
            self.log_density = prior.log_density

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        return self.prior.initial(eps, sigma)

    def accepts(self, event_shape: tuple[int, ...]) -> bool:
        return self.prior.accepts(event_shape)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.network_calls += 1
        self.images += len(x)
        x0 = self.prior.denoise(x, sigma.flatten())
        if x0.requires_grad:
            x0.register_hook(self._differentiated)
        return x0

    def _differentiated(self, gradient: Tensor) -> None:
        self.jacobian_products += 1

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        self.network_calls += 1
        self.images += len(x)
        x0, product = self.prior.covariance(x, sigma.flatten())

        def counted(v: Tensor) -> Tensor:
            self.jacobian_products += 1
            return product(v)

        return x0, counted


def run_exact(prior: Prior, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """Exact draws 0 ... n - 1, measurement by measurement, without network calls."""
    n = settings.n
    noise = NoiseStream(settings.seed, range(n), prior.event_shape, settings.dtype, settings.device)
    eps = noise.normal(0)
    u = torch.special.ndtr(noise.normal(1).reshape(n, -1)[:, 0].double())
    if isinstance(prior, RowByRow):
        draws, total = prior.draws(eps, u), len(prior.rows)
    else:
        draws, total = iter([prior.transform(eps, u)]), 1  # type: ignore[attr-defined]
    parts: list[Tensor] = []
    for x in draws:
        parts.append(x)
        if settings.callback is not None:
            settings.callback(Step(len(parts), total, 0.0, x, x))
    return torch.cat(parts), {"network_calls": 0, "jacobian_products": 0}


def run_sampler(
    prior: Prior, sampler: Sampler, settings: Settings, store: Checkpoint | None
) -> tuple[Tensor, dict[str, Any]]:
    """Samples 0 ... n - 1 in batches; the counts are those of one sample's path."""
    n, batch, device = settings.n, settings.batch, settings.device
    counted = Counted(prior.prior if isinstance(prior, Posterior) else prior)
    posterior = prior.over(counted) if isinstance(prior, Posterior) else None
    total = len(sampler.path) - 1
    chunks = [range(i, min(i + batch, n)) for i in range(0, n, batch)]
    parts, counts = [], (0, 0)
    for number, indices in enumerate(chunks):
        state, done = (None, 0) if store is None else store.load(number)
        x: Tensor | None = None
        history: tuple[Tensor, ...] = ()
        if state is not None:
            x = state.pop("x").to(device)
            history = tuple(state[f"history{i}"].to(device) for i in range(len(state)))

        def report(step: Step, number: int = number) -> None:
            if store is not None:
                past = {f"history{i}": image for i, image in enumerate(step.history)}
                store.save(number, {"x": step.x, **past}, step.index, final=step.index == total)
            if settings.callback is not None:
                index = number * total + step.index
                settings.callback(dataclasses.replace(step, index=index, total=len(chunks) * total))

        before = (counted.network_calls, counted.jacobian_products, counted.images)
        if x is None or done < total:
            x = sampler(
                counted if posterior is None else posterior.paired(indices), len(indices),
                seed=settings.seed, start=x, indices=indices, first_step=done, history=history,
                callback=report, dtype=settings.dtype, device=device,
            )  # fmt: skip
        parts.append(x)
        # A likelihood may send many images for each sample through the network at once.
        images = (counted.images - before[2]) // len(indices)
        calls = max(counted.network_calls - before[0], images)
        counts = max(counts, (calls, counted.jacobian_products - before[1]))
    return torch.cat(parts), {"network_calls": counts[0], "jacobian_products": counts[1]}


def run_particles(
    posterior: Prior, method: ParticleMethod, settings: Settings, store: Checkpoint | None
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Particles and their weights, which sum to 1 for each measurement; the counts are those of
    one particle's path."""
    assert isinstance(posterior, Posterior)
    counted = Counted(posterior.prior)
    total = len(method.path) - 1
    state, done = (None, 0) if store is None else store.load(0)
    if state is not None:
        state = {name: value.to(settings.device) for name, value in state.items()}

    def keep(steps: int, state: State) -> None:
        if store is not None:
            store.save(0, state, steps, final=steps == total)

    found = method(
        posterior.over(counted), settings.n, groups=settings.groups, seed=settings.seed,
        batch=settings.batch, state=state, first_step=done, callback=settings.callback, keep=keep,
        dtype=settings.dtype, device=settings.device,
    )  # fmt: skip
    parts = math.ceil(settings.n / settings.batch)
    spent = {
        "network_calls": counted.network_calls // parts,
        "jacobian_products": counted.jacobian_products // parts,
        **found.diagnostics(),
    }
    return found.x, found.log_weights.exp(), spent


def run_variational(
    posterior: Prior, method: VariationalMethod, settings: Settings, store: Checkpoint | None
) -> tuple[Tensor, dict[str, Any]]:
    """Optimised images 0 ... n - 1 in batches; the counts are those of one sample's path."""
    assert isinstance(posterior, Posterior)
    n, batch, device = settings.n, settings.batch, settings.device
    counted = Counted(posterior.prior)
    over = posterior.over(counted)
    total = len(method.path) - 1
    chunks = [range(i, min(i + batch, n)) for i in range(0, n, batch)]
    parts, counts = [], (0, 0)
    for number, indices in enumerate(chunks):
        state, done = (None, 0) if store is None else store.load(number)
        if state is not None:
            state = {name: value.to(device) for name, value in state.items()}

        def keep(steps: int, state: State, number: int = number) -> None:
            if store is not None:
                store.save(number, state, steps, final=steps == total)

        def report(step: Step, number: int = number) -> None:
            if settings.callback is not None:
                index = number * total + step.index
                settings.callback(dataclasses.replace(step, index=index, total=len(chunks) * total))

        before = (counted.network_calls, counted.jacobian_products)
        found = method(
            over.paired(indices), len(indices), seed=settings.seed, indices=indices, state=state,
            first_step=done, callback=report, keep=keep, dtype=settings.dtype, device=device,
        )  # fmt: skip
        parts.append(found)
        counts = max(
            counts,
            (counted.network_calls - before[0], counted.jacobian_products - before[1]),
        )
    return torch.cat(parts), {"network_calls": counts[0], "jacobian_products": counts[1]}


@torch.no_grad()
def probe(recipe: Recipe, settings: Settings) -> Tensor:
    """What a run's denoiser makes of fixed noise: another prior, operator or lift shows here.

    Particles and splittings may know of no gradient, and optimisers take none here, so theirs is
    the prior's, with p(y | x0) of what it gives.
    """
    assert recipe.sampler is not None
    prior, rows = recipe.prior, range(settings.batch)
    if isinstance(prior, Posterior):
        prior = prior.paired(rows)
    levels = recipe.sampler.levels
    sigma = float(levels[len(levels) // 2])
    noise = NoiseStream(0, rows, prior.event_shape, settings.dtype, settings.device)
    x = prior.initial(noise.normal(0), sigma)
    walks = isinstance(recipe.sampler, Sampler) and not recipe.sampler.splits
    if isinstance(prior, Posterior) and not walks:
        x0 = prior.prior.denoise(x, sigma)
        return torch.cat([x0.flatten(1), prior.log_clean(x0)[:, None]], 1)
    return prior.denoise(x, sigma)
