"""Classifiers of torchvision by name, with weights from a local file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn

from ..checks import check_positive, check_shape
from .adapters import resize as resize_to
from .classifier import Classifier
from .images import Range
from .weights import load_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@final
class Preprocessed(nn.Module):
    """A network behind the preparation that it was trained with, all of it differentiable.

    Images (B, 3, H, W) in [0, 1], or (B, 1, H, W) with `grey`, are resized so that their shorter
    side has `resize` pixels (antialiased), cropped to the centre `crop` x `crop`, and normalised to
    (x - mean) / std for each channel. Cost: a resize and one evaluation of the network.

    Args:
        network: normalised images (B, 3, h, w) -> logits (B, K).
        resize: pixels of the shorter side, the longer one in proportion, rounded down; None keeps
            the size.
        crop: side of the square that is cut from the centre; None cuts nothing.
        interpolation: "bilinear" or "bicubic".
        mean, std: of the three channels.
        grey: whether images have one channel, which is repeated three times.

    Raises:
        ValueError: impossible options; at the call, an image of other channels or too small.
    """

    def __init__(
        self,
        network: nn.Module,
        resize: int | None = 256,
        crop: int | None = 224,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        grey: bool = False,
    ) -> None:
        super().__init__()
        for name, side in (("resize", resize), ("crop", crop)):
            if side is not None:
                check_shape(name, (side,))
        if resize is not None and crop is not None and crop > resize:
            raise ValueError(f"crop={crop} cuts more than the resize={resize} pixels there are")
        if interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation is bilinear or bicubic, got {interpolation!r}")
        if len(mean) != 3 or len(std) != 3:
            raise ValueError(f"mean and std need 3 values each, got {mean} and {std}")
        spread = [check_positive("std", value) for value in std]
        self.network, self.resize, self.crop = network, resize, crop
        self.interpolation, self.grey = interpolation, grey
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(spread)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> logits (B, K)."""
        channels = 1 if self.grey else 3
        if x.ndim != 4 or x.shape[1] != channels:
            advice = "grey=True repeats one channel" if x.ndim == 4 and x.shape[1] == 1 else ""
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (B, {channels}, H, W); {advice}".rstrip(
                    "; "
                )
            )
        x = self._crop(self._resize(x))
        if self.grey:
            x = x.expand(-1, 3, -1, -1)
        mean, std = (
            torch.tensor(value, dtype=x.dtype, device=x.device)[:, None, None]
            for value in (self.mean, self.std)
        )
        logits: Tensor = self.network((x - mean) / std)
        return logits

    def _resize(self, x: Tensor) -> Tensor:
        if self.resize is None:
            return x
        height, width = x.shape[2:]
        longer = self.resize * max(height, width) // min(height, width)
        size = (longer, self.resize) if height > width else (self.resize, longer)
        return resize_to(x, size, self.interpolation)

    def _crop(self, x: Tensor) -> Tensor:
        if self.crop is None:
            return x
        height, width = x.shape[2:]
        if min(height, width) < self.crop:
            raise ValueError(
                f"an image of {height} x {width} pixels is too small for crop={self.crop}; "
                "enlarge it with resize="
            )
        top, left = round((height - self.crop) / 2), round((width - self.crop) / 2)
        return x[:, :, top : top + self.crop, left : left + self.crop]


def torchvision_classifier(
    name: str,
    weights: str | os.PathLike[str],
    num_classes: int = 1000,
    *,
    data_range: Range = (0.0, 1.0),
    resize: int | None = 256,
    crop: int | None = 224,
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    grey: bool = False,
) -> Classifier:
    """p(class | x0) by a classifier of torchvision, in eval mode and single precision on the CPU.

    Nothing is downloaded: `weights` is a safetensors file or a torch file of the network's
    state_dict(). See `Preprocessed` for what happens to an image between data units and network;
    the defaults are those of most of torchvision's weights for ImageNet. Others differ:
    `torchvision.models.get_model_weights(name).DEFAULT.transforms()` prints them, and googlenet and
    inception_v3 take mean = std = (0.5, 0.5, 0.5). One evaluation of the network per call; exact as
    the network is, for clean images only.

    Args:
        name: of an architecture, such as "resnet18" or "vit_b_16".
        weights: path of the file.
        num_classes: number of logits that the weights give.
        data_range: range of the images in data units, mapped to [0, 1] first.
        resize, crop, interpolation, mean, std, grey: see `Preprocessed`.

    Raises:
        ImportError: torchvision is not installed.
        FileNotFoundError: no such file.
        ValueError: an unknown name (near ones are listed), impossible options, or a file that is
            damaged, unsafe, too large or of another network.
    """
    network = _architecture(name, num_classes)
    load_weights(network, weights)
    network = network.eval().requires_grad_(False)
    prepared = Preprocessed(network, resize, crop, interpolation, mean, std, grey).eval()
    return Classifier(prepared, num_classes, None, data_range, network_range=(0.0, 1.0))


def _architecture(name: str, num_classes: int) -> nn.Module:
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError(
            "torchvision_classifier needs torchvision: pip install torchvision"
        ) from error
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 5, 0.5)
        hint = f"near names: {', '.join(near)}" if near else f"known: {', '.join(known)}"
        raise ValueError(f"torchvision has no classifier {name!r}; {hint}")
    # Initial weights, soon replaced, must not advance the caller's random numbers.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    return network.float()
