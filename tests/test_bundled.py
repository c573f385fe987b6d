"""The shipped weights: small, described, and better at denoising than classical filters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import forward_models
import inverse
import priors
from priors.pretrained import bundled_names
from priors.training.recipe_file import read_recipe

PRIORS = Path(priors.__file__).parent / "bundled"
NAMES = ("brain", "ct", "digits", "fashion", "photographs")


def picture(name: str) -> torch.Tensor:
    """A real image that no training saw, (1, C, H, W), data units."""
    if name == "ct":
        from pydicom.data import get_testdata_file

        from inverse.io import read_image

        return read_image(get_testdata_file("CT_small.dcm", download=False)).data[None]
    import skimage.data

    image = torch.from_numpy(skimage.data.astronaut()[:256, 96:352]).permute(2, 0, 1) / 255
    return torch.nn.functional.avg_pool2d(image[None].float(), 2)


def test_the_bundled_priors():
    assert set(bundled_names()) == {*NAMES, "digits-mixture"}


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_small_and_have_a_card(name):
    size = sum(p.stat().st_size for p in (PRIORS / name).rglob("*.safetensors"))
    assert size <= 14 * 2**20
    card = (PRIORS / name / "README.md").read_text()
    words = (
        "Data:", "Held out:", "Not good for:", "seed", "held-out RMSE", "non-local",
        "bits per value", "inverse train recipe.yaml", "samples.png",
    )  # fmt: skip
    for word in words:
        assert word in card, word


def test_the_card_of_digits_states_how_near_a_second_run_came():
    """Both runs are recorded, of the shipped recipe, seeds apart; the card is held to them."""
    first, again = (
        json.loads((PRIORS / "digits" / name).read_text()) for name in ("run.json", "again.json")
    )
    assert (first["seed"], again["seed"]) == (0, 1)
    assert first["steps"] == again["steps"] == read_recipe(PRIORS / "digits/recipe.yaml").steps
    pairs = zip(first["errors"], again["errors"], strict=True)
    furthest = max(abs(b["held-out"] / a["held-out"] - 1) for a, b in pairs)
    stated = re.search(r"within ([\d.]+) % of the above", (PRIORS / "digits/README.md").read_text())
    assert stated is not None
    assert 100 * furthest <= float(stated[1]) < 100 * furthest + 0.1


@pytest.mark.parametrize("name", ["ct", "photographs"])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_it_denoises_better_than_non_local_means(name, share):
    from skimage.restoration import denoise_nl_means

    truth = picture(name)
    peak = 2048.0 if name == "ct" else 1.0
    prior, sigma = priors.load(name), share * peak
    g = torch.Generator().manual_seed(0)
    x = truth + sigma * torch.randn(truth.shape, generator=g)
    ours = float((prior.denoise(x, sigma) - truth).square().mean())
    array = (x[0] / peak).permute(1, 2, 0).double().numpy()
    classical = min(
        np.mean(
            (
                denoise_nl_means(
                    array, 5, 6, h=h * share, sigma=share, fast_mode=True, channel_axis=-1
                ).reshape(array.shape)
                - (truth[0] / peak).permute(1, 2, 0).numpy()
            )
            ** 2
        )
        * peak**2
        for h in (0.6, 0.8, 1.0)
    )
    assert ours < classical


@pytest.mark.parametrize("name", NAMES)
def test_the_denoiser_tends_to_x_as_noise_vanishes(name):
    prior = priors.load(name)
    low, high = prior.data_range
    shape = (2, *prior.event_shape)
    x = low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    sigma = prior.sigma_range[0]
    assert (prior.denoise(x, sigma) - x).abs().max() < 10 * sigma
    assert torch.equal(prior.denoise(x, 0.0), x)


def test_photographs_and_slices_come_in_any_size():
    for name, channels in (("photographs", 3), ("ct", 1)):
        prior = priors.load(name).resized((channels, 40, 56))
        assert prior.denoise(torch.zeros(1, channels, 40, 56), 1.0).shape == (1, channels, 40, 56)
        with pytest.raises(ValueError, match="multiples of 8"):
            prior.resized((channels, 41, 56))


def test_a_requested_digit_is_drawn():
    prior = priors.load("digits")
    noisy = forward_models.load_classifier("digits-noisy")
    samples = inverse.sample(
        inverse.condition(prior, noisy, torch.tensor(7)), n=16, steps=60, seed=0
    )
    assert samples.diagnostics["network_calls"] == 60
    clean = forward_models.load_classifier("digits")
    with torch.no_grad():
        classes = clean.logits(samples.x).argmax(1)
    # Of draws without the classifier one in ten would be right.
    assert (classes == 7).float().mean() >= 0.6


def test_digits_are_more_probable_than_clothes_under_the_prior_of_digits():
    """Draws of both priors, and handwritten digits of another source, seen through noise 0.1."""
    from sklearn.datasets import load_digits

    prior = priors.load("digits")
    digits = inverse.sample(prior, n=2, steps=20, seed=0).x
    clothes = inverse.sample(priors.load("fashion"), n=3, steps=20, seed=0).x
    others = torch.from_numpy(load_digits().images[:3]).float().unsqueeze(1) / 16
    others = torch.nn.functional.interpolate(others, (20, 20), mode="bicubic").clamp(0, 1)
    others = torch.nn.functional.pad(others, (4, 4, 4, 4))
    images = torch.cat([digits, clothes, others])
    eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    log_p, error = priors.log_prob(
        prior, images + 0.1 * eps, sigma_range=(0.1, prior.sigma_range[1]), probes=2,
        tolerance=0.1, return_error=True,
    )  # fmt: skip
    own, worn, written = log_p.split([2, 3, 3])
    assert float(own.min()) > float(worn.max()) + 3 * float(error.max())
    assert float(written.mean()) > float(worn.mean()) + 3 * float(error.max())
