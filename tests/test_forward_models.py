"""The contract of measurement models p(y | x0) and p_sigma(y | x), run over one list of each."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from forward_model_cases import FORWARD_MODELS, TIME_DEPENDENT
from operator_cases import normal, rng
from torch import Tensor

LEVELS = (0.05, 0.7, 20.0)
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(params=list(FORWARD_MODELS))
def case(request):
    return FORWARD_MODELS[request.param]


@pytest.fixture(params=list(TIME_DEPENDENT))
def timed(request):
    return TIME_DEPENDENT[request.param]


def setting(case, batch=3):
    """A model, images, and a measurement of each; of a time-dependent case the given one."""
    model, x = case.make(), case.x(batch)
    y = case.y(batch) if hasattr(case, "y") else model.simulate(x, rng(1))
    return model, x, y


def continuous(y: Tensor) -> bool:
    return y.is_floating_point() or y.is_complex()


def single(model, x, y):
    """The same in single precision."""
    if hasattr(model, "network"):
        model.network.float()
    low = {torch.float64: torch.float32, torch.complex128: torch.complex64}
    return model, x.to(low[x.dtype]), y.to(low.get(y.dtype, y.dtype))


def slope(values, x, h=1e-6):
    """Directional derivatives of values(x) (B,) along random v: by autograd and by differences."""
    pairs = []
    for seed in range(3):
        v = normal(*x.shape, dtype=x.dtype, seed=40 + seed)
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(values(leaf).sum(), leaf)
        analytic = (gradient.conj() * v).real.flatten(1).sum(1)
        pairs.append((analytic, (values(x + h * v) - values(x - h * v)) / (2 * h)))
    return pairs


def spoiled(model, y: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """y with one entry, the first of the last sample that is data, not a number; its index."""
    measured = getattr(getattr(model, "operator", None), "measured", None)
    data = torch.ones(y.shape[1:], dtype=torch.bool)
    if measured is not None:
        data = measured.expand(y.shape[1:])
    index = (len(y) - 1, *(int(i) for i in data.nonzero()[0]))
    y = y.clone()
    y[index] = math.nan
    return y, index


# ---- p(y | x0) -------------------------------------------------------------------------------


def test_one_value_for_each_image(case):
    model, x, y = setting(case)
    before = x.clone(), y.clone()
    values = model.log_likelihood(y, x)
    assert values.shape == (3,)
    assert values.dtype == x.dtype.to_real()
    assert values.grad_fn is None
    assert bool(torch.isfinite(values).all())
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert torch.equal(values, model.log_likelihood(y, x))


def test_a_sample_does_not_depend_on_its_batch(case):
    model, x, y = setting(case)
    together = model.log_likelihood(y, x)
    for i in range(3):
        alone = model.log_likelihood(y[i : i + 1], x[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], **EXACT)


def test_one_measurement_serves_a_batch(case):
    model, x, y = setting(case)
    expected = model.log_likelihood(y[:1].expand(3, *y.shape[1:]), x)
    torch.testing.assert_close(model.log_likelihood(y[:1], x), expected, **EXACT)
    if model.measurement_shape is not None or model.measurement_ndim is not None:
        torch.testing.assert_close(model.log_likelihood(y[0], x), expected, **EXACT)
    assert model.check_measurement(y[:1]).shape == y[:1].shape


def test_simulated_measurements(case):
    model, x, y = setting(case, 16)
    torch_state = torch.random.get_rng_state()
    again = model.simulate(x, rng(1))
    assert torch.equal(again, y)
    if case.random:
        assert not torch.equal(model.simulate(x, rng(2)), y)
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert y.shape[0] == 16
    assert model.measurement_shape in (None, y.shape[1:])
    assert model.measurement_ndim in (None, y.ndim - 1)
    if continuous(y):
        assert y.dtype.to_real() == x.dtype.to_real()
    model.check_measurement(y)


def test_simulated_measurements_keep_no_graph(case):
    model, x = case.make(), case.x(2)
    if hasattr(model, "network"):
        model.network.requires_grad_()
    y = model.simulate(x.requires_grad_(), rng(1))
    assert not y.requires_grad
    assert torch.equal(y, model.simulate(x.detach(), rng(1)))


def test_the_truth_has_a_misfit_of_one(case):
    model, x, y = setting(case, 200)
    misfit = model.misfit(y, x)
    if misfit is None:
        return
    assert misfit.shape == (200,)
    operator = model.operator
    if not torch.equal(operator.record(x[:2]), operator.apply(x[:2])):
        pytest.skip("the simulated instrument is not the one of the likelihood")
    squares = misfit.square()
    assert abs(float(squares.mean()) - 1) < 5 * float(squares.std()) / 200**0.5
    worse = model.misfit(y.roll(1, 0), x)
    assert float(worse.square().mean()) > 1


def test_gradient_by_finite_differences(case):
    if not case.differentiable:
        pytest.skip("has no gradient")
    model, x, y = setting(case)
    for analytic, numeric in slope(lambda z: model.log_likelihood(y, z), x):
        torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=1e-5)


def test_single_precision_is_the_rounded_double(case):
    if case.single is None:
        pytest.skip("steps with x")
    model, x, y = setting(case)
    exact = model.log_likelihood(y, x)
    model, x, y = single(model, x, y)
    values = model.log_likelihood(y, x)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), exact, rtol=case.single, atol=case.single)
    drawn = model.simulate(x, rng(1))
    assert drawn.dtype == y.dtype


def test_copies_are_the_same_model(case):
    model, x, y = setting(case)
    expected = model.log_likelihood(y, x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.log_likelihood(y, x), expected)


def test_measurements_that_do_not_fit_are_refused(case):
    model, x, y = setting(case)
    for dtype in (torch.bool, torch.float16):
        with pytest.raises(TypeError, match="y has dtype"):
            model.log_likelihood(torch.ones(y.shape, dtype=dtype), x)
    with pytest.raises(TypeError, match=r"torch\.Tensor"):
        model.log_likelihood(y.tolist(), x)
    with pytest.raises(ValueError, match="y has"):
        model.log_likelihood(y[:2], x)
    with pytest.raises(ValueError, match=r"y has shape"):
        model.log_likelihood(torch.stack([y, y], -1), x)
    with pytest.raises(ValueError, match=r"y has shape|empty"):
        model.check_measurement(y[:0])
    if continuous(y):
        with pytest.raises(TypeError, match="dtype"):
            model.log_likelihood(single(model, x, y)[2], x)
        bad, index = spoiled(model, y)
        where = ", ".join(map(str, index))
        match = rf"1 non-finite entries of {y.numel()}, the first at index \({where},?\)"
        for call in (model.check_measurement, lambda y: model.log_likelihood(y, x)):
            with pytest.raises(ValueError, match=match):
                call(bad)


def test_images_that_do_not_fit_are_refused(case):
    model, x, y = setting(case)
    for call in (lambda x: model.log_likelihood(y, x), lambda x: model.simulate(x, rng())):
        with pytest.raises(TypeError, match="x has dtype"):
            call(x.real.to(torch.float16))
        with pytest.raises(TypeError, match=r"torch\.Tensor"):
            call(x.tolist())
        if model.event_shape is not None:
            with pytest.raises(ValueError, match="x has shape"):
                call(torch.cat([x, x], -1))
            with pytest.raises(ValueError, match=r"add the batch axis"):
                call(x[0])


# ---- p_sigma(y | x) --------------------------------------------------------------------------


def test_timed_one_value_for_each_image(timed):
    model, x, y = setting(timed)
    y = model.check_measurement(y)
    torch_state = torch.random.get_rng_state()
    for sigma in (0.0, *LEVELS):
        values = model.log_likelihood(y, x, sigma)
        assert values.shape == (3,)
        assert values.dtype == x.dtype.to_real()
        assert values.grad_fn is None
        assert bool(torch.isfinite(values).all())
        assert torch.equal(values, model.log_likelihood(y, x, sigma))
    assert torch.equal(torch_state, torch.random.get_rng_state())


def test_timed_a_sample_does_not_depend_on_its_batch(timed):
    model, x, y = setting(timed)
    sigma = torch.tensor(LEVELS, dtype=torch.float64)
    together = model.log_likelihood(y, x, sigma)
    for i in range(3):
        alone = model.log_likelihood(y[i : i + 1], x[i : i + 1], LEVELS[i])
        torch.testing.assert_close(alone, together[i : i + 1], **EXACT)
    one = model.log_likelihood(y[:1], x, sigma)
    expected = model.log_likelihood(y[:1].expand(3, *y.shape[1:]), x, sigma)
    torch.testing.assert_close(one, expected, **EXACT)


def test_timed_gradient_by_finite_differences(timed):
    model, x, y = setting(timed)
    for sigma in LEVELS:
        for analytic, numeric in slope(lambda z, s=sigma: model.log_likelihood(y, z, s), x):
            torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=1e-5)


def test_timed_single_precision_is_the_rounded_double(timed):
    if timed.single is None:
        pytest.skip("steps with x")
    model, x, y = setting(timed)
    exact = model.log_likelihood(y, x, 0.7)
    model, x, y = single(model, x, y)
    values = model.log_likelihood(y, x, 0.7)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), exact, rtol=timed.single, atol=timed.single)


def test_timed_copies_are_the_same_model(timed):
    model, x, y = setting(timed)
    expected = model.log_likelihood(y, x, 0.7)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.log_likelihood(y, x, 0.7), expected)


def test_timed_refusals(timed):
    model, x, y = setting(timed)
    for sigma in (-0.5, math.nan, math.inf, torch.ones(2), torch.ones(3, 1, 1, 1)):
        with pytest.raises(ValueError, match="sigma"):
            model.log_likelihood(y, x, sigma)
    with pytest.raises(ValueError, match="y has"):
        model.log_likelihood(y[:2], x, 0.5)
    with pytest.raises(TypeError, match="y has dtype"):
        model.log_likelihood(torch.ones(y.shape, dtype=torch.bool), x, 0.5)
    with pytest.raises(TypeError, match="x has dtype"):
        model.log_likelihood(y, x.real.to(torch.float16), 0.5)
    if model.event_shape is not None:
        with pytest.raises(ValueError, match="x has shape"):
            model.log_likelihood(y, torch.cat([x, x], -1), 0.5)
    if continuous(y):
        bad, index = spoiled(model, y)
        with pytest.raises(ValueError, match=f"1 non-finite entries .* index .{index[0]}"):
            model.check_measurement(bad)
