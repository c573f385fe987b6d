"""Who judges generated digits: a small classifier that no method is guided by."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class Judge(nn.Module):
    """Two convolutions with max-pooling, 128 features, 10 logits; images in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(512, 128), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def mnist(file: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) in [0, 1] and classes (N,) of the split "train" or "dev"."""
    with np.load(file) as stored:
        x, y = stored[f"x_{split}"], stored[f"y_{split}"]
    return torch.from_numpy(x).float()[:, None] / 255, torch.from_numpy(y).long()


def train(x: Tensor, y: Tensor, epochs: int = 4, seed: int = 0) -> Judge:
    """By cross-entropy, on images moved by up to 2 pixels and with noise of up to 0.2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge()
    generator = torch.Generator().manual_seed(seed)
    total = epochs * math.ceil(len(x) / 128)
    optimiser = torch.optim.Adam(judge.parameters())
    decay = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=total)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(128):
            down, right = torch.randint(-2, 3, (2,), generator=generator).tolist()
            level = 0.2 * torch.rand(len(rows), 1, 1, 1, generator=generator)
            moved = x[rows].roll((down, right), (2, 3))
            moved = moved + level * torch.randn(moved.shape, generator=generator)
            loss = nn.functional.cross_entropy(judge(moved), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            decay.step()
    return judge.eval()


def trained(file: Path, data: Path, epochs: int = 4) -> Judge:
    """The judge kept in a file, trained first where there is none."""
    if file.exists():
        judge = Judge()
        judge.load_state_dict(torch.load(file, weights_only=True))
        return judge.eval()
    judge = train(*mnist(data, "train"), epochs=epochs)
    torch.save(judge.state_dict(), file)
    return judge
