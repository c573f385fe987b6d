"""Files of score_sde_pytorch: what is read, by which settings, and every refusal."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_score_sde import CASES, RESIDUAL, case, checkpoint, draw, images, save

import priors
from priors.pretrained.score_sde_settings import PUBLISHED, read_settings


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


@pytest.mark.parametrize(
    ("names", "levels"),
    [
        (("ve/cifar10_ncsnpp", "ve/cifar10_ncsnpp_continuous"), (0.01, 50, 1000)),
        (("ve/bedroom_ncsnpp_continuous", "ve/AAPM_256_ncsnpp_continuous"), (0.01, 378, 2000)),
        (("ve/church_ncsnpp_continuous",), (0.01, 380, 2000)),
        (("ve/celebahq_256_ncsnpp_continuous", "ve/ffhq_256_ncsnpp_continuous"), (0.01, 348, 2000)),
        (("ve/ffhq_1024_ncsnpp_continuous",), (0.01, 1348, 2000)),
    ],
)
def test_published_noise_levels(names, levels):
    """Those of the configuration files of score_sde_pytorch and, for AAPM_256, MCG_diffusion."""
    for name in names:
        keys = ("model.sigma_min", "model.sigma_max", "model.num_scales")
        assert tuple(PUBLISHED[name][key] for key in keys) == levels


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
