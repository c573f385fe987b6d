"""Class indices as measurements, and the log-probability that logits give them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_integer, check_tensor


def check_classes(num_classes: int) -> int:
    """Return the number of classes, an integer of at least 2, else raise ValueError."""
    return check_integer("num_classes", num_classes, 2)


def check_labels(y: Tensor, num_classes: int) -> Tensor:
    """Return the class index y as (1,) or (B,) int64; raise unless 0 <= y < num_classes."""
    check_tensor("y", y)
    if y.dtype != torch.int64:
        raise TypeError(f"y has dtype {y.dtype}, expected class indices in torch.int64")
    if y.ndim > 1 or y.numel() == 0:
        raise ValueError(f"y has shape {tuple(y.shape)}, expected one class index () or (B,)")
    y = y.reshape(-1)
    wrong = (y < 0) | (y >= num_classes)
    if bool(wrong.any()):
        raise ValueError(f"y has class index {int(y[wrong][0])}, expected 0 to {num_classes - 1}")
    return y


def log_probability(logits: Tensor, y: Tensor) -> Tensor:
    """log softmax(logits)[b, y_b], (B,), for checked class indices y, (1,) or (B,)."""
    batch = logits.shape[0]
    if y.shape[0] not in (1, batch):
        raise ValueError(f"y has {y.shape[0]} class indices for {batch} images")
    index = y.to(logits.device).expand(batch)[:, None]
    return torch.log_softmax(logits, dim=1).gather(1, index)[:, 0]
