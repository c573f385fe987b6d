"""What EDM's checkpoints say beside tensors: the preconditioner, and how the network was made.

A pickle keeps the keyword arguments of the preconditioner's class; of a published model they are
known by its name; of other files they are stated by the same words, class_name with them.

Models: https://github.com/NVlabs/edm
"""

from __future__ import annotations

from typing import Any

from .stated import checked, published

PRECONDITIONERS = ("VPPrecond", "VEPrecond", "iDDPMPrecond", "EDMPrecond")

_VP: dict[str, Any] = {
    "model_type": "SongUNet",
    "embedding_type": "positional",
    "encoder_type": "standard",
    "decoder_type": "standard",
    "channel_mult_noise": 1,
    "resample_filter": [1, 1],
    "model_channels": 128,
}
_VE: dict[str, Any] = {
    **_VP,
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
_ADM: dict[str, Any] = {"model_type": "DhariwalUNet", "model_channels": 192}


def _published() -> dict[str, dict[str, Any]]:
    data = {
        "cifar10-32x32-uncond": (32, 0, [2, 2, 2]),
        "cifar10-32x32-cond": (32, 10, [2, 2, 2]),
        "ffhq-64x64-uncond": (64, 0, [1, 2, 2, 2]),
        "afhqv2-64x64-uncond": (64, 0, [1, 2, 2, 2]),
    }
    models: dict[str, dict[str, Any]] = {}
    for name, (size, classes, ratios) in data.items():
        images = {"img_resolution": size, "img_channels": 3, "label_dim": classes}
        for kind, network, baseline in (("vp", _VP, "VPPrecond"), ("ve", _VE, "VEPrecond")):
            models[f"edm-{name}-{kind}"] = {
                "class_name": "EDMPrecond",
                **images,
                **network,
                "channel_mult": ratios,
                "augment_dim": 9,
            }
            models[f"baseline-{name}-{kind}"] = {"class_name": baseline, **images, **network}
    images = {"img_resolution": 64, "img_channels": 3, "label_dim": 1000}
    shape = {"channel_mult": [1, 2, 3, 4], "num_blocks": 3, "attn_resolutions": [32, 16, 8]}
    adm = {**images, **_ADM, **shape}
    models["edm-imagenet-64x64-cond-adm"] = {"class_name": "EDMPrecond", **adm}
    models["baseline-imagenet-64x64-cond-adm"] = {"class_name": "iDDPMPrecond", **adm}
    return models


PUBLISHED = _published()
"""Settings by the published file's name, without its suffix."""

_NUMBER = (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
    "class_name": (str,),
    "img_resolution": (int,),
    "img_channels": (int,),
    "label_dim": (int,),
    "sigma_min": _NUMBER,
    "sigma_max": _NUMBER,
    "sigma_data": _NUMBER,
    "beta_d": _NUMBER,
    "beta_min": _NUMBER,
    "M": (int,),
    "epsilon_t": _NUMBER,
    "C_1": _NUMBER,
    "C_2": _NUMBER,
    "model_type": (str,),
    "augment_dim": (int,),
    "model_channels": (int,),
    "channel_mult": (list, tuple),
    "channel_mult_emb": (int,),
    "channel_mult_noise": (int,),
    "num_blocks": (int,),
    "attn_resolutions": (list, tuple),
    "label_dropout": _NUMBER,
    "embedding_type": (str,),
    "encoder_type": (str,),
    "decoder_type": (str,),
    "resample_filter": (list, tuple),
}
# How the network was trained and in which precision it ran.
_WITHOUT_EFFECT = ("dropout", "use_fp16")


def settings_of(
    kept: dict[str, Any], settings: dict[str, Any] | str | None, source: str
) -> dict[str, Any]:
    """The settings that a file keeps and those that a user gives, which must agree.

    Args:
        kept: those of the file, {} where it has none.
        settings: a published model's name, or settings by the same words, or None.
    Raises:
        ValueError: an unknown model or setting, a value of the wrong type, no class_name, or two
            values of one setting.
    """
    if isinstance(settings, str):
        settings = published(PUBLISHED, settings, "EDM", "setting")
    given, own = _checked(settings or {}), _checked(kept)
    wrong = [f"{k}: {own[k]} and {v}" for k, v in given.items() if k in own and own[k] != v]
    if wrong:
        raise ValueError(f"{source} says otherwise than settings: {'; '.join(wrong)}"[:800])
    both = {**own, **given}
    if "class_name" not in both:
        raise ValueError(
            f"{source} does not say how its network is preconditioned. Pass settings: a published "
            f"model's name ({', '.join(PUBLISHED)}) or a dictionary with class_name one of "
            f"{', '.join(PRECONDITIONERS)}"
        )
    return both


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    values = checked(settings, _KINDS, _WITHOUT_EFFECT, "EDM", "setting")
    for key, value in values.items():
        if isinstance(value, list | tuple):
            if not all(type(n) in _NUMBER for n in value):
                raise ValueError(f"setting {key} must be numbers, got {value!r:.80}")
            values[key] = list(value)
    if "class_name" in values:
        name = values["class_name"].rpartition(".")[2]
        if name not in PRECONDITIONERS:
            raise ValueError(
                f"class_name {name!r:.80} is not supported; known: {', '.join(PRECONDITIONERS)}"
            )
        values["class_name"] = name
    return values
