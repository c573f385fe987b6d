"""The front door: a posterior and a method's name in, samples with their diagnostics out."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from priors import Prior, geometric
from priors.prior import CovarianceProduct, event_size

from .checkpoint import Checkpoint, fingerprint
from .particles import ParticleMethod
from .posterior import Posterior, decoder_of, default_lift
from .randomness import NoiseStream, check_seed
from .recipes import Recipe, choose, find, methods, moving
from .result import Samples, measurement_fit
from .samplers import Callback, Multistep, Sampler, Step


@final
class Counted(Prior):
    """A prior that counts its network calls and Jacobian products."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.event_shape, self.data_range = prior.event_shape, prior.data_range
        self.sigma_range, self.scale = prior.sigma_range, prior.scale
        self.exact_covariance = prior.exact_covariance
        self.network_calls = self.jacobian_products = 0
        if hasattr(prior, "log_density"):  # in closed form, without network calls
            self.log_density = prior.log_density

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        return self.prior.initial(eps, sigma)

    def accepts(self, event_shape: tuple[int, ...]) -> bool:
        return self.prior.accepts(event_shape)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.network_calls += 1
        return self.prior.denoise(x, sigma.flatten())

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        self.network_calls += 1
        x0, product = self.prior.covariance(x, sigma.flatten())

        def counted(v: Tensor) -> Tensor:
            self.jacobian_products += 1
            return product(v)

        return x0, counted


