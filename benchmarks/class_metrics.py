"""How right and how different generated digits are, with standard errors, beside real ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from digit_judge import Judge
from torch import Tensor

from forward_models import load_classifier

CLASSES = 10
NEIGHBOURS = 3


def mean_distance(points: Tensor) -> Tensor:
    """Mean Euclidean distance of two different rows of (N, D)."""
    return torch.pdist(points).mean()


def precision(points: Tensor, real: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Share of points within reach of a real one, whose reach is its k-th real neighbour.

    Paper: Kynkaanniemi et al., "Improved Precision and Recall Metric", 2019,
    https://arxiv.org/abs/1904.06991
    """
    inside = torch.cdist(points, real) <= _reach(real, neighbours)
    return inside.any(1).double().mean()


def coverage(points: Tensor, real: Tensor, of: int, neighbours: int = NEIGHBOURS) -> Tensor:
    """Share of real points with a generated one in reach, which holds k / N of the class.

    N = `of` is the number of points in all: real digits in their place cover nearly 1 - exp(-k),
    0.95 for k = 3, whatever N.

    Paper: Naeem et al., "Reliable Fidelity and Diversity Metrics", 2020,
    https://arxiv.org/abs/2002.09797
    """
    held = min(max(1, round(neighbours * len(real) / of)), len(real) - 1)
    inside = torch.cdist(points, real) <= _reach(real, held)
    return inside.any(0).double().mean()


def _reach(real: Tensor, neighbours: int) -> Tensor:
    """Distance of each real point to its k-th neighbour, (N,)."""
    return torch.cdist(real, real).kthvalue(neighbours + 1, dim=1).values


def over_classes(
    statistic: Callable[[int, Tensor], Tensor], classes: dict[int, Tensor]
) -> tuple[float, float]:
    """The mean over classes of a statistic of each one's samples, and its jackknife standard error.

    Args:
        statistic: (class, its samples (N, D)) -> a number.

    Paper: Efron and Stein, "The Jackknife Estimate of Variance", 1981,
    https://doi.org/10.1214/aos/1176345462
    """
    values, variances = [], []
    for c, points in classes.items():
        values.append(statistic(c, points).double())
        others = ~torch.eye(len(points), dtype=torch.bool)
        without = torch.stack([statistic(c, points[rows]).double() for rows in others])
        variances.append((len(points) - 1) * without.var(correction=0))
    error = torch.stack(variances).sum().sqrt() / len(values)
    return float(torch.stack(values).mean()), float(error)


def share(right: Tensor) -> tuple[float, float]:
    """The share of true entries and a standard error that is not 0 where all are alike."""
    count, hits = len(right), int(right.sum())
    smoothed = (hits + 1) / (count + 2)
    return hits / count, math.sqrt(smoothed * (1 - smoothed) / (count + 2))


class Table:
    """What the judge says of samples; x, y are the real digits that they are compared with."""

    def __init__(self, judge: Judge, x: Tensor, y: Tensor) -> None:
        self.judge, self.clean = judge, load_classifier("digits")
        self.real = {c: self._features(x[y == c]) for c in range(CLASSES)}
        self.apart = {c: mean_distance(x[y == c].flatten(1)) for c in range(CLASSES)}
        self.rows: list[dict[str, Any]] = []

    @torch.no_grad()
    def add(self, x: Tensor, y: Tensor, **facts: Any) -> None:
        """A row for samples x of which the classes y were asked for."""
        seen = self.judge(x).argmax(1)
        pixels = {c: x[y == c].flatten(1) for c in range(CLASSES)}
        learned = {c: self._features(x[y == c]) for c in range(CLASSES)}
        of = {c: len(points) for c, points in learned.items()}
        measured = {
            "accuracy": share(seen == y),
            "spread": over_classes(lambda c, p: mean_distance(p) / self.apart[c], pixels),
            "precision": over_classes(lambda c, p: precision(p, self.real[c]), learned),
            "coverage": over_classes(lambda c, p: coverage(p, self.real[c], of[c]), learned),
            "clean_classifier_agrees": share(self.clean.logits(x).argmax(1) == y),
        }
        row = {**facts, "samples": len(x)}
        for name, (value, error) in measured.items():
            row[name], row[f"{name}_error"] = round(value, 4), round(error, 4)
        row["accuracy_of_classes"] = [
            round(float((seen[y == c] == c).double().mean()), 3) for c in range(CLASSES)
        ]
        self.rows.append(row)
        shown = ("accuracy", "spread", "precision", "coverage")
        figures = "  ".join(f"{k} {row[k]:.3f} ± {row[f'{k}_error']:.3f}" for k in shown)
        print(f"{row['method']:18} {row.get('scale', ''):>4}  n {len(x)}  {figures}", flush=True)

    @torch.no_grad()
    def _features(self, x: Tensor) -> Tensor:
        return self.judge.features(x)


@torch.no_grad()
def frequencies(judge: Judge, pool: Tensor, expected: Tensor) -> dict[str, Any]:
    """How often the judge sees each class in `pool`, beside expected shares (10,)."""
    seen = torch.bincount(judge(pool).argmax(1), minlength=CLASSES).double()
    due = len(pool) * expected
    chi2 = ((seen - due).square() / due).sum()
    degrees = torch.tensor((CLASSES - 1) / 2, dtype=torch.float64)
    return {
        "samples": len(pool),
        "seen": [round(p, 4) for p in (seen / len(pool)).tolist()],
        "training_images": [round(p, 4) for p in expected.tolist()],
        "chi_square": round(float(chi2), 2),
        "p_value": round(float(torch.special.gammaincc(degrees, chi2 / 2)), 4),
    }
