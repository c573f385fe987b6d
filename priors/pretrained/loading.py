"""Priors from folders: the bundled ones, and diffusers pipelines of a UNet2DModel.

A folder holds a network, and a scheduler that says what the network's output means; the table of
`diffusers_schedulers` states which denoiser each becomes. Nothing in a folder is executed: JSON and
safetensors are read, pickles never are.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import torch
from torch import nn

from ..network import NetworkPrior, SpaceToDepth
from .diffusers_folder import read_folder, refuse_pickles
from .diffusers_network import UNet, check_label, empty_unet, event_shape_of, fill
from .diffusers_schedulers import SCHEDULERS, noise_law
from .ranges import pair, rescaled

__all__ = ["BUNDLED", "SCHEDULERS", "bundled_names", "load"]

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
    network_range = pair("network_range", facts.get("network_range", law.network_range))
    folder.check_weights()
    fill(unet, folder.weights, _device(device), dtype, max_parameters)
    network: nn.Module = UNet(unet, class_label)
    if patch > 1:
        network = SpaceToDepth(network, patch)

    # prior.json states its levels in its own data units; the scheduler in network units.
    own_range = pair("data_range", facts.get("data_range", network_range))
    images = own_range if data_range is None else pair("data_range", data_range)
    if sigma_range is not None:
        levels = pair("sigma_range", sigma_range, positive=True)
    elif "sigma_range" in facts:
        levels = pair("sigma_range", facts["sigma_range"], positive=True)
        levels = rescaled(levels, own_range, images)
    else:
        levels = rescaled(law.sigma_range, network_range, images)
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


def _device(device: torch.device | str | None) -> torch.device:
    try:
        found = torch.device("cpu" if device is None else device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        present = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"no device {device!s}; present: {', '.join(present)}") from error
    return found
