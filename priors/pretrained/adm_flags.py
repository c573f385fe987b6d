"""The flags of guided-diffusion's scripts: those of the published models, and a user's checked.

A state dict holds neither the attention heads, nor the order of q, k and v, nor the noise: these
are never guessed but stated, or known from a published model's name.

Models: https://github.com/openai/guided-diffusion, and "ffhq256-dps" of Chung et al., "Diffusion
Posterior Sampling for General Noisy Inverse Problems", 2023, https://arxiv.org/abs/2209.14687
"""

from __future__ import annotations

from typing import Any

from .stated import checked, published

_COMMON: dict[str, Any] = {
    "attention_resolutions": "32,16,8",
    "diffusion_steps": 1000,
    "learn_sigma": True,
    "noise_schedule": "linear",
    "resblock_updown": True,
    "use_new_attention_order": False,
    "use_scale_shift_norm": True,
}
_WIDE: dict[str, Any] = {**_COMMON, "num_channels": 256, "num_res_blocks": 2}
_LSUN: dict[str, Any] = {**_WIDE, "image_size": 256, "class_cond": False, "num_head_channels": 64}

PUBLISHED: dict[str, dict[str, Any]] = {
    "imagenet64-cond": {
        **_COMMON,
        "image_size": 64,
        "class_cond": True,
        "noise_schedule": "cosine",
        "num_channels": 192,
        "num_head_channels": 64,
        "num_res_blocks": 3,
        "use_new_attention_order": True,
    },
    "imagenet128-cond": {**_WIDE, "image_size": 128, "class_cond": True, "num_heads": 4},
    "imagenet256-cond": {**_WIDE, "image_size": 256, "class_cond": True, "num_head_channels": 64},
    "imagenet256-uncond": _LSUN,
    "imagenet512-cond": {**_WIDE, "image_size": 512, "class_cond": True, "num_head_channels": 64},
    "lsun-bedroom": _LSUN,
    "lsun-cat": _LSUN,
    "lsun-horse": _LSUN,
    "ffhq256-dps": {
        **_LSUN,
        "attention_resolutions": "16",
        "num_channels": 128,
        "num_res_blocks": 1,
    },
}
"""Flags by the published model's name; what the scripts' defaults say is left out."""

_KINDS: dict[str, tuple[type, ...]] = {
    "image_size": (int,),
    "num_channels": (int,),
    "num_res_blocks": (int,),
    "num_heads": (int,),
    "num_heads_upsample": (int,),
    "num_head_channels": (int,),
    "attention_resolutions": (str, int, list, tuple),
    "channel_mult": (str, list, tuple),
    "class_cond": (bool,),
    "use_scale_shift_norm": (bool,),
    "resblock_updown": (bool,),
    "use_new_attention_order": (bool,),
    "learn_sigma": (bool,),
    "diffusion_steps": (int,),
    "noise_schedule": (str,),
    "predict_xstart": (bool,),
    "rescale_timesteps": (bool,),
}
# Flags of training and sampling, which change nothing in the denoiser.
_WITHOUT_EFFECT = (
    "dropout",
    "model_path",
    "rescale_learned_sigmas",
    "timestep_respacing",
    "use_checkpoint",
    "use_fp16",
    "use_kl",
)
_CHANNEL_MULT: dict[int, tuple[float, ...]] = {
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}


def flags_of(settings: dict[str, Any] | str | None, source: str) -> dict[str, Any]:
    """The flags of a published model, or those stated, with nothing missing that no tensor tells.

    Raises:
        ValueError: an unknown model or flag, a value of the wrong type, or no statement on what
            the tensors cannot tell.
    """
    if settings is None:
        raise ValueError(
            f"{source} does not say its attention heads, their order and its noise. Pass settings: "
            f"a published model's name ({', '.join(PUBLISHED)}) or its scripts' flags, "
            "{'image_size': ..., 'num_head_channels': ..., 'use_new_attention_order': ..., "
            "'noise_schedule': ...}"
        )
    if isinstance(settings, str):
        return published(PUBLISHED, settings, "ADM", "flag")
    flags = checked(settings, _KINDS, _WITHOUT_EFFECT, "ADM", "flag")
    needed = ["image_size", "use_new_attention_order", "noise_schedule"]
    missing = [key for key in needed if key not in flags]
    if flags.get("num_heads", -1) < 1 and flags.get("num_head_channels", -1) < 1:
        missing.append("num_heads or num_head_channels")
    if missing:
        raise ValueError(
            f"settings for {source} lack what no tensor tells: {', '.join(missing)}. The scripts "
            "take num_heads=4, use_new_attention_order=False, noise_schedule='linear' unless told "
            "otherwise"
        )
    for key in ("image_size", "diffusion_steps"):
        if not 1 <= flags.get(key, 1) <= 2**16:
            raise ValueError(f"flag {key} must be from 1 to {2**16}, got {flags[key]}")
    return flags


def channel_mult(flags: dict[str, Any]) -> tuple[float, ...] | None:
    """Channels of each level per num_channels, stated or following from the image's size."""
    stated = flags.get("channel_mult", "")
    if stated in ("", [], ()):
        return _CHANNEL_MULT.get(flags["image_size"])
    return _numbers("channel_mult", stated)


def attention_sizes(flags: dict[str, Any]) -> tuple[float, ...] | None:
    """Sizes of the images at which the network attends, where stated."""
    stated = flags.get("attention_resolutions")
    if stated is None:
        return None
    return _numbers("attention_resolutions", stated)


def _numbers(flag: str, value: Any) -> tuple[float, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(float(part) for part in ([parts] if isinstance(parts, int) else parts))
    except (TypeError, ValueError) as error:
        raise ValueError(f"flag {flag} must be numbers, as in '32,16,8', got {value!r}") from error
