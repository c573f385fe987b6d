"""Priors from folders: the bundled ones, and diffusers pipelines of a UNet2DModel.

A folder holds a network, and a scheduler that says what the network's output means. Of the
scheduler only the law of the noise is kept, as the denoiser D(x, sigma) = E[x0 | x] in network
units, x = x0 + sigma eps:

    scheduler                input, time                   D
    DDPM, DDIM, PNDM, DPM-Solver, Euler, Heun, ...: alpha = 1 / sqrt(1 + sigma^2)
      epsilon                alpha x, t(sigma)             x - sigma out
      v_prediction           alpha x, t(sigma)             alpha^2 x - alpha sigma out
      sample                 alpha x, t(sigma)             out
    EDM                      x / sqrt(sigma^2 + d^2),      d^2 / (sigma^2 + d^2) x
                             log(sigma) / 4                +- sigma d / sqrt(sigma^2 + d^2) out
    ScoreSdeVe               x, sigma                      x + sigma^2 out
    FlowMatch                x / (1 + sigma), N t,         x / (1 + sigma) - t out
                             t = sigma / (1 + sigma)

with + for EDM's epsilon and - for its v_prediction, d its sigma_data and N the number of training
steps. t(sigma) inverts the table sigma_t = sqrt((1 - abar_t) / abar_t), linearly in log sigma
between its entries; beyond the table's ends the time is held at the nearest end while sigma
itself is used as given. Clipping and thresholding are a sampler's habits and not carried over.

Nothing in a folder is executed: JSON and safetensors are read, pickles never are.

Papers: Ho et al., "Denoising Diffusion Probabilistic Models", 2020,
https://arxiv.org/abs/2006.11239; Salimans and Ho, "Progressive Distillation", 2022,
https://arxiv.org/abs/2202.00512; Karras et al., "Elucidating the Design Space of Diffusion-Based
Generative Models", 2022, https://arxiv.org/abs/2206.00364; Song et al., "Score-Based Generative
Modeling through SDEs", 2021, https://arxiv.org/abs/2011.13456; Lin et al., "Common Diffusion Noise
Schedules and Sample Steps are Flawed", 2023, https://arxiv.org/abs/2305.08891 (zero SNR).
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import inspect
import json
import math
import os
import re
import shutil
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .network import NetworkPrior, SpaceToDepth

BUNDLED = Path(__file__).parent / "bundled"

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_FLOATS = ("F64", "F32", "F16", "BF16")
_JSON_LIMIT = 2**20
_HEADER_LIMIT = 100 * 2**20

_TABLE_SCHEDULERS = (
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "RePaintScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)
_EDM_SCHEDULERS = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")
_FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_SCORE_SCHEDULERS = ("ScoreSdeVeScheduler",)
_FAMILIES = (_TABLE_SCHEDULERS, _EDM_SCHEDULERS, _FLOW_SCHEDULERS, _SCORE_SCHEDULERS)
SCHEDULERS = tuple(name for family in _FAMILIES for name in family)

_SIDE_KEYS = {
    "format": int,
    "name": str,
    "event_shape": list,
    "data_range": list,
    "network_range": list,
    "sigma_range": list,
    "any_size": bool,
    "stride": int,
    "patch": int,
    "sha256": str,
}


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
    root = _find(source)
    index = _read_json(root, "model_index.json")
    scheduler_name = _check_index(index)
    unet_at = "unet/" if (root / "unet").is_dir() else ""
    scheduler_at = "scheduler/" if (root / "scheduler").is_dir() else ""
    unet_json = _read_json(root, unet_at + "config.json")
    scheduler_json = _read_json(root, scheduler_at + "scheduler_config.json")
    side = _read_side(root)
    patch = side.get("patch", 1)

    law = _law(scheduler_name, scheduler_json)
    unet = _empty_unet(unet_json)
    config = dict(unet.config)
    embedding = config["time_embedding_type"]
    _check_embedding(embedding, law)
    _check_label(config, class_label)
    shape = _event_shape(config, side, event_shape)
    network_range = _pair("network_range", side.get("network_range", law.network_range))

    weights = _locate_weights(root, unet_at)
    if "sha256" in side:
        found = _sha256(weights)
        if found != side["sha256"]:
            raise ValueError(
                f"{_WEIGHTS} is corrupt or was changed: prior.json expects SHA-256 "
                f"{side['sha256']}, found {found}; fetch or save the folder again"
            )
    _fill(unet, weights, _device(device), dtype, max_parameters)

    steps = int(config["num_train_timesteps"]) if embedding == "learned" else None
    network: nn.Module = _UNet(unet, class_label, steps)
    if patch > 1:
        network = SpaceToDepth(network, patch)

    # prior.json states its levels in its own data units; the scheduler in network units.
    side_range = _pair("data_range", side.get("data_range", network_range))
    images = side_range if data_range is None else _pair("data_range", data_range)
    width = network_range[1] - network_range[0]
    if sigma_range is not None:
        levels = _pair("sigma_range", sigma_range, positive=True)
    else:
        low, high = law.sigma_range
        if "sigma_range" in side:
            stored = _pair("sigma_range", side["sigma_range"], positive=True)
            low, high = (s * width / (side_range[1] - side_range[0]) for s in stored)
        unit = (images[1] - images[0]) / width
        levels = (low * unit, high * unit)
    return NetworkPrior(
        network,
        law.parametrization,
        shape,
        data_range=images,
        network_range=network_range,
        time=law.time,
        sigma_range=levels,
        sigma_data=law.sigma_data,
        edm_sign=law.edm_sign,
        any_size=side.get("any_size", False),
        stride=side.get("stride", 1),
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
    prior.json keeps what diffusers has no place for, and the weights' SHA-256. Each file is
    complete before it takes its name, model_index.json last: a save that was cut short is
    refused by `load`, never read as something else.

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
    with _quiet():
        from diffusers import EDMEulerScheduler, UNet2DModel
        from diffusers import __version__ as version
    if not isinstance(unet, UNet2DModel):
        raise TypeError(f"unet must be a diffusers UNet2DModel, got {type(unet).__name__}")
    model: Any = unet  # diffusers has no types
    config = dict(model.config)
    images = _pair("data_range", data_range)
    network = _pair("network_range", network_range)
    levels = _pair("sigma_range", sigma_range, positive=True)
    if not 0 < sigma_data < math.inf:
        raise ValueError(f"sigma_data must be positive and finite, got {sigma_data}")
    side = {
        "format": 1,
        "name": name,
        "event_shape": [int(n) for n in event_shape],
        "data_range": list(images),
        "network_range": list(network),
        "sigma_range": list(levels),
        "any_size": bool(any_size),
        "stride": int(stride),
        "patch": int(patch),
    }
    side = {key: value for key, value in side.items() if value is not None}
    _check_side(side)
    _event_shape(config, side, None)
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
    unit = (images[1] - images[0]) / (network[1] - network[0])
    scheduler: Any = EDMEulerScheduler(
        sigma_min=levels[0] / unit, sigma_max=levels[1] / unit, sigma_data=float(sigma_data)
    )
    # Of diffusers' pipelines the consistency models' is the one that leaves the input's scaling to
    # the scheduler, as EDM needs; none unfolds patches.
    index = {
        "_class_name": "ConsistencyModelPipeline" if patch == 1 else "DiffusionPipeline",
        "_diffusers_version": version,
        "scheduler": ["diffusers", "EDMEulerScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    target = Path(folder)
    for place in (target / "unet", target / "scheduler"):
        place.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".saving-", dir=target))
    try:
        with _quiet():
            model.save_pretrained(draft / "unet", safe_serialization=True, max_shard_size="1TB")
            scheduler.save_pretrained(draft / "scheduler")
        # safetensors makes its files readable to their owner only.
        (draft / "unet" / _WEIGHTS).chmod((draft / "unet" / "config.json").stat().st_mode)
        side["sha256"] = _sha256(draft / "unet" / _WEIGHTS)
        (draft / "prior.json").write_text(json.dumps(side, indent=2) + "\n", encoding="utf-8")
        (draft / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
        for part in (
            "unet/config.json",
            f"unet/{_WEIGHTS}",
            "scheduler/scheduler_config.json",
            "prior.json",
            "model_index.json",
        ):
            with open(draft / part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(draft / part, target / part)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


# --- what a scheduler says about the noise ---------------------------------------------------


@dataclass(frozen=True)
class _Law:
    """What NetworkPrior must know of a scheduler, in network units."""

    family: str
    parametrization: str
    sigma_range: tuple[float, float]
    time: Callable[[Tensor], Tensor] | None = None
    sigma_data: float = 0.5
    edm_sign: int = 1
    network_range: tuple[float, float] = (-1.0, 1.0)


class _TableTime:
    """sigma -> fractional index into an increasing table, linear in log sigma, held at its ends."""

    def __init__(self, levels: Tensor) -> None:
        self.log_levels = levels.log()

    def __call__(self, sigma: Tensor) -> Tensor:
        table = self.log_levels.to(sigma.device)
        value = sigma.to(table.dtype).log()
        upper = torch.searchsorted(table, value).clamp(1, len(table) - 1)
        below, above = table[upper - 1], table[upper]
        index = upper - 1 + (value - below) / (above - below)
        return index.clamp(0, len(table) - 1)


def _law(name: str, raw: dict[str, Any]) -> _Law:
    """The law of the noise under a scheduler of this class with these settings."""
    stated = raw.get("_class_name", name)
    if not any(name in family and stated in family for family in _FAMILIES):
        raise ValueError(
            f"model_index.json says {name}, scheduler_config.json {stated!r:.80}: their noise "
            "differs; correct the one that is wrong"
        )
    config = _Settings(raw, name)
    if name in _EDM_SCHEDULERS:
        kind = config.choice("prediction_type", ("epsilon", "v_prediction"))
        ends = config.range("sigma_min", "sigma_max")
        return _Law(
            "edm",
            "edm",
            ends,
            sigma_data=config.number("sigma_data", 1e-12, 1e12),
            edm_sign=1 if kind == "epsilon" else -1,
        )
    if name in _SCORE_SCHEDULERS:
        ends = config.range("sigma_min", "sigma_max")
        return _Law("score", "score", ends, network_range=(0.0, 1.0))
    steps = config.count("num_train_timesteps", 2, 100_000)
    if name in _FLOW_SCHEDULERS:
        if config.get("invert_sigmas"):
            raise ValueError(f"{name} with invert_sigmas is not supported")
        return _flow(steps)
    known = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
    if "prediction_type" in raw or "predict_epsilon" not in raw:
        kind = config.choice("prediction_type", tuple(known), missing="epsilon")
    else:  # as diffusers wrote it before prediction_type
        kind = "epsilon" if raw["predict_epsilon"] else "sample"
    if kind == "flow_prediction":
        return _flow(steps)
    levels = _table(config, steps)
    ends = (float(levels[0]), float(levels[-1]))
    if config.get("timestep_type") == "continuous" and kind == "v_prediction":
        if config.get("sigma_min") is not None and config.get("sigma_max") is not None:
            ends = config.range("sigma_min", "sigma_max")
        return _Law("continuous", "v", ends, time=lambda sigma: sigma.log() / 4)
    return _Law("table", known[kind], ends, time=_TableTime(levels))


def _flow(steps: int) -> _Law:
    # t = 1 is pure noise, at infinite sigma: the range ends one step before it.
    def time(sigma: Tensor) -> Tensor:
        return steps * sigma / (1 + sigma)

    return _Law("flow", "flow", (1 / (steps - 1), float(steps - 1)), time=time)


def _table(config: _Settings, steps: int) -> Tensor:
    """sigma_t of every training step, float64, increasing; infinite last levels are dropped."""
    trained = config.get("trained_betas")
    if trained is not None:
        numbers = isinstance(trained, list) and all(_is_number(beta) for beta in trained)
        if not numbers or len(trained) < 2:
            raise ValueError("trained_betas must be a list of at least two numbers")
        betas = torch.tensor(trained, dtype=torch.float64)
    else:
        betas = _betas(config, steps)
    if not bool(((betas > 0) & (betas <= 1)).all()):
        raise ValueError(f"the scheduler's betas must lie in (0, 1], got {_span(betas)}")
    root = (1 - betas).cumprod(0).sqrt()
    if config.get("rescale_betas_zero_snr"):
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    levels = (1 - root**2).sqrt() / root
    levels = levels[torch.isfinite(levels)]
    if len(levels) < 2 or not bool((levels.diff() > 0).all()):
        raise ValueError(
            f"the scheduler's noise levels must increase, got {len(levels)} levels, {_span(levels)}"
        )
    return levels


def _betas(config: _Settings, steps: int) -> Tensor:
    kind = config.choice(
        "beta_schedule", ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "exp")
    )
    if kind in ("squaredcos_cap_v2", "exp"):
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        if kind == "exp":
            signal = torch.exp(-12 * t)
        else:
            signal = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - signal[1:] / signal[:-1]).clamp(max=0.999)
    low = config.number("beta_start", 0, 1)
    high = config.number("beta_end", 0, 1)
    if kind == "linear":
        return torch.linspace(low, high, steps, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(low**0.5, high**0.5, steps, dtype=torch.float64) ** 2
    return torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid() * (high - low) + low


class _Settings:
    """A scheduler's settings, the class's defaults where the file is silent."""

    def __init__(self, raw: dict[str, Any], name: str) -> None:
        with _quiet():
            import diffusers

            kind = getattr(diffusers, name)
        self.name, self.values = name, {**_defaults(kind), **raw}

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def number(self, key: str, low: float, high: float) -> float:
        value = self.get(key)
        if not _is_number(value) or not low <= value <= high:
            raise ValueError(
                f"{self.name}: {key} must be a number from {low:g} to {high:g}, got {value!r:.80}"
            )
        return float(value)

    def count(self, key: str, low: int, high: int) -> int:
        value = self.number(key, low, high)
        if value != int(value):
            raise ValueError(f"{self.name}: {key} must be a whole number, got {value}")
        return int(value)

    def range(self, low: str, high: str) -> tuple[float, float]:
        ends = self.number(low, 1e-12, 1e12), self.number(high, 1e-12, 1e12)
        if ends[0] >= ends[1]:
            raise ValueError(f"{self.name}: need {low} < {high}, got {ends[0]} and {ends[1]}")
        return ends

    def choice(self, key: str, known: tuple[str, ...], missing: str | None = None) -> str:
        value = self.values.get(key, missing)
        if value not in known:
            raise ValueError(
                f"{self.name}: {key} {value!r:.80} is not supported; known: {', '.join(known)}"
            )
        return str(value)


# --- the network -----------------------------------------------------------------------------


class _UNet(nn.Module):
    """A UNet2DModel, and perhaps one of its classes, as network(x, time) -> tensor."""

    def __init__(self, unet: nn.Module, label: int | None, steps: int | None) -> None:
        super().__init__()
        self.unet, self.label, self.steps = unet, label, steps

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


def _empty_unet(raw: dict[str, Any]) -> Any:
    """The network that config.json describes, without memory for its weights."""
    with _quiet():
        from diffusers import UNet2DModel
    if raw.get("_class_name") != "UNet2DModel":
        raise ValueError(
            f"config.json describes a {raw.get('_class_name')!r:.80}; only UNet2DModel is supported"
        )
    config = {key: value for key, value in raw.items() if not key.startswith("_")}
    known = _defaults(UNet2DModel)
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise ValueError(
            f"config.json has settings that UNet2DModel does not know: {unknown}"[:400]
        )
    for key, value in config.items():
        _check_like(known[key], value, f"config.json: {key}")
    if (
        not 0 < (config.get("layers_per_block") or 2) <= 64
        or len(config.get("block_out_channels") or ()) > 32
    ):
        raise ValueError("config.json: at most 64 layers_per_block and 32 block_out_channels")
    if config.get("class_embed_type") is not None:
        raise ValueError(f"class_embed_type {config['class_embed_type']!r:.80} is not supported")
    try:
        with _quiet(), torch.device("meta"):
            return UNet2DModel.from_config(config)
    except Exception as error:
        raise ValueError(f"config.json does not describe a UNet2DModel: {error}"[:400]) from error


def _defaults(kind: type) -> dict[str, Any]:
    """The settings that a class of diffusers declares, with their defaults."""
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _check_like(default: Any, value: Any, where: str) -> None:
    """Refuse a setting whose JSON type is not that of its default; None passes."""
    kinds = {bool: (bool,), int: (int, float), float: (int, float), str: (str,), tuple: (list,)}
    allowed = kinds.get(type(default))
    if value is not None and allowed is not None and type(value) not in allowed:
        raise ValueError(f"{where} must be like {default!r:.80}, got {value!r:.80}")


def _fill(
    unet: Any, path: Path, device: torch.device, dtype: torch.dtype, max_parameters: int
) -> None:
    """Give a network without memory the tensors of a safetensors file, names and shapes equal."""
    header = _read_header(path)
    total = sum(math.prod(entry["shape"]) for entry in header.values())
    if total > max_parameters:
        raise ValueError(
            f"{path.name} declares {total} values, more than max_parameters = {max_parameters}; "
            "raise max_parameters if that is meant"
        )
    expected = {name: tuple(value.shape) for name, value in unet.state_dict().items()}
    # Attention layers had other names in diffusers before 0.15.
    stored = {_modern(name) if name not in expected else name: name for name in header}
    problems = [f"missing {name}" for name in sorted(set(expected) - set(stored))]
    problems += [f"unexpected {stored[name]}" for name in sorted(set(stored) - set(expected))]
    problems += [
        f"{name} has shape {tuple(header[stored[name]]['shape'])}, expected {shape}"
        for name, shape in sorted(expected.items())
        if name in stored and tuple(header[stored[name]]["shape"]) != shape
    ]
    if len(stored) != len(header):
        problems.append("some tensors twice, under an old and a new name")
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"{path.name} does not fit config.json: {'; '.join(problems[:8])}{more}")
    state = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name, old in stored.items():
                value = file.get_tensor(old).to(dtype)
                if not bool(torch.isfinite(value).all()):
                    raise ValueError(f"{path.name}: {old} holds values that are not finite")
                state[name] = value.to(device)
    except SafetensorError as error:
        raise ValueError(f"{path.name} is corrupt: {error}") from error
    unet.load_state_dict(state, strict=True, assign=True)
    if any(value.is_meta for value in (*unet.parameters(), *unet.buffers())):
        raise ValueError("config.json asks for blocks with constants that no weights file holds")


def _modern(name: str) -> str:
    names = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    return re.sub(
        r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)", lambda m: names[m[1]], name
    )


def _read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Names, dtypes and shapes that a safetensors file declares, within what the file can hold."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
            raise ValueError(
                f"{path.name} is corrupt or no safetensors file: {size} bytes cannot hold a "
                f"header of {length}"
            )
        header = _parse(file.read(length), path.name)
    header.pop("__metadata__", None)
    for name, entry in header.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{path.name} is corrupt: no shape for {name!r:.80}")
        if entry.get("dtype") not in _FLOATS:
            raise ValueError(
                f"{path.name}: {name!r:.80} is of type {entry.get('dtype')!r:.20}, expected one of "
                f"{', '.join(_FLOATS)}"
            )
    return header


def _check_embedding(embedding: str, law: _Law) -> None:
    # UNet2DModel takes the logarithm of a fourier time and divides its output by the time.
    if embedding == "fourier" and law.family != "score":
        raise ValueError("time_embedding_type 'fourier' is supported with ScoreSdeVeScheduler only")
    if embedding == "learned" and law.family != "table":
        raise ValueError("time_embedding_type 'learned' needs a scheduler with a table of betas")


def _check_label(config: dict[str, Any], label: int | None) -> None:
    classes = config["num_class_embeds"]
    if classes is None:
        if label is not None:
            raise ValueError(f"this network knows no classes; leave class_label out, got {label}")
        return
    if label is None:
        raise ValueError(
            f"this network was trained with {classes} classes; pass class_label=0 .. {classes - 1}"
        )
    if type(label) is not int:
        raise TypeError(f"class_label must be an int, got {type(label).__name__}")
    if not 0 <= label < classes:
        raise ValueError(f"class_label must be 0 .. {classes - 1}, got {label}")


def _event_shape(
    config: dict[str, Any], side: dict[str, Any], wanted: tuple[int, ...] | None
) -> tuple[int, ...]:
    """(C, H, W), from the caller, prior.json or the network's sample_size, and checked."""
    patch, fixed = side.get("patch", 1), side.get("event_shape")
    # Each level but the last halves height and width.
    least = patch * 2 ** (len(config["down_block_types"]) - 1)
    stride = side.get("stride", 1)
    if side.get("any_size", False) and stride % least:
        raise ValueError(f"stride must be a multiple of {least} for this network, got {stride}")
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
    if fixed and tuple(fixed) != shape and not side.get("any_size", False):
        raise ValueError(f"this prior takes images of shape {tuple(fixed)} only, got {shape}")
    return shape


