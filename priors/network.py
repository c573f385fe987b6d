"""A neural network's output, in any of the published parametrisations, as a denoiser.

In noise-level coordinates x = x0 + sigma eps a network sees x_t = alpha x. With s = alpha sigma,
the noise's standard deviation in x_t:

    epsilon   eps                     D = x - sigma out
    v         alpha eps - s x0        D = (alpha x_t - s out) / (alpha^2 + s^2)
    x0        x0                      D = out
    score     grad log p(x_t)         D = x + alpha sigma^2 out
    flow      eps - x0                D = (x_t - s out) / (alpha + s)
    edm       F                       D = c_skip x + c_out out, input c_in x, time log(sigma) / 4

Papers: Ho et al. 2020, https://arxiv.org/abs/2006.11239 (epsilon); Salimans and Ho 2022,
https://arxiv.org/abs/2202.00512 (v); Song et al. 2021, https://arxiv.org/abs/2011.13456 (score);
Liu et al. 2022, https://arxiv.org/abs/2209.03003 (flow); Karras et al. 2022,
https://arxiv.org/abs/2206.00364 (edm).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .prior import Prior
from .schedule import VE, VP, Flow, Schedule
from .times import usual_time

PARAMETRIZATIONS = ("epsilon", "v", "x0", "score", "flow", "edm")


class NetworkPrior(Prior):
    """A prior from a pretrained network; see the table above for what each output means.

    Args:
        network: called as network(x_t, time) with x_t (B, *event) in network units and time (B,);
            returns a tensor, or an object whose `.sample` is one.
        parametrization: one of epsilon, v, x0, score, flow, edm.
        event_shape: shape of one sample.
        data_range: what the user's images span, e.g. (0, 1); sigma is in these units.
        network_range: what data_range becomes at the network's input, usually (-1, 1).
        schedule: (alpha, sigma) in network units with x_t = alpha (x0 + sigma eps), so sigma is
            std(noise) / alpha; by default Flow for flow, VE for score, VP otherwise; edm needs
            none.
        time: sigma (B,), in network units -> the network's second argument (B,); by default
            1000 t(sigma) for flow, log(sigma) / 4 for edm, sigma for score under VE and
            999 t(sigma) otherwise.
        sigma_range: noise levels, in data units, that the network has learned.
        sigma_data: standard deviation of the data in network units (edm only).
        edm_sign: +1, or -1 for networks that were trained to give minus F.
        any_size: True for a fully convolutional network: other heights and widths, each a
            multiple of `stride`, are denoised too.

    The network is used as it is: call `network.eval().requires_grad_(False)` first, as `load` does,
    unless dropout or gradients in its weights are wanted.

    The denoiser is as exact as the network. One call of `denoise` is one network call. The network
    computes in the dtype of its own weights, all else in that of x.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        parametrization: str,
        event_shape: tuple[int, ...],
        *,
        data_range: tuple[float, float] = (-1.0, 1.0),
        network_range: tuple[float, float] = (-1.0, 1.0),
        schedule: Schedule | None = None,
        time: Callable[[Tensor], Tensor] | None = None,
        sigma_range: tuple[float, float] | None = None,
        sigma_data: float = 0.5,
        edm_sign: int = 1,
        any_size: bool = False,
        stride: int = 1,
    ) -> None:
        if parametrization not in PARAMETRIZATIONS:
            raise ValueError(
                f"unknown parametrization {parametrization!r}; known: {', '.join(PARAMETRIZATIONS)}"
            )
        for name, (low, high) in {"data_range": data_range, "network_range": network_range}.items():
            if not low < high:
                raise ValueError(f"{name} must be (low, high) with low < high, got {(low, high)}")
        if not isinstance(schedule, Schedule | None):
            raise TypeError(
                "schedule must be a Schedule, such as VP(), SubVP(), Cosine(), VE() or Flow(), got "
                f"{schedule!r:.80}"
            )
        if edm_sign not in (1, -1):
            raise ValueError(f"edm_sign must be 1 or -1, got {edm_sign}")
        self.network = network
        self.parametrization = parametrization
        self.event_shape = tuple(int(n) for n in event_shape)
        self.data_range = (float(data_range[0]), float(data_range[1]))
        self._low = self.data_range[0]
        self.network_range = (float(network_range[0]), float(network_range[1]))
        self.schedule = schedule or {"flow": Flow(), "score": VE()}.get(parametrization, VP())
        self.time = time or usual_time(parametrization, self.schedule)
        self.sigma_data = float(sigma_data)
        self.edm_sign = edm_sign
        self.any_size, self.stride = bool(any_size), int(stride)
        span = self.data_range[1] - self.data_range[0]
        # Data units per network unit: sigma scales by it, images also shift.
        self.unit = span / (self.network_range[1] - self.network_range[0])
        self.scale = self.unit
        self.sigma_range = sigma_range or (0.002 * self.unit, 80.0 * self.unit)

    def resized(self, event_shape: tuple[int, ...]) -> NetworkPrior:
        """The same prior for images of another size; needs any_size."""
        if not self.accepts(event_shape):
            raise ValueError(
                f"this prior takes images of shape {self.event_shape}"
                + (f", height and width multiples of {self.stride}" if self.any_size else " only")
                + f"; got {tuple(event_shape)}"
            )
        twin = copy.copy(self)
        twin.event_shape = tuple(event_shape)
        return twin

    def under(self, network: Callable[..., Any]) -> NetworkPrior:
        """The same prior with another network of its kind, such as its own under a condition."""
        if not callable(network):
            raise TypeError(f"network must be callable, got {type(network).__name__}")
        twin = copy.copy(self)
        twin.network = network
        return twin

    def agrees(self, other: NetworkPrior) -> bool:
        """Whether all but the network is the same, as between a prior and one made by `under`."""
        mine, others = ({**vars(prior), "network": None} for prior in (self, other))
        return mine == others

    def to(self, *args: Any, **kwargs: Any) -> NetworkPrior:
        """Move the network to a device or dtype, as torch.nn.Module.to."""
        if isinstance(self.network, nn.Module):
            self.network.to(*args, **kwargs)
        return self

    def accepts(self, event_shape: tuple[int, ...]) -> bool:
        shape = tuple(event_shape)
        if not self.any_size:
            return shape == self.event_shape
        return (
            len(shape) == len(self.event_shape)
            and shape[0] == self.event_shape[0]
            and all(n > 0 and n % self.stride == 0 for n in shape[1:])
        )

    def _particulars(self) -> dict[str, Any]:
        edm = self.parametrization == "edm"
        law = {} if edm else {"schedule": type(self.schedule)}
        size = {"any_size": True} if self.any_size else {}
        return {"parametrization": self.parametrization, **law, **size}

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        # One shift, zero where the two ranges are equal, so that small values keep their digits.
        shift = self.network_range[0] - self._low / self.unit
        level = sigma / self.unit
        # A network is undefined at sigma = 0, where the answer is x itself.
        safe = torch.where(level > 0, level, torch.ones_like(level))
        x0 = self._network_denoise(x / self.unit + shift, safe)
        return torch.where(level > 0, (x0 - shift) * self.unit, x)

    def _network_denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D in network units; sigma (B, 1, ..., 1) > 0."""
        time = self.time(sigma.flatten()).to(x.dtype)
        if self.parametrization == "edm":
            total = sigma**2 + self.sigma_data**2
            out = self._call(x / total.sqrt(), time)
            c_out = self.edm_sign * sigma * self.sigma_data / total.sqrt()
            return self.sigma_data**2 / total * x + c_out * out
        alpha = self.schedule.alpha(self.schedule.t(sigma)).to(x.dtype)
        s = alpha * sigma
        x_t = alpha * x
        out = self._call(x_t, time)
        if self.parametrization == "epsilon":
            return x - sigma * out
        if self.parametrization == "v":
            return (alpha * x_t - s * out) / (alpha**2 + s**2)
        if self.parametrization == "x0":
            return out
        if self.parametrization == "score":
            return x + alpha * sigma**2 * out
        return (x_t - s * out) / (alpha + s)

    def _network_dtype(self, default: torch.dtype) -> torch.dtype:
        if isinstance(self.network, nn.Module):
            for parameter in self.network.parameters():
                return parameter.dtype
        return default

    def _call(self, x: Tensor, time: Tensor) -> Tensor:
        dtype = self._network_dtype(x.dtype)
        # Time keeps at least float32: rounded, it would name another noise level.
        time = time.to(torch.promote_types(dtype, torch.float32))
        out = self.network(x.to(dtype), time)
        out = (out if isinstance(out, Tensor) else out.sample).to(x.dtype)
        # Networks with a learned variance give it in a second half of the channels.
        if out.shape[1] == 2 * x.shape[1] and out.shape[2:] == x.shape[2:]:
            out = out[:, : x.shape[1]]
        if out.shape != x.shape:
            raise ValueError(
                f"the network returned {tuple(out.shape)} for an input of {tuple(x.shape)}"
            )
        return out


class SpaceToDepth(nn.Module):
    """Run a network on patch x patch blocks folded into channels: less work per pixel.

    (B, C, H, W) -> network on (B, C patch^2, H / patch, W / patch) -> (B, C, H, W).

    Paper: Zhang et al., "FFDNet", 2018, https://arxiv.org/abs/1710.04026
    """

    def __init__(self, network: nn.Module, patch: int) -> None:
        super().__init__()
        self.network, self.patch = network, int(patch)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        folded = nn.functional.pixel_unshuffle(x, self.patch)
        out = self.network(folded, time)
        out = out if isinstance(out, Tensor) else out.sample
        return nn.functional.pixel_shuffle(out, self.patch)


class Negated(nn.Module):
    """network(x, time) with its sign changed."""

    def __init__(self, network: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out = self.network(x, time)
        return -(out if isinstance(out, Tensor) else out.sample)
