"""Truths and draws of a calibration: from a prior, a method, or a function of the user's."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forward_models import ForwardModel
from priors import LatentPrior, Prior

from ..posterior import condition
from ..recipes import choose, find, nearest
from ..result import Samples
from ..sampling import sample
from .quantities import private
from .simulations import Progress, SamplerFunction

Draw = Callable[[Tensor, int, Callable[[float], None]], tuple[Tensor, Tensor | None]]

OF_SAMPLE = ("absorb", "sampler", "batch")
"""Options that are not the method's but `inverse.sample`'s."""


def check_problem(
    prior: Prior,
    model: ForwardModel,
    method: str | SamplerFunction | None,
    steps: int | None,
    options: dict[str, Any],
) -> Prior:
    """Refuse what cannot be calibrated before anything is drawn; the prior, of the model's size."""
    if not isinstance(prior, Prior):
        raise TypeError(f"prior must be a priors.Prior, got {type(prior).__name__}")
    if not isinstance(model, ForwardModel):
        raise TypeError(
            f"model must be a forward_models.ForwardModel, which simulates y from a clean image; "
            f"got {type(model).__name__}"
        )
    if callable(method):
        if options or steps is not None:
            given = ", ".join([*options, *(["steps"] if steps is not None else [])])
            raise TypeError(f"{given}: a sampler function of your own takes no options")
    elif method == "auto":
        if options:
            raise TypeError(f"'auto' chooses for itself, got option {next(iter(options))!r}")
    elif method is not None:
        known = find(method)
        for name in options:
            if name not in OF_SAMPLE:
                known.check_option(name)
    shape = model.event_shape
    if shape is not None and not isinstance(prior, LatentPrior):
        if not prior.accepts(shape):
            raise ValueError(
                f"prior and forward model disagree on the image: the prior takes "
                f"{tuple(prior.event_shape)}, the forward model {tuple(shape)}"
            )
        if tuple(shape) != tuple(prior.event_shape):
            prior = prior.resized(shape)
    return prior


def draw_truths(
    prior: Prior,
    images: Tensor | None,
    n: int,
    seed: int,
    checkpoint: Path | None,
    device: torch.device,
    progress: Progress | None = None,
) -> tuple[Tensor, str]:
    """n truths (n, *event) and where they come from; a walk to them tells (0, n) at each step."""
    shape = prior.image_shape if isinstance(prior, LatentPrior) else tuple(prior.event_shape)
    if images is not None:
        if not isinstance(images, Tensor) or not images.is_floating_point():
            kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(f"images must be a floating tensor (M, *event), got {kind}")
        if tuple(images.shape[1:]) != tuple(shape) or len(images) < n:
            raise ValueError(
                f"images must be (M, {', '.join(map(str, shape))}) with M >= n = {n}, got "
                f"{tuple(images.shape)}; choose a smaller n, or cut them to that shape"
            )
        chosen = torch.randperm(len(images), generator=private(seed, "images"))[:n]
        return images[chosen.to(images.device)].to(device), "are given images"
    exact = getattr(prior, "sample", None)
    if exact is not None:
        with torch.no_grad():
            rows = [exact(1, private(seed, f"truth/{i}")) for i in range(n)]
        return torch.cat(rows).to(device), "are exact draws of the prior"
    folder = None if checkpoint is None else checkpoint / "truths"
    dtype = getattr(prior.prior, "dtype", None) if isinstance(prior, LatentPrior) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = sample(
            prior, n, seed=_seed(seed, "truths"), checkpoint=folder, dtype=dtype, device=device,
            callback=lambda step: progress(0, n) if progress is not None else None,
        )  # fmt: skip
    return found.x, "are draws by the prior's own sampler, whose faults show as well"


