"""Checkpoint files of given tensors, noisy images to try them on, and how near two answers are."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def write(folder: Path, state: dict[str, Tensor], kind: str = "pt") -> Path:
    path = folder / f"model.{kind}"
    if kind == "safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def noisy(sigma: Tensor, size: int) -> Tensor:
    """An image of three channels in [-1, 1] for each level of sigma (B,), with noise of it."""
    g = torch.Generator().manual_seed(3)
    shape = (len(sigma), 3, size, size)
    clean = 2 * torch.rand(shape, generator=g, dtype=torch.float64) - 1
    eps = torch.randn(shape, generator=g, dtype=torch.float64)
    return clean + sigma.reshape(-1, 1, 1, 1) * eps


def assert_close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    error = float(((a - b).norm() / b.norm()).detach())
    assert error < tolerance, f"relative difference {error:.1e}"
