"""What a camera makes of brightness, pixel by pixel: clipping and tone curves."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import check_number, check_positive
from ..operator import Pointwise


@final
class HighDynamicRange(Pointwise):
    """y = clip(pivot + gain (x - pivot), low, high), a gain that drives a sensor into saturation.

    Any shape. The derivative is `gain` inside the range and 0 where y is clipped: there y says no
    more than "at least" or "at most" that value, a gradient through it finds nothing, and the
    prior alone fills in. All entries count as measured. With Gaussian noise this describes a
    sensor that clips first and adds noise afterwards, as the benchmarks simulate it. If noise is
    added before the sensor clips, saturated entries are censored data: use
    `Affine(gain, (1 - gain) * pivot)` with the noise `Saturated(sigma, low, high)`, whose
    likelihood has a gradient there. Cost: one pass over the entries.

    The default is the benchmark of Zhang et al. 2024, clip(2 v, -1, 1) for images v in [-1, 1],
    in data units [0, 1]; its sigma 0.05 in units of v is 0.025 here.
    pivot = 0 is a longer exposure.

    Args:
        gain: slope inside the range, > 0.
        pivot: the value that the gain leaves as it is.
        low, high: the range of the sensor.

    Raises:
        TypeError: arguments that are no numbers.
        ValueError: gain <= 0, low >= high, or values that are not finite.

    Paper: Zhang et al., Improving Diffusion Inverse Problem Solving with Decoupled Noise
    Annealing, 2024, https://arxiv.org/abs/2407.01521
    """

    def __init__(
        self, gain: float = 2.0, pivot: float = 0.5, low: float = 0.0, high: float = 1.0
    ) -> None:
        self.gain = check_positive("gain", gain)
        self.pivot = check_number("pivot", pivot)
        self.low, self.high = check_number("low", low), check_number("high", high)
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {low} and {high}")

    def _apply(self, x: Tensor) -> Tensor:
        return (self.pivot + self.gain * (x - self.pivot)).clamp(self.low, self.high)


class _PowerLaw(Pointwise):
    """y = (1 + a) x^(1/g) - a above a toe, a straight line through 0 that fits in value and slope.

    The line ends at y = a / (g - 1); it continues to negative values.
    """

    def __init__(self, gamma: float = 2.4, offset: float = 0.055) -> None:
        self.gamma, self.offset = check_positive("gamma", gamma), check_positive("offset", offset)
        if not self.gamma > 1:
            raise ValueError(f"gamma must be above 1, got {gamma}")
        self._bright = self.offset / (self.gamma - 1)
        if not self._bright < 1:
            raise ValueError(
                f"offset must be below gamma - 1 = {self.gamma - 1}, got {offset}: the toe would "
                "cover the whole range"
            )
        self._dark = ((self._bright + self.offset) / (1 + self.offset)) ** self.gamma


@final
class Gamma(_PowerLaw):
    """Camera response: light x to a coded value y, both 0 to 1, a power law with a linear toe.

    y = (1 + a) x^(1/gamma) - a for x above the toe and s x below, where the toe ends at
    y = a / (gamma - 1) and s makes the curve and its slope continuous there. The toe keeps the
    slope finite at 0 and gives negative x a value. gamma 2.4 and a = 0.055 are sRGB (up to the
    rounding of its published constants, 3e-5), 1 / 0.45 and 0.099 are ITU-R BT.709. Any shape;
    increasing and once continuously differentiable; `inverse` undoes it. Cost: one power per entry.

    Args:
        gamma: exponent, > 1.
        offset: a, between 0 and gamma - 1.

    Raises:
        TypeError: arguments that are no numbers. ValueError: others than these.

    Standards: IEC 61966-2-1:1999, Default RGB colour space - sRGB,
    https://webstore.iec.ch/publication/6169; ITU-R BT.709,
    https://www.itu.int/rec/R-REC-BT.709
    """

    @property
    def inverse(self) -> LinearLight:
        """Coded values back to light."""
        return LinearLight(self.gamma, self.offset)

    def _apply(self, x: Tensor) -> Tensor:
        # The bound keeps the unused branch, and so its share of the gradient, finite.
        power = (1 + self.offset) * x.clamp(min=self._dark) ** (1 / self.gamma) - self.offset
        return torch.where(x > self._dark, power, x * (self._bright / self._dark))


@final
class LinearLight(_PowerLaw):
    """Coded values y to the light x behind them: the inverse of `Gamma`, with its arguments.

    x = ((y + a) / (1 + a))^gamma above the toe, a straight line through 0 below. Any shape. Cost:
    one power per entry.

    Standards: those of `Gamma`.
    """

    @property
    def inverse(self) -> Gamma:
        """Light back to coded values."""
        return Gamma(self.gamma, self.offset)

    def _apply(self, x: Tensor) -> Tensor:
        base = (x.clamp(min=self._bright) + self.offset) / (1 + self.offset)
        return torch.where(x > self._bright, base**self.gamma, x * (self._dark / self._bright))


@final
class Reinhard(Pointwise):
    """y = x (1 + x / white^2) / (1 + x), a tone curve that brings bright light into range.

    x = white goes to 1; without a white point every x >= 0 stays below 1. Odd in x, so that
    negative values have a value and a slope: |x| stands for x in the factors. Any shape;
    increasing, with slope 1 at 0 and a continuous derivative. Cost: one pass over the entries.

    Args:
        white: the light that is shown as 1, > 0; None for none.

    Paper: Reinhard et al., Photographic tone reproduction for digital images, 2002,
    https://doi.org/10.1145/566654.566575
    """

    def __init__(self, white: float | None = None) -> None:
        self.white = None if white is None else check_positive("white", white)

    def _apply(self, x: Tensor) -> Tensor:
        size = x.abs()
        lifted = x if self.white is None else x * (1 + size / self.white**2)
        return lifted / (1 + size)


@final
class Sigmoid(Pointwise):
    """y = (s(x) - s(0)) / (s(1) - s(0)), s(x) = 1 / (1 + exp(-contrast (x - midpoint))).

    A film-like response: flat in the shadows and the highlights, steep at the midpoint; 0 and 1
    keep their values. Any shape; increasing and smooth everywhere. Cost: one exponential per entry.

    Args:
        contrast: > 0; 10 is a strong one.
        midpoint: where the curve is steepest.

    Raises:
        TypeError: arguments that are no numbers.
        ValueError: contrast <= 0, or so far from the midpoint that s(0) and s(1) are equal.

    Paper: Braun and Fairchild, Image lightness rescaling using sigmoidal contrast enhancement
    functions, 1999, https://doi.org/10.1117/1.482706
    """

    def __init__(self, contrast: float = 5.0, midpoint: float = 0.5) -> None:
        self.contrast = check_positive("contrast", contrast)
        self.midpoint = check_number("midpoint", midpoint)
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64) - self.midpoint
        low, high = torch.sigmoid(self.contrast * ends).tolist()
        if not high - low > 1e-6:
            raise ValueError(
                f"contrast {contrast} at midpoint {midpoint} leaves no contrast between 0 and 1"
            )
        self._low, self._span = low, high - low

    def _apply(self, x: Tensor) -> Tensor:
        return (torch.sigmoid(self.contrast * (x - self.midpoint)) - self._low) / self._span
