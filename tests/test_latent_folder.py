"""Latent pipelines in their published layout, against diffusers' schedulers and autoencoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from checkpoint_files import assert_close
from diffusers import (
    AutoencoderKL,
    DiTTransformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from latent_pipelines import (
    DIT,
    SCALED,
    TEXT,
    UNET,
    VAE,
    WIDTH,
    WORDS,
    ddim,
    diffusion_transformer,
    made,
    normal,
    prompt,
    write,
)
from pipelines import edit
from safetensors.torch import load_file, save_file
from torch import Tensor

import forward_models as fm
import inverse
import priors
from priors import ClassifierFreeGuidance, LatentPrior


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return {"vae": made(AutoencoderKL, **VAE), "unet": made(UNet2DConditionModel, **TEXT)}


@pytest.fixture
def folder(tmp_path: Path, parts: dict[str, Any]) -> Path:
    return write(tmp_path / "sd", diffusers.PNDMScheduler(**SCALED, skip_prk_steps=True), **parts)


@torch.no_grad()
def scheduler_x0(scheduler: Any, out: Any, t: int, z: Tensor) -> tuple[float, Tensor, Tensor]:
    """(sigma, x, the scheduler's x0), where out(z_t, t) is what the pipeline would step with."""
    scheduler.set_timesteps(1000)
    abar = float((1 - scheduler.betas.double()).cumprod(0)[t])
    sigma = ((1 - abar) / abar) ** 0.5
    x = z + sigma * normal(*z.shape, seed=9)
    z_t = abar**0.5 * x
    return sigma, x, scheduler.step(out(z_t, t), t, z_t).pred_original_sample


# --- the denoiser is the scheduler's, the decoder the autoencoder's -------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_stable_diffusion(kind: str, tmp_path: Path, parts: dict[str, Any]) -> None:
    scheduler, unet = ddim(kind), parts["unet"]
    prior = priors.load(
        write(tmp_path, scheduler, **parts), prompt_embeds=prompt(), data_range=(0.0, 1.0)
    )
    assert isinstance(prior, LatentPrior)
    assert prior.event_shape == (4, 8, 8)
    assert prior.image_shape == (3, 16, 16)
    text = prompt()[None].expand(2, -1, -1)
    for t in (0, 10, 500, 998):
        sigma, x, x0 = scheduler_x0(
            scheduler, lambda z, t: unet(z, t, text).sample, t, normal(2, 4, 8, 8)
        )
        assert_close(prior.denoise(x, sigma), x0)
    assert prior.sigma_range == pytest.approx((0.0292, 14.61), rel=1e-2)
    z = normal(2, 4, 8, 8)
    with torch.no_grad():
        assert_close(prior.decode(z), parts["vae"].decode(z / 0.18215).sample / 2 + 0.5)


def test_guided_stable_diffusion_is_one_call_of_twice_the_batch(
    folder: Path, parts: dict[str, Any], tmp_path: Path
) -> None:
    save_file({"prompt_embeds": prompt()}, tmp_path / "words.safetensors")
    save_file({"anything": prompt(4)}, tmp_path / "none.safetensors")
    prior = priors.load(
        folder,
        prompt_embeds=tmp_path / "words.safetensors",
        negative_prompt_embeds=str(tmp_path / "none.safetensors"),
        guidance_scale=7.5,
    )
    guided = prior.prior
    assert isinstance(guided, ClassifierFreeGuidance)
    unet = parts["unet"]

    def combined(z: Tensor, t: int) -> Tensor:
        no, yes = (unet(z, t, e[None].expand(2, -1, -1)).sample for e in (prompt(4), prompt()))
        return no + 7.5 * (yes - no)

    batches = []
    guided.conditional.network.network.register_forward_pre_hook(
        lambda module, args: batches.append(len(args[0]))
    )
    for t in (10, 500, 998):
        sigma, x, x0 = scheduler_x0(ddim(), combined, t, normal(2, 4, 8, 8))
        assert_close(prior.denoise(x, sigma), x0)
    assert batches == [4, 4, 4]


@pytest.mark.parametrize("kind", [AutoencoderKL, VQModel])
def test_unconditional_latent_diffusion(kind: Any, tmp_path: Path) -> None:
    vae = made(kind, **VAE)
    blocks = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    unet = made(UNet2DModel, **UNET, **blocks, in_channels=4, out_channels=4)
    name = "vae" if kind is AutoencoderKL else "vqvae"
    prior = priors.load(write(tmp_path, ddim(), unet=unet, **{name: vae}))
    assert isinstance(prior, LatentPrior)
    assert prior.image_range == (-1.0, 1.0)
    sigma, x, x0 = scheduler_x0(ddim(), lambda z, t: unet(z, t).sample, 400, normal(2, 4, 8, 8))
    assert_close(prior.denoise(x, sigma), x0)
    with torch.no_grad():
        assert_close(prior.decode(x0), vae.decode(x0 / 0.18215).sample)
    with pytest.raises(ValueError, match="knows no text"):
        priors.load(tmp_path, prompt_embeds=prompt())
    with pytest.raises(ValueError, match="knows no condition"):
        priors.load(tmp_path, guidance_scale=2.0)


@pytest.mark.parametrize("size", [7, 2 * 1025, 2**20])
def test_positions_of_a_diffusion_transformer_are_bounded(size: int, tmp_path: Path) -> None:
    folder = diffusion_transformer(tmp_path)
    edit(folder / "transformer/config.json", sample_size=size)
    with pytest.raises(ValueError, match=rf"sample_size must be from 1 to 1024 .* got {size}$"):
        priors.load(folder, class_label=3, max_parameters=2**50)


@pytest.mark.parametrize("old", [False, True])
def test_classes_of_a_diffusion_transformer(old: bool, tmp_path: Path) -> None:
    model = made(DiTTransformer2DModel, **DIT)
    folder = diffusion_transformer(tmp_path)
    if old:  # as the published folders have it
        wider = {"_class_name": "Transformer2DModel", "cross_attention_dim": None}
        edit(folder / "transformer/config.json", **wider)
        edit(folder / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    prior = priors.load(folder, class_label=3, guidance_scale=4.0)

    def combined(z: Tensor, t: int) -> Tensor:
        time = torch.tensor([t, t])
        yes, no = (
            model(z, timestep=time, class_labels=torch.tensor([k, k])).sample[:, :4]
            for k in (3, 10)
        )
        return no + 4 * (yes - no)

    for t in (10, 500):
        sigma, x, x0 = scheduler_x0(ddim(), combined, t, normal(2, 4, 8, 8))
        assert_close(prior.denoise(x, sigma), x0)
    null = priors.load(folder, class_label="null")
    assert_close(prior.prior.unconditional.denoise(x, 1.0), null.denoise(x, 1.0))
    with pytest.raises(ValueError, match=r"pass class_label=0 \.\. 10"):
        priors.load(folder)
    with pytest.raises(ValueError, match="conditioned on classes"):
        priors.load(folder, class_label=3, prompt_embeds=prompt())
    with pytest.raises(ValueError, match=r"\(4, 8, 8\) only"):
        priors.load(folder, class_label=3, event_shape=(4, 16, 16))


def test_attention_under_its_old_names(folder: Path, parts: dict[str, Any]) -> None:
    """The published autoencoder of Stable Diffusion names its attention layers so."""
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    for new, old in names.items():
        tensors = {k.replace(f".{new}.", f".{old}."): v for k, v in tensors.items()}
    save_file(tensors, path)
    z = normal(1, 4, 8, 8)
    with torch.no_grad():
        assert_close(
            priors.load(folder, prompt_embeds=prompt()).decode(z),
            parts["vae"].decode(z / 0.18215).sample,
        )


def test_box_inpainting_through_stable_diffusion(folder: Path) -> None:
    """Two steps of mmps through U-Net and decoder: finite, and nearer to the data than before."""
    prior = priors.load(folder, prompt_embeds=prompt())
    keep = torch.ones(16, 16, dtype=torch.bool)
    keep[4:12, 4:12] = False
    model = fm.LinearGaussian(fm.Inpainting(keep), 0.1)
    y = model.simulate(prior.decode(normal(1, 4, 8, 8, seed=7)), torch.Generator().manual_seed(0))
    posterior = inverse.condition(prior, model, y)
    z = normal(2, 4, 8, 8, seed=8)
    before, after = (prior.decode(p.denoise(z, 0.7)) for p in (prior, posterior))
    assert bool((model.misfit(y, after) < 0.7 * model.misfit(y, before)).all())
    samples = inverse.sample(posterior, n=1, steps=2, seed=0)
    assert samples.x.shape == (1, 3, 16, 16)
    assert samples.latents.shape == (1, 4, 8, 8)
    assert samples.diagnostics["network_calls"] == 2


def test_the_published_configuration_of_stable_diffusion_1() -> None:
    """Tensors and parameters of the real networks, without memory for them."""
    from priors.pretrained.diffusers_network import empty_module

    text = empty_module(
        {
            "_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768,
            "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
            "act_fn": "silu", "layers_per_block": 2, "downsample_padding": 1, "norm_eps": 1e-5,
            "center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0,
            "in_channels": 4, "out_channels": 4, "norm_num_groups": 32,
            "mid_block_scale_factor": 1,
            "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        },
        "UNet2DConditionModel",
    )  # fmt: skip
    vae = empty_module(
        {
            "_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3,
            "latent_channels": 4, "block_out_channels": [128, 256, 512, 512],
            "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 512,
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
        },
        "AutoencoderKL",
    )  # fmt: skip
    counts = [sum(p.numel() for p in module.parameters()) for module in (text, vae)]
    assert counts == [859_520_964, 83_653_863]
    assert [len(module.state_dict()) for module in (text, vae)] == [686, 248]


# --- refusals -------------------------------------------------------------------------------------


def test_conditions_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"pass prompt_embeds, a tensor \(L, {WIDTH}\)"):
        priors.load(folder)
    with pytest.raises(ValueError, match=r"shape \(L, 12\) or \(1, L, 12\), got \(5, 13\)"):
        priors.load(folder, prompt_embeds=normal(WORDS, 13))
    with pytest.raises(ValueError, match="go together"):
        priors.load(folder, prompt_embeds=prompt(), guidance_scale=7.5)
    with pytest.raises(TypeError, match="floating tensor"):
        priors.load(folder, prompt_embeds=torch.zeros(5, 12, dtype=torch.long))
    with pytest.raises(ValueError, match="not finite"):
        priors.load(folder, prompt_embeds=prompt() / 0)
    with pytest.raises(ValueError, match="conditioned on text, not on classes"):
        priors.load(folder, prompt_embeds=prompt(), class_label=3)
    for text in ("a photo of a cat", "cat " * 999):
        with pytest.raises(FileNotFoundError, match=r"encoders are not run .* tensor \(L, 12\)"):
            priors.load(folder, prompt_embeds=text)
    save_file({"a": prompt(), "b": prompt()}, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="must hold one tensor, or one called prompt_embeds"):
        priors.load(folder, prompt_embeds=tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="guidance_scale is for latent pipelines"):
        priors.load("digits", guidance_scale=2.0)
    for name in ("digits", "digits-mixture"):
        for scale in (None, 2.0):
            with pytest.raises(ValueError, match=rf"^{name} takes no text; leave prompt_embeds"):
                priors.load(name, prompt_embeds="a seven", guidance_scale=scale)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("model_index.json", {"image_encoder": ["diffusers", "X"]}, "image_encoder is not supp"),
        ("model_index.json", {"unet": ["mine", "UNet2DConditionModel"]}, "not a part of diffusers"),
        ("model_index.json", {"unet": ["diffusers", "FluxTransformer2DModel"]}, "Flux.*DiTTrans"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderDC"]}, "AutoencoderDC.*VQModel"),
        ("model_index.json", {"scheduler": ["diffusers", "LCMScheduler"]}, "LCM.*supported"),
        ("model_index.json", {"scheduler": None}, "must name a scheduler; known: DDIM"),
        ("model_index.json", {"transformer": ["diffusers", "X"]}, "one of unet and transformer"),
        ("vae/config.json", {"scaling_factor": 0.0}, "scaling_factor must be positive"),
        ("vae/config.json", {"latents_mean": [0.0]}, "latents_mean must be 4 numbers"),
        ("vae/config.json", {"latent_channels": 8}, "does not fit the network"),
        ("vae/config.json", {"layers_per_block": 2000}, "at most 64"),
        ("unet/config.json", {"in_channels": 9}, "gives 4 channels for 9|does not fit"),
        ("unet/config.json", {"addition_embed_type": "text"}, "addition_embed_type = 'text'"),
        ("unet/config.json", {"time_cond_proj_dim": 8}, "time_cond_proj_dim = 8"),
        ("unet/config.json", {"cross_attention_dim": [12, 16]}, "one cross_attention_dim"),
        ("unet/config.json", {"auto_map": {}}, "code of its own"),
        ("unet/config.json", {"transformer_layers_per_block": [9999, 1]}, "at most 64"),
    ],
)  # fmt: skip
def test_folders_that_do_not_fit(file: str, changes: Any, message: str, folder: Path) -> None:
    edit(folder / file, **changes)
    with pytest.raises(ValueError, match=message):
        priors.load(folder, prompt_embeds=prompt())


@pytest.mark.parametrize(
    "index",
    [
        {"_class_name": "StableDiffusionXLPipeline"},
        {"_class_name": "StableDiffusionXLPipeline", "vae": None},
        {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder_2": ["a", "b"]},
    ],
)
@pytest.mark.parametrize("scheduler", [None, ["diffusers", "EulerDiscreteScheduler"]])
def test_stable_diffusion_xl_is_refused_by_its_name(
    index: dict[str, Any], scheduler: Any, folder: Path
) -> None:
    edit(folder / "model_index.json", **index, scheduler=scheduler)
    with pytest.raises(ValueError, match="Stable Diffusion XL is not supported: its network asks"):
        priors.load(folder, prompt_embeds=prompt())


def test_weights_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["stray"] = tensors.pop("decoder.conv_in.weight")
    with pytest.raises(ValueError, match="more than max_parameters"):
        priors.load(folder, prompt_embeds=prompt(), max_parameters=10)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"missing decoder.conv_in.weight; unexpected stray"):
        priors.load(folder, prompt_embeds=prompt())
    path.rename(tmp_path / "outside.safetensors")
    path.symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(ValueError, match="leaves the folder"):
        priors.load(folder, prompt_embeds=prompt())
    path.unlink()
    path.with_suffix(".bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match="a pickle that asks for code"):
        priors.load(folder, prompt_embeds=prompt())
