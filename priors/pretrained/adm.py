"""OpenAI's guided-diffusion (ADM) checkpoints as priors.

A checkpoint is the state dict of one U-Net. Its tensors' names and shapes tell the architecture;
the rest comes from flags (see `adm_flags`), and what both tell must agree. With abar_t the product
of 1 - beta over the steps up to t,

    D(x, sigma) = x - sigma out(alpha x, t(sigma)),   alpha = 1 / sqrt(1 + sigma^2)

where out is the first half of the channels if the variance is learned, and t(sigma) inverts
sigma_t = sqrt((1 - abar_t) / abar_t), linearly in log sigma between steps. With predict_xstart the
output is D itself.

Papers: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021,
https://arxiv.org/abs/2105.05233; Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic
Models", 2021, https://arxiv.org/abs/2102.09672.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..network import NetworkPrior
from ..times import Scaled
from .adm_flags import attention_sizes, channel_mult, flags_of
from .diffusers_schedulers import NoiseLaw, noise_law
from .formats import Options
from .networks.adm_unet import AdmArchitecture, AdmUNet
from .stated import checked_label, image_shape
from .weights import fill

NAME = "guided-diffusion (ADM)"

_RES = "in_layers.0.weight"


def recognises(content: dict[str, Any]) -> bool:
    """Whether the names are those of a U-Net of guided-diffusion."""
    return all(
        isinstance(content.get(name), Tensor)
        for name in ("time_embed.0.weight", "input_blocks.0.0.weight", f"output_blocks.0.0.{_RES}")
    )


def build(
    content: dict[str, Any], settings: dict[str, Any] | str | None, options: Options
) -> NetworkPrior:
    """The prior of a state dict; settings is a published model's name or the scripts' flags.

    Raises:
        ValueError: nothing said on what the tensors cannot tell; flags that are unknown or
            disagree with the tensors; tensors missing, unexpected or of other shapes; no class,
            or a class that the network does not have.
    """
    flags = flags_of(settings, options.source)
    made_of = architecture(content, flags, options.source)
    check_flags(made_of, flags, options.source)
    label = checked_label(options.class_label, made_of.classes)
    shape = image_shape(made_of.in_channels, flags["image_size"], len(made_of.channels), options)
    with torch.device("meta"):
        network = AdmUNet(made_of, label)
    fill(network, content, source=options.source, device=options.device, dtype=options.dtype)
    law = noise(flags)
    return options.prior(
        network, law.parametrization, shape, sigma_range=law.sigma_range, time=law.time
    )


def architecture(content: dict[str, Any], flags: dict[str, Any], source: str) -> AdmArchitecture:
    """What the names and shapes of a checkpoint's tensors tell, the heads from flags."""

    def size(name: str, axis: int) -> int:
        value = content.get(name)
        if not isinstance(value, Tensor) or value.ndim <= axis:
            raise ValueError(f"{source} does not fit an ADM U-Net: no tensor {name} as expected")
        return int(value.shape[axis])

    # On the way up a level ends with the stage that holds one layer more, which doubles the size.
    stages = _count(content, "output_blocks")
    ends = [i for i in range(stages) if _doubles(content, i)] + [stages - 1]
    blocks, levels = ends[0], len(ends)
    if ends != [(level + 1) * (blocks + 1) - 1 for level in range(levels)] or blocks < 1:
        raise ValueError(
            f"{source} does not fit an ADM U-Net: its {stages} output blocks do not form levels of "
            "equal length"
        )
    firsts = [level * (blocks + 1) for level in reversed(range(levels))]
    res = f"output_blocks.{firsts[0]}.0"
    channels = tuple(size(f"output_blocks.{i}.0.out_layers.3.weight", 0) for i in firsts)
    heads = max(flags.get("num_heads", -1), 1)
    heads_up = flags.get("num_heads_upsample", -1)
    head_channels = flags.get("num_head_channels", -1)
    width = size("time_embed.0.weight", 1)
    attention = tuple(_attends(content, i) for i in firsts)
    made_of = AdmArchitecture(
        in_channels=size("input_blocks.0.0.weight", 1),
        out_channels=size("out.2.weight", 0),
        width=width,
        channels=channels,
        blocks=blocks,
        attention=attention,
        classes=size("label_emb.weight", 0) if "label_emb.weight" in content else None,
        scale_shift=size(f"{res}.emb_layers.1.weight", 0) == 2 * channels[0],
        resblock_updown=levels == 1 or f"input_blocks.{blocks + 1}.0.{_RES}" in content,
        split_first=flags["use_new_attention_order"],
        heads=heads,
        heads_up=heads_up if heads_up > 0 else heads,
        head_channels=head_channels if head_channels > 0 else None,
    )
    if width % 2 or any(n % 32 for n in channels):
        raise ValueError(
            f"{source} does not fit an ADM U-Net: {width} channels must be even and {channels} "
            "multiples of 32"
        )
    return made_of


