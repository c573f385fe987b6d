"""Analytic priors saved and loaded: the same prior, and nothing that does not fit."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from prior_cases import GAUSSIANS, MIXTURES, normal, spd
from safetensors.torch import save_file

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
        ({"dtype": "object"}, "dtype must be among float32, float64, got 'object'"),
        ({"dtype": [1]}, r"got \[1\]"),
        ({"covariances": [0, 0]}, "a Gaussian has one covariance, got 2"),
    ]
    for change, message in changes:
        index.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=message):
            load(tmp_path)
    index.write_text(json.dumps(good | {"kinds": ["Dense", "Dense"], "covariances": [0]}))
    with pytest.raises(ValueError, match="and use all"):
        load(tmp_path)


def low_rank(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    good = {"basis": torch.eye(4)[:, :2], "variances": torch.ones(2), "variance": torch.ones(1)}
    return good | changes


GAUSSIAN = torch.zeros(1, 4)
UNFIT = {
    "means of no axis": (torch.tensor(1.0), "LowRank", low_rank(), r"means must .*got \(\)"),
    "no means": (torch.zeros(0, 4), "LowRank", low_rank(), r"got \(0, 4\)"),
    "means of no values": (torch.zeros(1, 0), "LowRank", low_rank(), r"got \(1, 0\)"),
    "two means": (torch.zeros(2, 4), "LowRank", low_rank(), r"names 1 components, got \(2, 4\)"),
    "whole numbers": (GAUSSIAN.long(), "LowRank", low_rank(), "floating tensor, got torch.int64"),
    "skewed": (GAUSSIAN, "LowRank", low_rank(basis=torch.ones(4, 2)), "orthonormal; .* off by 4"),
    "negative": (GAUSSIAN, "LowRank", low_rank(variance=-torch.ones(1)), ">= 0, got -1"),
    "negative along": (GAUSSIAN, "LowRank", low_rank(variances=-torch.ones(2)), ">= 0, got -1"),
    "three along two": (GAUSSIAN, "LowRank", low_rank(variances=torch.ones(3)), r"needs .*\(2,\)"),
    "other size": (GAUSSIAN, "LowRank", low_rank(basis=torch.eye(5)[:, :2]), r"basis \(4, 2\)"),
    "part missing": (GAUSSIAN, "LowRank", {"basis": torch.eye(4)}, "got basis"),
    "part too many": (GAUSSIAN, "Dense", {"matrix": torch.eye(4), "x": torch.ones(1)}, ", x"),
    "matrix": (GAUSSIAN, "Dense", {"matrix": torch.eye(3)}, r"matrix \(4, 4\); got .*\(3, 3\)"),
    "diagonal": (GAUSSIAN, "Diagonal", {"variance": torch.ones(1)}, r"variance \(4,\)"),
    "spectrum": (GAUSSIAN, "Circulant", {"spectrum": torch.ones(3, 3)}, r"got spectrum \(3, 3\)"),
    "factor": (
        GAUSSIAN,
        "FactorAnalysis",
        {"factor": torch.ones(2, 2), "diagonal": torch.ones(4)},
        r"factor \(4, 2\)",
    ),
    "large product": (
        GAUSSIAN,
        "Kronecker",
        {f"factor{i}": torch.eye(300) for i in range(5)} | {"variance": torch.tensor(0.0)},
        r"needs factor0 \(4, 4\), variance \(\); got factor0 \(300, 300\)",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_tensors_that_do_not_fit(case, tmp_path):
    means, kind, parts, message = UNFIT[case]
    save_analytic(Gaussian(normal(4), spd(4)), tmp_path)
    path = tmp_path / "analytic.safetensors"
    tensors = {"means": means} | {f"covariance.0.{k}": v for k, v in parts.items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    index = tmp_path / "analytic.json"
    facts = json.loads(index.read_text()) | {"kinds": [kind]}
    facts["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    index.write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
