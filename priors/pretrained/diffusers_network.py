"""A UNet2DModel from its config and its weights, checked before memory is taken for them."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from .diffusers_settings import check_like, defaults, quiet
from .diffusers_weights import Weights
from .formats import Options
from .weights import fill

_BY_LEVEL = (
    "attention_head_dim",
    "cross_attention_dim",
    "layers_per_block",
    "num_attention_heads",
    "only_cross_attention",
    "transformer_layers_per_block",
)
_COUNTS = ("layers_per_block", "transformer_layers_per_block", "num_layers")


class UNet(nn.Module):
    """A UNet2DModel, and perhaps one of its classes, as network(x, time) -> tensor."""

    def __init__(self, unet: Any, label: int | None) -> None:
        super().__init__()
        self.unet, self.label = unet, label
        learned = unet.config["time_embedding_type"] == "learned"
        self.steps = int(unet.config["num_train_timesteps"]) if learned else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        weight = next(self.unet.parameters())
        if x.device != weight.device:
            raise ValueError(
                f"x is on {x.device}, the network on {weight.device}; move one: prior.to(x.device)"
            )
        if self.steps is not None:  # a learned embedding has whole times only
            time = time.round().long().clamp(0, self.steps - 1)
        labels = None if self.label is None else torch.full_like(time, self.label, dtype=torch.long)
        return self.unet(x, time, class_labels=labels, return_dict=False)[0]


def empty_unet(raw: dict[str, Any]) -> Any:
    """The UNet2DModel that config.json describes, without memory for its weights."""
    if raw.get("class_embed_type") is not None:
        raise ValueError(f"class_embed_type {raw['class_embed_type']!r:.80} is not supported")
    return empty_module(raw, "UNet2DModel")


def empty_module(raw: dict[str, Any], name: str) -> Any:
    """The module of diffusers that config.json describes, without memory for its weights."""
    with quiet():
        import diffusers

        kind = getattr(diffusers, name)
    if raw.get("_class_name") != name:
        raise ValueError(
            f"config.json describes a {raw.get('_class_name')!r:.80}; only {name} is supported"
        )
    config = {key: value for key, value in raw.items() if not key.startswith("_")}
    known = defaults(kind)
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise ValueError(f"config.json has settings that {name} does not know: {unknown}"[:400])
    for key, value in config.items():
        # A few settings are one number or one for each level.
        for one in value if key in _BY_LEVEL and isinstance(value, list) else [value]:
            check_like(known[key], one, f"config.json: {key}")
    counts = [config.get(key) or 2 for key in _COUNTS]
    flat = [n for count in counts for n in (count if isinstance(count, list) else [count])]
    if not all(0 < n <= 64 for n in flat) or len(config.get("block_out_channels") or ()) > 32:
        raise ValueError("config.json: at most 64 layers_per_block and 32 block_out_channels")
    try:
        with quiet(), torch.device("meta"):
            return kind.from_config(config)
    except Exception as error:
        raise ValueError(f"config.json does not describe a {name}: {error}"[:400]) from error


def fill_unet(unet: Any, weights: Weights, options: Options, max_parameters: int) -> None:
    """Give a network without memory the tensors of its weights."""
    tensors: dict[str, Tensor] = {}
    for name, value in weights.read(max_parameters).items():
        known = tensors.setdefault(_modern(name), value)
        if known is not value and not _equal(known, value):
            raise ValueError(
                f"{weights.name} holds two tensors for {_modern(name)}, under an old and a new name"
            )
    fill(unet, tensors, source=weights.name, device=options.device, dtype=options.dtype)


def _modern(name: str) -> str:
    """A tensor's name; some layers had other names in older versions of diffusers."""
    names = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    if name == "time_proj.W":  # the frequencies of a Fourier embedding, saved under both names
        return "time_proj.weight"
    return re.sub(
        r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)", lambda m: names[m[1]], name
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def class_index(config: dict[str, Any], label: int | str | None) -> int | None:
    """Which class embedding a label means; "null" is the last one, where it stands for none."""
    classes = config["num_class_embeds"]
    if classes is None:
        if label is not None:
            raise ValueError(f"this network knows no classes; leave class_label out, got {label!r}")
        return None
    if label is None:
        raise ValueError(
            f"this network was trained with {classes} classes; pass class_label=0 .. "
            f'{classes - 1}, or "null" where the last one stands for no class'
        )
    if label == "null":
        return int(classes) - 1
    if type(label) is not int:
        raise TypeError(f'class_label must be an int or "null", got {label!r:.80}')
    if not 0 <= label < classes:
        raise ValueError(f"class_label must be 0 .. {classes - 1}, got {label}")
    return label


def event_shape_of(
    config: dict[str, Any], facts: dict[str, Any], wanted: tuple[int, ...] | None
) -> tuple[int, ...]:
    """(C, H, W), from the caller, prior.json or the network's sample_size, and checked."""
    patch, any_size, fixed = facts["patch"], facts["any_size"], facts.get("event_shape")
    # Each level but the last halves height and width.
    least = patch * 2 ** (len(config["down_block_types"]) - 1)
    if any_size and facts["stride"] % least:
        raise ValueError(
            f"stride must be a multiple of {least} for this network, got {facts['stride']}"
        )
    channels, rest = divmod(config["in_channels"], patch**2)
    if rest or not channels:
        raise ValueError(
            f"a network with {config['in_channels']} input channels cannot take patches of "
            f"{patch} x {patch}"
        )
    if config["out_channels"] not in (config["in_channels"], 2 * config["in_channels"]):
        raise ValueError(
            f"the network gives {config['out_channels']} channels for {config['in_channels']}; "
            "expected as many, or twice as many with a learned variance"
        )
    shape = tuple(wanted if wanted is not None else fixed or ())
    if not shape:
        size = config["sample_size"]
        if size is None:
            raise ValueError("the folder does not say how large an image is; pass event_shape")
        sides = size if isinstance(size, list | tuple) else (size, size)
        shape = (channels, *(n * patch if type(n) is int else n for n in sides))
    if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError(f"event_shape must be three positive integers (C, H, W), got {shape}")
    if shape[0] != channels or shape[1] % least or shape[2] % least:
        raise ValueError(
            f"event_shape must be ({channels}, H, W) with H and W multiples of {least} for this "
            f"network, got {shape}"
        )
    if fixed and tuple(fixed) != shape and not any_size:
        raise ValueError(f"this prior takes images of shape {tuple(fixed)} only, got {shape}")
    return shape
