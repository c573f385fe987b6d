"""The files of a diffusers pipeline folder, and prior.json beside them: reading and writing.

model_index.json names the classes of the parts, unet/ and scheduler/ hold them, and prior.json
states what diffusers has no place for, levels and ranges in its own data units.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .diffusers_schedulers import SCHEDULERS
from .diffusers_settings import quiet
from .diffusers_weights import Weights, find_weights
from .safe_files import publish, read_json, sha256, write_json

_WEIGHTS = "diffusion_pytorch_model.safetensors"

# The consistency models' pipeline leaves the input's scaling to the scheduler, as EDM needs.
_PIPELINES = {
    "EDMEulerScheduler": "ConsistencyModelPipeline",
    "DDPMScheduler": "DDPMPipeline",
    "ScoreSdeVeScheduler": "ScoreSdeVePipeline",
}

_FACTS = {
    "format": int,
    "name": str,
    "event_shape": list,
    "data_range": list,
    "network_range": list,
    "sigma_range": list,
    "any_size": bool,
    "stride": int,
    "patch": int,
    "parametrization": str,
    "schedule": dict,
    "sha256": str,
}


@dataclass(frozen=True)
class PipelineFolder:
    """What a folder says; facts are prior.json's, with any_size, stride and patch always there.

    Where prior.json states the law of the noise the scheduler is not read: its name is empty.
    """

    scheduler_name: str
    scheduler: dict[str, Any]
    unet: dict[str, Any]
    facts: dict[str, Any]
    weights: Weights

    def check_weights(self) -> None:
        """Refuse weights whose checksum is not the one that prior.json recorded."""
        expected = self.facts.get("sha256")
        if expected is None:
            return
        if len(self.weights.files) != 1:
            raise ValueError("prior.json records a SHA-256, which is of one file of weights")
        if (found := sha256(next(iter(self.weights.files.values())))) != expected:
            raise ValueError(
                f"{_WEIGHTS} is corrupt or was changed: prior.json expects SHA-256 {expected}, "
                f"found {found}; fetch or save the folder again"
            )


def read_folder(root: Path) -> PipelineFolder:
    """The JSON of a folder, checked as far as files go, and where its weights are."""
    index = read_json(root, "model_index.json")
    unet_at = "unet/" if (root / "unet").is_dir() else ""
    scheduler_at = "scheduler/" if (root / "scheduler").is_dir() else ""
    facts: dict[str, Any] = {"any_size": False, "stride": 1, "patch": 1}
    if os.path.lexists(root / "prior.json"):
        stated = read_json(root, "prior.json")
        check_facts(stated)
        facts |= stated
    own_law = "parametrization" in facts
    name = "" if own_law else _scheduler_name(index)
    return PipelineFolder(
        scheduler_name=name,
        scheduler={} if own_law else read_json(root, scheduler_at + "scheduler_config.json"),
        unet=read_json(root, unet_at + "config.json"),
        facts=facts,
        weights=find_weights(root, unet_at),
    )


def write_folder(target: Path, unet: Any, scheduler: Any, facts: dict[str, Any]) -> None:
    """Write a UNet2DModel, a scheduler or None, and prior.json; see `publish` for one cut short."""
    from diffusers import __version__ as version

    # No pipeline of diffusers unfolds patches.
    whole = _PIPELINES.get(type(scheduler).__name__) if facts["patch"] == 1 else None
    index: dict[str, Any] = {
        "_class_name": whole or "DiffusionPipeline",
        "_diffusers_version": version,
        "unet": ["diffusers", "UNet2DModel"],
    }
    if scheduler is not None:
        index["scheduler"] = ["diffusers", type(scheduler).__name__]
    target.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".saving-", dir=target))
    try:
        with quiet():
            unet.save_pretrained(draft / "unet", safe_serialization=True, max_shard_size="1TB")
            if scheduler is not None:
                scheduler.save_pretrained(draft / "scheduler")
        # safetensors makes its files readable to their owner only.
        weights, config = draft / "unet" / _WEIGHTS, draft / "unet" / "config.json"
        weights.chmod(config.stat().st_mode)
        write_json(draft / "prior.json", {**facts, "sha256": sha256(weights)})
        write_json(draft / "model_index.json", index)
        parts = (
            "unet/config.json",
            f"unet/{_WEIGHTS}",
            *(["scheduler/scheduler_config.json"] if scheduler is not None else []),
            "prior.json",
        )
        publish(draft, target, parts, "model_index.json")
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_facts(facts: dict[str, Any]) -> None:
    """Refuse a prior.json with unknown keys, of another format or with values of wrong types."""
    unknown = sorted(set(facts) - set(_FACTS))
    if unknown:
        raise ValueError(f"prior.json has unknown keys {unknown}; known: {', '.join(_FACTS)}"[:400])
    if facts.get("format") != 1:
        raise ValueError(f"prior.json has format {facts.get('format')!r:.40}; this version reads 1")
    for key, value in facts.items():
        if type(value) is not _FACTS[key]:
            raise ValueError(
                f"prior.json: {key} must be of type {_FACTS[key].__name__}, got {value!r:.80}"
            )
    for key in ("stride", "patch"):
        if not 1 <= facts.get(key, 1) <= 2**16:
            raise ValueError(f"prior.json: {key} must be from 1 to {2**16}, got {facts[key]}")


def _scheduler_name(index: dict[str, Any]) -> str:
    """The scheduler's class in model_index.json, whose parts must be those of one denoiser."""
    parts = {}
    for key, value in index.items():
        if key.startswith("_") or not isinstance(value, list) or value == [None, None]:
            continue
        if len(value) != 2 or value[0] != "diffusers":
            raise ValueError(f"model_index.json: {key} is {value!r:.120}, not a part of diffusers")
        parts[key] = value[1]
    if "unet" not in parts or "scheduler" not in parts:
        raise ValueError(f"model_index.json must name a unet and a scheduler, got {sorted(parts)}")
    extra = sorted(set(parts) - {"unet", "scheduler"})
    if extra:
        raise ValueError(
            f"model_index.json has parts beside unet and scheduler: {extra}; those of a pipeline "
            "in a latent space are known only beside its vae"[:400]
        )
    if parts["unet"] != "UNet2DModel":
        raise ValueError(f"the network is a {parts['unet']!r:.80}; only UNet2DModel is supported")
    name = parts["scheduler"]
    if name not in SCHEDULERS:
        raise ValueError(f"scheduler {name!r:.80} is not supported; known: {', '.join(SCHEDULERS)}")
    return str(name)
