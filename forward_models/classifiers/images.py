"""Images in data units as the input of a network."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ..checks import Shape, check_batched, check_dtype, check_number, check_tensor

Range = tuple[float, float]


def _check_range(name: str, value: Range) -> Range:
    if isinstance(value, tuple | list) and len(value) == 2:
        low, high = (check_number(f"an end of {name}", end) for end in value)
        if low < high:
            return low, high
    raise ValueError(f"{name} must be (low, high) with low < high, got {value!r}")


@final
class Units:
    """The affine map u = scale * x + shift from `data_range` to `network_range`."""

    def __init__(self, data_range: Range, network_range: Range) -> None:
        self.data_range = _check_range("data_range", data_range)
        self.network_range = _check_range("network_range", network_range)
        (low, high), (net_low, net_high) = self.data_range, self.network_range
        self.scale = (net_high - net_low) / (high - low)
        self.shift = net_low - self.scale * low

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


def _check_eval(network: nn.Module) -> None:
    """Refuse a network whose answer for one image depends on the others, or on chance."""
    for name, module in network.named_modules():
        if module.training and isinstance(module, _BatchNorm | _DropoutNd):
            raise ValueError(
                f"the network's {type(module).__name__} {name!r} is in training mode: the class of "
                "an image would depend on its batch; call network.eval() first"
            )


def check_images(x: Tensor, event_shape: Shape | None, network: nn.Module) -> None:
    """Raise unless x is a batch of images with the dtype and device of the network's weights."""
    _check_eval(network)
    check_tensor("x", x)
    check_dtype("x", x)
    check_batched("x", x, event_shape, None)
    weight = next((p for p in network.parameters() if p.is_floating_point()), None)
    if weight is None:
        return
    if weight.dtype != x.dtype:
        raise TypeError(
            f"x has dtype {x.dtype}, the network's weights {weight.dtype}; convert one of them, "
            "e.g. with model.network.to(x.dtype)"
        )
    if weight.device != x.device:
        raise ValueError(
            f"x is on {x.device}, the network on {weight.device}; move it with "
            "model.network.to(x.device)"
        )


def check_logits(logits: Tensor, batch: int, num_classes: int) -> Tensor:
    """Return what the network gave if it is (B, num_classes), else raise."""
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the network returned {type(logits).__name__}, expected one tensor of logits; "
            "choose one of several outputs with Head(network, output=...)"
        )
    if logits.shape != (batch, num_classes):
        raise ValueError(
            f"the network returned {tuple(logits.shape)}, expected (B, num_classes) = "
            f"({batch}, {num_classes})"
        )
    return logits
