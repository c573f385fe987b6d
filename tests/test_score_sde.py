"""Checkpoints of score_sde_pytorch: the denoiser against the papers' formulas, and every refusal.

The networks are evaluated by `published_score_sde`; two of them also by diffusers, which holds them
exactly.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from published_score_sde import Published, checkpoint, draw
from torch import Tensor

import priors
from priors.pretrained.networks import fir
from priors.pretrained.score_sde_settings import PUBLISHED, read_settings


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


def assert_close(a: Tensor, b: Tensor, tolerance: float) -> None:
    error = float((a - b).norm() / b.norm())
    assert error < tolerance, f"relative difference {error:.1e}"


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


def test_a_table_of_levels_is_continuous(tmp_path):
    for name in ("NCSN++ VE, discrete", "DDPM++ VP, discrete"):
        config = CASES[name]
        path, _ = save(config, tmp_path)
        prior = priors.load(path, settings=config, dtype=torch.float64)
        x = images(config, 1)
        with torch.no_grad():
            near = prior.denoise(x.expand(2, -1, -1, -1), torch.tensor([0.5, 0.5 * (1 + 1e-7)]))
        assert 0 < float((near[0] - near[1]).abs().max()) < 1e-4


# --- what the file holds ----------------------------------------------------------------------


def same(path: Path, other: Path, config: dict[str, Any]) -> bool:
    x = images(config)
    with torch.no_grad():
        a, b = (priors.load(p, settings=config).denoise(x, 0.3) for p in (path, other))
    return torch.equal(a, b)


def edited(folder: Path, config: dict[str, Any], edit: Any, name: str = "edited.pth") -> Path:
    content = checkpoint(config, draw(config))
    result = edit(content)
    torch.save(content if result is None else result, folder / name)
    return folder / name


def test_layers_without_weights_may_have_numbers(tmp_path):
    """Some versions of the code number the resampling of the image, which has no weights."""
    config = CASES["NCSN++ VE, both pyramids"]
    path, _ = save(config, tmp_path)

    def spaced(content):
        model = {}
        for name, value in content["model"].items():
            parts = name.split(".")
            if parts[1] == "all_modules" and int(parts[2]) > 7:
                parts[2] = str(int(parts[2]) + 1)
            model[".".join(parts)] = value
        content["model"] = model

    assert same(path, edited(tmp_path, config, spaced), config)


def test_numpy_scalars_of_old_and_new_files_are_numbers(tmp_path):
    """NumPy 2 renamed the module that scalars are pickled under; optimisers hold some."""
    config = CASES["NCSN++ VE"]
    path, _ = save(config, tmp_path)
    names = {b"numpy._core.multiarray", b"numpy.core.multiarray"}
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    (pickled,) = (name for name in members if name.endswith("data.pkl"))
    (stored,) = (name for name in names if name in members[pickled])
    (other,) = names - {stored}
    renamed = tmp_path / "renamed.pth"
    with zipfile.ZipFile(renamed, "w") as archive:
        for name, value in members.items():
            archive.writestr(name, value.replace(stored, other) if name == pickled else value)
    assert same(path, renamed, config)


def test_averages_alone_are_a_checkpoint_too(tmp_path):
    from safetensors.torch import save_file

    config = CASES["NCSN++ VE"]
    path, weights = save(config, tmp_path)
    bare = tmp_path / "averages.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, bare)
    assert same(path, bare, config)


def test_settings_by_dictionary_file_and_name(tmp_path):
    config = CASES["NCSN++ VE"]
    nested: dict[str, Any] = {"seed": 42, "optim": {"lr": 2e-4}}
    for key, value in config.items():
        section, name = key.split(".")
        nested.setdefault(section, {})[name] = value
    nested["model"] |= {"dropout": 0.1, "nonlinearity": "swish", "ema_rate": 0.999}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(nested))
    assert read_settings(nested) == read_settings(str(file)) == read_settings(config)
    for name in PUBLISHED:
        read_settings(name)
    with pytest.raises(ValueError, match=r"pass settings.*ve/cifar10_ncsnpp"):
        priors.load(save(config, tmp_path)[0])
    with pytest.raises(ValueError, match="did you mean 've/cifar10_ncsnpp_continuous'"):
        read_settings("ve/cifar10_ncsnpp_continous")


BETAS = {"model_beta_min": 0.1, "model_beta_max": 20.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_nf": None}, "model.nf is missing"),
        ({"model_nf": 2.5}, "whole number"),
        ({"model_nf": True}, "whole number"),
        ({"model_nf": 10**6}, "from 1 to"),
        ({"model_nf": 7}, "even"),
        ({"model_nf": 10}, "do not describe a network"),
        ({"model_ch_mult": [1, -2]}, "positive numbers"),
        ({"model_ch_mult": [1] * 99}, "at most 16"),
        ({"model_progressive": "residual"}, "one of none, output_skip"),
        ({"model_progressive_combine": "cat"}, "'cat' is not supported"),
        ({"model_nonlinearity": "elu"}, "'elu' is not supported"),
        ({"model_depth": 3}, "model.depth is unknown"),
        ({"model_fir_kernel": [1]}, "two values"),
        ({"model_sigma_min": 60}, "not below"),
        ({"model_embedding_type": "positional"}, "needs model.embedding_type 'fourier'"),
        ({"training_sde": "vpsde", **BETAS}, "model.scale_by_sigma needs"),
        ({"training_continuous": False}, "needs training.continuous"),
        ({"data_image_size": 9}, "cannot be halved"),
        ({"data_centered": "yes"}, "true or false"),
        ({"model_resblock_type": "ddpm"}, "cannot run it"),
    ],
)
def test_settings_that_no_network_has_are_refused(changes, message, tmp_path):
    path, _ = save(case(RESIDUAL), tmp_path)
    settings = case(RESIDUAL, **changes)
    settings = {key: value for key, value in settings.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        priors.load(path, settings=settings)


def lost_average(content):
    content["ema"]["shadow_params"].pop(3)


def long_average(content):
    content["ema"]["shadow_params"].append(torch.zeros(3))


def wrong_average(content):
    shadows = content["ema"]["shadow_params"]
    shadows[2], shadows[4] = shadows[4], shadows[2]


def no_average(content):
    del content["ema"]


def lost_weight(content):
    del content["model"]["module.all_modules.1.bias"]


def wrong_weight(content):
    content["model"]["module.all_modules.1.bias"] = torch.zeros(5)


def extra_weight(content):
    content["model"]["module.all_modules.1.gamma"] = torch.zeros(5)


def another_name(content):
    content["model"]["module.head.weight"] = torch.zeros(5)


def another_order(content):
    content["model"].move_to_end("module.all_modules.1.bias")


def infinite_average(content):
    content["ema"]["shadow_params"][1][0] = math.inf


def other_levels(content):
    content["model"]["module.sigmas"] = torch.from_numpy(np.geomspace(378, 0.01, 1000))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lost_average, "averages for .* trained parameters"),
        (long_average, "averages for .* trained parameters"),
        (wrong_average, r"average 2 has shape .* all_modules\.2\.weight is"),
        (no_average, "no list ema.shadow_params"),
        (lost_weight, "missing all_modules.1.bias"),
        (wrong_weight, r"all_modules.1.bias has shape \(5,\)"),
        (extra_weight, "unexpected all_modules.1.gamma"),
        (another_name, "module.head.weight.*no layer"),
        (another_order, "cannot be assigned"),
        (infinite_average, "not finite"),
        (other_levels, "states 1000 noise levels"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(edit, message, tmp_path):
    config = CASES["NCSN++ VE"]
    with pytest.raises(ValueError, match=message):
        priors.load(edited(tmp_path, config, edit), settings=config)


def test_shapes_and_classes_are_the_networks_own(tmp_path):
    config = CASES["NCSN++ VE"]
    path, _ = save(config, tmp_path)
    with pytest.raises(ValueError, match="takes images of"):
        priors.load(path, settings=config, event_shape=(3, 16, 16))
    with pytest.raises(ValueError, match="knows no classes"):
        priors.load(path, settings=config, class_label=1)


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


# --- resampling -------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [[1, 3, 3, 1], [1, 2, 1], [1, 1], [1, 5, 2, 0.5, 3]])
def test_resampling_against_direct_convolution(kernel):
    x = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    k = np.outer(kernel, kernel) / np.sum(kernel) ** 2
    extra = len(kernel) - 2
    first, last = (extra + 1) // 2, extra // 2

    def convolved(image, before, after, k):
        return scipy.signal.convolve2d(np.pad(image, (before, after)), k, mode="valid")

    spread = np.zeros((2, 3, 12, 8))
    spread[..., ::2, ::2] = x
    up, down = fir.up(x, kernel).numpy(), fir.down(x, kernel).numpy()
    for b, c in np.ndindex(2, 3):
        direct = convolved(x[b, c].numpy(), first, last, k)[::2, ::2]
        np.testing.assert_allclose(down[b, c], direct, atol=1e-13)
        # One pixel more before than `down` has, for the zeros that follow the last pixel.
        direct = convolved(spread[b, c], first + 1, last, 4 * k)
        np.testing.assert_allclose(up[b, c], direct, atol=1e-13)
    flat = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    inner = fir.down(flat, kernel)[..., 3:-3, 3:-3]
    torch.testing.assert_close(inner, torch.ones_like(inner), atol=1e-13, rtol=0)


def test_symmetric_filters_keep_the_centre():
    ramp = torch.arange(16.0, dtype=torch.float64).expand(1, 1, 16, 16)
    inner = fir.down(ramp, [1, 3, 3, 1])[0, 0, 4, 2:-2]
    torch.testing.assert_close(inner, torch.arange(4.5, 12, 2, dtype=torch.float64))
    inner = fir.up(ramp, [1, 3, 3, 1])[0, 0, 8, 4:-4]
    torch.testing.assert_close(inner, torch.arange(1.75, 13.5, 0.5, dtype=torch.float64))
