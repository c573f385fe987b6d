"""SIRT and CGLS against least squares, and what early stopping does."""

import math

import pytest
import torch
from phantoms import disc, rng

import forward_models as fm


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


def dense(A):
    size = math.prod(A.event_shape)
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *A.event_shape)
    return A(eye).flatten(1).T


def scan():
    return fm.FanBeam((7, 6), torch.arange(0.0, 360, 40), source_origin=12, source_detector=20)


@pytest.mark.parametrize("shape", [(9, 5), (4, 9)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_cgls_is_least_squares(shape, dtype):
    matrix, y = normal(*shape, dtype=dtype), normal(3, shape[0], seed=1, dtype=dtype)
    x, info = fm.cgls(fm.MatrixOperator(matrix), y)
    expected = (torch.linalg.pinv(matrix) @ y.T).T
    torch.testing.assert_close(x, expected, rtol=1e-8, atol=1e-9)
    assert bool(info.converged.all())
    assert int(info.iterations.max()) <= min(shape) + 3


def test_cgls_of_a_scan_is_least_squares():
    A = scan()
    y = normal(2, *A.measurement_shape)
    x, info = fm.cgls(A, y, 2000)
    expected = torch.linalg.pinv(dense(A), rtol=1e-12) @ y.flatten(1).T
    torch.testing.assert_close(x.flatten(1), expected.T, rtol=1e-6, atol=1e-7)
    assert bool(info.converged.all())
    residual = (y - A(x)).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)
    torch.testing.assert_close(info.residual, residual)


def test_a_sample_does_not_see_its_batch_mates():
    A = scan()
    y = normal(3, *A.measurement_shape) * torch.tensor([1.0, 1e3, 0.0]).reshape(3, 1, 1, 1)
    bound = torch.tensor([0.8, 0.95, 0.0]) * y.flatten(1).norm(dim=1)
    for solve in (fm.cgls, fm.sirt):
        x, info = solve(A, y, 40, discrepancy=bound)
        assert len(set(info.iterations.tolist())) == 3
        assert int(info.iterations[2]) == 0
        assert torch.equal(x[2], torch.zeros_like(x[2]))
        for i in range(3):
            alone, one = solve(A, y[i : i + 1], 40, discrepancy=bound[i : i + 1])
            assert int(one.iterations) == int(info.iterations[i])
            torch.testing.assert_close(alone[0], x[i])


def test_discrepancy_stops_as_soon_as_it_is_reached():
    A = scan()
    truth = disc(A, 2.0)
    y = A(truth) + 0.1 * normal(1, *A.measurement_shape)
    bound = 0.1 * math.sqrt(y.numel())
    for solve in (fm.cgls, fm.sirt):
        x, info = solve(A, y, 3000, discrepancy=bound)
        assert bool(info.converged)
        assert float((y - A(x)).norm()) <= bound
        before, _ = solve(A, y, int(info.iterations) - 1)
        assert float((y - A(before)).norm()) > bound


@pytest.mark.parametrize("relaxation", [0.5, 1.0, 1.9])
def test_sirt_converges_to_weighted_least_squares(relaxation):
    matrix = torch.rand(12, 5, generator=rng(), dtype=torch.float64) + torch.eye(
        12, 5, dtype=torch.float64
    )
    A, y = fm.MatrixOperator(matrix), normal(2, 12)
    weight = matrix.sum(1).rsqrt()
    norms = []
    x, _ = fm.sirt(
        A, y, 4000, relaxation=relaxation,
        callback=lambda k, x: norms.append(((y - A(x)) * weight).norm(dim=1)),
    )  # fmt: skip
    expected = torch.linalg.lstsq(weight[:, None] * matrix, (weight * y).T).solution.T
    torch.testing.assert_close(x, expected, rtol=1e-7, atol=1e-9)
    assert len(norms) == 4000
    steps = torch.stack(norms).diff(dim=0)
    assert bool((steps <= 1e-12).all())
    assert bool((steps[:20] < 0).all())


def test_sirt_without_negative_values_meets_the_optimality_conditions():
    matrix = torch.rand(10, 6, generator=rng(1), dtype=torch.float64)
    A = fm.MatrixOperator(matrix)
    y = A(normal(3, 6, seed=2) + 0.7) + 0.1 * normal(3, 10, seed=3)
    x, _ = fm.sirt(A, y, 8000, nonnegative=True)
    assert float(x.min()) == 0
    assert bool((x.amax(dim=1) > 0.1).all())
    gradient = A.adjoint((A(x) - y) / matrix.sum(1))
    assert float(gradient.min()) > -1e-7
    assert float((gradient * x).abs().max()) < 1e-7


def test_start_and_what_nothing_measures():
    A = fm.Inpainting(torch.tensor([1.0, 0.0, 0.5, 0.0]))
    start = normal(1, 4, seed=3)
    y = A(normal(1, 4))
    for solve in (fm.cgls, fm.sirt):
        x, _ = solve(A, y, 200, start=start)
        torch.testing.assert_close(A(x), y, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(x[:, [1, 3]], start[:, [1, 3]])
        untouched, info = solve(A, A(start), 10, start=start)
        assert torch.equal(untouched, start)
        assert int(info.iterations) == 0


def test_iterations_are_those_asked_for():
    A = scan()
    y = normal(1, *A.measurement_shape).float()
    for solve in (fm.cgls, fm.sirt):
        seen = []
        x, info = solve(A, y, 5, callback=lambda k, x, seen=seen: seen.append((k, x.clone())))
        assert [k for k, _ in seen] == [1, 2, 3, 4, 5]
        assert torch.equal(seen[-1][1], x)
        assert x.dtype == torch.float32
        assert not bool(info.converged)
        nothing, _ = solve(A, y, 0)
        assert torch.equal(nothing, torch.zeros_like(nothing))


def test_any_operator_of_any_size():
    blur = fm.Blur(fm.gaussian_kernel(0.6), "reflect") + 0.5 * fm.Identity()
    truth = normal(2, 3, 8, 9)
    for solve, rounds in ((fm.cgls, 400), (fm.sirt, 1500)):
        x, _ = solve(blur, blur(truth), rounds)
        torch.testing.assert_close(x, truth, rtol=1e-4, atol=1e-5)


class Sigmoid(fm.Operator):
    def _apply(self, x):
        return x.sigmoid()


def test_sirt_around_a_solution_is_no_divergence():
    """There the residual is rounding alone, and rounding grows and falls."""
    A = scan()
    x = torch.rand(4, *A.event_shape, generator=rng())
    for dtype in (torch.float32, torch.float64):
        truth = x.to(dtype)
        y = A(truth)
        solution, _ = fm.sirt(A, y, 300, start=truth + 1e-6)
        torch.testing.assert_close(A(solution), y, rtol=1e-4, atol=1e-4)
        empty, _ = fm.sirt(A, torch.zeros_like(y), 300, start=truth)
        assert bool(empty.isfinite().all())


def test_refusals():
    A = scan()
    y = torch.zeros(1, *A.measurement_shape)
    signed = fm.MatrixOperator(torch.tensor([[1.0, -2.0], [0.5, 1.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"A 1 has the negative entry -1: .* use cgls"):
        fm.sirt(signed, torch.ones(1, 2))
    with pytest.raises(ValueError, match="real operator"):
        fm.sirt(fm.MatrixOperator(normal(2, 2, dtype=torch.complex128)), torch.ones(1, 2))
    sharpen = torch.tensor([[0.0, -1, 0], [-1, 8, -1], [0, -1, 0]]) / 4
    image = normal(2, 1, 12, 12, seed=4)
    for nonnegative in (False, True):
        with pytest.raises(ValueError, match=r"sirt diverges: .* sample \d .* use cgls"):
            fm.sirt(fm.Blur(sharpen), image, 200, nonnegative=nonnegative)
    sharp, _ = fm.cgls(fm.Blur(sharpen), image, 200)
    torch.testing.assert_close(fm.Blur(sharpen)(sharp), image)
    for solve in (fm.cgls, fm.sirt):
        for wrong, name in ((None, "NoneType"), (Sigmoid(), "Sigmoid")):
            with pytest.raises(TypeError, match=f"must be a LinearOperator, got {name}"):
                solve(wrong, y)
        with pytest.raises(TypeError, match=r"y must be a torch\.Tensor, got NoneType"):
            solve(A, None)
    for relaxation in (0.0, 2.0, math.nan):
        with pytest.raises(ValueError, match="relaxation"):
            fm.sirt(A, y, relaxation=relaxation)
    with pytest.raises(ValueError, match="tolerance"):
        fm.cgls(A, y, tolerance=-1.0)
    for solve in (fm.cgls, fm.sirt):
        with pytest.raises(ValueError, match="iterations"):
            solve(A, y, -1)
        with pytest.raises(ValueError, match="discrepancy"):
            solve(A, y, discrepancy=torch.ones(3))
        with pytest.raises(ValueError, match="non-finite"):
            solve(A, y + math.inf)
        with pytest.raises(ValueError, match="expected"):
            solve(A, y[..., 1:])
        with pytest.raises(ValueError, match="start"):
            solve(A, y, start=torch.zeros(2, *A.event_shape))
