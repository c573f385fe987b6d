"""How far a classifier's probabilities are from the frequencies of the classes, per noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_batched, check_integer, check_number
from .classifier import Classifier, NoisyClassifier
from .labels import check_labels


@dataclass(frozen=True)
class Calibration:
    """What images of known classes say about a classifier at one noise level.

    Attributes:
        sigma: the noise level, data units.
        count: images.
        accuracy: share whose most probable class is theirs.
        log_loss: mean of -log p(class | image), nats.
        error: expected calibration error, see `calibration_error`.
        floor: the error that sampling alone would leave on average were the probabilities right;
            an error near it says no more than that.
        ceiling: and what it would exceed in one case of twenty.
    """

    sigma: float
    count: int
    accuracy: float
    log_loss: float
    error: float
    floor: float
    ceiling: float


@torch.no_grad()
def calibration_error(
    classifier: Classifier | NoisyClassifier,
    x: Tensor,
    labels: Tensor,
    sigma: float = 0.0,
    *,
    bins: int = 15,
    seed: int = 0,
    batch: int = 500,
) -> Calibration:
    """Accuracy, log-loss and expected calibration error at one noise level.

    Images are sorted by their confidence, the probability of their most probable class, into
    `bins` groups of equal size; with the share right and the mean confidence of each,

        error = sum_b n_b / N |right_b - confidence_b|.

    Its floor is that of classes drawn from the confidences themselves, over 200 draws. Costs one
    network call an image.

    Args:
        classifier: clean ones are called on the noisy images as they are.
        x: clean images x0 (N, *event), data units, that training has not seen; noise is added.
        labels: their classes (N,) int64.
        sigma: noise level, data units.
        bins: groups, at most N.
        seed: of the noise and of the floor's draws.
        batch: images that go through the network together.
    Raises:
        ValueError, TypeError: images or labels that do not fit, a negative sigma.

    Paper: Nguyen and O'Connor, "Posterior Calibration and Exploratory Analysis for Natural
    Language Processing Models", 2015, https://arxiv.org/abs/1508.05154 (bins of equal size);
    Guo et al., "On Calibration of Modern Neural Networks", 2017, https://arxiv.org/abs/1706.04599
    """
    check_batched("x", x, classifier.event_shape, None)
    y = check_labels(labels, classifier.num_classes)
    if len(y) != len(x):
        raise ValueError(f"{len(y)} labels for {len(x)} images")
    level = check_number("sigma", sigma)
    if level < 0:
        raise ValueError(f"sigma must be at least 0, got {sigma}")
    if check_integer("bins", bins, 1) > len(x):
        raise ValueError(f"bins must be at most the {len(x)} images, got {bins}")
    check_integer("batch", batch, 1)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for x0 in x.split(batch):
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        noisy = x0 + level * eps
        if isinstance(classifier, NoisyClassifier):
            logits = classifier.logits(noisy, level)
        else:
            logits = classifier.logits(noisy)
        parts.append(torch.log_softmax(logits.double(), dim=1).cpu())
    log_p, y = torch.cat(parts), y.cpu()
    best, chosen = log_p.max(1)
    order = best.argsort()
    confidence, right = best[order].exp(), (chosen == y)[order].double()
    drawn = torch.rand(200, len(x), generator=generator, dtype=torch.float64) < confidence
    chance = _error(drawn.double(), confidence, bins)
    return Calibration(
        sigma=level,
        count=len(x),
        accuracy=float(right.mean()),
        log_loss=float(-log_p.gather(1, y[:, None]).mean()),
        error=float(_error(right[None], confidence, bins)),
        floor=float(chance.mean()),
        ceiling=float(chance.quantile(0.95)),
    )


def _error(right: Tensor, confidence: Tensor, bins: int) -> Tensor:
    """The error of each row of `right` (R, N), sorted by confidence (N,)."""
    gap = right - confidence
    pieces = [part.sum(1).abs() for part in gap.tensor_split(bins, dim=1)]
    return torch.stack(pieces).sum(0) / gap.shape[1]
