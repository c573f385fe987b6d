"""Analytic priors saved and loaded: the same prior, and nothing that does not fit."""

from __future__ import annotations

import json

import pytest
import torch
from prior_cases import GAUSSIANS, MIXTURES, normal, spd

from priors import Empirical, Gaussian, Mixture, load, save_analytic

ANALYTIC = GAUSSIANS | MIXTURES


@pytest.mark.parametrize("make", ANALYTIC.values(), ids=ANALYTIC.keys())
def test_what_is_saved_is_loaded(make, tmp_path):
    prior = make()
    prior.data_range = (-1.0, 2.0)
    save_analytic(prior, tmp_path)
    found = load(tmp_path)
    assert type(found) is type(prior)
    x = prior.sample(3, torch.Generator().manual_seed(0)).double()
    for sigma in (0.0, 0.7):
        expected = prior.log_density(x, sigma)
        torch.testing.assert_close(found.log_density(x, sigma), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.denoise(x, 0.7), prior.denoise(x, 0.7), rtol=1e-9, atol=1e-9)
    for name in ("event_shape", "data_range", "sigma_range", "dtype"):
        assert getattr(found, name) == getattr(prior, name)


def test_a_shared_covariance_is_kept_once(tmp_path):
    save_analytic(Mixture(normal(9, 4), spd(4), torch.ones(9) / 9), tmp_path)
    found = load(tmp_path)
    assert all(C is found.C[0] for C in found.C)
    assert json.loads((tmp_path / "analytic.json").read_text())["covariances"] == [0] * 9


def test_refusals(tmp_path):
    with pytest.raises(TypeError, match="Gaussian or a Mixture, got Empirical"):
        save_analytic(Empirical(normal(3, 2)), tmp_path)
    save_analytic(Gaussian(normal(4), spd(4)), tmp_path)
    index, tensors = tmp_path / "analytic.json", tmp_path / "analytic.safetensors"
    good, weights = json.loads(index.read_text()), tensors.read_bytes()
    with pytest.raises(ValueError, match="states its own shape"):
        load(tmp_path, event_shape=(4,))
    with pytest.raises(ValueError, match="declare"):
        load(tmp_path, max_parameters=3)
    tensors.write_bytes(weights[:-1] + b"\x01")
    with pytest.raises(ValueError, match="SHA-256 differs"):
        load(tmp_path)
    tensors.write_bytes(weights)
    changes = [
        ({"format": 2}, "must say format 1"),
        ({"kinds": ["os.system"]}, "must say format 1"),
        ({"kinds": [[]]}, "must say format 1"),
        ({"covariances": [1]}, "which of 1 covariances"),
        ({"covariances": None}, "which of 1 covariances"),
        ({"kinds": ["Kronecker"]}, "do not fit"),
        ({"sigma_range": [1.0, 0.1]}, "low < high"),
        ({"dtype": "object"}, "do not fit"),
    ]
    for change, message in changes:
        index.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=message):
            load(tmp_path)
    index.write_text(json.dumps(good | {"kinds": ["Dense", "Dense"], "covariances": [0]}))
    with pytest.raises(ValueError, match="do not fit"):
        load(tmp_path)
