"""A network seen through one of its outputs, or looking at one region of the image.

Each adapter is a network again and passes further arguments (a log noise level) through, so that it
serves `Classifier` and `NoisyClassifier` alike. Several attributes of one image are several
measurements: `inverse.condition(prior, smiling, 1).given(glasses, 0)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from torch import Tensor, nn
from torch.nn import functional

from ..checks import check_shape


@final
class Head(nn.Module):
    """Some of the logits that a network returns: one softmax among several.

    Cost: one evaluation of the network. Images in the network's range, as the network takes them.

    Args:
        network: images -> logits (B, K), or a tuple, list or dictionary of such.
        output: which of several outputs, by position or name; None for a network with one.
        classes: the columns of the logits that compete with one another, as a slice or a list;
            None means all. Their order is that of the class indices y.

    Raises:
        TypeError: the network returns something else. ValueError: there is no such output or
        column; both at the call, when the network is seen to answer.
    """

    def __init__(
        self,
        network: nn.Module,
        output: int | str | None = None,
        classes: slice | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.output = network, output
        self.classes = classes if isinstance(classes, slice | None) else list(classes)

    def forward(self, x: Tensor, *level: Tensor) -> Tensor:
        """Images (B, *event) and, if the network takes it, a log noise level (B,) -> (B, k)."""
        logits = self._choose(self.network(x, *level))
        if self.classes is None:
            return logits
        count = logits.shape[1]
        columns = range(count)[self.classes] if isinstance(self.classes, slice) else self.classes
        if not columns or not all(0 <= k < count for k in columns):
            raise ValueError(f"classes {self.classes} choose no columns of {count} logits")
        return logits[:, list(columns)]

    def _choose(self, outputs: object) -> Tensor:
        chosen = outputs
        if self.output is not None:
            names: Sequence[int | str] = ()
            if isinstance(outputs, Mapping):
                names = list(outputs)
            elif isinstance(outputs, tuple | list):
                names = range(len(outputs))
            if self.output not in names:
                raise ValueError(
                    f"the network has no output {self.output!r}; it returned "
                    f"{type(outputs).__name__} with {list(names)}"
                )
            chosen = outputs[self.output]  # type: ignore[index]
        if not isinstance(chosen, Tensor):
            raise TypeError(
                f"the network returned {type(chosen).__name__}, expected a tensor of logits; "
                "choose one of several outputs with output="
            )
        if chosen.ndim != 2:
            raise ValueError(f"the network returned {tuple(chosen.shape)}, expected (B, K) logits")
        return chosen


@final
class Attribute(nn.Module):
    """One yes-or-no attribute of a network with a logit for each: p(present) = sigmoid(l_k).

    Gives logits (0, l_k), whose softmax is (1 - p, p): use it with num_classes = 2, where y = 1 is
    present and y = 0 absent. Of a network with several outputs choose one first:
    `Attribute(Head(network, "attributes"), 3)`. Cost: one evaluation of the network.

    Args:
        network: images -> logits (B, K), one for each attribute.
        index: k.

    Raises:
        ValueError: there is no logit k; at the call, when the network is seen to answer.
    """

    def __init__(self, network: nn.Module, index: int) -> None:
        super().__init__()
        self.index = index
        self.head = Head(network, classes=[index])

    def forward(self, x: Tensor, *level: Tensor) -> Tensor:
        """Images (B, *event) and, if the network takes it, a log noise level (B,) -> (B, 2)."""
        logit = self.head(x, *level)
        return functional.pad(logit, (1, 0))


@final
class Region(nn.Module):
    """A network that looks at a box of the image, optionally resized to the size it takes.

    Clean images: exact, as the network is. Noisy ones: the network sees p_sigma(class | box of x),
    which leaves aside what the pixels around the box tell about the noise in it; without `size` the
    noise in the box is white at level sigma still, but resizing averages and correlates it, so that
    a noise-conditional network must have been trained on noisy images resized in this way. Cost:
    one evaluation of the network, on images of the box's or the given size.

    Args:
        network: images (B, C, h, w) -> its output.
        box: (top, left, height, width) in pixels, inside the image.
        size: (h, w) that the box is resized to, bilinear and antialiased; None leaves it.

    Raises:
        ValueError: an impossible box or size; at the call, a box that leaves the image.
    """

    def __init__(
        self,
        network: nn.Module,
        box: tuple[int, int, int, int],
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        top, left, height, width = box
        if min(top, left) < 0:
            raise ValueError(f"box must be (top, left, height, width) in the image, got {box}")
        check_shape("height and width of the box", (height, width))
        if size is not None and len(check_shape("size", size)) != 2:
            raise ValueError(f"size must be (height, width), got {size}")
        self.network, self.box, self.size = network, box, size

    def forward(self, x: Tensor, *level: Tensor) -> object:
        """Images (B, C, H, W) and, if the network takes it, a log noise level (B,) -> output."""
        top, left, height, width = self.box
        if x.ndim != 4 or top + height > x.shape[2] or left + width > x.shape[3]:
            raise ValueError(
                f"the box (top, left, height, width) = {self.box} leaves images of shape "
                f"{tuple(x.shape)}"
            )
        part = x[:, :, top : top + height, left : left + width]
        if self.size is not None:
            part = resize(part, self.size)
        return self.network(part, *level)


def resize(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Images (B, C, H, W) to (B, C, *size), antialiased; "bilinear" or "bicubic"."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return functional.interpolate(x, size, mode=mode, antialias=True, align_corners=False)
