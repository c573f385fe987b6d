"""Conjugate gradients and the solves of operators against dense linear algebra."""

import math

import pytest
import torch
from operator_cases import normal

import forward_models as fm


def systems(batch=4, n=12, seed=0):
    factor = normal(batch, n, n, seed=seed)
    shift = torch.tensor([1e-3, 1e-1, 1.0, 10.0], dtype=torch.float64)[:batch]
    K = factor @ factor.mT / n + shift[:, None, None] * torch.eye(n, dtype=torch.float64)
    return K, normal(batch, n, seed=seed + 1)


def test_cg_equals_the_dense_solution():
    K, b = systems()
    v, info = fm.conjugate_gradients(lambda p: (K @ p[..., None])[..., 0], b, tolerance=1e-12)
    torch.testing.assert_close(v, torch.linalg.solve(K, b), rtol=1e-8, atol=1e-10)
    assert bool(info.converged.all())
    assert len(set(info.iterations.tolist())) > 1
    _, again = fm.conjugate_gradients(lambda p: (K @ p[..., None])[..., 0], b, start=v)
    assert again.iterations.tolist() == [0, 0, 0, 0]


def test_cg_of_a_sample_does_not_see_its_batch_mates():
    K, b = systems()
    v, info = fm.conjugate_gradients(lambda p: (K @ p[..., None])[..., 0], b)
    for i in range(4):
        alone, one = fm.conjugate_gradients(lambda p, k=K[i]: p @ k, b[i : i + 1])
        assert abs(int(one.iterations) - int(info.iterations[i])) <= 1
        torch.testing.assert_close(alone[0], v[i], rtol=1e-7, atol=1e-9)


def test_cg_sees_an_image_as_one_vector():
    A = fm.Blur(fm.gaussian_kernel(1.0), "reflect")
    r = normal(2, 2, 6, 5)
    v = A.solve(r, lambda x: x, 0.1, tolerance=1e-12)
    columns = A(torch.eye(60, dtype=torch.float64).reshape(60, 2, 6, 5)).flatten(1)
    dense = columns.T @ columns + 0.1 * torch.eye(60, dtype=torch.float64)
    torch.testing.assert_close(v.flatten(1), torch.linalg.solve(dense, r.flatten(1).T).T)


def test_cg_edge_cases():
    K, b = systems()
    b = b * torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None]
    v, info = fm.conjugate_gradients(lambda p: (K @ p[..., None])[..., 0], b)
    assert torch.equal(v[1], torch.zeros(12, dtype=torch.float64))
    assert int(info.iterations[1]) == 0
    _, info = fm.conjugate_gradients(lambda p: -p, b)
    assert info.converged.tolist() == [False, True, False, False]

    def poisoned(p):
        out = (K @ p[..., None])[..., 0]
        out[0] = float("nan")
        return out

    v, info = fm.conjugate_gradients(poisoned, b)
    assert bool(torch.isfinite(v).all())
    assert info.converged.tolist() == [False, True, True, True]
    with pytest.raises(ValueError, match="start has shape"):
        fm.conjugate_gradients(lambda p: p, b, start=b[:1])
    hard = fm.MatrixOperator(torch.diag(torch.logspace(0, -6, 40, dtype=torch.float64)))
    with pytest.warns(RuntimeWarning, match="relative residual"):
        hard.solve(normal(1, 40).float(), lambda x: x, 1e-12)


