"""Images to train on, and the random views of them that a batch is made of."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .checks import needs


@dataclass(frozen=True)
class Augmentation:
    """Random views of a set of images, drawn anew for every batch.

    Attributes:
        crop: side of the square views; None keeps whole images (all of one size).
        zoom: (smallest, largest) factor by which a view enlarges the image, log-uniform.
        flip: mirror left-right half of the time.
        rotate: turn by multiples of 90 degrees, and mirror.
        channels: permute the colour channels.
        gain: contrast is scaled about the low end by a factor in [1 - gain, 1].
        saturation: largest factor, at least 1, by which the colours' distance from grey is scaled;
            log-uniform in [1 / saturation, saturation], and never so far that a value leaves the
            range of the image.
        shift: largest number of pixels by which a view is moved, the border repeated.
    """

    crop: int | None = None
    zoom: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    rotate: bool = False
    channels: bool = False
    gain: float = 0.0
    saturation: float = 1.0
    shift: int = 0

    def __post_init__(self) -> None:
        low, high = self.zoom
        needs(
            (self.crop is None or self.crop >= 1, "crop", self.crop, "at least 1"),
            (0 < low <= high < math.inf, "zoom", self.zoom, "(low, high) with 0 < low <= high"),
            (0 <= self.gain < 1, "gain", self.gain, "in [0, 1)"),
            (1 <= self.saturation < math.inf, "saturation", self.saturation, "at least 1"),
            (self.shift >= 0, "shift", self.shift, "at least 0"),
        )


class Images:
    """Images (C, H, W) in network units, of one or many sizes, from which views are drawn.

    Args:
        images: (C, H, W) each, all of one size unless the views are crops.
        augmentation: what the views are; by default the images themselves.
        low, high: the range of the values, network units.
    """

    def __init__(
        self,
        images: Sequence[Tensor] | Tensor,
        augmentation: Augmentation | None = None,
        low: float = -1.0,
        high: float = 1.0,
    ) -> None:
        self.images = list(images)
        self.augmentation = augmentation or Augmentation()
        self.low, self.high = low, high
        if not self.images:
            raise ValueError("no images to train on")
        shapes = {tuple(im.shape) for im in self.images}
        if any(len(s) != 3 for s in shapes):
            raise ValueError(f"images must have shape (C, H, W), got {sorted(shapes)}")
        if len({s[0] for s in shapes}) > 1:
            raise ValueError(f"images must have one number of channels, got {sorted(shapes)}")
        side = self.augmentation.crop
        if side is None and len(shapes) > 1:
            raise ValueError(f"images of several sizes need a crop size; sizes: {sorted(shapes)}")
        small = [s for s in shapes if side is not None and min(s[1:]) < side / self._most()]
        if small:
            raise ValueError(
                f"views of {side} pixels do not fit into images of {sorted(small)[:4]}; choose a "
                "smaller crop or a larger zoom"
            )
        # Large pictures show more crops, so they are visited in proportion to their area.
        area = torch.tensor([float(im.shape[1] * im.shape[2]) for im in self.images])
        self._weights = area / area.sum()
        channels, height, width = self.images[0].shape
        if self.augmentation.channels and channels == 1:
            raise ValueError("channels can only be permuted where there are several, got 1")
        if self.augmentation.saturation > 1 and channels != 3:
            raise ValueError(f"saturation needs 3 channels, got {channels}")
        self.event_shape = (channels, side or height, side or width)

    def __len__(self) -> int:
        return len(self.images)

    def digest(self) -> hashlib._Hash:
        """SHA-256 of all images in network units, to be told apart by or to go on with."""
        total = hashlib.sha256()
        for image in self.images:
            total.update(repr(tuple(image.shape)).encode())
            total.update(image.contiguous().numpy().tobytes())
        return total

    def batch(self, size: int, generator: torch.Generator) -> Tensor:
        """(size, C, H, W): independent random views."""
        return self.draw(size, generator)[0]

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Independent random views (size, C, H, W), and which images they show (size,)."""
        chosen = torch.multinomial(self._weights, size, replacement=True, generator=generator)
        views = [self._view(self.images[i], generator) for i in chosen.tolist()]
        return torch.stack(views), chosen

    def _most(self) -> float:
        return self.augmentation.zoom[1]

    def _view(self, image: Tensor, generator: torch.Generator) -> Tensor:
        options = self.augmentation
        u = torch.rand(8, generator=generator).tolist()
        if options.crop is not None:
            image = self._crop(image, options.crop, u)
        if options.flip and u[3] < 0.5:
            image = image.flip(-1)
        if options.rotate:
            image = image.rot90(int(u[4] * 4), (1, 2))
            image = image.flip(-1) if u[5] < 0.5 else image
        if options.channels:
            image = image[torch.randperm(image.shape[0], generator=generator)]
        if options.saturation > 1:
            image = saturated(image, options.saturation ** (2 * u[7] - 1), self.low, self.high)
        if options.gain > 0:
            image = (image - self.low) * (1 - options.gain * u[6]) + self.low
        if options.shift > 0:
            image = _shifted(image, options.shift, generator)
        return image.contiguous()

    def _crop(self, image: Tensor, crop: int, u: list[float]) -> Tensor:
        low, high = self.augmentation.zoom
        # A view may not reach beyond its image.
        low = max(low, crop / min(image.shape[1:]))
        zoom = low * (max(high, low) / low) ** u[0]
        side = min(round(crop / zoom), *image.shape[1:])
        top = int(u[1] * (image.shape[1] - side + 1))
        left = int(u[2] * (image.shape[2] - side + 1))
        image = image[:, top : top + side, left : left + side]
        if side == crop:
            return image
        return nn.functional.interpolate(
            image[None], (crop, crop), mode="bilinear", antialias=True
        )[0]


def saturated(image: Tensor, factor: float, low: float, high: float) -> Tensor:
    """Colours (3, H, W) moved from their grey g by a factor: g + k (x - g), g the mean of channels.

    k is `factor`, or per pixel the largest below it at which no channel leaves [low, high]; the
    grey values stay as they are.
    """
    grey = image.mean(0, keepdim=True)
    chroma = image - grey
    if factor > 1:
        room = torch.where(chroma > 0, high - grey, grey - low) / chroma.abs().clamp(min=1e-12)
        # A pixel at the border of the range already keeps its colours.
        limit = room.amin(0, keepdim=True).clamp(min=1.0)
        return grey + chroma * limit.clamp(max=factor)
    return grey + chroma * factor


def _shifted(image: Tensor, most: int, generator: torch.Generator) -> Tensor:
    rows, columns = torch.randint(2 * most + 1, (2,), generator=generator).tolist()
    padded = nn.functional.pad(image[None], (most,) * 4, mode="replicate")[0]
    height, width = image.shape[1:]
    return padded[:, rows : rows + height, columns : columns + width]
