"""Noise models against independent densities, in hard places, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from noise_cases import CASES, DOUBLE, Case, N, expectations, interval
from operator_cases import normal, rng
from scipy import stats

import forward_models as fm

# ---- against independent densities ---------------------------------------------------------


def test_densities_equal_scipy_and_torch():
    z = torch.tensor([[0.3, 1.0, 7.0, 90.0]], dtype=DOUBLE)
    counts = torch.tensor([[0.0, 3.0, 9.0, 70.0]], dtype=DOUBLE)
    y = torch.tensor([[0.2, 1.4, 6.0, 95.0]], dtype=DOUBLE)

    def equal(value, expected):
        torch.testing.assert_close(value, torch.as_tensor(expected).reshape(1, -1).sum(1))

    n, r = counts.numpy(), z.numpy()
    equal(fm.Poisson(0.1, 0.5).log_prob(0.1 * counts, z), stats.poisson.logpmf(n, (r + 0.5) / 0.1))
    rate = 40 * torch.exp(-z / 10).numpy() + 2
    equal(fm.Transmission(40.0, 2.0).log_prob(counts, z / 10), stats.poisson.logpmf(n, rate))
    expected = stats.rice.logpdf(y.numpy(), r / 0.8, scale=0.8)
    equal(fm.Rician(0.8).log_prob(y, z), expected)
    equal(fm.Rician(0.8).log_prob(y, -z), expected)
    turned = z * torch.exp(torch.tensor(0.7j, dtype=torch.complex128))
    equal(fm.Rician(0.8).log_prob(y, turned), expected)
    distributions = torch.distributions
    equal(fm.Laplace(0.4).log_prob(y, z), distributions.Laplace(z, 0.4).log_prob(y))
    equal(fm.LogNormal(0.4).log_prob(y, z), distributions.LogNormal(z.log(), 0.4).log_prob(y))
    equal(fm.GammaSpeckle(4.5).log_prob(y, z), distributions.Gamma(4.5, 4.5 / z).log_prob(y))
    equal(fm.Gaussian(0.4).log_prob(y, z), distributions.Normal(z, 0.4).log_prob(y))


@pytest.mark.parametrize("rate", [1e2, 1e5, 1e7])
def test_large_counts_in_single_precision(rate):
    noise = fm.Poisson()
    z = torch.full((1, 200), rate)
    y = noise.sample(z, rng())
    values = noise._log_prob(y, z).double()
    expected = stats.poisson.logpmf(y.double().numpy(), rate)
    torch.testing.assert_close(values, torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_thick_objects_underflow_to_a_finite_density():
    noise = fm.Transmission(1e4)
    z = torch.tensor([[120.0]]).requires_grad_()
    value = noise.log_prob(torch.tensor([[5.0]]), z)
    expected = 5 * (math.log(1e4) - 120) - math.lgamma(6)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert float(gradient) == pytest.approx(-5, rel=1e-5)


def test_parameters_for_each_entry():
    scale = torch.tensor([[0.1, 0.5, 2.0]])
    z, counts = torch.rand(4, 1, 3, generator=rng()).double() + 1, torch.ones(4, 1, 3).double()
    for make, y in (
        (fm.Laplace, counts), (fm.LogNormal, counts), (fm.Gaussian, counts), (fm.Rician, counts),
        (lambda s: fm.GammaSpeckle(1 + s), counts), (fm.Poisson, counts * scale),
        (lambda s: fm.Poisson(1.0, s), counts), (fm.Transmission, counts),
    ):  # fmt: skip
        together = make(scale).log_prob(y, z)
        alone = [make(float(s)).log_prob(y[..., i], z[..., i]) for i, s in enumerate(scale[0])]
        torch.testing.assert_close(together, torch.stack(alone).sum(0), rtol=1e-6, atol=1e-6)
        with pytest.raises(ValueError, match="has shape"):
            make(torch.ones(3)).log_prob(y, z)


# ---- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        fm.Poisson, fm.Transmission, fm.Rician, fm.Laplace, fm.LogNormal, fm.GammaSpeckle,
        lambda v: fm.Poisson(floor=v), lambda v: fm.LogNormal(0.1, floor=v),
    ],
)  # fmt: skip
def test_impossible_parameters(make):
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"must be positive|at least 1|must be"):
            make(value)
    for value in ("1", True, None, torch.tensor(1)):
        with pytest.raises(TypeError):
            make(value)


def test_numbers_of_numpy_are_numbers():
    z, y = torch.full((1, 3), 2.0, dtype=DOUBLE), torch.full((1, 3), 4.0, dtype=DOUBLE)
    for make in (
        fm.Gaussian, fm.Poisson, fm.Transmission, fm.Rician, fm.Laplace, fm.LogNormal,
        fm.GammaSpeckle, lambda v: fm.PoissonGaussian(v, v), lambda v: fm.Saturated(v, -v, 4 * v),
        lambda v: fm.HeteroscedasticGaussian(v, v), lambda v: fm.Quantised(v, v),
        lambda v: fm.Transmission(10.0, floor=-v), lambda v: fm.LogNormal(0.5, floor=v),
    ):  # fmt: skip
        expected = make(2.0).log_prob(y, z)
        for number in (np.float32(2), np.int64(2), np.float64(2)):
            assert torch.equal(make(number).log_prob(y, z), expected)
        for bad in (np.ones(3), 2 + 0j):
            with pytest.raises(TypeError, match="number"):
                make(bad)
    with pytest.raises(TypeError, match="number"):
        fm.Gaussian(np.bool_(True))
    assert fm.Categorical(np.int64(3)).classes == 3
    assert type(fm.LinearGaussian(fm.Identity(), np.float32(0.5)).sigma) is float
    assert type(fm.Affine(np.float32(0.5), np.int64(2)).shift) is float


@pytest.mark.parametrize(
    ("noise", "y"),
    [
        (fm.Poisson(), -1.0), (fm.Poisson(), 0.5), (fm.Poisson(0.1), 0.25),
        (fm.Transmission(10.0), 1.5), (fm.Rician(1.0), 0.0), (fm.LogNormal(1.0), -2.0),
        (fm.GammaSpeckle(2), 0.0),
    ],
)  # fmt: skip
def test_impossible_recordings(noise, y):
    model = fm.Observation(fm.Identity(), noise)
    value = torch.ones(2, 1, 3, 3)
    value[1, 0, 2, 1] = y
    with pytest.raises(
        ValueError, match=r"1 impossible entries of 18, the first at.*\(1, 0, 2, 1\)"
    ):
        model.check_measurement(value)


@pytest.mark.parametrize(
    ("noise", "z"),
    [
        (fm.Poisson(), -0.1), (fm.Poisson(1.0, 2.0), -2.1), (fm.Transmission(9.0), -1.5),
        (fm.LogNormal(1.0), 0.0), (fm.GammaSpeckle(2), -1.0),
    ],
)  # fmt: skip
def test_impossible_clean_values(noise, z):
    model = fm.Observation(fm.Identity(), noise)
    x = torch.ones(2, 1, 3, 3)
    x[1, 0, 2, 1] = z
    with pytest.raises(
        ValueError, match=r"1 impossible entries of 18, the first at.*\(1, 0, 2, 1\)"
    ):
        model.simulate(x)
    assert bool(torch.isfinite(model.log_likelihood(torch.ones(1, 1, 3, 3), x)).all())


def test_counts_may_be_rounded_as_floats_are():
    gain = 1 / 37
    counts = torch.arange(5000.0)
    for dtype in (torch.float32, DOUBLE):
        fm.Poisson(gain).check_recorded((counts.to(dtype) * gain)[None])
        fm.Poisson(gain).check_recorded((counts.to(dtype) / 37)[None])


@pytest.mark.parametrize("gain", [1 / 255, 0.1, torch.tensor(0.1), 1.0, 0.125])
def test_recordings_in_single_precision_stay_recordings_in_double(gain):
    noise, rounded = fm.Poisson(gain), fm.Poisson(torch.as_tensor(gain, dtype=torch.float32))
    for counts in (0.5, 40.0, 1e4, 1e6, 1e7):
        z = torch.full((1, 1000), counts) * gain
        for y in (
            noise.sample(z, rng()),
            rounded.sample(z, rng()),
            noise.sample(z.double(), rng()),
        ):
            for recorded in (y, y.float(), y.double()):
                noise.check_recorded(recorded)
                rounded.check_recorded(recorded)
    noise.check_recorded(torch.tensor([[0.1, 0.5, 0.7]], dtype=DOUBLE) * gain / 0.1)
    levels = fm.Quantised(0.1, 0.05)
    y = levels.sample(torch.linspace(-3e4, 3e4, 2000)[None], rng())
    levels.check_recorded(y)
    levels.check_recorded(y.double())


def test_fractions_of_a_count_are_refused_up_to_many_counts():
    for gain, most in ((1 / 255, 1e6), (0.1, 1e6), (1.0, 1e8), (0.125, 1e8)):
        for dtype, limit in ((DOUBLE, most), (torch.float32, min(most, 1e6))):
            counts = torch.logspace(0, math.log10(limit), 40, dtype=DOUBLE).floor()
            for fraction in (0.5, -0.4):
                y = ((counts + fraction) * gain).to(dtype)
                with pytest.raises(ValueError, match="40 impossible entries of 40"):
                    fm.Poisson(gain).check_recorded(y[None])


# ---- sums over counts, levels and classes -------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "sigma", "z"),
    [
        (1.0, 0.05, 3.0), (1.0, 1.0, 0.2), (0.1, 0.3, 4.0), (1.0, 11.0, 60.0), (1.0, 13.0, 50.0),
        (1.0, 15.0, 130.0), (1.0, 40.0, 2.0), (1.0, 100.0, 3000.0), (2.0, 9.0, 500.0),
        (1.0, 5.2, 29.6), (1.0, 1e3, 14.1), (1.0, 3.8, 1e4), (1.0, 200.0, 33.0), (1.0, 7.0, 1e-3),
    ],
)  # fmt: skip
def test_poisson_gaussian_equals_the_whole_sum(gain, sigma, z):
    noise = fm.PoissonGaussian(gain, sigma)
    spread = math.sqrt(gain * z + sigma**2)
    y = torch.linspace(z - 6 * spread, z + 6 * spread, 41, dtype=DOUBLE)[:, None]
    n = torch.arange(0, int(z / gain + 40 * spread / gain + 100), dtype=DOUBLE)
    terms = stats.poisson.logpmf(n.numpy(), z / gain)
    terms = terms + stats.norm.logpdf(y.numpy(), gain * n.numpy(), sigma)
    expected = torch.from_numpy(terms).logsumexp(1)
    values = noise.log_prob(y, torch.full_like(y, z))
    torch.testing.assert_close(values, expected, rtol=1e-11, atol=1e-11)


def test_poisson_gaussian_with_parameters_for_each_entry():
    """Chunks of entries, each entry with a window of its own."""
    sigma = torch.logspace(-1.5, 1.5, 1100, dtype=DOUBLE).reshape(2, 550)
    z = 50 * torch.rand(3, 2, 550, generator=rng()).double()
    noise = fm.PoissonGaussian(1.0, sigma)
    y = noise.sample(z[:1], rng(1))
    together, score = noise._log_prob(y, z), noise.score(y, z)
    assert together.shape == z.shape
    for i in (0, 200, 549):
        alone = fm.PoissonGaussian(1.0, sigma[:, i])
        torch.testing.assert_close(alone._log_prob(y[..., i], z[..., i]), together[..., i])
        torch.testing.assert_close(alone.score(y[..., i], z[..., i]), score[..., i])


def test_poisson_gaussian_information_lies_between_its_bounds():
    noise, grid = fm.PoissonGaussian(0.5, 0.2), interval(-2, 26)
    for z in (0.05, 1.0, 6.0):
        case = Case(lambda: noise, (z,), lambda _: grid)
        square = expectations(case, z)[2][4]
        assert 1 / (0.5 * z + 0.04) < square < 1 / (0.5 * z)
    # Both bounds meet where counts are many.
    many = Case(lambda: fm.PoissonGaussian(1.0, 20.0), (300.0,), lambda _: interval(-200, 800))
    noise, z, (*_, square) = expectations(many, 300.0)
    assert float(noise.information(z)) == pytest.approx(square, rel=0.01)


def test_quantised_and_saturated_equal_scipy():
    z = torch.tensor([[0.3, -1.2, 2.0, 0.5]], dtype=DOUBLE)
    y = torch.tensor([[0.5, -1.0, 0.5, 0.5]], dtype=DOUBLE)
    for step, sigma in ((0.5, 0.2), (0.5, 3.0), (0.1, 0.2), (0.5, 0.01)):
        upper, lower = (((y + s * step / 2 - z) / sigma).numpy() for s in (1, -1))
        expected = torch.from_numpy(stats.norm.logcdf(upper) + 0.0)
        expected = expected + torch.log1p(-torch.from_numpy(
            stats.norm.logcdf(lower) - stats.norm.logcdf(upper)).exp())  # fmt: skip
        usable = expected > -300
        values = fm.Quantised(step, sigma)._log_prob(y, z)
        torch.testing.assert_close(values[usable], expected[usable], rtol=1e-8, atol=1e-8)
    noise = fm.Saturated(0.4, -1.0, 0.5)
    y = torch.tensor([[-1.0, 0.5, 0.2, -0.3]], dtype=DOUBLE)
    expected = [
        stats.norm.logcdf(-1.0, 0.3, 0.4), stats.norm.logsf(0.5, -1.2, 0.4),
        stats.norm.logpdf(0.2, 2.0, 0.4), stats.norm.logpdf(-0.3, 0.5, 0.4),
    ]  # fmt: skip
    torch.testing.assert_close(noise._log_prob(y, z)[0], torch.tensor(expected, dtype=DOUBLE))
    kept = torch.tensor([[-1.0, 0.5, 0.2, -0.3]]).double()
    assert torch.equal(noise.check_recorded(kept), kept)
    rounded = torch.tensor([[0.1, 1.3]]).double()
    edges = fm.Saturated(0.4, 0.1, 1.3)
    exact = torch.tensor([[0.1, 1.3]], dtype=DOUBLE)
    same = edges._log_prob(edges.check_recorded(rounded), exact)
    torch.testing.assert_close(same, edges._log_prob(exact, exact))


@pytest.mark.parametrize("name", ["quantised", "quantised-fine", "saturated", "saturated-above"])
def test_own_curvature_where_log_p_is_concave(name):
    noise = CASES[name].make()
    z = torch.linspace(-2, 3, 23, dtype=DOUBLE)[None].expand(3, -1)
    y = noise.sample(torch.tensor([[0.2], [0.9], [1.6]], dtype=DOUBLE).expand(3, 23), rng())
    leaf = z.clone().requires_grad_()
    (second,) = torch.autograd.grad(noise.score(y, leaf).sum(), leaf)
    torch.testing.assert_close(noise.curvature(y, z), -second, rtol=1e-5, atol=1e-5)


def test_far_tails_in_single_precision():
    """A denoised image may be hundreds of sigma from y: values and slopes stay right."""
    z = torch.tensor([[-40.0, -3.0, 0.3, 40.0]])
    y = torch.zeros(1, 4)
    quantised = [fm.Quantised(step, 0.1) for step in (0.5, 0.02, 1e-6)]
    for noise in (*quantised, fm.Saturated(0.1, 0.0, 1.0)):
        values, score = noise._log_prob(y, z).double(), noise.score(y, z).double()
        exact = noise._log_prob(y.double(), z.double()), noise.score(y.double(), z.double())
        torch.testing.assert_close(values, exact[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(score, exact[1], rtol=1e-4, atol=1e-4)
        assert bool(torch.isfinite(score).all())
        leaf = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(noise.log_prob(y, leaf).sum(), leaf)
        torch.testing.assert_close(gradient.double(), exact[1], rtol=1e-3, atol=1e-4)


def test_categorical():
    noise = fm.Categorical(4)
    z = normal(2, 4, 3, 1)
    every = torch.stack([torch.full((2, 3, 1), k) for k in range(4)])
    single = torch.stack([
        noise.log_prob(k[:, i : i + 1], z[:, :, i : i + 1]) for k in every for i in range(3)
    ]).reshape(4, 3, 2)  # fmt: skip
    torch.testing.assert_close(single.exp().sum(0), torch.ones(3, 2, dtype=DOUBLE))
    expected = torch.distributions.Categorical(logits=z.movedim(1, -1))
    y = every[2]
    torch.testing.assert_close(noise.log_prob(y, z), expected.log_prob(y).sum((1, 2)))
    torch.testing.assert_close(noise.log_prob(y[:1], z), expected.log_prob(y).sum((1, 2)))
    draws = noise.sample(z[:1].expand(N, 4, 3, 1), rng())
    assert draws.dtype == torch.int64
    for k in range(4):
        p = z[:1].softmax(1)[0, k]
        frequency = (draws == k).double().mean(0)
        assert bool(((frequency - p).abs() < 5 * (p * (1 - p) / N).sqrt()).all())
    error = draws.double().mean(0) - noise.mean(z[:1])[0]
    assert bool((error.abs() < 5 * (noise.variance(z[:1])[0] / N).sqrt()).all())
    model = fm.Observation(fm.Identity((4, 3, 1)), noise)
    assert model.measurement_shape == (3, 1)
    assert fm.Observation(fm.Blur(torch.ones(1, 1)), noise).measurement_ndim == 2
    with pytest.raises(
        ValueError, match=r"1 impossible entries of 6, the first .*\(1, 2, 0\).*0 to 3"
    ):
        model.check_measurement(torch.tensor([0, 1, 2, 3, 0, 4]).reshape(2, 3, 1))
    with pytest.raises(TypeError, match="int64"):
        model.check_measurement(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="4 classes"):
        fm.Observation(fm.Identity((3, 3, 1)), noise)
    with pytest.raises(ValueError, match="whole measurements"):
        fm.Observation(fm.Inpainting(torch.eye(3), channels=4), noise)
    for bad in (1, 2.0, True):
        with pytest.raises(ValueError, match="classes"):
            fm.Categorical(bad)
