"""What a diffusers scheduler says about the noise: the meaning of the network's output and time.

Of a scheduler only the law of the noise is kept, as the denoiser D(x, sigma) = E[x0 | x] in network
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

Papers: Ho et al., "Denoising Diffusion Probabilistic Models", 2020,
https://arxiv.org/abs/2006.11239; Salimans and Ho, "Progressive Distillation", 2022,
https://arxiv.org/abs/2202.00512; Karras et al., "Elucidating the Design Space of Diffusion-Based
Generative Models", 2022, https://arxiv.org/abs/2206.00364; Song et al., "Score-Based Generative
Modeling through SDEs", 2021, https://arxiv.org/abs/2011.13456; Lin et al., "Common Diffusion Noise
Schedules and Sample Steps are Flawed", 2023, https://arxiv.org/abs/2305.08891 (zero SNR).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..schedule import Schedule
from ..times import FlowTime, LevelTime, LogTime, TableTime, TimeMap
from .diffusers_settings import Settings

TABLE_SCHEDULERS = (
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
_FAMILIES = (TABLE_SCHEDULERS, _EDM_SCHEDULERS, _FLOW_SCHEDULERS, _SCORE_SCHEDULERS)
SCHEDULERS = tuple(name for family in _FAMILIES for name in family)


@dataclass(frozen=True)
class NoiseLaw:
    """What NetworkPrior must know of a scheduler, in network units."""

    parametrization: str
    sigma_range: tuple[float, float]
    time: TimeMap
    sigma_data: float = 0.5
    edm_sign: int = 1
    network_range: tuple[float, float] = (-1.0, 1.0)
    schedule: Schedule | None = None

    def check_embedding(self, embedding: str) -> None:
        """Refuse a network whose time embedding means something else than this law's times."""
        # UNet2DModel takes the logarithm of a fourier time and divides its output by the time.
        if embedding == "fourier" and self.parametrization != "score":
            raise ValueError(
                "time_embedding_type 'fourier' is supported with ScoreSdeVeScheduler only"
            )
        if embedding == "learned" and not isinstance(self.time, TableTime):
            raise ValueError(
                "time_embedding_type 'learned' needs a scheduler with a table of betas"
            )


def noise_law(name: str, raw: dict[str, Any]) -> NoiseLaw:
    """The law of the noise under a scheduler of this class with these settings."""
    stated = raw.get("_class_name", name)
    if not any(name in family and stated in family for family in _FAMILIES):
        raise ValueError(
            f"model_index.json says {name}, scheduler_config.json {stated!r:.80}: their noise "
            "differs; correct the one that is wrong"
        )
    config = Settings(raw, name)
    if name in _EDM_SCHEDULERS:
        kind = config.choice("prediction_type", ("epsilon", "v_prediction"))
        return NoiseLaw(
            "edm",
            config.range("sigma_min", "sigma_max"),
            LogTime(),
            sigma_data=config.number("sigma_data", 1e-12, 1e12),
            edm_sign=1 if kind == "epsilon" else -1,
        )
    if name in _SCORE_SCHEDULERS:
        ends = config.range("sigma_min", "sigma_max")
        return NoiseLaw("score", ends, LevelTime(), network_range=(0.0, 1.0))
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
        return NoiseLaw("v", ends, LogTime())
    return NoiseLaw(known[kind], ends, TableTime(levels))


def _flow(steps: int) -> NoiseLaw:
    # t = 1 is pure noise, at infinite sigma: the range ends one step before it.
    return NoiseLaw("flow", (1 / (steps - 1), float(steps - 1)), FlowTime(steps))


def _table(config: Settings, steps: int) -> Tensor:
    """sigma_t of every training step, float64, increasing; infinite last levels are dropped."""
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config.numbers("trained_betas"), dtype=torch.float64)
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


def _betas(config: Settings, steps: int) -> Tensor:
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


def _span(values: Tensor) -> str:
    return f"from {values.min():g} to {values.max():g}" if len(values) else "none"
