"""Priors of score_sde_pytorch: the denoiser against the papers' formulas and against diffusers.

`published_score_sde` evaluates the networks; two of them diffusers holds exactly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import assert_close
from published_score_sde import CASES, SKIP, Published, case, images, save
from torch import Tensor

import priors


def expected(config: dict[str, Any], F: Any, x0: Tensor, t: float) -> tuple[float, Tensor, Tensor]:
    """(sigma, x, D): the score at time t as published, and Tweedie's formula."""
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sde, n = config["training.sde"], config["model.num_scales"]
    full = torch.ones(len(x0), dtype=torch.float64)
    if sde == "vesde":
        low, high = config["model.sigma_min"], config["model.sigma_max"]
        if config["training.continuous"]:
            std = low * (high / low) ** t
            label = std
        else:
            label = round((1 - t) * (n - 1))
            std = float(np.geomspace(high, low, n)[label])
        x = x0 + std * eps
        score = F(x, label * full)
        if config["model.scale_by_sigma"]:
            score = score / std
        return std, x, x + std**2 * score
    low, high = config["model.beta_min"], config["model.beta_max"]
    if config["training.continuous"]:
        log_mean = -(t**2) * (high - low) / 4 - t * low / 2
        alpha, label = math.exp(log_mean), 999 * t
        std = 1 - alpha**2 if sde == "subvpsde" else math.sqrt(1 - alpha**2)
    else:
        label = round(t * (n - 1))
        abar = float(np.cumprod(1 - np.linspace(low / n, high / n, n))[label])
        alpha, std = math.sqrt(abar), math.sqrt(1 - abar)
    x_t = alpha * x0 + std * eps
    score = -F(x_t, label * full) / std
    return std / alpha, x_t / alpha, (x_t + std**2 * score) / alpha


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_denoises_as_published(name, tmp_path):
    config = CASES[name]
    path, weights = save(config, tmp_path)
    x0 = images(config)
    low, high = (-1, 1) if config["data.centered"] else (0, 1)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        prior = priors.load(path, settings=config, dtype=dtype)
        assert prior.event_shape == tuple(x0.shape[1:])
        assert prior.data_range == (low, high)
        for t in (0.02, 0.4, 0.97):
            sigma, x, D = expected(config, Published(config, weights), x0, t)
            found = prior.denoise(x.to(dtype), sigma).double()
            assert_close(found, D, tolerance)
            # At little noise D - x is small beside x, whose digits it loses.
            assert_close(found - x, D - x, tolerance * max(1.0, float(x.norm() / (D - x).norm())))


@pytest.mark.parametrize("name", ["NCSN++ VE", "DDPM++ VP", "DDPM++ sub-VP", "DDPM VP, discrete"])
def test_noise_levels_and_units(name, tmp_path):
    config = CASES[name]
    path, _ = save(config, tmp_path)
    own = priors.load(path, settings=config, dtype=torch.float64)
    sde, low, high = config["training.sde"], *own.sigma_range
    if sde == "vesde":
        assert (low, high) == (0.01, 50)
    elif config["training.continuous"]:
        for t, sigma in ((1e-3, low), (1.0, high)):
            alpha = math.exp(-(t**2) * 19.9 / 4 - t * 0.1 / 2)
            std = 1 - alpha**2 if sde == "subvpsde" else math.sqrt(1 - alpha**2)
            assert sigma == pytest.approx(std / alpha, rel=1e-10)
    else:
        abar = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
        assert (low, high) == pytest.approx(tuple(np.sqrt(1 / abar[[0, -1]] - 1)), rel=1e-10)
    # Other units for the same images: D(a x + b, a sigma) = a D(x, sigma) + b.
    a, b = 10.0, 3.0
    ends = tuple(a * v + b for v in own.data_range)
    other = priors.load(path, settings=config, dtype=torch.float64, data_range=ends)
    assert other.sigma_range == pytest.approx((a * low, a * high))
    x = images(config)
    with torch.no_grad():
        assert_close(other.denoise(a * x + b, a * 0.3), a * own.denoise(x, 0.3) + b, 1e-10)


@pytest.mark.parametrize(
    "name", ["NCSN++ VE, both pyramids", "NCSN++ VE, discrete", "DDPM++ sub-VP"]
)
def test_a_level_for_each_image(name, tmp_path):
    config = CASES[name]
    path, _ = save(config, tmp_path)
    prior = priors.load(path, settings=config, dtype=torch.float64)
    x, levels = images(config, 3), torch.tensor([0.0, 0.2, 30.0], dtype=torch.float64)
    together = prior.denoise(x, levels)
    assert not together.requires_grad
    assert torch.equal(together[0], x[0])
    for i in (1, 2):
        assert_close(together[i], prior.denoise(x[i : i + 1], float(levels[i]))[0], 1e-12)


def test_a_table_of_levels_is_continuous(tmp_path):
    for name in ("NCSN++ VE, discrete", "DDPM++ VP, discrete"):
        config = CASES[name]
        path, _ = save(config, tmp_path)
        prior = priors.load(path, settings=config, dtype=torch.float64)
        x = images(config, 1)
        with torch.no_grad():
            near = prior.denoise(x.expand(2, -1, -1, -1), torch.tensor([0.5, 0.5 * (1 + 1e-7)]))
        assert 0 < float((near[0] - near[1]).abs().max()) < 1e-4


