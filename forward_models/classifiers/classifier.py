"""Classifiers as forward models: the measurement is the class of an image."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from ..checks import Shape, check_positive
from ..forward_model import ForwardModel, TimeDependent, check_level
from .images import Range, Units, check_images, check_logits
from .labels import check_classes, check_labels, log_probability
from .network import ConvClassifier

# Keeps log sigma finite at sigma = 0; far below any noise level that a network can tell from none.
_FLOOR = 1e-3


@final
class Classifier(ForwardModel):
    """p(y = class | x0), the softmax of a network trained on clean images.

    log p(y | x0) = log_softmax(network(u(x0)))[y], with u the affine map from `data_range` to
    `network_range`. As good as the network; one evaluation of it per call. For p_sigma(y | x) on
    noisy images see `NoisyClassifier`, which needs no approximation. One attribute among several,
    one head, or a region of the image: wrap the network in `Attribute`, `Head` or `Region`.

    Args:
        network: images (B, *event) in network range -> logits (B, num_classes). It is used as it
            is: put it in eval mode, in the precision of the images.
        num_classes: number of classes.
        event_shape: image shape, or None if the network takes any.
        data_range: (low, high) of the images in data units.
        network_range: (low, high) that the network was trained on.

    Raises:
        ValueError: an impossible range or number of classes.

    Paper: Bridle, Probabilistic interpretation of feedforward classification network outputs,
    https://doi.org/10.1007/978-3-642-76153-9_28
    """

    measurement_shape = ()
    measurement_ndim = 0
    measurement_field = "integer"

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        event_shape: Shape | None = None,
        data_range: Range = (0.0, 1.0),
        network_range: Range = (-1.0, 1.0),
    ) -> None:
        self.network = network
        self.num_classes = check_classes(num_classes)
        self.event_shape = event_shape
        self.units = Units(data_range, network_range)

    def check_measurement(self, y: Tensor) -> Tensor:
        """Return the class index y, () or (B,) int64, as (1,) or (B,)."""
        return check_labels(y, self.num_classes)

    def logits(self, x: Tensor) -> Tensor:
        """The network's logits for clean images x in data units, (B, num_classes)."""
        check_images(x, self.event_shape, self.network)
        return check_logits(self.network(self.units(x)), len(x), self.num_classes)

    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        y = self.check_measurement(y)
        return log_probability(self.logits(x), y)

    def simulate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a class for each image, (B,) int64."""
        with torch.no_grad():
            probability = torch.softmax(self.logits(x), dim=1)
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
        self.num_classes = check_classes(num_classes)
        self.event_shape = event_shape
        self.units = Units(data_range, network_range)
        self.scale = check_positive("scale", scale)

    def check_measurement(self, y: Tensor) -> Tensor:
        """Return the class index y, () or (B,) int64, as (1,) or (B,)."""
        return check_labels(y, self.num_classes)

    def logits(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The network's logits for noisy images x at noise level sigma, (B, num_classes)."""
        check_images(x, self.event_shape, self.network)
        s = self.units.scale * check_level(sigma, x).expand(len(x))
        c = 1 / torch.sqrt(1 + (s / self.scale).square())
        feature = 0.5 * torch.log(s.square() + _FLOOR**2)
        scaled = c.reshape(-1, *[1] * (x.ndim - 1)) * self.units(x)
        return check_logits(self.network(scaled, feature), len(x), self.num_classes)

    def log_likelihood(self, y: Tensor, x: Tensor, sigma: float | Tensor) -> Tensor:
        y = self.check_measurement(y)
        return log_probability(self.logits(x, sigma), y)


def as_model(
    network: ConvClassifier, data_range: Range, network_range: Range, scale: float = 0.5
) -> Classifier | NoisyClassifier:
    """The forward model of a network: noisy or clean, as the network is."""
    classes, shape = network.config["num_classes"], tuple(network.config["image_size"])
    if network.config["noise_conditional"]:
        return NoisyClassifier(network, classes, shape, data_range, network_range, scale)
    return Classifier(network, classes, shape, data_range, network_range)
