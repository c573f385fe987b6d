"""Trained networks written as folders that `load` reads, and diffusers too."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from torch import nn

from .diffusers_folder import check_facts, write_folder
from .diffusers_network import event_shape_of
from .diffusers_settings import quiet
from .ranges import pair, rescaled


def save(
    unet: nn.Module,
    folder: str | os.PathLike[str],
    *,
    event_shape: tuple[int, ...],
    data_range: tuple[float, float],
    sigma_range: tuple[float, float],
    sigma_data: float,
    network_range: tuple[float, float] = (-1.0, 1.0),
    patch: int = 1,
    any_size: bool = False,
    stride: int = 1,
    name: str | None = None,
) -> None:
    """Write a UNet2DModel trained in the EDM parametrisation as a folder for `load`.

    diffusers reads it too: DiffusionPipeline.from_pretrained(folder) samples from it where patch
    is 1 and network_range (-1, 1), and UNet2DModel.from_pretrained(folder, subfolder="unet") and
    EDMEulerScheduler.from_pretrained(folder, subfolder="scheduler") always give its parts.
    prior.json keeps what diffusers has no place for, and the weights' SHA-256. All files are
    complete before the first takes its name. An earlier model_index.json goes before any other
    file changes, and the new one comes last: `load` refuses a folder whose save was cut short.

    Args:
        unet: the diffusers UNet2DModel itself, without any wrapper, with `event_shape`'s channels
            times patch^2 going in and coming out.
        folder: written into, made where missing; other files there stay.
        event_shape: (C, H, W) of one image.
        data_range: what the user's images span.
        sigma_range: noise levels the network has learned, in data units.
        sigma_data: standard deviation of the data, in network units.
        network_range: what data_range becomes at the network's input.
        patch: side of the blocks folded into channels by SpaceToDepth; 1 for none.
        any_size: whether other heights and widths, multiples of stride, may be denoised.
        stride: see any_size; a multiple of patch times the network's own downsampling.
        name: what to call it.
    Raises:
        TypeError: unet is not a UNet2DModel.
        ValueError: settings that the network cannot serve.
    """
    with quiet():
        from diffusers import EDMEulerScheduler, UNet2DModel
    if not isinstance(unet, UNet2DModel):
        raise TypeError(f"unet must be a diffusers UNet2DModel, got {type(unet).__name__}")
    model: Any = unet  # diffusers has no types
    config = dict(model.config)
    images = pair("data_range", data_range)
    network = pair("network_range", network_range)
    levels = pair("sigma_range", sigma_range, positive=True)
    if not 0 < sigma_data < math.inf:
        raise ValueError(f"sigma_data must be positive and finite, got {sigma_data}")
    facts: dict[str, Any] = {
        "format": 1,
        "event_shape": [int(n) for n in event_shape],
        "data_range": list(images),
        "network_range": list(network),
        "sigma_range": list(levels),
        "any_size": bool(any_size),
        "stride": int(stride),
        "patch": int(patch),
    }
    if name is not None:
        facts["name"] = name
    check_facts(facts)
    event_shape_of(config, facts, None)
    if config["time_embedding_type"] != "positional":
        raise ValueError(
            "a network whose time is log(sigma) / 4 needs time_embedding_type 'positional', got "
            f"{config['time_embedding_type']!r}"
        )
    if config["out_channels"] != config["in_channels"]:
        raise ValueError(
            f"the network must give as many channels as it takes, got "
            f"{config['in_channels']} in and {config['out_channels']} out"
        )
    low, high = rescaled(levels, images, network)
    scheduler = EDMEulerScheduler(sigma_min=low, sigma_max=high, sigma_data=float(sigma_data))
    write_folder(Path(folder), model, scheduler, facts)