# --- files -----------------------------------------------------------------------------------


def _find(source: str | os.PathLike[str]) -> Path:
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source must be a name or a path, got {type(source).__name__}")
    names = bundled_names()
    if isinstance(source, str) and source in names:
        return BUNDLED / source
    path = Path(source)
    if path.suffix.lower() in _PICKLES and not path.is_dir():
        raise ValueError(f"{path.name} is a pickle, which can run code: never read. {_CONVERT}")
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(source, str) and len(path.parts) == 1:
            close = difflib.get_close_matches(source, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"unknown prior {source!r:.80}{hint} Bundled: {', '.join(names) or 'none'}. "
                "Else pass the path of a diffusers folder."
            ) from error
        raise FileNotFoundError(
            f"no folder {source!s:.200}; hub names are not downloaded: pass the path of a folder"
        ) from error
    if not stat.S_ISDIR(mode):
        raise ValueError(f"{path.name} is not a folder; pass the diffusers folder that holds it")
    return path


_CONVERT = (
    "Where you trust it, convert it once with UNet2DModel.from_pretrained(...).save_pretrained("
    "..., safe_serialization=True)"
)


def _regular_file(root: Path, part: str) -> Path:
    """root/part, refused unless it is a regular file that lies in root."""
    path = root / part
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{root.name} has no {part}") from error
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{part} cannot be read: {error}") from error
    if not real.is_relative_to(root.resolve()):
        raise ValueError(
            f"{part} is a link that leaves the folder {root.name}: not read. Copy the folder with "
            "its links followed (cp -rL)"
        )
    if not stat.S_ISREG(mode):
        raise ValueError(f"{part} is not a regular file")
    return real


