"""The networks of a learned likelihood: a shift of images, and a log ratio of densities."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from forward_models import ConvClassifier, ForwardModel
from forward_models.checks import check_integer, check_shape
from priors.training import unet

Shape = tuple[int, ...]


class Dense(nn.Module):
    """Linear layers with SiLU on flat features and a log noise level; the output starts at 0."""

    def __init__(self, inputs: int, outputs: int, widths: Shape) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-3, 1, 8), persistent=False)
        self.frequencies: Tensor
        layers: list[nn.Module] = []
        size = inputs + 16
        for width in widths:
            layers += [nn.Linear(size, width), nn.SiLU()]
            size = width
        self.layers = nn.Sequential(*layers)
        self.head = zeroed(nn.Linear(size, outputs))

    def forward(self, features: Tensor, level: Tensor) -> Tensor:
        """Features (B, inputs), log noise levels (B,) -> (B, outputs)."""
        phase = level[:, None] * self.frequencies
        known = torch.cat([features, phase.sin(), phase.cos()], 1)
        out: Tensor = self.head(self.layers(known))
        return out


class Convolutional(nn.Module):
    """A UNet2DModel and a 1 x 1 convolution; the output starts at 0."""

    def __init__(self, image: Shape, outputs: int, widths: Shape, patch: int) -> None:
        super().__init__()
        self.unet = unet(image, widths, patch=patch)
        self.head = zeroed(nn.Conv2d(image[0], outputs, 1))

    def forward(self, features: Tensor, level: Tensor) -> Tensor:
        """Features (B, inputs, H, W), log noise levels (B,) -> (B, outputs, H, W)."""
        out = self.unet(features, level / 4)
        mapped: Tensor = self.head(out if isinstance(out, Tensor) else out.sample)
        return mapped


class Folded(nn.Module):
    """A `ConvClassifier` of one class, on patch x patch blocks folded into channels; (B, 1)."""

    def __init__(self, image: Shape, widths: Shape, patch: int) -> None:
        super().__init__()
        channels, height, width = image
        size = (channels * patch**2, height // patch, width // patch)
        self.network = ConvClassifier(1, widths, size, noise_conditional=True)
        zeroed(self.network.head)
        self.patch = patch

    def forward(self, features: Tensor, level: Tensor) -> Tensor:
        out: Tensor = self.network(nn.functional.pixel_unshuffle(features, self.patch), level)
        return out


def zeroed(layer: Any) -> Any:
    """The layer with all its weights 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@final
