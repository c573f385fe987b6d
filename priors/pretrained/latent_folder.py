"""The prior of a latent pipeline's folder: an autoencoder, a network of latents, a scheduler.

    model_index.json, vae/ (or vqvae/), unet/ (or transformer/), scheduler/

Text encoders, tokenizers and safety checkers in the folder are neither read nor run: a prompt comes
as its embedding. The scheduler's law of the noise is that of `diffusers_schedulers`, over latents.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..guidance import ClassifierFreeGuidance
from ..latent import LatentPrior
from ..prior import Prior
from .diffusers_network import event_shape_of
from .diffusers_schedulers import SCHEDULERS, noise_law
from .formats import Options
from .latent_networks import Conditions, Part, autoencoder, latent_network
from .safe_files import read_json

AUTOENCODERS, NETWORKS = ("vae", "vqvae"), ("unet", "transformer")
_NOT_RUN = ("text_encoder", "tokenizer", "safety_checker", "feature_extractor")


def is_latent(root: Path) -> bool:
    """Whether a pipeline folder names an autoencoder, or its pipeline cannot be without one."""
    index = read_json(root, "model_index.json")
    return _is_xl(index) or any(
        index.get(name) not in (None, [None, None]) for name in AUTOENCODERS
    )


def build_latent(
    root: Path, options: Options, conditions: Conditions, max_parameters: int
) -> LatentPrior:
    """The prior of the folder root, as `load` was asked for it."""
    parts = _parts(root)
    network_part, vae_part = _one(parts, NETWORKS), _one(parts, AUTOENCODERS)
    scheduler = parts["scheduler"].kind
    law = noise_law(scheduler, read_json(root, "scheduler/scheduler_config.json"))
    vae = autoencoder(vae_part, options, max_parameters)
    network = latent_network(network_part, options, conditions, max_parameters)
    law.check_embedding(network.config["time_embedding_type"])
    facts: dict[str, Any] = {"any_size": False, "stride": 1, "patch": 1}
    if network.shape is not None:
        facts["event_shape"] = list(network.shape)
    shape = event_shape_of(network.config, facts, options.event_shape)
    # Latents keep the network's units: the user's range is that of images.
    latents = replace(options, data_range=None)
    conditional = latents.prior(
        network.conditional,
        law.parametrization,
        shape,
        sigma_range=law.sigma_range,
        network_range=law.network_range,
        time=law.time,
        sigma_data=law.sigma_data,
        edm_sign=law.edm_sign,
    )
    prior: Prior = conditional
    if conditions.guidance_scale is not None:
        assert network.unconditional is not None  # refused with the network otherwise
        unconditional = conditional.under(network.unconditional)
        prior = ClassifierFreeGuidance(conditional, unconditional, conditions.guidance_scale)
    return LatentPrior(prior, vae, image_range=options.data_range)


def _parts(root: Path) -> dict[str, Part]:
    """The parts that model_index.json names, as far as a denoiser and its decoder need them."""
    parts = {}
    known = (*NETWORKS, *AUTOENCODERS, "scheduler")
    index = read_json(root, "model_index.json")
    if _is_xl(index):
        raise ValueError(
            "Stable Diffusion XL is not supported: its network asks for a pooled prompt and the "
            "image's sizes beside one prompt embedding"
        )
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or value == [None, None]:
            continue
        if name in _NOT_RUN:
            continue
        if name not in known:
            raise ValueError(
                f"model_index.json: {name} is not supported in a latent pipeline; known: "
                f"{', '.join((*known, *_NOT_RUN))}"[:400]
            )
        if len(value) != 2 or value[0] != "diffusers" or not isinstance(value[1], str):
            raise ValueError(f"model_index.json: {name} is {value!r:.120}, not a part of diffusers")
        parts[name] = Part(root, name, value[1])
    if "scheduler" not in parts:
        raise ValueError(f"model_index.json must name a scheduler; known: {', '.join(SCHEDULERS)}")
    if (came := parts["scheduler"].kind) not in SCHEDULERS:
        raise ValueError(f"scheduler {came!r:.80} is not supported; known: {', '.join(SCHEDULERS)}")
    return parts


def _is_xl(index: dict[str, Any]) -> bool:
    return str(index.get("_class_name")).startswith("StableDiffusionXL")


def _one(parts: dict[str, Part], names: tuple[str, ...]) -> Part:
    found = [parts[name] for name in names if name in parts]
    if len(found) != 1:
        raise ValueError(
            f"model_index.json must name one of {' and '.join(names)}, got "
            f"{', '.join(part.name for part in found) or 'none'}"
        )
    return found[0]
