"""guided-diffusion checkpoints against a U-Net written from the paper, and diffusers' own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from checkpoint_files import assert_close, noisy, write
from torch import Tensor
from torch.nn import functional

import priors
from priors.pretrained import adm
from priors.pretrained.adm_flags import PUBLISHED

# --- the published layout, and the network that the paper describes ----------------------------

Op = tuple[str, str, int, int]  # kind, name, channels in, channels out


def defaults(**flags: Any) -> dict[str, Any]:
    return {
        "num_heads": 4,
        "num_head_channels": -1,
        "num_heads_upsample": -1,
        "channel_mult": "",
        "class_cond": False,
        "learn_sigma": False,
        "resblock_updown": False,
        "use_scale_shift_norm": True,
        "use_new_attention_order": False,
        "diffusion_steps": 1000,
        "noise_schedule": "linear",
        **flags,
    }


def ratios(flags: dict[str, Any]) -> list[float]:
    if flags["channel_mult"]:
        return [float(part) for part in flags["channel_mult"].split(",")]
    return {
        64: [1, 2, 3, 4],
        128: [1, 1, 2, 3, 4],
        256: [1, 1, 2, 2, 4, 4],
        512: [0.5, 1, 1, 2, 2, 4, 4],
    }[flags["image_size"]]


def plan(flags: dict[str, Any]) -> tuple[list[list[Op]], list[Op], list[list[Op]]]:
    """The layers on the way down, in the middle and on the way up, as the checkpoints name them."""
    channels = [int(ratio * flags["num_channels"]) for ratio in ratios(flags)]
    sizes = [int(part) for part in str(flags["attention_resolutions"]).split(",")]
    attends = [flags["image_size"] >> level in sizes for level in range(len(channels))]
    updown = flags["resblock_updown"]
    down: list[list[Op]] = [[("conv", "input_blocks.0.0", 3, channels[0])]]
    skips, c = [channels[0]], channels[0]
    for level, n in enumerate(channels):
        for _ in range(flags["num_res_blocks"]):
            at = f"input_blocks.{len(down)}"
            down.append([("res", f"{at}.0", c, n)])
            c = n
            if attends[level]:
                down[-1].append(("attention", f"{at}.1", c, c))
            skips.append(c)
        if level < len(channels) - 1:
            at = f"input_blocks.{len(down)}.0"
            down.append([("res down", at, c, c) if updown else ("conv down", at + ".op", c, c)])
            skips.append(c)
    middle: list[Op] = [
        ("res", "middle_block.0", c, c),
        ("attention", "middle_block.1", c, c),
        ("res", "middle_block.2", c, c),
    ]
    up: list[list[Op]] = []
    for level in reversed(range(len(channels))):
        for i in range(flags["num_res_blocks"] + 1):
            at = f"output_blocks.{len(up)}"
            stage: list[Op] = [("res", f"{at}.0", c + skips.pop(), channels[level])]
            c = channels[level]
            if attends[level]:
                stage.append(("attention up", f"{at}.1", c, c))
            if level and i == flags["num_res_blocks"]:
                name = f"{at}.{len(stage)}"
                stage.append(
                    ("res up", name, c, c) if updown else ("conv up", name + ".conv", c, c)
                )
            up.append(stage)
    return down, middle, up


def layout(flags: dict[str, Any], classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint with these flags, and its shape."""
    n = flags["num_channels"]
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    layer("time_embed.0", 4 * n, n)
    layer("time_embed.2", 4 * n, 4 * n)
    if flags["class_cond"]:
        shapes["label_emb.weight"] = (classes, 4 * n)
    down, middle, up = plan(flags)
    for kind, name, a, b in [op for stage in [*down, middle, *up] for op in stage]:
        if kind.startswith("conv"):
            layer(name, b, a, 3, 3)
        elif kind.startswith("attention"):
            layer(f"{name}.norm", a)
            layer(f"{name}.qkv", 3 * a, a, 1)
            layer(f"{name}.proj_out", a, a, 1)
        else:
            layer(f"{name}.in_layers.0", a)
            layer(f"{name}.in_layers.2", b, a, 3, 3)
            layer(f"{name}.emb_layers.1", b * (2 if flags["use_scale_shift_norm"] else 1), 4 * n)
            layer(f"{name}.out_layers.0", b)
            layer(f"{name}.out_layers.3", b, b, 3, 3)
            if a != b:
                layer(f"{name}.skip_connection", b, a, 1, 1)
    last = int(ratios(flags)[0] * n)
    layer("out.0", last)
    layer("out.2", 6 if flags["learn_sigma"] else 3, last, 3, 3)
    return shapes