def test_noiseless_closed_forms_are_the_minimal_norm_solution():
    for A, shape in (
        (fm.MatrixOperator(normal(3, 6)), (6,)),
        (fm.Inpainting(torch.tensor([1.0, 0.0, 0.5])), (3,)),
        (fm.Downsampling(2, image_shape=(1, 4, 4)), (1, 4, 4)),
    ):
        y = A(normal(1, *shape))
        x = A.adjoint(A.solve(y, 1.0, 0.0))
        torch.testing.assert_close(A(x), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_no_singular_value(dtype):
    """Kernels of A that float64 shows as 1e-17: solutions as large as pinv's, not 1e16."""
    spread = torch.ones(2, 3, dtype=torch.float64)
    for A, shape in (
        (fm.Blur(fm.motion_kernel(4.0, 0.0), image_shape=(1, 16, 16)), (1, 16, 16)),
        (fm.MatrixOperator(normal(6, 3) @ normal(3, 8, seed=1)), (8,)),
        (fm.ChannelMixing(spread, (3, 1, 1)), (3, 1, 1)),
    ):
        size = math.prod(shape)
        matrix = A(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).T
        r = normal(2, *A.output_shape(shape), seed=3)
        expected = r.flatten(1) @ torch.linalg.pinv(matrix @ matrix.T, hermitian=True)
        found = A.solve(r.to(dtype), 1.0, 0.0)
        assert found.dtype == dtype
        tolerance = 1e-4 if dtype == torch.float32 else 1e-10
        error = (found.flatten(1).double() - expected).norm() / expected.norm()
        assert float(error) < tolerance


def test_solve_refuses_what_is_not_finite():
    """Conjugate gradients would end at once, with zeros."""
    r = normal(2, 1, 9, 7)
    r[1, 0, 2, 3] = float("nan")
    A = fm.Blur(fm.gaussian_kernel(1.0), "reflect")
    for covariance in (1.0, lambda x: x):
        with pytest.raises(ValueError, match=r"r has 1 non-finite entries of 126.*\(1, 0, 2, 3\)"):
            A.solve(r, covariance, 0.1)
    mask = torch.ones(9, 7)
    mask[2, 3] = 0
    M = fm.Inpainting(mask)
    v = M.solve(r, lambda x: x, 0.1)
    torch.testing.assert_close(v, M.solve(r.nan_to_num(0), lambda x: x, 0.1))
    with pytest.raises(ValueError, match="1 non-finite"):
        fm.Inpainting(1 - 0.5 * mask).solve(r, 1.0, 0.1)


def ill_conditioned(batch=3, n=60):
    """Diagonals spread over six decades, plus a little coupling that no diagonal removes."""
    diagonal = torch.stack([torch.logspace(0, -k, n, dtype=torch.float64) for k in (6, 4, 5)])
    root = diagonal.sqrt()
    factor = normal(batch, n, n)
    coupling = torch.eye(n, dtype=torch.float64) + 0.3 * factor @ factor.mT / n
    return root[:, :, None] * coupling * root[:, None, :], normal(batch, n, seed=1)


def test_preconditioned_cg_takes_fewer_iterations_to_the_same_solution():
    K, b = ill_conditioned()
    diagonal = K.diagonal(dim1=1, dim2=2)
    solutions, infos = [], []
    for preconditioner in (None, lambda r: r / diagonal):
        v, info = fm.conjugate_gradients(
            lambda p: (K @ p[..., None])[..., 0], b, tolerance=1e-12, max_iterations=5000,
            preconditioner=preconditioner,
        )  # fmt: skip
        assert bool(info.converged.all())
        solutions.append(v)
        infos.append(info)
    torch.testing.assert_close(solutions[1], torch.linalg.solve(K, b), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(solutions[0], solutions[1], rtol=1e-4, atol=1e-3)
    assert int(infos[1].iterations.max()) * 5 < int(infos[0].iterations.min())


def test_preconditioned_cg_stops_each_sample_on_its_own():
    K, b = ill_conditioned()
    b = b * torch.tensor([1.0, 0.0, 1.0])[:, None]
    diagonal = K.diagonal(dim1=1, dim2=2).clone()
    diagonal[2] = 1.0  # the third sample gets no help
    limits = {"tolerance": 1e-12, "max_iterations": 5000}
    v, info = fm.conjugate_gradients(
        lambda p: (K @ p[..., None])[..., 0], b, preconditioner=lambda r: r / diagonal, **limits
    )
    assert int(info.iterations[1]) == 0
    assert 0 < int(info.iterations[0]) < int(info.iterations[2])
    for i in range(3):
        alone, _ = fm.conjugate_gradients(
            lambda p, k=K[i]: p @ k, b[i : i + 1], preconditioner=lambda r, d=diagonal[i]: r / d,
            **limits,
        )  # fmt: skip
        torch.testing.assert_close(alone[0], v[i], rtol=1e-5, atol=1e-5 * float(v[i].abs().max()))
    # The inverse itself needs one step; an indefinite one ends its sample unconverged.
    inverse = torch.linalg.inv(K)
    _, info = fm.conjugate_gradients(
        lambda p: (K @ p[..., None])[..., 0], b,
        tolerance=1e-8, preconditioner=lambda r: (inverse @ r[..., None])[..., 0],
    )  # fmt: skip
    assert info.iterations.tolist() == [1, 0, 1]
    _, info = fm.conjugate_gradients(
        lambda p: (K @ p[..., None])[..., 0], b, preconditioner=lambda r: -r
    )
    assert info.converged.tolist() == [False, True, False]
    with pytest.raises(ValueError, match="preconditioned residual"):
        fm.conjugate_gradients(lambda p: p, b, preconditioner=lambda r: r[:1])


def test_solve_takes_an_operator_as_preconditioner():
    """A blur under a covariance that no closed form knows; the blur of c = 1 is near it."""
    A = fm.Blur(fm.gaussian_kernel(1.5))
    r = normal(2, 1, 16, 16)
    weight = 1 + 0.1 * torch.rand(1, 1, 16, 16, dtype=torch.float64)
    calls = {None: 0, "near": 0}

    def solve(name, preconditioner):
        def covariance(x):
            calls[name] += 1
            return weight * x

        return A.solve(r, covariance, 1e-4, preconditioner=preconditioner, tolerance=1e-9)

    plain = solve(None, None)
    near = solve("near", lambda v: A.solve(v, 1.05, 1e-4))
    torch.testing.assert_close(near, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))
    assert 3 * calls["near"] < calls[None]
    halved = A.solve(r, lambda x: x, 0.1, preconditioner=0.5 * fm.Identity())
    torch.testing.assert_close(halved, A.solve(r, 1.0, 0.1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["complete", "tall", "real-spectrum"])
def test_closed_solves_keep_single_precision_at_high_signal_to_noise(name):
    """What rounding leaves of r beside the range of A must not come back divided by S."""
    A, shape = {
        "complete": (fm.SinglePixel((1, 32, 32), 400), (1, 32, 32)),
        "tall": (fm.MatrixOperator(normal(40, 10)), (10,)),
        "real-spectrum": (fm.FourierTransform((1, 9, 8)), (1, 9, 8)),
    }[name]
    s = 1e-8 * A.norm() ** 2
    r = A(1 + normal(2, *shape))
    single = r.to(torch.complex64 if r.is_complex() else torch.float32)
    expected = A.adjoint(A.solve(r, 1.0, s))
    found = A.adjoint(A.solve(single, 1.0, s)).double()
    assert float((found - expected).norm() / expected.norm()) < 1e-4
