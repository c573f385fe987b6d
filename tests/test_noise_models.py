"""Every noise model: normalised, with the stated moments, score, information and draws."""

from __future__ import annotations

import math

import pytest
import torch
from noise_cases import CASES, DOUBLE, N, expectations
from operator_cases import normal, rng

import forward_models as fm

CONTINUED = [name for name in CASES if hasattr(CASES[name].make(), "_floor")]


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


def test_normalised_with_the_stated_moments_and_information(case):
    for value in case.z:
        noise, z, (one, mean, variance, score, square) = expectations(case, value)
        assert one == pytest.approx(1, abs=1e-9)
        assert float(noise.mean(z)) == pytest.approx(mean, rel=1e-8, abs=1e-8)
        assert float(noise.variance(z)) == pytest.approx(variance, rel=1e-7, abs=1e-9)
        assert score == pytest.approx(0, abs=1e-8 * (1 + square))
        stated = float(noise.information(z))
        if case.bound:
            assert stated <= square * (1 + 1e-9)
        else:
            assert stated == pytest.approx(square, rel=1e-6, abs=1e-9)


def test_draws_have_the_stated_moments(case):
    noise = case.make()
    z = torch.tensor(case.z, dtype=DOUBLE).expand(N, -1)
    y = noise.sample(z, rng(3))
    assert y.dtype == DOUBLE
    noise.check_recorded(y)
    mean, variance = noise.mean(z[:1])[0], noise.variance(z[:1])[0]
    assert bool(((y.mean(0) - mean).abs() <= 5 * (variance / N).sqrt()).all())
    spread = (y - mean).square()
    assert bool(((spread.mean(0) - variance).abs() <= 5 * spread.std(0) / math.sqrt(N)).all())
    assert torch.equal(y, noise.sample(z, rng(3)))


def test_score_is_the_gradient(case):
    noise = case.make()
    z = torch.tensor(case.z, dtype=DOUBLE)[None]
    y = noise.sample(z.expand(5, -1), rng(1))
    z = z.expand_as(y).clone()
    if hasattr(noise, "_floor"):
        z[0] = z.min() - 5.0
    leaf = z.clone().requires_grad_()
    total = noise.log_prob(y, leaf).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    torch.testing.assert_close(noise.score(y, z), gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(noise.score(y, leaf), gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        fm.IndependentNoise.score(noise, y, z), gradient, rtol=1e-9, atol=1e-9
    )
    assert torch.autograd.gradcheck(lambda v: noise.log_prob(y, v), leaf, atol=1e-4, rtol=1e-4)


def test_gaussian_has_the_exact_slope(case):
    noise = case.make()
    z = torch.tensor(case.z, dtype=DOUBLE).expand(4, -1)
    y = noise.sample(z, rng(2))
    for shift in (0.0, -3.0, 3.0):
        mean, variance = noise.gaussian(y, z + shift)
        known = variance.isfinite()
        assert bool((variance > 0).all())
        slope = torch.where(known, (mean - z - shift) / variance, 0)
        expected = torch.where(known, noise.score(y, z + shift), 0)
        torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-8)
    measured = torch.arange(len(case.z)) > 0
    mean, variance = noise.gaussian(y, z, measured)
    assert bool(torch.isinf(variance[:, 0]).all())
    assert torch.equal(mean[:, 0], z[:, 0])
    torch.testing.assert_close(mean[:, 1:], noise.gaussian(y, z)[0][:, 1:])


def test_entries_left_out_have_no_influence(case):
    noise = case.make()
    z = torch.tensor(case.z, dtype=DOUBLE).expand(3, -1)
    y = noise.sample(z, rng(2))
    measured = torch.arange(len(case.z)) > 0
    bad = y.clone()
    bad[:, 0] = math.nan
    leaf = torch.where(measured, z, -7.0).requires_grad_()
    values = noise.log_prob(bad, leaf, measured)
    torch.testing.assert_close(values, noise.log_prob(y[:, 1:], z[:, 1:]))
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    assert bool((gradient[:, 0] == 0).all())
    torch.testing.assert_close(gradient[:, 1:], noise.score(y, z)[:, 1:])


def test_single_precision(case):
    noise = case.make()
    z = torch.tensor(case.z).expand(50, -1)
    y = noise.sample(z, rng(4))
    assert y.dtype == torch.float32
    noise.check_recorded(y)
    exact = noise.log_prob(y.double(), z.double())
    torch.testing.assert_close(noise.log_prob(y, z).double(), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        noise.score(y, z).double(), noise.score(y.double(), z.double()), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("name", CONTINUED)
def test_continuation_is_finite_concave_and_pushes_back(name):
    case = CASES[name]
    noise = case.make()
    floor = float(noise._floor(torch.zeros(1, 1, dtype=DOUBLE)))
    y = noise.sample(torch.tensor(case.z, dtype=DOUBLE)[None], rng(5))[:, :1].expand(400, 1)
    far = floor - torch.logspace(-6, 3, 400, dtype=DOUBLE)[:, None]
    values, scores = noise.log_prob(y, far), noise.score(y, far)
    assert bool(torch.isfinite(values).all())
    assert bool((scores.diff(dim=0) > 0).all())
    assert float(scores[-1]) > 0
    edge = torch.full((1, 1), floor, dtype=DOUBLE)
    below, above = (noise.score(y[:1], edge + h) for h in (-1e-12, 1e-12))
    torch.testing.assert_close(below, above, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        noise.log_prob(y[:1], edge - 1e-12), noise.log_prob(y[:1], edge + 1e-12)
    )


@pytest.mark.parametrize("name", list(CASES))
def test_functional_transforms(name):
    noise = CASES[name].make()
    z = torch.tensor(CASES[name].z, dtype=DOUBLE)[None].repeat(3, 1)
    y, v = noise.sample(z, rng(1)), normal(*z.shape)
    score = noise.score(y, z)
    _, slope = torch.func.jvp(lambda t: noise.log_prob(y, t), (z,), (v,))
    torch.testing.assert_close(slope, (score * v).sum(1))
    pull = torch.func.vjp(lambda t: noise.log_prob(y, t), z)[1]
    torch.testing.assert_close(pull(torch.ones(3, dtype=DOUBLE))[0], score)
    each = torch.func.vmap(lambda a, b: noise.log_prob(a[None], b[None])[0])(y, z)
    torch.testing.assert_close(each, noise.log_prob(y, z))