def _locate_weights(root: Path, at: str) -> Path:
    folder = root / at if at else root
    if not os.path.lexists(folder / _WEIGHTS):
        found = sorted(p.name for p in folder.iterdir())
        pickles = [n for n in found if n.lower().endswith(_PICKLES)]
        others = [n for n in found if ".safetensors" in n]
        if others:
            raise ValueError(f"expected one file {at}{_WEIGHTS}, found {', '.join(others[:4])}")
        if pickles:
            raise ValueError(
                f"{at}{pickles[0]} is a pickle, which can run code: never read, and there is no "
                f"{_WEIGHTS}. {_CONVERT}"
            )
    return _regular_file(root, at + _WEIGHTS)


def _read_json(root: Path, part: str) -> dict[str, Any]:
    path = _regular_file(root, part)
    with open(path, "rb") as file:
        text = file.read(_JSON_LIMIT + 1)
    if len(text) > _JSON_LIMIT:
        raise ValueError(f"{part} is larger than {_JSON_LIMIT} bytes")
    values = _parse(text, part)
    if "auto_map" in values:
        raise ValueError(f"{part} asks for code of its own (auto_map): never run")
    return values


def _parse(text: bytes, part: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("a key is given twice")
        return values

    try:
        values = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{part} is corrupt, its JSON cannot be read: {error}"[:300]) from error
    if not isinstance(values, dict):
        raise ValueError(f"{part} must hold a JSON object, got {type(values).__name__}")
    return values


def _check_index(index: dict[str, Any]) -> str:
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
            f"model_index.json has parts beside unet and scheduler: {extra}; pipelines in a latent "
            "space or with text are not supported"[:400]
        )
    if parts["unet"] != "UNet2DModel":
        raise ValueError(f"the network is a {parts['unet']!r:.80}; only UNet2DModel is supported")
    name = parts["scheduler"]
    if name not in SCHEDULERS:
        raise ValueError(f"scheduler {name!r:.80} is not supported; known: {', '.join(SCHEDULERS)}")
    return str(name)