class HTransform(nn.Module):
    """What is learned of one forward model under one prior: two networks and the scales of both.

    With D = E[x0 | x], l(x0) = log p(y | x0), m the mean image, and e(sigma) the root mean square
    of x0 - D over the prior's images,

        shift     t e^2 grad l(D) + sqrt(1 - t) q e [F(f) + a grad l(D) / g],
        log ratio t (l(D) - l*) - t_max (l(m) - l*) + M/2 log(t / t_max) + c(y, sigma)
                  + (1 - t) R(f),
                  1 / t(sigma) = 1 + 2/M E[l(x0) - l(D)],    l* = E[l(x0)] + M/2,
                  q(sigma) = 1 - t e^2 / sigma^2,

    f = (x, D, grad l(D), grad l(m)), each divided by its root mean square at that noise level (g of
    grad l(D)) and passed through asinh. For a linear model grad l(m) is A^T S^-1 (y - A m), which
    holds all that y says of x0. A black box has no gradients: f = (x, D, y), no t e^2 grad l(D).

    F, a(sigma), R and c start at 0. What is left then is the answer for x0 ~ N(D, e^2) behind an
    operator that treats all directions alike, with the variances of x0 and of y - A D measured at
    every level: 0 as sigma grows. As sigma falls shift and log ratio tend to sigma^2 grad l(x0) and
    l(x0), up to a constant of y, whatever was learned: 1 - t falls as sigma^2, and so does q if the
    prior has a smooth density. Then the true shift is sigma^2 grad l(D) (1 + O(sigma^2)), the true
    log ratio l(D) + O(sigma^2), and what may be learned is of the order of what is left out. The
    black box's shift is e F(f) at every level.

    Args:
        event_shape: (D,) for layers of `Dense`, (C, H, W) for `Convolutional` and `Folded`.
        measurement_shape: of y.
        widths: of the layers, or the channels at each resolution, multiples of 16.
        patch: side of the blocks of pixels folded into channels.
        gradient: whether the model is differentiable.
        levels: noise levels at which the scales are measured.

    Raises:
        ValueError: shapes and sizes that no network takes.
    """

    def __init__(
        self,
        event_shape: Shape,
        measurement_shape: Shape,
        widths: Shape,
        patch: int = 1,
        gradient: bool = True,
        levels: int = 24,
    ) -> None:
        super().__init__()
        event = check_shape("event_shape", event_shape)
        seen = tuple(measurement_shape)
        widths = check_shape("widths", widths)
        check_integer("patch", patch, 1)
        check_integer("levels", levels, 2)
        if len(event) not in (1, 3):
            raise ValueError(f"learned networks take events (D,) or (C, H, W), got {event}")
        if not gradient and (len(seen) != len(event) or seen[1:] != event[1:]):
            raise ValueError(
                f"a black box is learned from y itself: y must have shape (M,) for events (D,) and "
                f"(K, H, W) for images (C, H, W), got {seen} for {event}"
            )
        self.config: dict[str, Any] = {
            "event_shape": list(event), "measurement_shape": list(seen), "widths": list(widths),
            "patch": patch, "gradient": gradient, "levels": levels,
        }  # fmt: skip
        of_y = event[0] if gradient else seen[0]
        inputs = (3 if gradient else 2) * event[0] + of_y
        if len(event) == 1:
            self.shift_network: nn.Module = Dense(inputs, event[0], widths)
            self.ratio_network: nn.Module = Dense(inputs, 1, widths)
            self.constant: nn.Module = Dense(of_y, 1, widths)
        else:
            image = (inputs, *event[1:])
            self.shift_network = Convolutional(image, event[0], widths, patch)
            self.ratio_network = Folded(image, widths, patch)
            self.constant = Folded((of_y, *event[1:]), widths, patch)
        self.gain = Dense(0, 1, (32,)) if gradient else None
        self.differentiable = gradient
        shapes: dict[str, Shape] = {
            "centre": event, "spread": (), "log_levels": (levels,), "error": (levels,),
            "slope": (levels,), "excess": (levels,), "best": (), "count": (), "back": (),
            "probe": (2, *event), "probe_value": (),
        }  # fmt: skip
        if not gradient:
            shapes |= {"y_mean": seen, "y_spread": ()}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape))

    centre: Tensor
    spread: Tensor
    log_levels: Tensor
    error: Tensor
    slope: Tensor
    excess: Tensor
    best: Tensor
    count: Tensor
    back: Tensor
    probe: Tensor
    probe_value: Tensor
    y_mean: Tensor
    y_spread: Tensor

    def of_measurement(
        self, model: ForwardModel, y: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """What depends on y alone: (l(m), and the features it gives), (B or 1, ...)."""
        log_p, gradient = look(model, y, self.centre.to(dtype).expand(len(y), *self.centre.shape))
        if gradient is not None:
            return log_p, gradient / self.back.to(dtype)
        return log_p, (y - self.y_mean.to(y)) / self.y_spread.to(y)

    def features(
        self, x: Tensor, sigma: Tensor, x0: Tensor, gradient: Tensor | None, seen: Tensor
    ) -> Tensor:
        """f, (B, inputs, ...); sigma (B, 1, ..., 1)."""
        spread, centre = self.spread.to(x), self.centre.to(x)
        parts = [(x - centre) / (spread**2 + sigma**2).sqrt(), (x0 - centre) / spread]
        if gradient is not None:
            parts.append(gradient / self._at(self.slope, sigma))
        parts.append(seen.to(x).expand(len(x), *seen.shape[1:]))
        return torch.cat(parts, 1).asinh()

    def shift(self, features: Tensor, sigma: Tensor, gradient: Tensor | None) -> Tensor:
        """The shift of D, (B, *event), and exactly 0 at sigma = 0."""
        return self.error_at(sigma) * self.standard_shift(features, sigma, gradient)

    def standard_shift(self, features: Tensor, sigma: Tensor, gradient: Tensor | None) -> Tensor:
        """The shift over e(sigma)."""
        level, t = self._level(sigma), self.trust(sigma)
        F = self._call(self.shift_network, features, level)
        if self.gain is None or gradient is None:
            return F
        a = self._call(self.gain, features.new_zeros(len(features), 0), level).reshape(sigma.shape)
        learned = F + a * gradient / self._at(self.slope, sigma)
        q = 1 - t * self._flatness(sigma)
        return t * self.error_at(sigma) * gradient + (1 - t).sqrt() * q * learned

    def log_ratio(
        self, features: Tensor, sigma: Tensor, log_p: Tensor, of_y: tuple[Tensor, Tensor]
    ) -> Tensor:
        """log p_sigma(y | x) - log p(y), (B,), from log_p = l(D) and `of_measurement`."""
        log_m, seen = of_y
        M, best = (t.to(log_p) for t in (self.count, self.best))
        t = self.trust(sigma).flatten()
        t_max = 1 / (1 + 2 * self.excess[-1].to(log_p) / M)
        gaussian = t * (log_p - best) - t_max * (log_m - best) + M / 2 * (t / t_max).log()
        level = self._level(sigma)
        R = self._call(self.ratio_network, features, level)[:, 0]
        known = seen.to(features).asinh().expand(len(features), *seen.shape[1:])
        return gaussian + (1 - t) * R + self._call(self.constant, known, level)[:, 0]

    def trust(self, sigma: Tensor) -> Tensor:
        """t(sigma), like sigma: the share of the data's own variance in that of y - A D."""
        # Below the first level what D leaves open falls as sigma^2.
        excess = self._at(self.excess, sigma) * self._below(sigma) ** 2
        return 1 / (1 + 2 * excess / self.count.to(sigma))

    def error_at(self, sigma: Tensor) -> Tensor:
        """e(sigma), like sigma."""
        return self._at(self.error, sigma) * self._below(sigma)

    def _flatness(self, sigma: Tensor) -> Tensor:
        """e^2 / sigma^2, at most 1; like sigma: 1 where the prior is flat over a noise level."""
        low = self.log_levels[0].to(sigma).exp()
        bend = 1 - (self._at(self.error, sigma) / sigma.clamp(min=low)) ** 2
        return 1 - bend.clamp(min=0) * self._below(sigma) ** 2

    def _at(self, table: Tensor, sigma: Tensor) -> Tensor:
        """The table between its levels, where powers of sigma are exact, and constant beyond."""
        levels = self.log_levels.to(sigma)
        values = table.to(sigma).clamp(min=torch.finfo(sigma.dtype).tiny).log()
        place = sigma.clamp(min=torch.finfo(sigma.dtype).tiny).log().clamp(levels[0], levels[-1])
        above = torch.searchsorted(levels, place.flatten()).clamp(1, len(levels) - 1)
        above = above.reshape(sigma.shape)
        low, high = levels[above - 1], levels[above]
        share = (place - low) / (high - low)
        return (values[above - 1] * (1 - share) + values[above] * share).exp()

    def _below(self, sigma: Tensor) -> Tensor:
        """sigma over the first level of the tables, at most 1."""
        return (sigma / self.log_levels[0].to(sigma).exp()).clamp(max=1)

    def _level(self, sigma: Tensor) -> Tensor:
        low, high = self.log_levels[0].to(sigma).exp(), self.log_levels[-1].to(sigma).exp()
        return (sigma.clamp(low, high) / self.spread.to(sigma)).log().flatten()

    def _call(self, network: nn.Module, features: Tensor, level: Tensor) -> Tensor:
        dtype = next(network.parameters()).dtype
        out: Tensor = network(features.to(dtype), level.to(dtype))
        return out.to(features.dtype)


def look(
    model: ForwardModel, y: Tensor, x0: Tensor, nested: bool = False
) -> tuple[Tensor, Tensor | None]:
    """log p(y | x0), (B,), and its gradient in x0, (B, *event), or None for black boxes."""
    if not model.differentiable:
        return model.log_likelihood(y, x0.detach()), None
    with torch.enable_grad():
        leaf = x0 if nested else x0.detach().requires_grad_()
        log_p = model.log_likelihood(y, leaf)
        (gradient,) = torch.autograd.grad(log_p.sum(), leaf, create_graph=nested)
    return (log_p if nested else log_p.detach()), gradient
