"""Trained networks written as folders that `load` reads, and diffusers too."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from torch import nn

from ..network import NetworkPrior
from ..prior import Prior
from ..ranges import pair, rescaled
from ..schedule import Schedule
from .diffusers_folder import check_facts, write_folder
from .diffusers_network import event_shape_of
from .diffusers_settings import quiet
from .laws import nearest_scheduler, schedule_facts, schedule_of


def save(
    unet: nn.Module,
    folder: str | os.PathLike[str],
    *,
    event_shape: tuple[int, ...] | None = None,
    data_range: tuple[float, float] | None = None,
    sigma_range: tuple[float, float] | None = None,
    parametrization: str = "edm",
    schedule: Schedule | None = None,
    sigma_data: float | None = None,
    network_range: tuple[float, float] = (-1.0, 1.0),
    patch: int = 1,
    any_size: bool = False,
    stride: int = 1,
    name: str | None = None,
) -> None:
    """Write a trained UNet2DModel as a folder for `load`, which gives the same denoiser back.

    diffusers reads it too: UNet2DModel.from_pretrained(folder, subfolder="unet") always, and the
    scheduler nearest to the schedule from its own subfolder where there is one (the table of
    `laws`). DiffusionPipeline.from_pretrained(folder) samples from it where patch is 1 and
    network_range (-1, 1), in the edm parametrisation and those of DDPM. prior.json keeps what
    diffusers has no place for, and the weights' SHA-256. All files are complete before the first
    takes its name. An earlier model_index.json goes before any other file changes, and the new one
    comes last: `load` refuses a folder whose save was cut short.

    Args:
        unet: the diffusers UNet2DModel itself, without any wrapper, with `event_shape`'s channels
            times patch^2 going in and coming out.
        folder: written into, made where missing; other files there stay.
        event_shape: (C, H, W) of one image; needed, as the next two.
        data_range: what the user's images span.
        sigma_range: noise levels the network has learned, in data units.
        parametrization: what the network's output means, as in `NetworkPrior`; its time is the
            default one there.
        schedule: as in `NetworkPrior`, with its defaults; edm needs none.
        sigma_data: standard deviation of the data, in network units; edm needs it, others none.
        network_range: what data_range becomes at the network's input.
        patch: side of the blocks folded into channels by SpaceToDepth; 1 for none.
        any_size: whether other heights and widths, multiples of stride, may be denoised.
        stride: see any_size; a multiple of patch times the network's own downsampling.
        name: what to call it.
    Raises:
        TypeError: unet is no UNet2DModel (`save_analytic` writes a `Gaussian` or a `Mixture`);
            event_shape, data_range or sigma_range is left out.
        ValueError: settings that the network cannot serve.
    """
    with quiet():
        from diffusers import UNet2DModel
    if not isinstance(unet, UNet2DModel):
        raise TypeError(
            f"save takes a network: unet must be a diffusers UNet2DModel, got {type(unet).__name__}"
            + ("; save_analytic writes a Gaussian or a Mixture" if isinstance(unet, Prior) else "")
        )
    if event_shape is None or data_range is None or sigma_range is None:
        raise TypeError("save needs event_shape, data_range and sigma_range beside the network")
    model: Any = unet  # diffusers has no types
    config = dict(model.config)
    images = pair("data_range", data_range)
    network = pair("network_range", network_range)
    levels = pair("sigma_range", sigma_range, positive=True)
    law = _law(model, parametrization, schedule, sigma_data)
    facts: dict[str, Any] = {
        "format": 1,
        "event_shape": [int(n) for n in event_shape],
        "data_range": list(images),
        "network_range": list(network),
        "sigma_range": list(levels),
        "any_size": bool(any_size),
        "stride": int(stride),
        "patch": int(patch),
        **law,
    }
    if name is not None:
        facts["name"] = name
    check_facts(facts)
    event_shape_of(config, facts, None)
    if config["out_channels"] != config["in_channels"]:
        raise ValueError(
            f"the network must give as many channels as it takes, got "
            f"{config['in_channels']} in and {config['out_channels']} out"
        )
    ends = rescaled(levels, images, network)
    used = schedule_of(law["schedule"]) if law else None
    scheduler = nearest_scheduler(parametrization, used, ends, sigma_data)
    write_folder(Path(folder), model, scheduler, facts)


def _law(
    model: Any, parametrization: str, schedule: Schedule | None, sigma_data: float | None
) -> dict[str, Any]:
    """What prior.json says of the noise; nothing for edm, whose scheduler says all."""
    embedding = model.config["time_embedding_type"]
    probe = NetworkPrior(model, parametrization, (1,), schedule=schedule)
    fourier = parametrization == "score" and embedding == "fourier"
    if embedding != "positional" and not fourier:
        raise ValueError(
            "a network whose time is a number needs time_embedding_type 'positional' (or "
            f"'fourier' for the score), got {embedding!r}"
        )
    if parametrization != "edm":
        return {"parametrization": parametrization, "schedule": schedule_facts(probe.schedule)}
    if schedule is not None:
        raise ValueError("the edm parametrization has no schedule; leave it out")
    if sigma_data is None or not 0 < sigma_data < math.inf:
        raise ValueError(f"sigma_data must be positive and finite, got {sigma_data}")
    return {}