# --- diffusers, where it holds the network ----------------------------------------------------


def to_diffusers(weights: dict[str, Tensor], unet: Any) -> None:
    """Give a UNet2DModel the weights of a network, layer after layer."""
    numbers = iter(range(10**6))
    state = {}

    def put(target: str, **parts: str) -> None:
        n = next(numbers)
        for theirs, ours in parts.items():
            pointwise = ours.startswith("NIN")
            for kind, name in (("weight", "W"), ("bias", "b")):
                name = name if pointwise else kind
                value = weights.get(f"all_modules.{n}.{ours}.{name}".replace("..", "."))
                if value is None:
                    continue
                value = value.T if pointwise and kind == "weight" else value
                key = f"{target}.{theirs}.{kind}".replace("__", ".").replace("..", ".")
                wanted = unet.state_dict()[key].shape
                state[key] = value.reshape(wanted)

    def block(target: str) -> None:
        shortcut = "Conv_2"
        if not any("Conv_2" in name for name in weights):
            shortcut = "NIN_0"
        put(
            target,
            norm1="GroupNorm_0",
            conv1="Conv_0",
            time_emb_proj="Dense_0",
            norm2="GroupNorm_1",
            conv2="Conv_1",
            conv_shortcut=shortcut,
        )

    def attention(target: str) -> None:
        names = {"to_q": "NIN_0", "to_k": "NIN_1", "to_v": "NIN_2", "to_out__0": "NIN_3"}
        put(target, group_norm="GroupNorm_0", **names)

    if unet.config.time_embedding_type == "fourier":
        state["time_proj.weight"] = weights[f"all_modules.{next(numbers)}.W"]
    for target in ("time_embedding.linear_1", "time_embedding.linear_2", "conv_in"):
        put(target, **{"": ""})
    for i, down in enumerate(unet.down_blocks):
        for j in range(len(down.resnets)):
            block(f"down_blocks.{i}.resnets.{j}")
            if hasattr(down, "attentions"):
                attention(f"down_blocks.{i}.attentions.{j}")
        if getattr(down, "resnet_down", None) is not None:
            block(f"down_blocks.{i}.resnet_down")
            put(f"down_blocks.{i}", skip_conv="Conv_0")
        elif down.downsamplers is not None:
            put(f"down_blocks.{i}.downsamplers.0", conv="Conv_0")
    block("mid_block.resnets.0")
    attention("mid_block.attentions.0")
    block("mid_block.resnets.1")
    for i, up in enumerate(unet.up_blocks):
        for j in range(len(up.resnets)):
            block(f"up_blocks.{i}.resnets.{j}")
        if hasattr(up, "attentions"):
            attention(f"up_blocks.{i}.attentions.0")
        if getattr(up, "resnet_up", None) is not None:
            put(f"up_blocks.{i}", skip_norm="")
            put(f"up_blocks.{i}", skip_conv="")
            block(f"up_blocks.{i}.resnet_up")
        elif getattr(up, "upsamplers", None) is not None:
            put(f"up_blocks.{i}.upsamplers.0", conv="Conv_0")
    put("conv_norm_out", **{"": ""})
    put("conv_out", **{"": ""})
    left = set(unet.state_dict()) - set(state) - {"time_proj.W"}
    assert not left, left
    unet.load_state_dict(state, strict=False)


@torch.no_grad()
def test_equals_diffusers_ncsnpp(tmp_path):
    """celebahq_256 with two levels; diffusers' normalisations need 128 channels at attention."""
    from diffusers import UNet2DModel

    config = case(SKIP, model_nf=32, model_ch_mult=[1, 4], model_num_res_blocks=2)
    path, weights = save(config, tmp_path)
    unet = UNet2DModel(
        sample_size=8,
        center_input_sample=True,
        time_embedding_type="fourier",
        block_out_channels=(32, 128),
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"),
        layers_per_block=2,
        mid_block_scale_factor=math.sqrt(2),
        norm_eps=1e-6,
        norm_num_groups=None,
        attention_head_dim=None,
    ).eval()
    to_diffusers(weights, unet)
    prior = priors.load(path, settings=config)
    x = images(config).float()
    for sigma in (0.05, 1.0, 40.0):
        score = unet(x, torch.tensor([sigma])).sample
        assert_close(prior.denoise(x, sigma), x + sigma**2 * score, 1e-5)
        assert_close(prior.score(x, sigma), score, 1e-4)


@torch.no_grad()
def test_equals_diffusers_ddpm(tmp_path):
    """Without attention on the way out, of which diffusers has one layer a block more."""
    from diffusers import UNet2DModel

    config = case("vp/cifar10_ddpm", model_nf=32, model_attn_resolutions=[])
    path, weights = save(config, tmp_path)
    unet = UNet2DModel(
        sample_size=8,
        freq_shift=1,
        flip_sin_to_cos=False,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        downsample_padding=0,
        norm_eps=1e-6,
        norm_num_groups=32,
        attention_head_dim=None,
    ).eval()
    to_diffusers(weights, unet)
    prior = priors.load(path, settings=config)
    x = images(config).float() * 2 - 1
    abar = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
    for t in (0, 300, 999):
        alpha, sigma = math.sqrt(abar[t]), math.sqrt(1 / abar[t] - 1)
        eps = unet(alpha * x, t).sample
        assert_close(prior.denoise(x, sigma), x - sigma * eps, 1e-5)
