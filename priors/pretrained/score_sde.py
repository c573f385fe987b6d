"""Checkpoints of score_sde_pytorch: NCSN++, DDPM++ and DDPM under VE, VP and sub-VP diffusions.

A checkpoint holds the network's last weights under "model" and their moving average under "ema",
the latter as a list in the order of the network's parameters. The average is what is used.

In noise-level coordinates x = x0 + sigma eps, with F the network's output:

    diffusion                   input, time                      D
    VE, continuous              x, sigma                         x + sigma F
    VE, a table of n levels     x, (n - 1) log(sigma_max / sigma) / log(sigma_max / sigma_min)
                                                                 x + sigma F
    VE without scale_by_sigma   the same                         x + sigma^2 F
    VP, sub-VP                  alpha x, 999 t(sigma)            x - sigma F
    VP, a table of n levels     alpha x, index of sigma          x - sigma F

The score of VE is F / sigma (scale_by_sigma), that of the others - F / std, so that F is the noise
itself. Between the levels of a table the index is interpolated in log sigma.

Paper: Song et al., "Score-Based Generative Modeling through SDEs", 2021, https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..network import Negated, NetworkPrior
from ..schedule import VE, VP, Schedule, SubVP
from ..times import GeometricTime, LevelTime, ScheduleTime, TableTime, TimeMap
from .formats import Options, Settings
from .networks.ncsnpp import NCSNpp
from .score_sde_settings import Architecture, Diffusion, read_settings
from .weights import check_fit, fill

NAME = "score_sde_pytorch (NCSN++, DDPM++, DDPM)"

# The published samplers of VP and sub-VP stop at this time.
_FIRST_TIME = 1e-3
_LAYER = re.compile(r"(?:module\.)?all_modules\.(\d+)\.(.+)")
_LEVELS = re.compile(r"(?:module\.)?sigmas")


def recognises(content: dict[str, Any]) -> bool:
    model = content.get("model", content)
    return isinstance(model, dict) and any(_LAYER.fullmatch(str(name)) for name in model)


def build(content: dict[str, Any], settings: Settings, options: Options) -> NetworkPrior:
    """The prior of a checkpoint, or of a bare state dict of averaged weights.

    Args:
        settings: see `read_settings`.
    Raises:
        ValueError: settings that name no published network; weights or averages that are not
            those of the network; noise levels in the file that are not those of the settings;
            an event shape or a class that the network does not know.
    """
    architecture, diffusion = read_settings(settings)
    shape = (architecture.num_channels, architecture.image_size, architecture.image_size)
    if options.event_shape is not None and tuple(options.event_shape) != shape:
        raise ValueError(f"this network takes images of {shape}, not {tuple(options.event_shape)}")
    if options.class_label is not None:
        raise ValueError(
            f"this network knows no classes; leave class_label out, got {options.class_label!r:.80}"
        )
    network = _empty(architecture)
    source = options.source
    stored = content.get("model", content)
    weights = _layers(stored, source)
    _check_levels(stored, diffusion, source)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    check_fit({name: tuple(value.shape) for name, value in weights.items()}, expected, source)
    if stored is not content:
        weights |= _averages(content, network, list(weights), source)
    fill(network, weights, source=source, device=options.device, dtype=options.dtype)
    parametrization, schedule, time, levels = noise(diffusion)
    return options.prior(
        # A score of F / sigma: the noise is minus F.
        Negated(network) if diffusion.scale_by_sigma else network,
        parametrization,
        shape,
        sigma_range=levels,
        network_range=(-1.0, 1.0) if architecture.centered else (0.0, 1.0),
        schedule=schedule,
        time=time,
    )


def _empty(architecture: Architecture) -> NCSNpp:
    """The network without memory for its weights."""
    try:
        with torch.device("meta"):
            return NCSNpp(architecture)
    except ValueError as error:  # torch's: channels that cannot be normalised in groups
        raise ValueError(f"settings do not describe a network: {error}"[:300]) from error


def _layers(stored: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The weights, their layers numbered without gaps.

    Layers without weights, as the resampling of images, have a number in some versions of the
    published code and none in others.
    """
    found = {}
    for name, value in stored.items():
        match = _LAYER.fullmatch(str(name))
        if match is not None and isinstance(value, Tensor):
            found[int(match[1]), match[2]] = value
        elif not _LEVELS.fullmatch(str(name)):
            raise ValueError(f"{source} holds {name!r:.80}, which is no layer of this network")
    rank = {number: i for i, number in enumerate(sorted({number for number, _ in found}))}
    return {f"all_modules.{rank[n]}.{name}": value for (n, name), value in found.items()}


