"""Classifiers as forward models: the measurement is the class of an image."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from ..checks import Shape, check_batched, check_dtype, check_finite, check_positive, check_tensor
from ..forward_model import ForwardModel, TimeDependent

Range = tuple[float, float]

# Keeps log sigma finite at sigma = 0; far below any noise level that a network can tell from none.
_FLOOR = 1e-3


def _check_range(name: str, value: Range) -> Range:
    low, high = value
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{name} must be (low, high) with low < high, got {value}")
    return float(low), float(high)


def _check_classes(num_classes: int) -> int:
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes must be an integer of at least 2, got {num_classes}")
    return num_classes


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


def _gather(logits: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """log softmax(logits)[b, y_b], (B,)."""
    batch = logits.shape[0]
    if logits.shape != (batch, num_classes):
        raise ValueError(
            f"the network returned {tuple(logits.shape)}, expected (B, num_classes) = "
            f"({batch}, {num_classes})"
        )
    if y.shape[0] not in (1, batch):
        raise ValueError(f"y has {y.shape[0]} class indices for {batch} images")
    index = y.to(logits.device).expand(batch)[:, None]
    return torch.log_softmax(logits, dim=1).gather(1, index)[:, 0]


class _Units:
    """The affine map from data units to the network's range, u = scale * x + shift."""

    def __init__(self, data_range: Range, network_range: Range) -> None:
        (low, high), (net_low, net_high) = data_range, network_range
        self.scale = (net_high - net_low) / (high - low)
        self.shift = net_low - self.scale * low

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


@final
class Classifier(ForwardModel):
    """p(y = class | x0), the softmax of a network trained on clean images.

    log p(y | x0) = log_softmax(network(u(x0)))[y], with u the affine map from `data_range` to
    `network_range`. As good as the network; one evaluation of it per call. For p_sigma(y | x) on
    noisy images see `NoisyClassifier`, which needs no approximation.

    Args:
        network: images (B, *event) in network range -> logits (B, num_classes). It is used as it
            is: put it in eval mode.
        num_classes: number of classes.
        event_shape: image shape, or None if the network takes any.
        data_range: range of the images in data units.
        network_range: the range that the network was trained on.

    Raises:
        ValueError: an impossible range or number of classes.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        event_shape: Shape | None = None,
        data_range: Range = (0.0, 1.0),
        network_range: Range = (-1.0, 1.0),
    ) -> None:
        self.network = network
        self.num_classes = _check_classes(num_classes)
        self.event_shape = event_shape
        self.measurement_shape = ()
        self.data_range = _check_range("data_range", data_range)
        self.network_range = _check_range("network_range", network_range)
        self._units = _Units(self.data_range, self.network_range)

    def check_measurement(self, y: Tensor) -> Tensor:
        """Return the class index y, () or (B,) int64, as (1,) or (B,)."""
        return check_labels(y, self.num_classes)

    def logits(self, x: Tensor) -> Tensor:
        """The network's logits for clean images x in data units, (B, num_classes)."""
        check_tensor("x", x)
        check_dtype("x", x)
        check_batched("x", x, self.event_shape, None)
        result: Tensor = self.network(self._units(x))
        return result

    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        return _gather(self.logits(x), self.check_measurement(y), self.num_classes)

    def simulate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a class for each image, (B,) int64."""
        probability = torch.softmax(self.logits(x).detach(), dim=1)
        if generator is not None:
            probability = probability.to(generator.device)
        return torch.multinomial(probability, 1, generator=generator)[:, 0].to(x.device)


@final
class NoisyClassifier(TimeDependent):
    """p_sigma(y = class | x), the softmax of a network trained on noisy images x = x0 + sigma eps.

    log p_sigma(y | x) = log_softmax(network(c u(x), log s))[y], where u maps data units to network
    range, s is sigma in network units and c = 1 / sqrt(1 + (s / scale)^2) keeps the input of unit
    order at every noise level. Exact if the network is the minimiser of the cross-entropy on
    (x, y), which is the true posterior class probability. One network evaluation per call.

    Args:
        network: (images (B, *event), log noise level (B,)) -> logits (B, num_classes). The second
            argument is log sqrt(s^2 + 1e-6), finite at sigma = 0 too. Put it in eval mode.
        num_classes, event_shape, data_range, network_range: see `Classifier`.
        scale: standard deviation of clean images in network units.

    Raises:
        ValueError: an impossible range, scale or number of classes.

    Paper: Dhariwal and Nichol, Diffusion models beat GANs on image synthesis,
    https://arxiv.org/abs/2105.05233
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        event_shape: Shape | None = None,
        data_range: Range = (0.0, 1.0),
        network_range: Range = (-1.0, 1.0),
        scale: float = 0.5,
    ) -> None:
        self.network = network
        self.num_classes = _check_classes(num_classes)
        self.event_shape = event_shape
        self.data_range = _check_range("data_range", data_range)
        self.network_range = _check_range("network_range", network_range)
        self.scale = check_positive("scale", scale)
        self._units = _Units(self.data_range, self.network_range)

    def check_measurement(self, y: Tensor) -> Tensor:
        """Return the class index y, () or (B,) int64, as (1,) or (B,)."""
        return check_labels(y, self.num_classes)

    def logits(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The network's logits for noisy images x at noise level sigma, (B, num_classes)."""
        check_tensor("x", x)
        check_dtype("x", x)
        check_batched("x", x, self.event_shape, None)
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if sigma.ndim > 1 or sigma.numel() not in (1, x.shape[0]):
            raise ValueError(
                f"sigma has shape {tuple(sigma.shape)}, expected a number or ({x.shape[0]},)"
            )
        check_finite("sigma", sigma)
        if bool((sigma < 0).any()):
            raise ValueError(f"sigma must not be negative, got {float(sigma.min())}")
        s = self._units.scale * sigma.reshape(-1).expand(x.shape[0])
        c = 1 / torch.sqrt(1 + (s / self.scale).square())
        feature = 0.5 * torch.log(s.square() + _FLOOR**2)
        scaled = c.reshape(-1, *[1] * (x.ndim - 1)) * self._units(x)
        result: Tensor = self.network(scaled, feature)
        return result

    def log_likelihood(self, y: Tensor, x: Tensor, sigma: float | Tensor) -> Tensor:
        return _gather(self.logits(x, sigma), self.check_measurement(y), self.num_classes)
