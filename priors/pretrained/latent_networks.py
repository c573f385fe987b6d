"""The parts of a latent pipeline: its autoencoder, and a network with its fixed conditions."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..guidance import Conditioned
from .diffusers_network import UNet, class_index, empty_module, empty_unet, fill_unet
from .diffusers_settings import defaults, quiet
from .diffusers_weights import find_weights
from .formats import Options
from .safe_files import read_json
from .weights import read_weights

# Settings under which a UNet2DConditionModel asks for more than time and a prompt, or scales it.
_PLAIN = {
    "addition_embed_type": None,
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "num_class_embeds": None,
    "time_cond_proj_dim": None,
}
_EMBEDDING_LIMIT = 2**26
# Patches along a side of an image, of which published transformers have at most 32.
_POSITIONS = 1024


@dataclass(frozen=True)
class Conditions:
    """What `load` was asked for beside a class.

    Attributes:
        prompt_embeds, negative_prompt_embeds: (L, C) or (1, L, C), or a safetensors file of one.
        guidance_scale: of classifier-free guidance; None for none.
    """

    prompt_embeds: Tensor | str | os.PathLike[str] | None = None
    negative_prompt_embeds: Tensor | str | os.PathLike[str] | None = None
    guidance_scale: float | None = None

    def refuse_prompts(self, why: str) -> None:
        if self.prompt_embeds is not None or self.negative_prompt_embeds is not None:
            raise ValueError(f"{why}; leave prompt_embeds and negative_prompt_embeds out")


@dataclass(frozen=True)
class Part:
    """One part of a pipeline folder: its folder's name and its class's."""

    root: Path
    name: str
    kind: str

    @property
    def config(self) -> dict[str, Any]:
        return read_json(self.root, f"{self.name}/config.json")

    def filled(self, module: Any, options: Options, max_parameters: int) -> Any:
        """The module with the part's weights."""
        weights = find_weights(self.root, f"{self.name}/")
        fill_unet(module, weights, options, max_parameters)
        return module.eval().requires_grad_(False)


@dataclass(frozen=True)
class LatentNetwork:
    """A network of latents: under the condition asked for, and without it where that is known.

    Attributes:
        config: in_channels, out_channels, sample_size, down_block_types, time_embedding_type.
        shape: of latents, where it is fixed; else None.
    """

    config: dict[str, Any]
    conditional: nn.Module
    unconditional: nn.Module | None
    shape: tuple[int, ...] | None = None


def autoencoder(part: Part, options: Options, max_parameters: int) -> Any:
    """An AutoencoderKL or VQModel, checked and filled."""
    kinds = ("AutoencoderKL", "VQModel")
    if part.kind not in kinds:
        raise ValueError(f"the autoencoder is a {part.kind!r:.80}; supported: {', '.join(kinds)}")
    raw = part.config
    module = empty_module(raw, part.kind)
    channels = module.config["latent_channels"]
    factor = module.config["scaling_factor"]
    if not _number(factor) or factor <= 0:
        raise ValueError(f"{part.name}: scaling_factor must be positive, got {factor!r:.80}")
    for key, length in {
        "shift_factor": None,
        "latents_mean": channels,
        "latents_std": channels,
    }.items():
        value = module.config.get(key)
        fits = (
            _number(value)
            if length is None
            else (
                isinstance(value, list | tuple)
                and len(value) == length
                and all(map(_number, value))
            )
        )
        if value is not None and not fits:
            expected = "a number" if length is None else f"{length} numbers"
            raise ValueError(f"{part.name}: {key} must be {expected}, got {value!r:.80}")
    return part.filled(module, options, max_parameters)


def latent_network(
    part: Part, options: Options, conditions: Conditions, max_parameters: int
) -> LatentNetwork:
    """The network of a latent pipeline under its conditions."""
    builders: dict[str, Callable[..., LatentNetwork]] = {
        "UNet2DModel": _unet,
        "UNet2DConditionModel": _text_unet,
        "DiTTransformer2DModel": _dit,
        "Transformer2DModel": _dit,
    }
    if part.kind not in builders:
        raise ValueError(
            f"the network is a {part.kind!r:.80}; supported over latents: {', '.join(builders)}"
        )
    return builders[part.kind](part, options, conditions, max_parameters)


def _unet(part: Part, options: Options, conditions: Conditions, limit: int) -> LatentNetwork:
    conditions.refuse_prompts("a UNet2DModel knows no text")
    unet = empty_unet(part.config)
    config = dict(unet.config)
    label = class_index(config, options.class_label)
    if conditions.guidance_scale is not None and label is None:
        raise ValueError("this network knows no condition to guide by; leave guidance_scale out")
    unet = part.filled(unet, options, limit)
    null = None if label is None else UNet(unet, class_index(config, "null"))
    return LatentNetwork(config, UNet(unet, label), null)


