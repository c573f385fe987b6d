"""Measurement models: normalised, simulated right, and strict about their input."""

import math

import pytest
import torch
from scipy import stats

import forward_models as fm


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


MASK = torch.tensor([True, False, True])


@pytest.mark.parametrize("sigma", [0.3, torch.tensor([0.1, 0.5, 2.0])])
def test_log_likelihood_equals_scipy(sigma):
    A = fm.MatrixOperator(normal(3, 4))
    model = fm.LinearGaussian(A, sigma)
    x, y = normal(5, 4, seed=1), normal(5, 3, seed=2)
    scale = torch.as_tensor(sigma).expand(3).numpy().astype("float64")
    expected = stats.norm.logpdf(y.numpy(), A(x).numpy(), scale).sum(1)
    torch.testing.assert_close(
        model.log_likelihood(y, x), torch.from_numpy(expected), rtol=1e-6, atol=1e-6
    )


def test_density_integrates_to_one_over_measured_entries():
    model = fm.LinearGaussian(fm.Inpainting(MASK), 0.4)
    grid = torch.linspace(-4, 4, 201, dtype=torch.float64)
    y = torch.zeros(201, 201, 3, dtype=torch.float64)
    y[..., 0], y[..., 2] = grid[:, None], grid[None, :]
    density = model.log_likelihood(y.reshape(-1, 3), torch.zeros(201**2, 3).double()).exp()
    assert float(density.sum() * (grid[1] - grid[0]) ** 2) == pytest.approx(1, abs=1e-6)


def test_unmeasured_entries_are_no_data():
    model = fm.LinearGaussian(fm.Inpainting(MASK), 0.4)
    x, y = normal(2, 3), normal(2, 3, seed=1)
    other = y.clone()
    other[:, 1] += 7
    assert torch.equal(model.log_likelihood(y, x), model.log_likelihood(other, x))
    assert torch.equal(model.residual(other, x)[:, 1], torch.zeros(2, dtype=torch.float64))
    assert model.count(y) == 2
    assert torch.equal(model.simulate(x, rng())[:, 1], torch.zeros(2, dtype=torch.float64))


def test_channel_free_mask_counts_every_channel():
    A = fm.Inpainting(fm.random_mask((4, 4), 0.5, rng()))
    model = fm.LinearGaussian(A, torch.full((3, 4, 4), 0.2))
    x = normal(2, 3, 4, 4)
    y = model.simulate(x, rng(1))
    assert model.count(y) == 24
    same = fm.LinearGaussian(A, 0.2)
    torch.testing.assert_close(
        model.log_likelihood(y, x), same.log_likelihood(y, x), rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("sigma", [0.3, torch.tensor([0.1, 0.5, 2.0])])
def test_simulated_moments(sigma):
    A = fm.MatrixOperator(normal(3, 4))
    model = fm.LinearGaussian(A, sigma)
    n = 100_000
    x = normal(1, 4, seed=3)
    y = model.simulate(x.expand(n, 4), rng(5))
    scale = torch.as_tensor(sigma).double().expand(3)
    z = (y - A(x)) / scale
    assert float(z.mean(0).abs().max()) < 5 / math.sqrt(n)
    assert float((z.var(0) - 1).abs().max()) < 5 * math.sqrt(2 / n)
    assert torch.equal(y, model.simulate(x.expand(n, 4), rng(5)))


def test_expected_log_likelihood_is_the_entropy():
    model = fm.LinearGaussian(fm.Identity((2,)), 0.7)
    x = normal(1, 2).expand(50_000, 2)
    values = model.log_likelihood(model.simulate(x, rng(2)), x)
    entropy = -2 * 0.5 * math.log(2 * math.pi * math.e * 0.49)
    assert abs(float(values.mean()) - entropy) < 5 * float(values.std()) / math.sqrt(50_000)


def test_complex_noise_has_sigma_in_each_part():
    model = fm.LinearGaussian(fm.Identity((1, 4, 4)), 0.5)
    x = torch.zeros(5000, 1, 4, 4, dtype=torch.complex128)
    y = model.simulate(x, rng())
    n = y.numel()
    for part in (y.real, y.imag):
        assert abs(float(part.var()) / 0.25 - 1) < 5 * math.sqrt(2 / n)
    assert model.count(y) == 32
    expected = stats.norm.logpdf(torch.view_as_real(y[:2]).numpy(), 0, 0.5).sum((1, 2, 3, 4))
    torch.testing.assert_close(model.log_likelihood(y[:2], x[:2]), torch.from_numpy(expected))


def test_gradient_is_the_scaled_backprojected_residual():
    A = fm.Blur(fm.gaussian_kernel(1.0), "reflect")
    model = fm.LinearGaussian(A, 0.2)
    x, y = normal(2, 1, 6, 5).requires_grad_(), normal(1, 1, 6, 5, seed=1)
    (gradient,) = torch.autograd.grad(model.log_likelihood(y, x).sum(), x)
    torch.testing.assert_close(gradient, A.adjoint(model.residual(y, x.detach())) / 0.04)


def test_global_randomness_is_untouched():
    before = torch.random.get_rng_state()
    fm.LinearGaussian(fm.Identity(), 1.0).simulate(normal(2, 3), rng())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, torch.tensor([1.0, 0.0, 1.0])])
def test_impossible_sigma(sigma):
    with pytest.raises(ValueError, match="sigma"):
        fm.LinearGaussian(fm.Identity((3,)), sigma)


def test_refusals():
    with pytest.raises(ValueError, match="small sigma"):
        fm.LinearGaussian(fm.Identity(), 0)
    with pytest.raises(ValueError, match=r"expected one number or the shape"):
        fm.LinearGaussian(fm.Identity((3,)), torch.ones(4))
    with pytest.raises(TypeError, match="number"):
        fm.LinearGaussian(fm.Identity(), "0.1")
    with pytest.raises(TypeError, match="MatrixOperator"):
        fm.LinearGaussian(torch.eye(3), 0.1)
    model = fm.LinearGaussian(fm.MatrixOperator(normal(3, 4)), 0.1)
    x = normal(2, 4)
    with pytest.raises(ValueError, match="y has shape"):
        model.log_likelihood(normal(3, 3), x)
    with pytest.raises(TypeError, match="float32"):
        model.log_likelihood(normal(2, 3).float(), x)
    with pytest.raises(TypeError, match="int64"):
        model.check_measurement(torch.zeros(3, dtype=torch.int64))


def test_check_measurement():
    model = fm.LinearGaussian(fm.MatrixOperator(normal(3, 4)), 0.1)
    for y in (normal(3), normal(1, 3), normal(2, 3)):
        checked = model.check_measurement(y)
        assert checked.shape == (y.numel() // 3, 3)
    with pytest.raises(ValueError, match=r"2 non-finite entries of 3, the first at index \(0, 1\)"):
        model.check_measurement(torch.tensor([0.0, math.nan, math.inf]))
    with pytest.raises(ValueError, match=r"expected \(3,\)"):
        model.check_measurement(normal(4))
    with pytest.raises(ValueError, match="empty"):
        model.check_measurement(normal(0, 3))
    blur = fm.LinearGaussian(fm.Blur(fm.gaussian_kernel(1.0)), 0.1)
    assert blur.check_measurement(normal(3, 5, 6)).shape == (1, 3, 5, 6)
    with pytest.raises(ValueError, match="3 axes"):
        blur.check_measurement(normal(5, 6))
