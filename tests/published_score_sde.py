"""The networks and checkpoints of score_sde_pytorch, from the names of their weights alone.

`Published` evaluates a network in float64, one layer's number after the other, with SciPy's
resampling; it shares nothing with the network that `load` builds.
"""

from __future__ import annotations

import collections
import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import torch
from torch import Tensor
from torch.nn import functional

from priors.pretrained.score_sde_settings import PUBLISHED

ORDER = {
    "biggan": ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1", "Conv_2"),
    "ddpm": ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1", "NIN_0"),
    "original": ("GroupNorm_0", "GroupNorm_1", "Conv_0", "Conv_1", "Dense_0", "NIN_0"),
    "attention": ("GroupNorm_0", "NIN_0", "NIN_1", "NIN_2", "NIN_3"),
}


class Published:
    """The output of a network, read off its weights by name, one layer's number after the other.

    Asked for a shape only (`draw`), it makes random weights instead, and so the state dict.
    """

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor] | None = None) -> None:
        self.c = {key.split(".")[1]: value for key, value in config.items()}
        self.weights = {} if weights is None else weights
        self.generator = torch.Generator().manual_seed(0) if weights is None else None
        self.original = self.c["name"] == "ddpm"
        if self.original:
            self.c |= {"conditional": True, "fir": False, "skip_rescale": False}
            self.c |= {"resblock_type": "ddpm", "embedding_type": "positional"}
            self.c |= {"progressive": "none", "progressive_input": "none"}

    def get(self, name: str, *shape: int) -> Tensor:
        name = f"all_modules.{self.n}{name}"
        if self.generator is not None:
            draw = torch.randn(shape, generator=self.generator, dtype=torch.float64)
            fan = math.prod(shape[1:]) if len(shape) > 1 else 4
            norm = "GroupNorm" in name and name.endswith("weight")
            self.weights[name] = (draw / fan**0.5 + norm).float()
        value = self.weights[name].double()
        assert value.shape == shape, (name, value.shape, shape)
        return value

    def next(self) -> None:
        self.n += 1

    def linear(self, name: str, x: Tensor, out: int) -> Tensor:
        return x @ self.get(f"{name}.weight", out, x.shape[1]).T + self.get(f"{name}.bias", out)

    def conv(self, name: str, x: Tensor, out: int, size: int = 3, **how: Any) -> Tensor:
        weight = self.get(f"{name}.weight", out, x.shape[1], size, size)
        how = {"padding": size // 2, **how}
        return functional.conv2d(x, weight, self.get(f"{name}.bias", out), **how)

    def nin(self, name: str, x: Tensor, out: int) -> Tensor:
        W, b = self.get(f"{name}.W", x.shape[1], out), self.get(f"{name}.b", out)
        return (x.movedim(1, -1) @ W + b).movedim(-1, 1)

    def norm(self, name: str, x: Tensor) -> Tensor:
        b, c = x.shape[:2]
        grouped = x.reshape(b, 32 if self.original else min(c // 4, 32), -1)
        centred = grouped - grouped.mean(-1, keepdim=True)
        unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        weight, bias = self.get(f"{name}.weight", c), self.get(f"{name}.bias", c)
        return unit.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]

    def kernel(self) -> np.ndarray:
        k = np.asarray(self.c["fir_kernel"], dtype=float)
        return k / k.sum()

    def up(self, x: Tensor) -> Tensor:
        if not self.c["fir"]:
            return x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        k, out = self.kernel(), x.numpy()
        first = (len(k) - 2) // 2  # what the padding of the image with zeros between leaves out
        for axis in (2, 3):
            full = scipy.signal.upfirdn(2 * k, out, up=2, axis=axis)
            out = np.take(full, range(first, first + 2 * out.shape[axis]), axis=axis)
        return torch.from_numpy(out)

    def filtered(self, x: Tensor, extra: int) -> Tensor:
        k, first = self.kernel(), (extra + 1) // 2
        out = np.pad(x.numpy(), [(0, 0), (0, 0), *[(first, extra - first)] * 2])
        for axis in (2, 3):
            out = np.apply_along_axis(lambda v: np.convolve(v, k, "valid"), axis, out)
        return torch.from_numpy(out)

    def down(self, x: Tensor) -> Tensor:
        if not self.c["fir"]:
            b, c, h, w = x.shape
            return x.reshape(b, c, h // 2, 2, w // 2, 2).mean((3, 5))
        return self.filtered(x, len(self.kernel()) - 2)[..., ::2, ::2]

    def down_conv(self, x: Tensor, out: int) -> Tensor:
        if self.c["fir"]:
            x = self.filtered(x, len(self.kernel()))
            x = self.conv(".Conv2d_0", x, out, padding=0)[..., ::2, ::2]
        else:
            x = self.conv(".Conv_0", functional.pad(x, (0, 1, 0, 1)), out, padding=0, stride=2)
        self.next()
        return x

    def rescaled(self, x: Tensor) -> Tensor:
        return x / math.sqrt(2) if self.c["skip_rescale"] else x

    def block(self, x: Tensor, out: int, resample: Any = None) -> Tensor:
        h = functional.silu(self.norm(".GroupNorm_0", x))
        if resample is not None:
            h, x = resample(h), resample(x)
        h = self.conv(".Conv_0", h, out)
        shift = self.linear(".Dense_0", functional.silu(self.embedded), out)
        if self.c["conditional"]:
            h = h + shift[:, :, None, None]
        h = self.conv(".Conv_1", functional.silu(self.norm(".GroupNorm_1", h)), out)
        if self.c["resblock_type"] == "biggan" and (x.shape[1] != out or resample is not None):
            x = self.conv(".Conv_2", x, out, size=1)
        elif x.shape[1] != out:
            x = self.nin(".NIN_0", x, out)
        self.next()
        return self.rescaled(x + h)

    def attention(self, x: Tensor) -> Tensor:
        h, c = self.norm(".GroupNorm_0", x), x.shape[1]
        q, k, v = (self.nin(f".NIN_{i}", h, c).flatten(2) for i in range(3))
        weight = (torch.einsum("bci,bcj->bij", q, k) / math.sqrt(c)).softmax(-1)
        mixed = torch.einsum("bij,bcj->bci", weight, v).reshape(x.shape)
        out = self.rescaled(x + self.nin(".NIN_3", mixed, c))
        self.next()
        return out

    def embed(self, time: Tensor) -> Tensor:
        nf = self.c["nf"]
        if self.c["embedding_type"] == "fourier":
            angle = 2 * math.pi * time.log()[:, None] * self.get(".W", nf)
            self.next()
        else:
            rates = 10_000 ** -torch.linspace(0, 1, nf // 2, dtype=torch.float64)
            angle = time[:, None] * rates
        e = torch.cat([angle.sin(), angle.cos()], 1)
        if not self.c["conditional"]:
            return torch.zeros(len(time), 4 * nf, dtype=torch.float64)
        e = self.linear("", e, 4 * nf)
        self.next()
        e = self.linear("", functional.silu(e), 4 * nf)
        self.next()
        return e

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        c, self.n = self.c, 0
        widths = [c["nf"] * m for m in c["ch_mult"]]
        self.embedded = self.embed(time.double())
        image = x.double() if c["centered"] else 2 * x.double() - 1
        channels, biggan = image.shape[1], c["resblock_type"] == "biggan"
        h = self.conv("", image, c["nf"])
        self.next()
        hs = [h]
        for level, width in enumerate(widths):
            for _ in range(c["num_res_blocks"]):
                h = self.block(h, width)
                if h.shape[-1] in c["attn_resolutions"]:
                    h = self.attention(h)
                hs.append(h)
            if level == len(widths) - 1:
                continue
            if biggan:
                h = self.block(h, width, self.down)
            else:
                h = self.down_conv(h, width) if c["resamp_with_conv"] else self.down(h)
            if c["progressive_input"] == "input_skip":
                image = self.down(image)
                h = h + self.conv(".Conv_0", image, width, size=1)
                self.next()
            elif c["progressive_input"] == "residual":
                image = h = self.rescaled(h + self.down_conv(image, width))
            hs.append(h)
        h = self.block(self.attention(self.block(h, width)), width)
        pyramid = torch.zeros(())
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(c["num_res_blocks"] + 1):
                h = self.block(torch.cat([h, hs.pop()], 1), width)
            if h.shape[-1] in c["attn_resolutions"]:
                h = self.attention(h)
            if c["progressive"] == "output_skip" or level == 0:
                normed = functional.silu(self.norm("", h))
                self.next()
                pyramid = self.up(pyramid) if pyramid.ndim else pyramid
                pyramid = pyramid + self.conv("", normed, channels)
                self.next()
            if level and biggan:
                h = self.block(h, width, self.up)
            elif level:
                h = self.up(h)
                if c["resamp_with_conv"]:
                    h = self.conv(".Conv_0", h, width)
                    self.next()
        return pyramid


def draw(config: dict[str, Any]) -> dict[str, Tensor]:
    """Random weights of a configuration, in the order of the network's parameters."""
    network = Published(config)
    size, channels = config["data.image_size"], config["data.num_channels"]
    with torch.no_grad():
        network(torch.zeros(1, channels, size, size), torch.ones(1))
    kind = "original" if network.original else network.c["resblock_type"]

    def place(name: str) -> tuple[int, int, int]:
        _, number, *part = name.split(".")
        block = any(n.startswith(f"all_modules.{number}.Dense_0") for n in network.weights)
        order = ORDER[kind if block else "attention"] if len(part) > 1 else ()
        index = order.index(part[0]) if part[0] in order else 0
        return int(number), index, ("weight", "W", "bias", "b").index(part[-1]) // 2

    return {name: network.weights[name] for name in sorted(network.weights, key=place)}


def checkpoint(config: dict[str, Any], averages: dict[str, Tensor]) -> dict[str, Any]:
    """What the published code saves: last weights by name, averages in a list, an optimiser."""
    last = {f"module.{name}": value + 1.0 for name, value in averages.items()}
    trained = [n for n in averages if not (n.endswith("0.W") and averages[n].ndim == 1)]
    if len(trained) < len(averages):
        last["module.all_modules.0.W"] = averages["all_modules.0.W"]
    levels = (config.get("model.sigma_max", 50), config.get("model.sigma_min", 0.01))
    sigmas = torch.from_numpy(np.geomspace(*levels, config["model.num_scales"]))
    moments = {0: {"step": 3, "exp_avg": torch.zeros(5)}}
    return {
        "optimizer": {
            "state": moments,
            "param_groups": [{"lr": 2e-4 * np.minimum(3 / 5000, 1.0), "params": [0]}],
        },
        "model": collections.OrderedDict({"module.sigmas": sigmas, **last}),
        "ema": {
            "decay": 0.999,
            "num_updates": 3,
            "shadow_params": [averages[name] for name in trained],
        },
        "step": 3,
    }


def case(published: str, **changes: Any) -> dict[str, Any]:
    """A published configuration at a small size."""
    small = {
        "data.image_size": 8,
        "model.nf": 8,
        "model.ch_mult": [1, 2],
        "model.num_res_blocks": 1,
        "model.attn_resolutions": [4],
    }
    given = {key.replace("_", ".", 1): value for key, value in changes.items()}
    return {**PUBLISHED[published], **small, **given}


RESIDUAL = "ve/cifar10_ncsnpp_continuous"
SKIP = "ve/celebahq_256_ncsnpp_continuous"
PLUS = "vp/cifar10_ddpmpp_continuous"
THREE = [1, 2, 2]
CASES = {
    "NCSN++ VE": case(RESIDUAL, model_num_res_blocks=2),
    "NCSN++ VE, both pyramids": case(SKIP, model_ch_mult=THREE),
    "NCSN++ VE, discrete": case("ve/cifar10_ncsnpp"),
    "NCSN++ VE, one channel": case("ve/fastmri_knee_320_ncsnpp_continuous", model_ch_mult=THREE),
    "NCSN++ VE, score": case(RESIDUAL, model_scale_by_sigma=False, data_centered=True),
    "NCSN++ VE, other filters": case(RESIDUAL, model_fir_kernel=[1, 4, 2]),
    "NCSN++ VE, means": case(SKIP, model_fir=False, model_skip_rescale=False),
    "NCSN++ VE, unconditional": case(RESIDUAL, model_conditional=False, model_fir=False),
    "DDPM++ VP": case(PLUS, model_num_res_blocks=2),
    "DDPM++ VP, discrete": case("vp/cifar10_ddpmpp"),
    "DDPM++ sub-VP": case("subvp/cifar10_ddpmpp_continuous", model_ch_mult=THREE),
    "DDPM++ VP, DDPM blocks": case(PLUS, model_resblock_type="ddpm"),
    "DDPM++ VP, no convolutions": case(
        PLUS, model_resblock_type="ddpm", model_resamp_with_conv=False, model_fir=True
    ),
    "DDPM VP": case("vp/cifar10_ddpm_continuous", model_nf=32),
    "DDPM VP, discrete": case("vp/cifar10_ddpm", model_nf=32),
}


def save(config: dict[str, Any], folder: Path) -> tuple[Path, dict[str, Tensor]]:
    weights = draw(config)
    path = folder / "checkpoint.pth"
    torch.save(checkpoint(config, weights), path)
    return path, weights


def images(config: dict[str, Any], count: int = 2) -> Tensor:
    shape = (config["data.num_channels"], config["data.image_size"], config["data.image_size"])
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, *shape, generator=generator, dtype=torch.float64)