def _text_unet(part: Part, options: Options, conditions: Conditions, limit: int) -> LatentNetwork:
    if options.class_label is not None:
        raise ValueError("this network is conditioned on text, not on classes: no class_label")
    unet = empty_module(part.config, part.kind)
    config = dict(unet.config)
    for key, plain in _PLAIN.items():
        if config[key] != plain and config[key] is not None:
            raise ValueError(
                f"{part.name}: {key} = {config[key]!r:.80} is not supported: of conditions, only "
                "one prompt embedding is"
            )
    widths = (
        {config["cross_attention_dim"]}
        if isinstance(config["cross_attention_dim"], int)
        else (set(config["cross_attention_dim"]))
    )
    if len(widths) != 1:
        raise ValueError(f"{part.name}: one cross_attention_dim is supported, got {sorted(widths)}")
    (width,) = widths
    if conditions.prompt_embeds is None:
        raise ValueError(
            f"this network is conditioned on text: pass prompt_embeds, a tensor (L, {width}) or a "
            "safetensors file that holds it (the empty prompt's for no condition)"
        )
    guided = conditions.guidance_scale is not None
    if guided != (conditions.negative_prompt_embeds is not None):
        raise ValueError(
            "guidance_scale and negative_prompt_embeds (the empty prompt's embedding) go together"
        )

    def under(name: str) -> Conditioned:
        value = embedding(name, getattr(conditions, name), width)
        return Conditioned(unet, encoder_hidden_states=value.to(options.device, options.dtype))

    first = under("prompt_embeds")
    second = under("negative_prompt_embeds") if guided else None
    part.filled(unet, options, limit)
    return LatentNetwork(config, first, second)


def _dit(part: Part, options: Options, conditions: Conditions, limit: int) -> LatentNetwork:
    conditions.refuse_prompts("this transformer is conditioned on classes, not on text")
    raw = _dit_config(part)
    model = empty_module(raw, "DiTTransformer2DModel")
    config = dict(model.config)
    classes, patch, size = (
        config[key] for key in ("num_embeds_ada_norm", "patch_size", "sample_size")
    )
    # The table has one row more than classes: the null class.
    index = class_index({"num_class_embeds": classes + 1}, options.class_label)
    with quiet():
        from diffusers.models.embeddings import PatchEmbed
    if patch < 1 or size % patch or not 1 <= size // patch <= _POSITIONS:
        raise ValueError(
            f"{part.name}: sample_size must be from 1 to {_POSITIONS} times patch_size {patch}, "
            f"and a multiple of it, got {size}"
        )
    if (size // patch) ** 2 * model.inner_dim > limit:
        raise ValueError(
            f"{part.name}: its positions are more than max_parameters = {limit} values; raise "
            "max_parameters if that is meant"
        )
    # Its positions are constants that no weights file holds.
    model.pos_embed = PatchEmbed(
        height=size, width=size, patch_size=patch, in_channels=config["in_channels"],
        embed_dim=model.inner_dim,
    ).to(options.device, options.dtype)  # fmt: skip
    part.filled(model, options, limit)

    def under(label: int | None) -> Conditioned:
        return Conditioned(model, class_labels=torch.tensor([label], device=options.device))

    config |= {"down_block_types": ("",), "time_embedding_type": "positional"}
    return LatentNetwork(config, under(index), under(classes), (config["in_channels"], size, size))


def _dit_config(part: Part) -> dict[str, Any]:
    """config.json of a DiT, which older diffusers wrote as one of many kinds of transformers."""
    raw = part.config
    if raw.get("_class_name") != "Transformer2DModel":
        return raw
    with quiet():
        from diffusers import DiTTransformer2DModel, Transformer2DModel
    if raw.get("norm_type") != "ada_norm_zero" or raw.get("patch_size") is None:
        raise ValueError(
            f"{part.name}: of Transformer2DModel, DiT alone (norm_type 'ada_norm_zero', over "
            "patches) is supported"
        )
    known, wider = defaults(DiTTransformer2DModel), defaults(Transformer2DModel)
    for key in sorted(set(raw) - set(known)):
        if not key.startswith("_") and raw[key] != wider.get(key) and raw[key] is not None:
            raise ValueError(f"{part.name}: {key} = {raw[key]!r:.80} is not supported in a DiT")
    kept = {key: value for key, value in raw.items() if key in known}
    return {**kept, "_class_name": "DiTTransformer2DModel"}


def embedding(name: str, value: Any, width: int) -> Tensor:
    """A prompt's embedding (1, L, width), from a tensor or a safetensors file that holds it."""
    if isinstance(value, str | os.PathLike):
        if not os.path.lexists(value):
            raise FileNotFoundError(
                f"{name}: no file {os.fspath(value)!r:.80}. Text encoders are not run here: pass "
                f"the prompt's embedding, a tensor (L, {width}), or the safetensors file that "
                "holds it"
            )
        content = read_weights(Path(value), max_parameters=_EMBEDDING_LIMIT)
        if name not in content and len(content) != 1:
            raise ValueError(
                f"{Path(value).name} must hold one tensor, or one called {name}; it holds "
                f"{', '.join(list(content)[:6]) or 'none'}"
            )
        value = content[name] if name in content else next(iter(content.values()))
    if not isinstance(value, Tensor) or not value.is_floating_point():
        came = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a floating tensor or a file of one, got {came}")
    embeds = value[None] if value.ndim == 2 else value
    if embeds.ndim != 3 or len(embeds) != 1 or embeds.shape[1] < 1 or embeds.shape[2] != width:
        raise ValueError(
            f"{name} must have shape (L, {width}) or (1, L, {width}), got {tuple(value.shape)}"
        )
    if not bool(torch.isfinite(embeds).all()):
        raise ValueError(f"{name} holds values that are not finite")
    return embeds.detach()


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
