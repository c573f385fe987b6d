"""The training loop: steps down any loss, with averaged weights, restarts and several processes."""

from __future__ import annotations

import contextlib
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Literal

import torch
from torch import Tensor, nn

from .checkpoint import Checkpoint
from .checks import needs
from .processes import Processes

Loss = Callable[[torch.Generator], Tensor]
"""The step's own generator -> the mean loss of this process's part of a batch, a scalar."""

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Optimizer:
    """AdamW; the rate rises linearly, then falls to 0 as a cosine (or stays).

    Attributes:
        learning_rate: the peak.
        warmup: steps of the rise.
        decay: "cosine" or "constant".
        betas, weight_decay: of AdamW.
        clip: the gradient's largest norm; longer ones are shortened to it.
        half_life: of the averaged weights, in steps; None for no limit.
        ramp: the half-life is at most this share of the steps taken so far, so that the average
            soon forgets the first weights.

    Papers: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019,
    https://arxiv.org/abs/1711.05101; Karras et al., "Analyzing and Improving the Training Dynamics
    of Diffusion Models", 2024, https://arxiv.org/abs/2312.02696 (averages)
    """

    learning_rate: float = 1e-3
    warmup: int = 200
    decay: Literal["cosine", "constant"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    clip: float = 1.0
    half_life: float | None = None
    ramp: float = 0.05

    def __post_init__(self) -> None:
        positive = {name: getattr(self, name) for name in ("learning_rate", "clip", "ramp")}
        if self.half_life is not None:
            positive["half_life"] = self.half_life
        small = all(0 <= beta < 1 for beta in self.betas)
        known = self.decay in ("cosine", "constant")
        needs(
            *((0 < v < math.inf, name, v, "positive and finite") for name, v in positive.items()),
            (self.warmup >= 0, "warmup", self.warmup, "at least 0 steps"),
            (small, "betas", self.betas, "in [0, 1)"),
            (0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "at least 0"),
            (known, "decay", self.decay, "'cosine' or 'constant'"),
        )

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0 .. steps - 1."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * step / steps)) if self.decay == "cosine" else 1.0
        return self.learning_rate * rise * fall

    def keep(self, step: int) -> float:
        """The average's weight for its own past after step 0 .. steps - 1."""
        half_life = min(self.half_life or math.inf, self.ramp * (step + 1))
        return float(0.5 ** (1 / max(half_life, 1.0)))


@dataclass(frozen=True)
class Step:
    """What a callback sees after each step; `steps` in all, loss and gradient norm of this one.

    `seconds` have gone into the run so far, interruptions left out. `smooth` is the loss averaged
    over about a hundred steps. `averaged` gives, as a context, the network with its averaged
    weights, ready for use.
    """

    step: int
    steps: int
    loss: float
    smooth: float
    gradient_norm: float
    rate: float
    seconds: float
    averaged: Callable[[], contextlib.AbstractContextManager[nn.Module]]


def train(
    network: nn.Module,
    loss: Loss,
    steps: int,
    *,
    seed: int = 0,
    optimizer: Optimizer | None = None,
    precision: Precision = "float32",
    checkpoint: Checkpoint | None = None,
    callback: Callable[[Step], None] | None = None,
    processes: Processes | None = None,
) -> nn.Module:
    """Minimise a loss; returns `network` holding the averaged weights, in eval mode.

    Every random choice of a step follows from (seed, step, process), so a run that was interrupted
    goes on from its checkpoint to the same weights, bit for bit on one device. An interrupt
    (Ctrl-C) ends the step, saves the state and is raised then; a second one is raised at once.

    With several processes each draws its own part of the batch and the gradients are averaged over
    them, whatever derivatives the loss itself takes; all hold equal weights.

    Args:
        network: trained in place, on the device of its weights.
        loss: called once a step with that step's generator; uses `network`.
        steps: optimiser steps in all.
        precision: in which the network computes; weights, moments and averages stay float32.
            float16 needs CUDA and scales its losses.
        checkpoint: where the state is kept, by the first process, and looked for by all.
        callback: called after every step.
        processes: the group that trains together; by default this process alone.
    Raises:
        ValueError: bad settings, a checkpoint of other ones, or one that not all processes see.
        FloatingPointError: a loss or gradient that is not finite, with the step.
    """
    plan, group = optimizer or Optimizer(), processes or Processes()
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    device = next(network.parameters()).device
    cast = _autocast(precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    parameters = [p for p in network.parameters() if p.requires_grad]
    group.share(network)
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    adam = torch.optim.AdamW(
        parameters, lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay
    )
    start, smooth, earlier = 0, math.nan, 0.0
    if checkpoint is not None and checkpoint.exists:
        found = checkpoint.restore(network, average, adam)
        start, smooth = int(found["step"]), found["smooth"]
        earlier = found["seconds"]
        if scaler.is_enabled():
            scaler.load_state_dict(
                {
                    **scaler.state_dict(),
                    "scale": found["scale"],
                    "_growth_tracker": int(found["growth"]),
                }
            )
    if group.any(group.mean(torch.tensor(float(start), device=device)) != start, device):
        raise ValueError(
            f"the processes do not go on from one step, this one from {start}; keep the "
            "checkpoint on a disk that all of them see"
        )
    network.train()
    began = time.monotonic() - earlier
    with _interrupts() as interrupted:
        for step in range(start, steps):
            rate = plan.rate(step, steps)
            for entry in adam.param_groups:
                entry["lr"] = rate
            # One generator a step: a restart needs no saved random state.
            generator = torch.Generator().manual_seed(_seed(seed, step, group.rank))
            adam.zero_grad(set_to_none=True)
            with _seeded(generator.initial_seed() ^ _APART, device):
                with cast():
                    value = loss(generator)
                scaler.scale(value).backward()
            now = group.mean(value.detach().float())
            if not math.isfinite(now):
                raise FloatingPointError(
                    f"the loss is {now} at step {step}; lower the learning rate"
                )
            group.average_gradients(parameters)
            scaler.unscale_(adam)
            norm = float(nn.utils.clip_grad_norm_(parameters, plan.clip))
            if not math.isfinite(norm) and not scaler.is_enabled():
                raise FloatingPointError(
                    f"the gradient's norm is {norm} at step {step}; lower the learning rate"
                )
            scaler.step(adam)
            scaler.update()
            _follow(average, network, plan.keep(step))
            smooth = now if math.isnan(smooth) else 0.99 * smooth + 0.01 * now
            seconds = time.monotonic() - began
            stop = group.any(interrupted(), device)
            due = checkpoint is not None and (checkpoint.due(step + 1, steps) or stop)
            if checkpoint is not None and due and group.rank == 0:
                progress = {"step": step + 1, "smooth": smooth, "seconds": seconds}
                if scaler.is_enabled():
                    state = scaler.state_dict()
                    progress |= {"scale": state["scale"], "growth": state["_growth_tracker"]}
                checkpoint.save(network, average, adam, progress)
            if callback is not None:
                averaged = functools.partial(_with, network, average)
                callback(Step(step + 1, steps, now, smooth, norm, rate, seconds, averaged))
            if stop:
                raise KeyboardInterrupt
    network.load_state_dict(average)
    return network.eval()


_APART = 0x5851F42D4C957F2D
"""Sets dropout's stream apart from that of the step's generator: indices, levels and noise."""


def _seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step + rank * 0x9E3779B97F4A7C15) % 2**63


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The global random state, from which dropout draws, seeded inside and left alone outside."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _autocast(
    precision: Precision, device: torch.device
) -> Callable[[], contextlib.AbstractContextManager[object]]:
    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    if precision == "float32":
        return contextlib.nullcontext
    if precision not in kinds:
        raise ValueError(f"precision must be float32, bfloat16 or float16, got {precision!r}")
    if precision == "float16" and device.type != "cuda":
        raise ValueError(f"float16 needs a CUDA device, got {device}; use bfloat16")
    return lambda: torch.autocast(device.type, kinds[precision])


@torch.no_grad()
def _follow(average: dict[str, Tensor], network: nn.Module, keep: float) -> None:
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - keep)
        else:
            average[name].copy_(value)


@contextlib.contextmanager
def _with(network: nn.Module, weights: dict[str, Tensor]) -> Iterator[nn.Module]:
    """The network with other weights in eval mode, its own put back after."""
    own = {k: v.detach().clone() for k, v in network.state_dict().items()}
    network.load_state_dict(weights)
    network.eval()
    try:
        with torch.no_grad():
            yield network
    finally:
        network.load_state_dict(own)
        network.train()


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed, which then waits for the end of the step."""
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
