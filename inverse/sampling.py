"""The front door: a posterior and a method's name in, samples with their diagnostics out."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import torch

from priors import Prior, geometric
from priors.prior import event_size

from . import advice
from .checkpoint import Checkpoint
from .checks import usable, whole
from .fit import measurement_fit
from .lift import default_lift
from .particles import ParticleMethod
from .posterior import Posterior, decoder_of
from .randomness import check_seed
from .recipes import Recipe, absorbed, choose, find, methods, moving, nearest
from .result import Samples
from .running import Settings, probe, run_exact, run_particles, run_sampler, run_variational
from .samplers import Callback, Multistep, Sampler
from .variational import VariationalMethod


def sample(
    posterior: Prior,
    n: int = 1,
    *,
    method: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    sampler: Sampler | ParticleMethod | None = None,
    absorb: bool = False,
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
            (p + 1) n / P - 1 are of the p-th (`samples.of(p)`). Particle methods weigh the
            samples of a measurement among themselves.
        method: a name from `inverse.methods()`, with the paper's defaults; `methods(posterior)`
            lists those that can. By default the first that can of exact, mmps (linear models),
            daps (curved ones with independent noise; unscented where x holds at most 32 values),
            dps, unscented (black boxes, as few values) and scg (other black boxes); a posterior
            with a lift of the caller's own keeps it. "auto" takes what comes nearest to the
            posterior: exact draws; else particles where y holds at most 32 values and 512 samples
            of a measurement or more are asked for; else the default
            (`help(inverse.recipes.nearest)`).
        steps: noise levels to go through, or steps of an optimiser; by default the method's.
            Where a method stays at a level or goes back, it takes more steps: the diagnostics tell
            both.
        seed: sample i depends on (seed, i) alone, up to rounding, whatever n and batch are;
            particles, which look at each other, on n, too. None takes a fresh seed, which the
            diagnostics record.
        sampler: a sampler or particle method of the caller's own: with a method, in place of that
            method's; alone, run on `posterior` as it is.
        absorb: below |sigma_y / A| let the noise of the state explain that of the measurement, for
            guidance and particle methods on linear models with Gaussian noise. Exact from there
            for guidance that comes there right; of poor guidance ten Langevin steps mend a part,
            more of them more. `samplers.Absorbing` has figures and how to take more; see also
            `likelihoods.Absorbed` and `particles.AbsorbingParticles`.
        batch: samples taken through the network together; by default as many as 2^22 values, of
            images under a latent prior.
        callback: called after each step with a `Step`, of latents under a latent prior; of exact
            draws after each measurement.
        checkpoint: a folder in which the run keeps its state, every 10 s and at the end of each
            batch; the same call, seed included, goes on from there.
        dtype: of the samples; by default the measurement's real dtype, from which it may not
            differ, else the prior's, else float32.
        device: where the prior, the forward models and y live.
        options: of the method, by name; `inverse.methods()` lists them with the paper's values.
    Returns:
        Samples, whose `.x` is (n, *event_shape); under a `LatentPrior` `.x` is the decoded images
        (n, *image_shape) and `.latents` (n, *event_shape).
    Raises:
        ValueError, TypeError: bad arguments, or a method that cannot sample this posterior, with
        the methods that can. samplers.DivergenceError: a run that blew up.
    Warns:
        RuntimeWarning: samples far from their measurement in units of its noise, particles of
        which few count, a sampler's levels that start too low or leave noise in the samples.
    """
    if not isinstance(posterior, Prior):
        raise TypeError(f"posterior must be a Prior or Posterior, got {type(posterior).__name__}")
    for name, value in {"n": n, "steps": steps, "batch": batch}.items():
        if value is None and name != "n":
            continue
        whole(value, name)  # type: ignore[arg-type]
    if not isinstance(absorb, bool):
        raise TypeError(f"absorb must be True or False, got {absorb!r}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of a Step, got {callback!r}")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype must be a torch dtype such as torch.float64, got {dtype!r}")
    device = usable(device)
    if checkpoint is not None and seed is None:
        raise ValueError("checkpoint needs a seed: a call without one is a new run; give seed=0")
    if sampler is not None and not isinstance(sampler, Sampler | ParticleMethod):
        raise TypeError(
            f"sampler must be a samplers.Sampler or a particles.ParticleMethod, got {sampler!r}"
        )
    if sampler is not None and steps is not None:
        raise ValueError("a sampler brings its own levels: leave out steps")
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
    real = [y.dtype.to_real() for _, y in factors if y.is_floating_point() or y.is_complex()]
    if dtype is None:
        dtype = real[0] if real else getattr(posterior, "dtype", torch.float32)
    if real and dtype != real[0]:
        raise TypeError(
            f"dtype is {dtype}, but y has {real[0]} and nothing is cast silently: leave out dtype, "
            f"or condition on y.to({dtype})"
        )
    began = time.perf_counter()
    automatic = method == "auto" and isinstance(posterior, Posterior)
    if automatic:
        method, options = _nearest(posterior, n // groups, seed, sampler, options)
        absorb = absorb and method != "exact"
    label, recipe = _recipe(posterior, method, steps, sampler, options)
    label = f"auto: {', '.join([label, *options])}" if automatic else label
    if absorb:
        label, recipe = f"{label}, absorbed", absorbed(recipe)
    ready = _prepared(recipe)
    if isinstance(recipe.sampler, ParticleMethod):
        why = recipe.sampler.refusal(recipe.prior, n // groups)
        if why is not None:
            raise ValueError(f"{label} cannot sample this posterior: {why}")
    decoder = posterior.decoder if isinstance(posterior, Posterior) else decoder_of(posterior)
    size = event_size(recipe.prior.event_shape)
    if decoder is not None:
        size = max(size, event_size(decoder.prior.image_shape))
    batch = min(n, batch or max(1, 2**22 // size))

    weights = None
    settings = Settings(n, groups, batch, seed, dtype, device, callback)
    if recipe.sampler is None:
        x, spent = run_exact(recipe.prior, settings)
    else:
        store = None
        if checkpoint is not None:
            told = {"method": label, "levels": len(recipe.sampler.levels) - 1, "seed": seed, "n": n}
            told |= {f"option {name}": value for name, value in sorted(options.items())}
            told |= {"batch": batch, "dtype": dtype, "y": [y for _, y in factors]}
            told |= {"sampler": recipe.sampler.settings(), "factors": factors}
            store = Checkpoint(Path(checkpoint), told, probe(recipe, settings))
        if isinstance(recipe.sampler, Sampler):
            x, spent = run_sampler(recipe.prior, recipe.sampler, settings, store)
        elif isinstance(recipe.sampler, VariationalMethod):
            x, spent = run_variational(recipe.prior, recipe.sampler, settings, store)
        else:
            x, weights, spent = run_particles(recipe.prior, recipe.sampler, settings, store)
    latents = None
    if decoder is not None:
        latents = x
        with torch.no_grad():
            x = torch.cat([decoder.apply(part) for part in latents.split(batch)])
    diagnostics = {
        "method": label,
        "seed": seed,
        "n": n,
        **_walked(recipe),
        **spent,
        **({"prepared_calls": _prepared(recipe) - ready} if _prepared(recipe) else {}),
        "seconds": time.perf_counter() - began,
        **measurement_fit(x, factors, weights=weights, measurements=groups),
    }
    believed = method is not None and find(method).believes_y
    said = advice.of_misfit(diagnostics, factors, believed)
    said += advice.of_particles(diagnostics, n // groups)
    if isinstance(sampler, Sampler):
        said = advice.of_levels(sampler, posterior.unmeasured) + said
    for words in said:
        warnings.warn(words, RuntimeWarning, stacklevel=2)
    return Samples(x, diagnostics, latents, weights, groups)


def _nearest(
    posterior: Prior,
    count: int,
    seed: int,
    sampler: Sampler | ParticleMethod | None,
    options: dict[str, Any],
) -> tuple[str, dict[str, Any]]:
    """The name and options that "auto" stands for."""
    if sampler is not None or set(options) - {"pool"}:
        given = "a sampler" if sampler is not None else f"option {next(iter(options))!r}"
        raise TypeError(f"'auto' chooses for itself, and takes a pool at most; got {given}")
    assert isinstance(posterior, Posterior)
    method, chosen = nearest(posterior, count, seed, options.get("pool"))
    if options and not chosen:
        warnings.warn(
            f"the pool is not used: 'auto' takes {method.name}; particles, which would use it, are "
            "taken for 512 samples of a measurement or more, of at most 32 linear values",
            RuntimeWarning, stacklevel=3,
        )  # fmt: skip
    return method.name, chosen


def _prepared(recipe: Recipe) -> int:
    """Network calls so far, of all images together, for what serves every sample."""
    likelihoods = recipe.prior.likelihoods if isinstance(recipe.prior, Posterior) else ()
    return max((likelihood.prepared_calls for likelihood in likelihoods), default=0)


def _walked(recipe: Recipe) -> dict[str, Any]:
    """Levels, steps, and the noise that the last level leaves in the samples."""
    if recipe.sampler is None:
        return {"levels": 0, "steps": 0}
    walk, steps = recipe.sampler, len(recipe.sampler.path) - 1
    told: dict[str, Any] = {"levels": max(len(walk.levels) - 1, 1), "steps": steps}
    if isinstance(walk, Sampler):
        told["steps"] = walk.taken
        if float(walk.path[-1]) > 0:
            told["noise_left"] = float(walk.path[-1])
    return told


def _recipe(
    posterior: Prior,
    name: str | None,
    steps: int | None,
    sampler: Sampler | ParticleMethod | None,
    options: dict[str, Any],
) -> tuple[str, Recipe]:
    if options and name is None:
        raise TypeError(
            f"unknown argument {next(iter(options))!r}; options of a method go with method=NAME"
        )
    if sampler is not None and name is None:
        why = moving(posterior) if isinstance(posterior, Posterior) else None
        settles = isinstance(sampler, Sampler) and sampler.stationary
        if why is not None and not settles:
            raise ValueError(f"{type(sampler).__name__} cannot sample this posterior: {why}")
        return type(sampler).__name__, Recipe(posterior, sampler)
    if not isinstance(posterior, Posterior):
        if name is not None:
            if name != "auto":
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
                f"{type(posterior).__name__} has no exact draws: leave out method, to walk it"
                if not hasattr(posterior, "transform")
                else "exact draws take no steps: leave out steps, or method for a walk"
            )
        levels = geometric(steps or 100, posterior.sigma_range)
        return "prior", Recipe(posterior, Multistep(levels))
    if name is None and posterior.lift is not default_lift and moving(posterior) is None:
        levels = geometric(steps or 100, posterior.sigma_range)
        return "own lift", Recipe(posterior, Multistep(levels))
    method = choose(posterior) if name is None else find(name)
    why = method.refusal(posterior, **options)
    if why is not None:
        able = [m.name for m in methods(posterior)]
        raise ValueError(f"method {method.name!r} cannot sample this posterior: {why}. "
                         f"Methods that can: {', '.join(able) or 'none'}")  # fmt: skip
    if sampler is not None:  # a likelihood that counts levels counts those that are walked
        adaptive = isinstance(sampler, Sampler) and sampler.adaptive
        steps = None if adaptive else max(len(sampler.levels) - 1, 1)
    recipe = method.recipe(posterior, steps or method.steps, **options)
    if sampler is None:
        return method.name, recipe
    if not isinstance(recipe.sampler, Sampler) or recipe.sampler.splits:
        able = [m.name for m in methods(posterior) if m.family == "guidance"]
        raise ValueError(
            f"method {method.name!r} is no likelihood under a sampler: leave out the sampler, or "
            f"take one of {', '.join(able) or 'none'}"
        )
    if method.own_sampler:
        warnings.warn(
            f"the constants of {method.name!r} are sizes of its own sampler's steps: its samples "
            f"under {type(sampler).__name__} may be far off; 'mmps', 'tmpd' and 'pigdm' are scores "
            "that any sampler follows",
            RuntimeWarning,
            stacklevel=3,
        )
    return f"{method.name} by {type(sampler).__name__}", Recipe(recipe.prior, sampler)
