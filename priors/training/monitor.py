"""Logs of a run for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .loop import Step


class Logs:
    """Writes what a run does where `tensorboard --logdir FOLDER` shows it.

    Args:
        folder: made where missing; a run that goes on adds to it.
        every: steps between two entries.
    Raises:
        ImportError: TensorBoard, of the extra `train`, is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int = 50) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "logs need TensorBoard: pip install inverse[train], or leave monitor.logs out"
            ) from error
        self.every = every
        self._writer: Any = SummaryWriter(os.fspath(folder))

    def step(self, step: Step) -> None:
        """Loss, its running mean, gradient norm and learning rate, where an entry is due."""
        if step.step % self.every == 0 or step.step == step.steps:
            for name, value in {
                "loss": step.loss,
                "running loss": step.smooth,
                "gradient norm": step.gradient_norm,
                "learning rate": step.rate,
            }.items():
                self._writer.add_scalar(f"training/{name}", value, step.step)

    def errors(self, step: int, sigmas: Sequence[float], errors: Sequence[float]) -> None:
        """Denoising errors on images kept out of the training, one curve for each noise level."""
        for sigma, error in zip(sigmas, errors, strict=True):
            self._writer.add_scalar(f"held-out error/sigma {sigma:.4g}", error, step)

    def picture(self, step: int, image: Tensor) -> None:
        """A picture (C, H, W) with values in [0, 1]."""
        self._writer.add_image("samples", image, step)

    def close(self) -> None:
        self._writer.close()