def random_state(flags: dict[str, Any], classes: int = 5, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in layout(flags, classes).items():
        fan = math.prod(shape[1:]) or 1
        value = torch.randn(shape, generator=g) / fan**0.5
        norm = any(part in name for part in ("norm.", "in_layers.0", "out_layers.0", "out.0"))
        state[name] = (1 if norm and name.endswith("weight") else 0) + 0.5 * value
    return state


def reference(
    state: dict[str, Tensor], flags: dict[str, Any], x: Tensor, t: Tensor, y: int | None
) -> Tensor:
    """The network's output, in float64."""
    w = {name: value.double() for name, value in state.items()}
    heads_down = heads_up = flags["num_heads"]
    if flags["num_heads_upsample"] > 0:
        heads_up = flags["num_heads_upsample"]

    def linear(name: str, v: Tensor) -> Tensor:
        return v @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def silu(v: Tensor) -> Tensor:
        return v / (1 + torch.exp(-v))

    def norm(name: str, v: Tensor) -> Tensor:
        g = v.reshape(len(v), 32, -1)
        g = (g - g.mean(2, keepdim=True)) / (g.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
        column = (-1, *[1] * (v.ndim - 2))
        return g.reshape(v.shape) * w[f"{name}.weight"].reshape(column) + w[f"{name}.bias"].reshape(
            column
        )

    def conv(name: str, v: Tensor, stride: int = 1) -> Tensor:
        weight = w[f"{name}.weight"]
        return functional.conv2d(
            v, weight, w[f"{name}.bias"], stride, padding=weight.shape[-1] // 2
        )

    def resize(v: Tensor, kind: str) -> Tensor:
        if kind.endswith("down"):
            return (
                v[..., ::2, ::2] + v[..., 1::2, ::2] + v[..., ::2, 1::2] + v[..., 1::2, 1::2]
            ) / 4
        return v.repeat_interleave(2, -1).repeat_interleave(2, -2) if kind.endswith("up") else v

    def res(kind: str, name: str, v: Tensor) -> Tensor:
        h = conv(f"{name}.in_layers.2", resize(silu(norm(f"{name}.in_layers.0", v)), kind))
        e = linear(f"{name}.emb_layers.1", silu(emb))[:, :, None, None]
        if flags["use_scale_shift_norm"]:
            n = h.shape[1]
            h = norm(f"{name}.out_layers.0", h) * (1 + e[:, :n]) + e[:, n:]
        else:
            h = norm(f"{name}.out_layers.0", h + e)
        h = conv(f"{name}.out_layers.3", silu(h))
        v = resize(v, kind)
        skip = f"{name}.skip_connection"
        return (conv(skip, v) if f"{skip}.weight" in w else v) + h

    def attention(kind: str, name: str, v: Tensor) -> Tensor:
        n = v.shape[1]
        heads = heads_up if kind.endswith("up") else heads_down
        if flags["num_head_channels"] > 0:
            heads = n // flags["num_head_channels"]
        d = n // heads
        flat = v.flatten(2)
        weight = w[f"{name}.qkv.weight"][:, :, 0]
        qkv = weight @ norm(f"{name}.norm", flat) + w[f"{name}.qkv.bias"][:, None]
        out = []
        for head in range(heads):
            if flags["use_new_attention_order"]:
                q, k, u = (qkv[:, part * n + head * d :][:, :d] for part in range(3))
            else:
                q, k, u = (qkv[:, (3 * head + part) * d :][:, :d] for part in range(3))
            p = torch.exp(q.transpose(1, 2) @ k / d**0.5)
            out.append(u @ (p / p.sum(2, keepdim=True)).transpose(1, 2))
        proj = w[f"{name}.proj_out.weight"][:, :, 0] @ torch.cat(out, 1)
        return v + (proj + w[f"{name}.proj_out.bias"][:, None]).reshape(v.shape)

    def run(stage: list[Op], v: Tensor) -> Tensor:
        for kind, name, *_ in stage:
            if kind.startswith("res"):
                v = res(kind, name, v)
            elif kind.startswith("attention"):
                v = attention(kind, name, v)
            elif kind == "conv up":
                v = conv(name, resize(v, kind))
            else:
                v = conv(name, v, stride=2 if kind == "conv down" else 1)
        return v

    n = flags["num_channels"]
    frequency = 10000.0 ** (-torch.arange(n // 2, dtype=torch.float64) / (n // 2))
    angle = t.double()[:, None] * frequency
    emb = linear("time_embed.0", torch.cat([angle.cos(), angle.sin()], 1))
    emb = linear("time_embed.2", silu(emb))
    if y is not None:
        emb = emb + w["label_emb.weight"][y]
    down, middle, up = plan(flags)
    h, skips = x.double(), []
    for stage in down:
        h = run(stage, h)
        skips.append(h)
    h = run(middle, h)
    for stage in up:
        h = run(stage, torch.cat([h, skips.pop()], 1))
    return conv("out.2", silu(norm("out.0", h)))


def sigmas(flags: dict[str, Any]) -> Tensor:
    """sigma_t of every step."""
    steps = flags["diffusion_steps"]
    if flags["noise_schedule"] == "linear":
        betas = torch.linspace(0.1 / steps, 20 / steps, steps, dtype=torch.float64)
        signal = (1 - betas).cumprod(0)
    else:
        t = torch.arange(steps + 1, dtype=torch.float64) / steps
        f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        signal = (f[1:] / f[:-1]).clamp(min=0.001).cumprod(0)
    return ((1 - signal) / signal).sqrt()


# --- small checkpoints --------------------------------------------------------------------------

SMALL = {
    "num_channels": 32,
    "num_res_blocks": 1,
    "image_size": 16,
    "channel_mult": "1,2",
    "attention_resolutions": "8",
}
CASES: dict[str, dict[str, Any]] = {
    "by the scripts' defaults": defaults(**SMALL),
    "learned variance, blocks up and down": defaults(
        **SMALL, learn_sigma=True, resblock_updown=True, num_head_channels=16
    ),
    "classes, cosine, new order": defaults(
        **SMALL | {"attention_resolutions": "16,8", "num_res_blocks": 2},
        class_cond=True,
        noise_schedule="cosine",
        use_new_attention_order=True,
        resblock_updown=True,
        num_heads=2,
    ),
    "no scale and shift, other heads up": defaults(
        **SMALL | {"channel_mult": "1,2,2", "num_res_blocks": 2},
        use_scale_shift_norm=False,
        num_heads=2,
        num_heads_upsample=4,
    ),
    "first level narrower than the embedding": defaults(
        **SMALL | {"channel_mult": "0.5,1,1", "num_channels": 64}, num_head_channels=32
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_the_denoiser_is_the_papers(case, dtype, tmp_path):
    flags = CASES[case]
    state = random_state(flags)
    label = 3 if flags["class_cond"] else None
    prior = priors.load(
        write(tmp_path, state, "pt" if dtype == torch.float32 else "safetensors"),
        settings=flags,
        class_label=label,
        dtype=dtype,
    )
    table = sigmas(flags)
    step = torch.tensor([3, 400, 990])
    sigma = table[step]
    x = noisy(sigma, 16)
    alpha = (1 + sigma**2).rsqrt().reshape(-1, 1, 1, 1)
    eps = reference(state, flags, alpha * x, step, label)[:, :3]
    expected = x - sigma.reshape(-1, 1, 1, 1) * eps
    found = prior.denoise(x.to(dtype), sigma.to(dtype))
    assert_close(found.double(), expected, 1e-5 if dtype == torch.float32 else 1e-10)
    assert prior.event_shape == (3, 16, 16)
    assert prior.data_range == (-1, 1)
    assert prior.sigma_range == pytest.approx((float(table[0]), float(table[-1])))


@torch.no_grad()
def test_time_runs_between_the_steps(tmp_path):
    flags = CASES["by the scripts' defaults"]
    state = random_state(flags)
    prior = priors.load(write(tmp_path, state), settings=flags, dtype=torch.float64)
    table = sigmas(flags)
    sigma = (table[70] * table[71]).sqrt()[None]  # half way in log sigma
    x = noisy(sigma, 16)
    eps = reference(state, flags, x / (1 + sigma**2).sqrt(), torch.tensor([70.5]), None)
    assert_close(prior.denoise(x, sigma), x - sigma * eps, 1e-10)
    assert float(prior.time(sigma)) == pytest.approx(70.5, abs=1e-6)


@torch.no_grad()
def test_rescaled_times_and_predicted_images(tmp_path):
    flags = CASES["by the scripts' defaults"] | {
        "diffusion_steps": 200,
        "rescale_timesteps": True,
        "predict_xstart": True,
    }
    state = random_state(flags)
    prior = priors.load(write(tmp_path, state), settings=flags, dtype=torch.float64)
    sigma = sigmas(flags)[[30]]
    x = noisy(sigma, 16)
    x0 = reference(state, flags, x / (1 + sigma**2).sqrt(), torch.tensor([150.0]), None)
    assert_close(prior.denoise(x, sigma), x0, 1e-10)


@torch.no_grad()
def test_another_image_range_and_size(tmp_path):
    flags = CASES["by the scripts' defaults"]
    state = random_state(flags)
    path = write(tmp_path, state)
    own = priors.load(path, settings=flags, dtype=torch.float64, event_shape=(3, 8, 24))
    unit = priors.load(
        path, settings=flags, dtype=torch.float64, event_shape=(3, 8, 24), data_range=(0, 1)
    )
    x = noisy(torch.tensor([0.6]), 24)[:, :, :8]
    half = (unit.denoise((x + 1) / 2, 0.3) * 2) - 1
    assert_close(half, own.denoise(x, 0.6), 1e-10)
    assert unit.sigma_range == pytest.approx([s / 2 for s in own.sigma_range])


@torch.no_grad()
def test_it_is_diffusers_network_where_diffusers_has_it(tmp_path):
    """UNet2DModel with these weights; it names its tensors by what they do, and splits q k v."""
    from diffusers import UNet2DModel

    flags = defaults(**SMALL, resblock_updown=True, num_head_channels=16, class_cond=True)
    state = random_state(flags)
    unet = UNet2DModel(
        sample_size=16,
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=16,
        attn_norm_num_groups=32,
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=5,
    ).double()
    unet.load_state_dict(in_diffusers_words(state, head_channels=16))
    prior = priors.load(write(tmp_path, state), settings=flags, class_label=2, dtype=torch.float64)
    step = torch.tensor([12, 700])
    sigma = sigmas(flags)[step]
    column = sigma.reshape(-1, 1, 1, 1)
    x = noisy(sigma, 16)
    eps = unet.eval()(x / (1 + column**2).sqrt(), step, class_labels=torch.tensor([2, 2])).sample
    assert_close(prior.denoise(x, sigma), x - column * eps, 1e-6)  # its times are float32


def in_diffusers_words(state: dict[str, Tensor], head_channels: int) -> dict[str, Tensor]:
    places = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "label_emb": "class_embedding",
        "input_blocks.0.0": "conv_in",
        "input_blocks.1.0": "down_blocks.0.resnets.0",
        "input_blocks.2.0": "down_blocks.0.downsamplers.0",
        "input_blocks.3.0": "down_blocks.1.resnets.0",
        "input_blocks.3.1": "down_blocks.1.attentions.0",
        "middle_block.0": "mid_block.resnets.0",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
        "output_blocks.0.0": "up_blocks.0.resnets.0",
        "output_blocks.0.1": "up_blocks.0.attentions.0",
        "output_blocks.1.0": "up_blocks.0.resnets.1",
        "output_blocks.1.1": "up_blocks.0.attentions.1",
        "output_blocks.1.2": "up_blocks.0.upsamplers.0",
        "output_blocks.2.0": "up_blocks.1.resnets.0",
        "output_blocks.3.0": "up_blocks.1.resnets.1",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }
    inner = {
        "": "",
        ".in_layers.0": ".norm1",
        ".in_layers.2": ".conv1",
        ".emb_layers.1": ".time_emb_proj",
        ".out_layers.0": ".norm2",
        ".out_layers.3": ".conv2",
        ".skip_connection": ".conv_shortcut",
        ".norm": ".group_norm",
        ".proj_out": ".to_out.0",
    }
    words = {a + c: b + d for a, b in places.items() for c, d in inner.items()}
    told = {}
    for name, value in state.items():
        layer, _, end = name.rpartition(".")
        value = value.double()
        if layer.endswith(".qkv"):
            heads = value.reshape(-1, 3, head_channels, *value.shape[1:2])
            for i, part in enumerate(("to_q", "to_k", "to_v")):
                told[f"{places[layer[:-4]]}.{part}.{end}"] = heads[:, i].flatten(0, 1)
        else:
            told[f"{words[layer]}.{end}"] = value[..., 0] if "proj_out.w" in name else value
    return told


# --- published configurations ---------------------------------------------------------------

# Parameters in millions, from the papers' tables.
MILLIONS = {
    "imagenet64-cond": 296,
    "imagenet128-cond": 422,
    "imagenet256-cond": 554,
    "imagenet512-cond": 559,
    "lsun-bedroom": 552,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations(name):
    flags = defaults(**PUBLISHED[name])
    shapes = layout(flags)
    content = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert adm.recognises(content)
    stated = adm.flags_of(name, "file")
    made_of = adm.architecture(content, stated, "file")
    adm.check_flags(made_of, stated, "file")
    with torch.device("meta"):
        network = adm.AdmUNet(made_of)
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == shapes
    if name in MILLIONS:
        count = sum(map(math.prod, shapes.values()))
        assert abs(count / 1e6 - MILLIONS[name]) < 1


# --- refusals ---------------------------------------------------------------------------------

TINY = defaults(
    **SMALL | {"channel_mult": "1"} | {"attention_resolutions": "8"}, num_head_channels=16
)


def changed(state: dict[str, Tensor], **tensors: Tensor | None) -> dict[str, Tensor]:
    return {k: v for k, v in {**state, **tensors}.items() if v is not None}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "does not say its attention heads"),
        ("imagenet256-uncnd", "did you mean 'imagenet256-uncond'"),
        ("imagenet256-uncond", "num_res_blocks gives 2, the tensors 1"),
        ({"image_size": 16}, "lack what no tensor tells: use_new_attention_order, noise_schedule"),
        (TINY | {"num_head": 4}, "unknown ADM flags"),
        (TINY | {"image_size": "16"}, "image_size must be of type int"),
        (TINY | {"image_size": 0}, "image_size must be from 1"),
        (TINY | {"learn_sigma": True}, "learn_sigma gives True, the tensors False"),
        (TINY | {"class_cond": True}, "class_cond gives True"),
        (TINY | {"num_channels": 64}, "num_channels gives 64, the tensors 32"),
        (TINY | {"channel_mult": "1,2"}, "channel_mult gives"),
        (TINY | {"attention_resolutions": "16"}, "attention_resolutions gives"),
        (TINY | {"attention_resolutions": "a"}, "must be numbers"),
        (TINY | {"use_scale_shift_norm": False}, "use_scale_shift_norm gives False"),
        (TINY | {"num_head_channels": 24}, "32 channels cannot be split into heads of 24"),
        (TINY | {"noise_schedule": "sigmoid"}, "noise_schedule 'sigmoid' is not known"),
        (TINY | {"diffusion_steps": 10}, "diffusion_steps must be at least 20"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message, tmp_path):
    path = write(tmp_path, random_state(TINY))
    with pytest.raises(ValueError, match=message):
        priors.load(path, settings=settings)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"out.0.bias": None}, "missing out.0.bias"),
        ({"extra": torch.zeros(2)}, "unexpected extra"),
        ({"out.0.bias": torch.zeros(2)}, "out.0.bias has shape"),
        ({"out.2.weight": None}, "no tensor out.2.weight"),
        ({"out.0.bias": torch.full((32,), math.nan)}, "not finite"),
        ({"time_embed.0.weight": torch.zeros(128, 33)}, "must be even"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensors, message, tmp_path):
    path = write(tmp_path, changed(random_state(TINY), **tensors))
    with pytest.raises(ValueError, match=message):
        priors.load(path, settings={k: v for k, v in TINY.items() if k != "num_channels"})


def test_an_upsampler_is_no_prior(tmp_path):
    state = random_state(TINY | {"learn_sigma": True})
    state["input_blocks.0.0.weight"] = state["input_blocks.0.0.weight"].repeat(1, 2, 1, 1)
    with pytest.raises(ValueError, match="learn_sigma gives True, the tensors False"):
        priors.load(write(tmp_path, state), settings=TINY | {"learn_sigma": True})


@pytest.mark.parametrize(
    ("classes", "label", "error", "message"),
    [
        (False, 2, ValueError, "knows no classes"),
        (True, None, ValueError, "pass class_label=0 .. 4"),
        (True, "null", ValueError, "none that stands for all"),
        (True, 5, ValueError, "must be 0 .. 4, got 5"),
        (True, 1.0, TypeError, "must be an int"),
    ],
)
def test_classes_are_checked(classes, label, error, message, tmp_path):
    flags = TINY | {"class_cond": classes}
    with pytest.raises(error, match=message):
        priors.load(write(tmp_path, random_state(flags)), settings=flags, class_label=label)


def test_sizes_are_checked(tmp_path):
    flags = CASES["by the scripts' defaults"]
    with pytest.raises(ValueError, match="multiples of 2"):
        priors.load(write(tmp_path, random_state(flags)), settings=flags, event_shape=(3, 15, 16))