def _averages(
    content: Mapping[str, Any], network: nn.Module, stored: list[str], source: str
) -> dict[str, Tensor]:
    """The moving averages by name; their list follows the network's trained parameters."""
    average = content.get("ema")
    shadows = average.get("shadow_params") if isinstance(average, Mapping) else None
    if not isinstance(shadows, list) or not all(isinstance(value, Tensor) for value in shadows):
        raise ValueError(
            f"{source} has no list ema.shadow_params, the average of the weights, which is what "
            "samples well. Where the last weights are meant, save what is under 'model' alone"
        )
    trained = {n: tuple(p.shape) for n, p in network.named_parameters() if p.requires_grad}
    names = list(trained)
    # The file's own order shows whether its network was built as this one.
    for ours, theirs in zip(names, (n for n in stored if n in trained), strict=True):
        if ours != theirs:
            raise ValueError(
                f"{source} lists {theirs} where this network has {ours}: the averages, which have "
                "an order and no names, cannot be assigned"
            )
    problems = [
        f"average {i} has shape {tuple(value.shape)}, {name} is {trained[name]}"
        for i, (name, value) in enumerate(zip(names, shadows, strict=False))
        if tuple(value.shape) != trained[name]
    ]
    if len(shadows) != len(names):
        problems.insert(0, f"{len(shadows)} averages for {len(names)} trained parameters")
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"{source}: ema does not fit: {'; '.join(problems[:8])}{more}")
    return dict(zip(names, shadows, strict=True))


def _check_levels(stored: Mapping[str, Any], diffusion: Diffusion, source: str) -> None:
    """Refuse settings whose noise levels are not those that the file states, largest first."""
    stated = next((v for n, v in stored.items() if _LEVELS.fullmatch(str(n))), None)
    if diffusion.sde != "vesde" or not isinstance(stated, Tensor):
        return
    ends = (float(stated[-1]), float(stated[0])) if stated.ndim == 1 and len(stated) else ()
    wanted = (diffusion.low, diffusion.high)
    counted = diffusion.num_scales in (0, stated.numel())
    if (
        not counted
        or not ends
        or not all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(ends, wanted, strict=True))
    ):
        raise ValueError(
            f"{source} states {stated.numel()} noise levels {ends}, the settings "
            f"{diffusion.num_scales or 'any number'} from {wanted[0]} to {wanted[1]}: pass "
            "settings with model.sigma_min, model.sigma_max and model.num_scales of the file"
        )


Law = tuple[str, Schedule, TimeMap, tuple[float, float]]


def noise(diffusion: Diffusion) -> Law:
    """Parametrisation, schedule, time and noise levels in network units."""
    low, high, n = diffusion.low, diffusion.high, diffusion.num_scales
    if diffusion.sde == "vesde":
        parametrization = "epsilon" if diffusion.scale_by_sigma else "score"
        time = LevelTime() if diffusion.continuous else GeometricTime(low, high, n)
        return parametrization, VE(low, high), time, (low, high)
    if not diffusion.continuous:
        abar = (1 - torch.linspace(low / n, high / n, n, dtype=torch.float64)).cumprod(0)
        levels = ((1 - abar) / abar).sqrt()
        ends = (float(levels[0]), float(levels[-1]))
        return "epsilon", VP(low, high), TableTime(levels), ends
    schedule = VP(low, high) if diffusion.sde == "vpsde" else SubVP(low, high)
    ends = (float(schedule.sigma(_FIRST_TIME)), float(schedule.sigma(1.0)))
    return "epsilon", schedule, ScheduleTime(schedule, 999.0, rounded=True), ends