def check_flags(made_of: AdmArchitecture, flags: dict[str, Any], source: str) -> None:
    """Refuse flags that say something else than the tensors."""
    ratios = channel_mult(flags)
    sizes = attention_sizes(flags)
    side = flags["image_size"]
    told: dict[str, tuple[Any, Any]] = {
        "num_channels": (made_of.width, flags.get("num_channels")),
        "num_res_blocks": (made_of.blocks, flags.get("num_res_blocks")),
        "class_cond": (made_of.classes is not None, flags.get("class_cond")),
        "use_scale_shift_norm": (made_of.scale_shift, flags.get("use_scale_shift_norm")),
        "learn_sigma": (
            made_of.out_channels == 2 * made_of.in_channels,
            flags.get("learn_sigma"),
        ),
        "channel_mult": (
            made_of.channels,
            ratios and tuple(int(ratio * made_of.width) for ratio in ratios),
        ),
        "attention_resolutions": (
            {side >> i for i, attends in enumerate(made_of.attention) if attends},
            None
            if sizes is None
            else set(sizes) & {side >> i for i in range(len(made_of.channels))},
        ),
    }
    if len(made_of.channels) > 1:
        told["resblock_updown"] = (made_of.resblock_updown, flags.get("resblock_updown"))
    wrong = [
        f"{flag} gives {said}, the tensors {found}"
        for flag, (found, said) in told.items()
        if said is not None and said != found
    ]
    if wrong:
        raise ValueError(f"{source} is not the model that settings describe: {'; '.join(wrong)}")
    if made_of.out_channels not in (made_of.in_channels, 2 * made_of.in_channels):
        raise ValueError(
            f"{source}: the network gives {made_of.out_channels} channels for "
            f"{made_of.in_channels}; expected as many, or twice as many with a learned variance. "
            "Upsamplers, which take a second image, are no priors"
        )
    attending = [n for n, a in zip(made_of.channels, made_of.attention, strict=True) if a]
    for n in {*attending, made_of.channels[-1]}:  # the middle always attends
        per = made_of.head_channels
        if n % per if per else n % made_of.heads or n % made_of.heads_up:
            raise ValueError(
                f"{n} channels cannot be split into "
                + (f"heads of {per} channels" if per else f"{made_of.heads} heads")
                + ", as settings say"
            )


def noise(flags: dict[str, Any]) -> NoiseLaw:
    """The noise of the flags, in the words of diffusers' tables."""
    steps = flags.get("diffusion_steps", 1000)
    schedules = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
    if flags["noise_schedule"] not in schedules:
        raise ValueError(
            f"noise_schedule {flags['noise_schedule']!r:.80} is not known; known: linear, cosine"
        )
    if steps < 20:
        raise ValueError(f"diffusion_steps must be at least 20, where betas reach 1, got {steps}")
    law = noise_law(
        "DDPMScheduler",
        {
            "num_train_timesteps": steps,
            "beta_schedule": schedules[flags["noise_schedule"]],
            "beta_start": 0.1 / steps,
            "beta_end": 20 / steps,
            "prediction_type": "sample" if flags.get("predict_xstart") else "epsilon",
        },
    )
    if flags.get("rescale_timesteps"):  # to the step per thousand
        return replace(law, time=Scaled(law.time, 1000 / steps))
    return law


def _count(content: dict[str, Any], part: str) -> int:
    """How many stages a part of the network has, judged by their first residual blocks."""
    count = 0
    while f"{part}.{count}.0.{_RES}" in content:
        count += 1
    return count


def _doubles(content: dict[str, Any], stage: int) -> bool:
    last = 2 if _attends(content, stage) else 1
    names = (f"output_blocks.{stage}.{last}.{end}" for end in (_RES, "conv.weight"))
    return any(name in content for name in names)


def _attends(content: dict[str, Any], stage: int) -> bool:
    return f"output_blocks.{stage}.1.qkv.weight" in content