def _read_side(root: Path) -> dict[str, Any]:
    if not os.path.lexists(root / "prior.json"):
        return {}
    side = _read_json(root, "prior.json")
    _check_side(side)
    return side


def _check_side(side: dict[str, Any]) -> None:
    unknown = sorted(set(side) - set(_SIDE_KEYS))
    if unknown:
        raise ValueError(
            f"prior.json has unknown keys {unknown}; known: {', '.join(_SIDE_KEYS)}"[:400]
        )
    if side.get("format") != 1:
        raise ValueError(f"prior.json has format {side.get('format')!r:.40}; this version reads 1")
    for key, value in side.items():
        if type(value) is not _SIDE_KEYS[key]:
            raise ValueError(
                f"prior.json: {key} must be of type {_SIDE_KEYS[key].__name__}, got {value!r:.80}"
            )
    for key in ("stride", "patch"):
        if not 1 <= side.get(key, 1) <= 2**16:
            raise ValueError(f"prior.json: {key} must be from 1 to {2**16}, got {side[key]}")


def _pair(name: str, value: Any, positive: bool = False) -> tuple[float, float]:
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be two numbers (low, high), got {value!r:.80}") from error
    if not -math.inf < low < high < math.inf or (positive and low <= 0):
        need = "0 < low < high" if positive else "low < high"
        raise ValueError(f"{name} must be (low, high) with {need}, finite, got {(low, high)}")
    return low, high


def _device(device: torch.device | str | None) -> torch.device:
    try:
        found = torch.device("cpu" if device is None else device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        present = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"no device {device!s}; present: {', '.join(present)}") from error
    return found


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _span(values: Tensor) -> str:
    return f"from {values.min():g} to {values.max():g}" if len(values) else "none"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """diffusers without its notes, which concern pipelines that are not used here."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