def sample(
    posterior: Prior,
    n: int = 1,
    *,
    method: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    sampler: Sampler | None = None,
    batch: int | None = None,
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Samples:
    """Draw n samples of a posterior (or of any prior).

    Args:
        posterior: from `inverse.condition`; a plain Prior is sampled unconditionally, by exact
            draws where it has them and no steps are asked for.
        n: number of samples; where y holds P measurements a multiple of P, and samples p n / P ...
            (p + 1) n / P - 1 are of the p-th. Particle methods weigh the samples of a measurement.
        method: a name from `inverse.methods()`, with the paper's defaults. By default: exact
            where the posterior is known exactly, mmps where the forward models are linear, dps
            elsewhere; a posterior with a lift of the caller's own keeps it.
        steps: noise levels to go through; by default the method's.
        seed: sample i depends on (seed, i) alone, whatever n and batch are; None takes a fresh
            seed, which the diagnostics record.
        sampler: instead of a method, a sampler of the caller's own, run on `posterior` as it is.
        batch: samples taken through the network together; by default as many as 2^22 values, of
            images under a latent prior.
        callback: called after each step with a `Step`, of latents under a latent prior.
        checkpoint: a folder in which the run keeps its state; the same call goes on from there.
        dtype: of the samples; by default the measurement's real dtype, else the prior's, else
            float32.
        device: where the prior, the forward models and y live.
        options: of the method, by name; `inverse.methods()` lists them with the paper's values.
    Returns:
        Samples, whose `.x` is (n, *event_shape); under a `LatentPrior` `.x` is the decoded images
        (n, *image_shape) and `.latents` (n, *event_shape).
    Raises:
        ValueError, TypeError: bad arguments, or a method that cannot sample this posterior, with
        the methods that can. samplers.DivergenceError: a run that blew up.
    """
    if not isinstance(posterior, Prior):
        raise TypeError(f"posterior must be a Prior or Posterior, got {type(posterior).__name__}")
    for name, value in {"n": n, "steps": steps, "batch": batch}.items():
        if value is None and name != "n":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    if sampler is not None and not isinstance(sampler, Sampler):
        raise TypeError(f"sampler must be a samplers.Sampler, got {sampler!r}")
    if sampler is not None and (method is not None or steps is not None):
        raise ValueError("give a method (with steps) or a sampler, not both")
    seed = check_seed(seed)
    factors = posterior.factors if isinstance(posterior, Posterior) else ()
    paired = [y.shape[0] for _, y in factors if y.shape[0] > 1]
    groups = paired[0] if paired else 1
    if n % groups:
        raise ValueError(
            f"y holds {groups} measurements, so n must be {groups} or a multiple of it, got {n}"
        )
    if groups > 1 and isinstance(posterior, Posterior):
        posterior = posterior.paired([i // (n // groups) for i in range(n)])
        factors = posterior.factors
    if dtype is None:
        real = [y.dtype.to_real() for _, y in factors if y.is_floating_point() or y.is_complex()]
        dtype = real[0] if real else getattr(posterior, "dtype", torch.float32)
    began = time.perf_counter()
    label, recipe = _recipe(posterior, method, steps, sampler, options)
    decoder = posterior.decoder if isinstance(posterior, Posterior) else decoder_of(posterior)
    size = event_size(recipe.prior.event_shape)
    if decoder is not None:
        size = max(size, event_size(decoder.prior.image_shape))
    batch = min(n, batch or max(1, 2**22 // size))

    spent: dict[str, Any] = {"network_calls": 0, "jacobian_products": 0}
    weights = None
    if isinstance(recipe.sampler, ParticleMethod):
        x, weights, spent = _run_particles(recipe, n, groups, batch, seed, callback, dtype, device)
    elif recipe.sampler is None:
        noise = NoiseStream(seed, range(n), recipe.prior.event_shape, dtype, device)
        u = torch.special.ndtr(noise.normal(1).reshape(n, -1)[:, 0].double())
        x = recipe.prior.transform(noise.normal(0), u)  # type: ignore[attr-defined]
    else:
        store = None
        if checkpoint is not None:
            settings = recipe.sampler.settings()
            chosen = sorted(options.items())
            key = fingerprint(seed, n, batch, label, chosen, settings, dtype, factors)
            store = Checkpoint(Path(checkpoint), key, _probe(recipe, batch, dtype, device))
        x, spent = _run(recipe, n, batch, seed, callback, store, dtype, device)
    latents = None
    if decoder is not None:
        latents = x
        with torch.no_grad():
            x = torch.cat([decoder.apply(part) for part in latents.split(batch)])
    diagnostics = {
        "method": label,
        "seed": seed,
        "n": n,
        "steps": 0 if recipe.sampler is None else len(recipe.sampler.path) - 1,
        **spent,
        "seconds": time.perf_counter() - began,
        **measurement_fit(x, factors, weights=weights),
    }
    return Samples(x, diagnostics, latents, weights)


def _recipe(
    posterior: Prior,
    name: str | None,
    steps: int | None,
    sampler: Sampler | None,
    options: dict[str, Any],
) -> tuple[str, Recipe]:
    if options and name is None:
        raise TypeError(
            f"unknown argument {next(iter(options))!r}; options of a method go with method=NAME"
        )
    if sampler is not None:
        why = moving(posterior) if isinstance(posterior, Posterior) else None
        if why is not None and not sampler.stationary:
            raise ValueError(f"{type(sampler).__name__} cannot sample this posterior: {why}")
        return type(sampler).__name__, Recipe(posterior, sampler)
    if not isinstance(posterior, Posterior):
        if name is not None:
            find(name)  # an unknown name is refused as such
            if name != "exact":
                raise ValueError(
                    f"method {name!r} needs a measurement; for draws from the prior leave it out, "
                    "or pass a sampler"
                )
        if steps is None and hasattr(posterior, "transform"):
            return "exact", Recipe(posterior, None)
        if name == "exact":
            raise ValueError(
                f"{type(posterior).__name__} has no exact draws, or has no use for steps: leave "
                "out method or steps"
            )
        levels = geometric(steps or 100, posterior.sigma_range)
        return "prior", Recipe(posterior, Multistep(levels))
    if name is None and posterior.lift is not default_lift and moving(posterior) is None:
        levels = geometric(steps or 100, posterior.sigma_range)
        return "own lift", Recipe(posterior, Multistep(levels))
    method = choose(posterior) if name is None else find(name)
    why = method.refusal(posterior)
    if why is not None:
        able = [m.name for m in methods() if m.refusal(posterior) is None]
        raise ValueError(f"method {method.name!r} cannot sample this posterior: {why}. "
                         f"Methods that can: {', '.join(able) or 'none'}")  # fmt: skip
    return method.name, method.recipe(posterior, steps or method.steps, **options)


def _run_particles(
    recipe: Recipe,
    n: int,
    groups: int,
    batch: int,
    seed: int,
    callback: Callback | None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Weighted samples; the counts are those of one particle's path."""
    posterior, method = recipe.prior, recipe.sampler
    assert isinstance(posterior, Posterior)
    assert isinstance(method, ParticleMethod)
    counted = Counted(posterior.prior)
    found = method(
        posterior.over(counted), n, groups=groups, seed=seed, batch=batch, callback=callback,
        dtype=dtype, device=device,
    )  # fmt: skip
    parts = math.ceil(n / batch)
    spent = {
        "network_calls": counted.network_calls // parts,
        "jacobian_products": counted.jacobian_products // parts,
        **found.diagnostics(),
    }
    return found.x, found.log_weights.exp() / groups, spent


@torch.no_grad()
def _probe(recipe: Recipe, batch: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """What a run's denoiser makes of fixed noise: another prior, operator or lift shows here."""
    assert recipe.sampler is not None
    levels = recipe.sampler.levels
    sigma = float(levels[len(levels) // 2])
    noise = NoiseStream(0, range(batch), recipe.prior.event_shape, dtype, device)
    return recipe.prior.denoise(recipe.prior.initial(noise.normal(0), sigma), sigma)


def _run(
    recipe: Recipe,
    n: int,
    batch: int,
    seed: int,
    callback: Callback | None,
    store: Checkpoint | None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> tuple[Tensor, dict[str, int]]:
    """Samples 0 ... n - 1 in batches; the counts are those of one sample's path."""
    assert isinstance(recipe.sampler, Sampler)
    inner = recipe.prior.prior if isinstance(recipe.prior, Posterior) else recipe.prior
    counted = Counted(inner)
    prior: Prior
    posterior = recipe.prior.over(counted) if isinstance(recipe.prior, Posterior) else None
    total = len(recipe.sampler.path) - 1
    chunks = [range(i, min(i + batch, n)) for i in range(0, n, batch)]
    parts, counts = [], (0, 0)
    for number, indices in enumerate(chunks):
        start, history, done = (None, (), 0) if store is None else store.load(number)
        if start is not None:
            start, history = start.to(device), tuple(image.to(device) for image in history)

        def report(step: Step, number: int = number) -> None:
            if store is not None:
                store.save(number, step.x, step.history, step.index, final=step.index == total)
            if callback is not None:
                callback(
                    dataclasses.replace(
                        step, index=number * total + step.index, total=len(chunks) * total
                    )
                )

        before = (counted.network_calls, counted.jacobian_products)
        x = start
        if start is None or done < total:
            prior = counted if posterior is None else posterior.paired(indices)
            x = recipe.sampler(
                prior, len(indices), seed=seed, start=start, indices=indices, first_step=done,
                history=history, callback=report, dtype=dtype, device=device,
            )  # fmt: skip
        assert x is not None
        parts.append(x)
        counts = max(
            counts,
            (counted.network_calls - before[0], counted.jacobian_products - before[1]),
        )
    return torch.cat(parts), {"network_calls": counts[0], "jacobian_products": counts[1]}
