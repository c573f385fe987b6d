"""Priors by name or path: the bundled ones, diffusers pipeline folders, and checkpoint files.

Nothing in a folder or file is ever executed.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..latent import LatentPrior
from ..network import NetworkPrior
from ..ranges import pair
from . import hub
from .diffusers_pipeline import build_pipeline
from .diffusers_schedulers import SCHEDULERS
from .formats import Options, Settings, build, read_checkpoint, settings_beside
from .latent_folder import build_latent, is_latent
from .latent_networks import Conditions

if TYPE_CHECKING:
    from ..analytic import Gaussian, Mixture

__all__ = ["BUNDLED", "SCHEDULERS", "bundled_names", "load"]

BUNDLED = Path(__file__).parent.parent / "bundled"


def bundled_names() -> list[str]:
    """Names that `load` knows without a path."""
    if not BUNDLED.is_dir():
        return []
    index = ("model_index.json", "analytic.json")
    return sorted(p.name for p in BUNDLED.iterdir() if any((p / i).is_file() for i in index))


def load(
    source: str | os.PathLike[str],
    *,
    settings: dict[str, Any] | str | None = None,
    event_shape: tuple[int, ...] | None = None,
    data_range: tuple[float, float] | None = None,
    sigma_range: tuple[float, float] | None = None,
    class_label: int | str | None = None,
    prompt_embeds: Tensor | str | os.PathLike[str] | None = None,
    negative_prompt_embeds: Tensor | str | os.PathLike[str] | None = None,
    guidance_scale: float | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    revision: str = "main",
    max_parameters: int = 2**31,
) -> NetworkPrior | LatentPrior | Gaussian | Mixture:
    """A prior from a bundled name, a diffusers pipeline folder, a checkpoint file or a hub id.

    A folder holds model_index.json, unet/config.json, unet/diffusion_pytorch_model.safetensors
    and scheduler/scheduler_config.json (older ones keep the last three at the top), and may hold
    a prior.json as `save` writes it. Its weights may be in shards, and in .bin where there are no
    safetensors. One with a vae gives a `LatentPrior`: event_shape and sigma_range are of latents,
    data_range is of images. One with an analytic.json, as `save_analytic` writes it, becomes a
    `Gaussian` or a `Mixture`, which states its own shape and units. A file (.safetensors, .pt,
    .pth, .ckpt, .pkl) is recognised by the names of its tensors; where they leave the network's
    settings open, pass `settings`.

    A hub id "org/name" that is neither of these stands for a pipeline folder on the Hugging Face
    hub: the copy in huggingface_hub's cache where there is one, else it is downloaded into that
    cache, only its JSON and weights, with a progress bar; HF_HUB_OFFLINE=1 forbids it. Nothing
    that a file asks for is executed.

    Args:
        source: a bundled name, the path of a folder or file, or a hub id, tried in this order
            ("./name" for a folder of a bundled prior's name).
        settings: how the network of a checkpoint file was made, where the file does not say: a
            dictionary or a published model's name (`priors.pretrained.published_names` lists them
            and says what a dictionary holds); by default what a .json of the file's name says
            beside it.
        event_shape: (C, H, W) of one image; by default the source's own.
        data_range: what the user's images span; by default what prior.json says, else the
            network's own range: (-1, 1), or (0, 1) under a ScoreSdeVeScheduler.
        sigma_range: noise levels in data units between which samplers run; by default what
            prior.json or the scheduler says, a level of infinite noise left out.
        class_label: which class, for a network with class embeddings, and for no other; "null" is
            the last of them, where the network was trained with one more embedding than classes
            that stands for none of them (nothing in a folder tells whether it was).
        prompt_embeds: of a latent pipeline with text, the prompt's embedding, (L, C) or (1, L, C),
            or a safetensors file that holds it: the text encoder is not run.
        negative_prompt_embeds, guidance_scale: for `ClassifierFreeGuidance` of a latent pipeline,
            the scale, and with text the embedding without the condition (the empty prompt's);
            with classes it is the null class.
        device: where the network goes; by default the CPU.
        dtype: what the network computes in, float32 by default whatever the file holds. Images
            of another dtype are converted for the network and its answer is converted back.
        revision: which branch, tag or commit of a hub id.
        max_parameters: refuse files that declare more values, before memory is taken.
    Raises:
        FileNotFoundError: the source or one of its files is missing, or a hub id is not in the
            cache and cannot be downloaded.
        ValueError: an unknown name, network, scheduler, format or setting; a file that is
            corrupt, truncated, too large, outside the folder, a pickle that asks for code, or
            not what prior.json recorded.
        TypeError: an argument of the wrong type.
    """
    options = Options(
        event_shape=None if event_shape is None else tuple(event_shape),
        data_range=None if data_range is None else pair("data_range", data_range),
        sigma_range=None if sigma_range is None else pair("sigma_range", sigma_range, True),
        class_label=class_label,
        device=_device(device),
        dtype=_dtype(dtype),
        source=Path(source).name if isinstance(source, str | os.PathLike) else "",
    )
    conditions = Conditions(prompt_embeds, negative_prompt_embeds, guidance_scale)
    path = _find(source, revision, max_parameters)
    prior = _read(path, settings, options, conditions, max_parameters)
    prior.source = options.source
    return prior


def _read(
    path: Path, settings: Settings, options: Options, conditions: Conditions, max_parameters: int
) -> NetworkPrior | LatentPrior | Gaussian | Mixture:
    """The prior of a folder or file that is there."""
    if path.is_dir():
        if settings is not None:
            raise ValueError("a folder states its own settings; leave settings out")
        # That room reads by the rules of this one.
        from ..analytic.files import is_analytic, read_analytic

        if is_analytic(path):
            _refuse(conditions, options.source)
            return read_analytic(path, options, max_parameters)
        if is_latent(path):
            return build_latent(path, options, conditions, max_parameters)
        _refuse(conditions, options.source)
        return build_pipeline(path, options, max_parameters)
    _refuse(conditions, options.source)
    content = read_checkpoint(path, max_parameters)
    return build(content, settings_beside(path) if settings is None else settings, options)


def _refuse(conditions: Conditions, source: str) -> None:
    conditions.refuse_prompts(f"{source} takes no text")
    if conditions.guidance_scale is not None:
        raise ValueError(
            "guidance_scale is for latent pipelines; guide others by "
            'ClassifierFreeGuidance(load(..., class_label=k), load(..., class_label="null"), scale)'
        )


def _find(source: str | os.PathLike[str], revision: str, max_parameters: int) -> Path:
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source must be a name or a path, got {type(source).__name__}")
    names = bundled_names()
    if isinstance(source, str) and source in names:
        return BUNDLED / source
    path = Path(source)
    if os.path.isdir(path):
        return path
    if os.path.lexists(path):
        return path
    if isinstance(source, str) and len(path.parts) == 1:
        close = difflib.get_close_matches(source, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(
            f"unknown prior {source!r:.80}{hint} Bundled: {', '.join(names) or 'none'}. "
            "Else pass the path of a diffusers folder or of a checkpoint file."
        )
    if isinstance(source, str) and hub.is_id(source):
        return hub.fetch(source, revision, max_parameters)
    raise FileNotFoundError(f"no folder or file {source!s:.200}")


def _device(device: torch.device | str | None) -> torch.device:
    try:
        found = torch.device("cpu" if device is None else device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        present = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"no device {device!s}; present: {', '.join(present)}") from error
    return found


def _dtype(dtype: torch.dtype | None) -> torch.dtype:
    found = torch.float32 if dtype is None else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise TypeError(f"dtype must be a floating torch.dtype, got {dtype!r}")
    return found
