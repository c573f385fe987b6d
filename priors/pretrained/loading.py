"""Priors from folders: the bundled ones, and diffusers pipelines of a UNet2DModel.

A folder holds a network, and a scheduler that says what the network's output means; the table of
`diffusers_schedulers` states which denoiser each becomes. Nothing in a folder is executed: JSON and
safetensors are read, pickles never are.
"""

from __future__ import annotations

import difflib
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..network import NetworkPrior, SpaceToDepth
from .diffusers_folder import check_facts, read_folder, refuse_pickles, write_folder
from .diffusers_network import UNet, check_label, empty_unet, event_shape_of, fill
from .diffusers_schedulers import SCHEDULERS, noise_law
from .diffusers_settings import quiet

__all__ = ["BUNDLED", "SCHEDULERS", "bundled_names", "load", "save"]

BUNDLED = Path(__file__).parent.parent / "bundled"


def bundled_names() -> list[str]:
    """Names that `load` knows without a path."""
    if not BUNDLED.is_dir():
        return []
    return sorted(p.name for p in BUNDLED.iterdir() if (p / "model_index.json").is_file())


def load(
    source: str | os.PathLike[str],
    *,
    event_shape: tuple[int, ...] | None = None,
    data_range: tuple[float, float] | None = None,
    sigma_range: tuple[float, float] | None = None,
    class_label: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    max_parameters: int = 2**31,
) -> NetworkPrior:
    """A prior from a bundled name or from a diffusers pipeline folder; never from the network.

    A folder holds model_index.json, unet/config.json, unet/diffusion_pytorch_model.safetensors
    and scheduler/scheduler_config.json (older ones keep the last three at the top), and may hold
    a prior.json as `save` writes it.

    Args:
        source: a bundled name, or the path of a folder; a bundled name goes first ("./name" for
            a folder of the same name).
        event_shape: (C, H, W) of one image; by default the folder's own.
        data_range: what the user's images span; by default what prior.json says, else the
            network's own range: (-1, 1), or (0, 1) under a ScoreSdeVeScheduler.
        sigma_range: noise levels in data units between which samplers run; by default what
            prior.json or the scheduler says, a level of infinite noise left out.
        class_label: which class, for a network with class embeddings, and for no other.
        device: where the network goes; by default the CPU.
        dtype: what the network computes in, float32 by default whatever the file holds. Images
            of another dtype are converted for the network and its answer is converted back.
        max_parameters: refuse files that declare more values, before memory is taken.
    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: an unknown name, network, scheduler or setting; a file that is corrupt,
            truncated, too large, outside the folder, a pickle, or not what prior.json recorded.
        TypeError: an argument of the wrong type.
    """
    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating torch.dtype, got {dtype!r}")
    folder = read_folder(_find(source))
    facts, patch = folder.facts, folder.facts["patch"]
    law = noise_law(folder.scheduler_name, folder.scheduler)
    unet = empty_unet(folder.unet)
    config = dict(unet.config)
    law.check_embedding(config["time_embedding_type"])
    check_label(config, class_label)
    shape = event_shape_of(config, facts, event_shape)
    network_range = _pair("network_range", facts.get("network_range", law.network_range))
    folder.check_weights()
    fill(unet, folder.weights, _device(device), dtype, max_parameters)
    network: nn.Module = UNet(unet, class_label)
    if patch > 1:
        network = SpaceToDepth(network, patch)

    # prior.json states its levels in its own data units; the scheduler in network units.
    own_range = _pair("data_range", facts.get("data_range", network_range))
    images = own_range if data_range is None else _pair("data_range", data_range)
    if sigma_range is not None:
        levels = _pair("sigma_range", sigma_range, positive=True)
    elif "sigma_range" in facts:
        levels = _pair("sigma_range", facts["sigma_range"], positive=True)
        levels = _rescaled(levels, own_range, images)
    else:
        levels = _rescaled(law.sigma_range, network_range, images)
    return NetworkPrior(
        network.eval().requires_grad_(False),
        law.parametrization,
        shape,
        data_range=images,
        network_range=network_range,
        time=law.time,
        sigma_range=levels,
        sigma_data=law.sigma_data,
        edm_sign=law.edm_sign,
        any_size=facts["any_size"],
        stride=facts["stride"],
    )


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
    images = _pair("data_range", data_range)
    network = _pair("network_range", network_range)
    levels = _pair("sigma_range", sigma_range, positive=True)
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
    low, high = _rescaled(levels, images, network)
    scheduler = EDMEulerScheduler(sigma_min=low, sigma_max=high, sigma_data=float(sigma_data))
    write_folder(Path(folder), model, scheduler, facts)


def _find(source: str | os.PathLike[str]) -> Path:
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source must be a name or a path, got {type(source).__name__}")
    names = bundled_names()
    if isinstance(source, str) and source in names:
        return BUNDLED / source
    path = Path(source)
    if os.path.isdir(path):
        return path
    refuse_pickles([path.name])
    if os.path.exists(path):
        raise ValueError(f"{path.name} is not a folder; pass the diffusers folder that holds it")
    if isinstance(source, str) and len(path.parts) == 1:
        close = difflib.get_close_matches(source, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(
            f"unknown prior {source!r:.80}{hint} Bundled: {', '.join(names) or 'none'}. "
            "Else pass the path of a diffusers folder."
        )
    raise FileNotFoundError(
        f"no folder {source!s:.200}; hub names are not downloaded: pass the path of a folder"
    )


def _pair(name: str, value: Any, positive: bool = False) -> tuple[float, float]:
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be two numbers (low, high), got {value!r:.80}") from error
    if not -math.inf < low < high < math.inf or (positive and low <= 0):
        need = "0 < low < high" if positive else "low < high"
        raise ValueError(f"{name} must be (low, high) with {need}, finite, got {(low, high)}")
    return low, high


def _rescaled(
    levels: tuple[float, float], units: tuple[float, float], wanted: tuple[float, float]
) -> tuple[float, float]:
    """Noise levels in the units of one image range, in those of another."""
    ratio = (wanted[1] - wanted[0]) / (units[1] - units[0])
    return levels[0] * ratio, levels[1] * ratio


def _device(device: torch.device | str | None) -> torch.device:
    try:
        found = torch.device("cpu" if device is None else device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        present = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"no device {device!s}; present: {', '.join(present)}") from error
    return found