def by_method(
    prior: Prior,
    model: ForwardModel,
    draws: int,
    seed: int,
    settings: dict[str, Any],
    folder: Path | None = None,
) -> Draw:
    """Draws by `inverse.sample`, of all measurements of a block in one run, whose state is kept in
    the folder until the next one begins."""

    def draw(
        y: Tensor, block: int, progress: Callable[[float], None]
    ) -> tuple[Tensor, Tensor | None]:
        posterior = condition(prior, model, y)
        own = None if folder is None else folder / str(block)
        if folder is not None:
            shutil.rmtree(folder / str(block - 1), ignore_errors=True)
        with warnings.catch_warnings():
            # What these warn of, measurement by measurement, is what the report tells.
            warnings.simplefilter("ignore", RuntimeWarning)
            found = sample(
                posterior, len(y) * draws, seed=_seed(seed, f"draws/{block}"), checkpoint=own,
                callback=lambda step: progress(step.index / max(step.total, 1)), **settings,
            )  # fmt: skip
        x = found.x.reshape(len(y), draws, *found.x.shape[1:])
        weights = None if found.weights is None else found.weights.reshape(len(y), draws)
        return x, weights

    return draw


def by_function(function: SamplerFunction, draws: int, seed: int, truth: Tensor) -> Draw:
    """Draws by a function of the user's, of one measurement after the other, like `truth`."""
    expected = (draws, *truth.shape)

    def draw(
        y: Tensor, block: int, progress: Callable[[float], None]
    ) -> tuple[Tensor, Tensor | None]:
        parts, weights = [], []
        for p in range(len(y)):
            found = function(y[p : p + 1], draws, _seed(seed, f"draws/{block}/{p}"))
            x = found.x if isinstance(found, Samples) else found
            if not isinstance(x, Tensor) or tuple(x.shape) != expected or x.dtype != truth.dtype:
                got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else repr(type(x))
                raise ValueError(
                    f"the sampler must give {draws} draws as a tensor of {truth.dtype}, {expected},"
                    f" as the truths are; got {got}"
                )
            parts.append(x)
            weights.append(_weights(found, x))
            progress((p + 1) / len(y))
        return torch.stack(parts), torch.stack(weights)

    return draw


def _weights(found: Tensor | Samples, x: Tensor) -> Tensor:
    """Of draws x (L, *event), (L,): those they come with, else equal ones."""
    w = found.weights if isinstance(found, Samples) else None
    if w is None:
        return torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device)
    total = float(w.sum())
    if tuple(w.shape) != (len(x),) or not bool((w >= 0).all()) or abs(total - 1) > 1e-3:
        raise ValueError(
            f"the sampler must give {len(x)} weights, not negative, that sum to 1; got "
            f"{tuple(w.shape)}, from {float(w.min()):.3g}, sum {total:.6g}"
        )
    return w.double()


def label_of(
    method: str | SamplerFunction | None,
    prior: Prior | None = None,
    model: ForwardModel | None = None,
    y: Tensor | None = None,
    options: dict[str, Any] | None = None,
    draws: int = 0,
) -> str:
    """The method's name, found by the rule of `inverse.sample` where none is given, or "auto"."""
    if callable(method):
        return getattr(method, "__name__", type(method).__name__)
    options = options or {}
    sampler = options.get("sampler")
    if method is None and sampler is None and prior is not None:
        method = choose(condition(prior, model, y)).name  # type: ignore[arg-type]
    name = method or type(sampler).__name__
    if method == "auto" and prior is not None:
        taken, own = nearest(condition(prior, model, y), draws, 0)  # type: ignore[arg-type]
        name = f"auto: {', '.join([taken.name, *own])}"
    if method is not None and sampler is not None:
        name = f"{name} by {type(sampler).__name__}"
    return f"{name}, absorbed" if options.get("absorb") else name


@torch.no_grad()
def probe(prior: Prior, truths: Tensor, y: Tensor) -> Tensor:
    """What tells one problem from another: a truth, its measurement, the prior in the middle."""
    parts = [truths[:1], torch.view_as_real(y) if y.is_complex() else y]
    if not isinstance(prior, LatentPrior):
        low, high = prior.sigma_range
        parts.append(prior.denoise(truths[:1], (low * high) ** 0.5))
    return torch.cat([part.flatten().double().cpu() for part in parts])


def _seed(seed: int, purpose: str) -> int:
    digest = hashlib.blake2b(f"calibration/{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
