"""EDM's networks and preconditioners written out from the paper, for checkpoints of random weights.

Tensors are made and read by their published names; nothing of the package is used.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Op = tuple[str, str, int, int]  # kind, name, channels in, channels out


def song(**settings: Any) -> dict[str, Any]:
    return {
        "model_type": "SongUNet",
        "img_resolution": 8,
        "img_channels": 3,
        "label_dim": 0,
        "augment_dim": 0,
        "model_channels": 8,
        "channel_mult": [1, 2],
        "channel_mult_emb": 4,
        "channel_mult_noise": 1,
        "num_blocks": 1,
        "attn_resolutions": [4],
        "embedding_type": "positional",
        "encoder_type": "standard",
        "decoder_type": "standard",
        "resample_filter": [1, 1],
        **settings,
    }


def dhariwal(**settings: Any) -> dict[str, Any]:
    return {
        "model_type": "DhariwalUNet",
        "img_resolution": 8,
        "img_channels": 3,
        "label_dim": 0,
        "augment_dim": 0,
        "model_channels": 32,
        "channel_mult": [1, 4],
        "channel_mult_emb": 4,
        "num_blocks": 1,
        "attn_resolutions": [4],
        **settings,
    }


def is_song(s: dict[str, Any]) -> bool:
    return s["model_type"] == "SongUNet"


def plan(s: dict[str, Any]) -> tuple[list[Op], list[Op]]:
    """The layers on the way down and on the way up, in order."""
    levels = [(s["img_resolution"] >> i, s["model_channels"] * m)
              for i, m in enumerate(s["channel_mult"])]  # fmt: skip
    attends = {size: size in s["attn_resolutions"] for size, _ in levels}
    colours = s["img_channels"]
    c = s["model_channels"] if is_song(s) else levels[0][1]
    down: list[Op] = [("conv", f"enc.{levels[0][0]}x{levels[0][0]}_conv", colours, c)]
    skips, side = [c], colours
    for i, (size, n) in enumerate(levels):
        at = f"enc.{size}x{size}_"
        if i:
            down.append(("block down", at + "down", c, c))
            skips.append(c)
            encoder = s.get("encoder_type")
            if encoder == "residual":
                down.append(("aux residual", at + "aux_residual", side, c))
                side = c
            elif encoder == "skip":
                down.append(("aux down", at + "aux_down", side, side))
                down.append(("aux skip", at + "aux_skip", side, c))
        for b in range(s["num_blocks"]):
            kind = "block attention" if attends[size] else "block"
            down.append((kind, f"{at}block{b}", c, n))
            c = n
            skips.append(c)
    up: list[Op] = []
    for i, (size, n) in reversed(list(enumerate(levels))):
        at = f"dec.{size}x{size}_"
        if i == len(levels) - 1:
            up += [("block attention", at + "in0", c, c), ("block", at + "in1", c, c)]
        else:
            up.append(("block up", at + "up", c, c))
        for b in range(s["num_blocks"] + 1):
            attend = attends[size] and (b == s["num_blocks"] or not is_song(s))
            kind = "block attention cat" if attend else "block cat"
            up.append((kind, f"{at}block{b}", c + skips.pop(), n))
            c = n
        if is_song(s) and (i == 0 or s["decoder_type"] == "skip"):
            if s["decoder_type"] == "skip" and i < len(levels) - 1:
                up.append(("aux up", at + "aux_up", outputs(s), outputs(s)))
            up.append(("aux out", at + "aux", c, outputs(s)))
    if not is_song(s):
        up.append(("out", "out", c, outputs(s)))
    return down, up


def outputs(s: dict[str, Any]) -> int:
    return s["img_channels"] * (2 if s.get("class_name") == "iDDPMPrecond" else 1)


def layout(s: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of the network, and its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    taps = len(s.get("resample_filter", [1, 1]))
    song_like = is_song(s)
    width = s["model_channels"] * s.get("channel_mult_noise", 1)
    emb = s["model_channels"] * s["channel_mult_emb"]

    def layer(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    def sampled(name: str) -> None:
        shapes[f"{name}.resample_filter"] = (1, 1, taps, taps)

    if s.get("embedding_type") == "fourier":
        shapes["map_noise.freqs"] = (width // 2,)
    if s["label_dim"]:
        if song_like:
            layer("map_label", width, s["label_dim"])
        else:
            shapes["map_label.weight"] = (emb, s["label_dim"])
    if s["augment_dim"]:
        shapes["map_augment.weight"] = (width, s["augment_dim"])
    layer("map_layer0", emb, width)
    layer("map_layer1", emb, emb)
    for kind, name, a, b in [op for part in plan(s) for op in part]:
        if kind == "conv":
            layer(name, b, a, 3, 3)
        elif kind == "aux residual":
            layer(name, b, a, 3, 3)
            sampled(name)
        elif kind in ("aux down", "aux up"):
            sampled(name)
        elif kind == "aux skip":
            layer(name, b, a, 1, 1)
        elif kind in ("aux out", "out"):
            layer(f"{name}_norm", a)
            layer(f"{name}_conv", b, a, 3, 3)
        else:
            resized = kind in ("block down", "block up")
            layer(f"{name}.norm0", a)
            layer(f"{name}.conv0", b, a, 3, 3)
            layer(f"{name}.affine", b if song_like else 2 * b, emb)
            layer(f"{name}.norm1", b)
            layer(f"{name}.conv1", b, b, 3, 3)
            if a != b or (resized and song_like):
                layer(f"{name}.skip", b, a, 1, 1)
            if resized:
                sampled(f"{name}.conv0")
                sampled(f"{name}.skip")
            if "attention" in kind:
                layer(f"{name}.norm2", b)
                layer(f"{name}.qkv", 3 * b, b, 1, 1)
                layer(f"{name}.proj", b, b, 1, 1)
    return shapes


def random_state(s: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    row = torch.tensor(s.get("resample_filter", [1, 1]), dtype=torch.float32)
    state = {}
    for name, shape in layout(s).items():
        value = torch.randn(shape, generator=g) / math.prod(shape[1:] or (1,)) ** 0.5
        if name.endswith("resample_filter"):
            value = (row.outer(row) / row.sum() ** 2)[None, None]
        elif "norm" in name and name.endswith(".weight"):
            value = 1 + 0.5 * value
        state[name] = value
    return state


def network(
    state: dict[str, Tensor], s: dict[str, Any], x: Tensor, time: Tensor, label: int | None
) -> Tensor:
    """F(x, time), in float64."""
    w = {name: value.double() for name, value in state.items()}
    song_like = is_song(s)
    shrink = 2**-0.5 if song_like else 1.0
    eps = 1e-6 if song_like else 1e-5
    row = torch.tensor(s.get("resample_filter", [1, 1]), dtype=torch.float64)
    row = row / row.sum()

    def linear(name: str, v: Tensor) -> Tensor:
        return v @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(1).double())

    def silu(v: Tensor) -> Tensor:
        return v / (1 + torch.exp(-v))

    def norm(name: str, v: Tensor) -> Tensor:
        groups = min(32, v.shape[1] // 4)
        g = v.reshape(len(v), groups, -1)
        g = (g - g.mean(2, keepdim=True)) / (g.var(2, unbiased=False, keepdim=True) + eps).sqrt()
        scale, shift = w[f"{name}.weight"], w[f"{name}.bias"]
        return g.reshape(v.shape) * scale[:, None, None] + shift[:, None, None]

    def conv(name: str, v: Tensor) -> Tensor:
        weight = w[f"{name}.weight"]
        return functional.conv2d(v, weight, w[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def down(v: Tensor, margin: int = 0) -> Tensor:
        """Every second value of the filtered image, zeros around it; margin is there already."""
        pad = (len(row) - 1) // 2 - margin
        v = functional.pad(v, (pad, pad, pad, pad))
        for axis in (-1, -2):
            n = v.shape[axis] - len(row) + 1
            v = sum(row[i] * v.narrow(axis, i, n) for i in range(len(row)))
        return v[..., ::2, ::2]

    def up(v: Tensor) -> Tensor:
        """The image with zeros between its values, filtered, twice as bright per axis."""
        pad = len(row) - 1 - (len(row) - 1) // 2
        for axis in (-1, -2):
            wide = torch.stack([v, torch.zeros_like(v)], axis if axis == -1 else -2)
            v = wide.flatten(-2) if axis == -1 else wide.flatten(-3, -2)
            end = [0, 0, 0, 0]
            end[0 if axis == -1 else 2] = pad
            end[1 if axis == -1 else 3] = pad - 1
            v = functional.pad(v, end)
            n = v.shape[axis] - len(row) + 1
            v = sum(2 * row[i] * v.narrow(axis, i, n) for i in range(len(row)))
        return v

    def resized(kind: str, v: Tensor) -> Tensor:
        return down(v) if kind.endswith("down") else up(v) if kind.endswith("up") else v

    def block(kind: str, name: str, v: Tensor) -> Tensor:
        h = conv(f"{name}.conv0", resized(kind, silu(norm(f"{name}.norm0", v))))
        e = linear(f"{name}.affine", emb)[:, :, None, None]
        if song_like:
            h = silu(norm(f"{name}.norm1", h + e))
        else:
            n = h.shape[1]
            h = silu(norm(f"{name}.norm1", h) * (1 + e[:, :n]) + e[:, n:])
        h = conv(f"{name}.conv1", h)
        v = resized(kind, v)
        v = conv(f"{name}.skip", v) if f"{name}.skip.weight" in w else v
        v = (v + h) * shrink
        if "attention" not in kind:
            return v
        n = v.shape[1]
        heads = 1 if song_like else n // 64
        qkv = conv(f"{name}.qkv", norm(f"{name}.norm2", v)).flatten(2)
        parts = []
        for head in range(heads):
            mine = qkv[:, 3 * head * (n // heads) :][:, : 3 * (n // heads)]
            q, k, u = mine[:, 0::3], mine[:, 1::3], mine[:, 2::3]
            p = torch.exp(q.transpose(1, 2) @ k / (n // heads) ** 0.5)
            parts.append(u @ (p / p.sum(2, keepdim=True)).transpose(1, 2))
        return (v + conv(f"{name}.proj", torch.cat(parts, 1).reshape(v.shape))) * shrink

    half = s["model_channels"] * s.get("channel_mult_noise", 1) // 2
    if s.get("embedding_type") == "fourier":
        frequency = 2 * math.pi * w["map_noise.freqs"]
    else:
        ramp = torch.arange(half, dtype=torch.float64) / (half - 1 if song_like else half)
        frequency = 10000.0**-ramp
    angle = time.double()[:, None] * frequency
    if song_like:
        emb = torch.cat([angle.sin(), angle.cos()], 1)
        if s["label_dim"]:
            one = torch.zeros(s["label_dim"], dtype=torch.float64)
            if label is not None:
                one[label] = s["label_dim"] ** 0.5
            emb = emb + linear("map_label", one)
        emb = silu(linear("map_layer1", silu(linear("map_layer0", emb))))
    else:
        emb = torch.cat([angle.cos(), angle.sin()], 1)
        emb = linear("map_layer1", silu(linear("map_layer0", emb)))
        if label is not None:
            emb = emb + w["map_label.weight"][:, label]
        emb = silu(emb)

    going_down, going_up = plan(s)
    x = x.double()
    side, out = x, None
    skips: list[Tensor] = []
    for kind, name, *_ in going_down:
        if kind == "conv":
            x = conv(name, x)
            skips.append(x)
        elif kind == "aux residual":
            # Once padded for convolution and filter together.
            pad = 1 + (len(row) - 1) // 2
            wide = functional.pad(side, (pad, pad, pad, pad))
            h = functional.conv2d(wide, w[f"{name}.weight"])
            h = down(h, margin=(len(row) - 1) // 2) + w[f"{name}.bias"][:, None, None]
            side = x = skips[-1] = (x + h) * 2**-0.5
        elif kind == "aux down":
            side = down(side)
        elif kind == "aux skip":
            x = skips[-1] = x + conv(name, side)
        else:
            x = block(kind, name, x)
            skips.append(x)
    for kind, name, *_ in going_up:
        if kind == "aux up":
            out = up(out)
        elif kind == "aux out":
            h = conv(f"{name}_conv", silu(norm(f"{name}_norm", x)))
            out = h if out is None else out + h
        elif kind == "out":
            out = conv("out_conv", silu(norm("out_norm", x)))
        else:
            x = block(kind, name, torch.cat([x, skips.pop()], 1) if "cat" in kind else x)
    assert not skips
    return out


def denoised(
    state: dict[str, Tensor],
    s: dict[str, Any],
    x: Tensor,
    sigma: Tensor,
    label: int | None = None,
) -> Tensor:
    """D(x, sigma) by the formulas of table 1."""
    level = sigma.double().reshape(-1, 1, 1, 1)
    x = x.double()
    kind = s["class_name"]
    if kind == "EDMPrecond":
        d = s.get("sigma_data", 0.5)
        root = (level**2 + d**2).sqrt()
        out = network(state, s, x / root, sigma.log() / 4, label)
        return d**2 / root**2 * x + level * d / root * out
    if kind == "VEPrecond":
        return x + level * network(state, s, x, (sigma / 2).log(), label)
    steps = s.get("M", 1000)
    if kind == "VPPrecond":
        rise, start = s.get("beta_d", 19.9), s.get("beta_min", 0.1)
        root = (start**2 + 2 * rise * torch.log(1 + sigma**2)).sqrt()
        time = (steps - 1) * (root - start) / rise
    else:
        levels = torch.tensor(cosine_levels(s), dtype=torch.float64)
        time = steps - 1 - (levels[None] - sigma[:, None]).abs().argmin(1).double()
    out = network(state, s, x / (1 + level**2).sqrt(), time, label)
    return x - level * out[:, : s["img_channels"]]


def cosine_levels(s: dict[str, Any]) -> list[float]:
    """u_0 to u_M of the iDDPM preconditioner."""
    steps = s.get("M", 1000)

    def signal(j: int) -> float:
        return math.sin(0.5 * math.pi * j / (steps * (s.get("C_2", 0.008) + 1))) ** 2

    levels = [0.0]
    for j in range(steps, 0, -1):
        ratio = max(signal(j - 1) / signal(j), s.get("C_1", 0.001))
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / ratio - 1))
    return levels[::-1]
