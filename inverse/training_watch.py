"""What is seen of a training run: progress, pictures of samples, logs, denoising errors."""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from priors import Prior, training
from priors.training.monitor import Logs

from .io import write_bytes
from .measurement import centre
from .sampling import sample

_MINUTE = 60.0


class Watch:
    """The callback of a run: call `see` after each step and `close` at the end.

    A bar on a terminal, else a line a minute; pictures of samples from the averaged weights in
    out/samples; TensorBoard logs in out/logs where the recipe asks for them. Only the first
    process shows anything. `run` is a PriorTraining, or a ClassifierTraining, which draws nothing.
    """

    def __init__(self, out: Path, run: Any, held: Sequence[Tensor] = ()) -> None:
        self.out, self.run, self.held, self.seconds = out, run, held, 0.0
        self.shown = run.processes.rank == 0
        every = run.recipe.monitor.logs
        self.logs = Logs(out / "logs", every) if every and self.shown else None
        self.bar: Any = None
        self.first = 0
        self.said = self.start = time.monotonic()

    def see(self, step: training.Step) -> None:
        self.seconds = step.seconds
        if not self.shown:
            return
        self._tell(step)
        if self.logs is not None:
            self.logs.step(step)
        every = self.run.recipe.monitor.samples
        if every and (step.step % every == 0 or step.step == step.steps):
            with step.averaged():
                self._judge(step.step)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.logs is not None:
            self.logs.close()

    def _tell(self, step: training.Step) -> None:
        if self.bar is None:
            self.first = step.step - 1
            self.bar = tqdm(
                total=step.steps, initial=self.first, desc="training", leave=False,
                disable=not sys.stderr.isatty(),
            )  # fmt: skip
        self.bar.set_postfix(loss=f"{step.smooth:.4f}", refresh=False)
        self.bar.update(1)
        now = time.monotonic()
        if self.bar.disable and now - self.said > _MINUTE:
            self.said = now
            left = (now - self.start) / (step.step - self.first) * (step.steps - step.step)
            print(
                f"step {step.step} of {step.steps}, loss {step.smooth:.4f}, about "
                f"{left / _MINUTE:.0f} min left",
                file=sys.stderr,
                flush=True,
            )

    def _judge(self, step: int) -> None:
        """Draw samples, and measure errors where they are logged."""
        plan, span = self.run.recipe.monitor, self.run.data_range
        prior = self.run.prior(span)
        device = self.run.device
        drawn = sample(prior, plan.count, steps=plan.sample_steps, seed=0, device=device).x.cpu()
        picture = grid((drawn - span[0]) / (span[1] - span[0]))
        folder = self.out / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / f"step-{step:06d}.png", png(picture))
        if self.logs is not None:
            self.logs.picture(step, picture)
            if self.held:
                levels = [s * self.run.unit for s in self.run.recipe.output.errors]
                self.logs.errors(step, levels, errors(prior, self.held, levels, plan.count, device))


def errors(
    prior: Prior,
    images: Sequence[Tensor],
    levels: Sequence[float],
    count: int,
    device: torch.device | str = "cpu",
) -> list[float]:
    """Denoising errors on the middles of at most `count` images, spread over the whole set."""
    chosen = [images[i * len(images) // count] for i in range(count)]
    chosen = list(images) if len(images) <= count else chosen
    _, height, width = prior.event_shape
    middles = torch.stack([centre(image, height, width) for image in chosen])
    return training.denoising_error(prior, middles.to(device), levels)


def grid(x: Tensor) -> Tensor:
    """Images (B, C, H, W), values in [0, 1] shown, as one square picture (C, rows H, columns W)."""
    columns = math.ceil(len(x) ** 0.5)
    rows = math.ceil(len(x) / columns)
    _, channels, height, width = x.shape
    whole = torch.zeros(rows * columns, channels, height, width)
    whole[: len(x)] = x.clamp(0, 1)
    tiled = whole.reshape(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return tiled.reshape(channels, rows * height, columns * width)


def png(picture: Tensor) -> bytes:
    """A picture (C, H, W), grey or colour, as a PNG's bytes."""
    pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(buffer, "PNG")
    return buffer.getvalue()
