"""The operator contract, run over one list of cases and one grid of sizes."""

import copy
import math
import pickle

import pytest
import torch
from operator_cases import CHANNELS, FAMILIES, GRID, OPERATORS, SIZES, WITH_SIZE, normal, rng
from torch import Tensor

import forward_models as fm
from forward_models.linear import linear_operator

EPS = {torch.float32: 1e-6, torch.float64: 1e-13}
BOTH = pytest.mark.parametrize("dtype", list(EPS), ids=["f32", "f64"])


@pytest.fixture(params=list(OPERATORS))
def case(request):
    make, shape = OPERATORS[request.param]
    return make(), shape


def draw(A, shape, batch, dtype=torch.float64, seed=0):
    dtype = dtype.to_complex() if A.event_field == "complex" else dtype
    return normal(batch, *shape, dtype=dtype, seed=seed)


def dot(a: Tensor, b: Tensor) -> float:
    return float((a.conj() * b).sum().real)


def as_rows(y: Tensor, A: fm.LinearOperator) -> Tensor:
    """Flat measurements, (B, M); real and imaginary parts apart where images are real."""
    return (torch.view_as_real(y) if y.is_complex() and A.event_field != "complex" else y).flatten(
        1
    )


def dense(A: fm.LinearOperator, shape: tuple[int, ...]) -> Tensor:
    """The matrix of A, (M, D)."""
    size = math.prod(shape)
    dtype = torch.complex128 if A.event_field == "complex" else torch.float64
    return as_rows(A(torch.eye(size, dtype=dtype).reshape(size, *shape)), A).T


def test_names_are_used_once():
    assert len(OPERATORS) == sum(len(family) for family in FAMILIES)


# ---- the contract ---------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("batch", [1, 3])
def test_dot_product(case, dtype, batch):
    A, shape = case
    result = fm.dot_test(A, shape, dtype=dtype, batch=batch, draws=3)
    assert result.passed, result
    assert result.limit == EPS[dtype]


def layouts(x: Tensor) -> list[Tensor]:
    """The numbers of x, (B, C, H, W), laid out in memory in other ways."""
    last = x.contiguous(memory_format=torch.channels_last)
    return [x.mT.contiguous().mT, x.transpose(0, 1).contiguous().transpose(0, 1), last]


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and float((a - b).norm()) <= tolerance * float(b.norm())


@BOTH
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", list(GRID))
def test_grid(name, size, dtype):
    """Adjoints and memory layouts at awkward sizes and numbers of channels."""
    served = 0
    for channels in CHANNELS:
        shape = (channels, *size)
        A = GRID[name](shape)
        if A is None:
            continue
        served += 1
        for batch in (1, 3):
            result = fm.dot_test(A, shape, dtype=dtype, batch=batch, draws=1)
            assert result.passed, (shape, batch, result)
        x = draw(A, shape, 3, dtype)
        ax = A(x)
        back = A.adjoint(ax)
        for other in layouts(x):
            assert close(A(other), ax, EPS[dtype])
        if ax.ndim == 4:
            for other in layouts(ax):
                assert close(A.adjoint(other), back, EPS[dtype])
        assert close(A(x[:1].expand(3, *shape)), ax[:1].expand(ax.shape), EPS[dtype])
        assert close(A.adjoint(ax[:1].expand(ax.shape)), back[:1].expand(x.shape), EPS[dtype])
    if not served:
        assert any(GRID[name]((c, *other)) is not None for c in CHANNELS for other in SIZES)
        pytest.skip("no operator of this size")


@BOTH
def test_shapes_dtypes_and_batches(case, dtype):
    A, shape = case
    x = draw(A, shape, 3, dtype)
    before = x.clone()
    y = A(x)
    measured = y.clone()
    back = A.adjoint(y)
    assert torch.equal(x, before)
    assert torch.equal(y, measured)
    assert y.shape[1:] == A.output_shape(shape)
    assert A.measurement_shape in (None, y.shape[1:])
    assert back.shape == x.shape
    assert A.input_shape(tuple(y.shape[1:])) == shape
    assert y.dtype.to_real() == back.dtype.to_real() == dtype
    scale = float(y.abs().max())
    for i in range(3):
        torch.testing.assert_close(A(x[i : i + 1]), y[i : i + 1], rtol=0, atol=EPS[dtype] * scale)
    torch.testing.assert_close(
        A.adjoint(y[:1]), back[:1], rtol=0, atol=EPS[dtype] * float(back.abs().max())
    )


def test_single_precision_is_the_rounded_double(case):
    A, shape = case
    x = draw(A, shape, 2)
    single = A(x.to(torch.complex64 if x.is_complex() else torch.float32))
    exact = A(x)
    assert float((single - exact).norm() / exact.norm()) < 1e-6


@BOTH
def test_linear(case, dtype):
    A, shape = case
    x, z = draw(A, shape, 2, dtype, 1), draw(A, shape, 2, dtype, 2)
    expected = 0.7 * A(x) - 1.3 * A(z)
    error = (A(0.7 * x - 1.3 * z) - expected).norm() / expected.norm()
    assert float(error) < (1e-5 if dtype == torch.float32 else 1e-12)


def test_memory_layout_does_not_matter(case):
    A, shape = case
    x = draw(A, shape, 2)
    y = A(x)
    torch.testing.assert_close(A(x.mT.contiguous().mT if x.ndim > 2 else x.T.contiguous().T), y)
    expanded = x[:1].expand(3, *shape)
    torch.testing.assert_close(A(expanded), y[:1].expand(3, *y.shape[1:]))
    torch.testing.assert_close(A.adjoint(y[:1].expand(2, *y.shape[1:])), A.adjoint(y[:1].repeat(
        2, *[1] * (y.ndim - 1))))  # fmt: skip


def test_vjp_is_the_adjoint(case):
    A, shape = case
    x = draw(A, shape, 2).requires_grad_()
    y = A(x)
    w = torch.randn(y.shape, generator=rng(7), dtype=y.dtype)
    (gradient,) = torch.autograd.grad(y, x, w)
    torch.testing.assert_close(gradient, A.adjoint(w), rtol=1e-11, atol=1e-12)
    w.requires_grad_()
    (forward,) = torch.autograd.grad(A.adjoint(w), w, x.detach())
    torch.testing.assert_close(forward, y.detach(), rtol=1e-11, atol=1e-12)


def test_no_graph_is_kept_when_grad_is_off(case):
    A, shape = case
    x = draw(A, shape, 2).requires_grad_()
    y = A(x).detach().requires_grad_()
    assert A(x.detach()).grad_fn is None
    with torch.no_grad():
        results = [A(x), A.adjoint(y), A.solve(y, 1.0, 0.1)]
        if A.svd is not None:
            results += [A.svd.to_spectral_x(x), A.svd.to_spectral_y(y)]
    assert all(result.grad_fn is None for result in results)


def test_adjoint_as_operator(case):
    A, shape = case
    x = draw(A, shape, 2)
    assert A.T.T is A
    torch.testing.assert_close(A.T(A(x)), A.adjoint(A(x)))
    torch.testing.assert_close(A.T.adjoint(x), A(x))
    assert A.T.output_shape(tuple(A(x).shape[1:])) == shape


def test_normal(case):
    A, shape = case
    x, z = draw(A, shape, 2), draw(A, shape, 2, seed=1)
    N = A.normal
    assert close(N(x), A.adjoint(A(x)), 1e-12)
    assert N.T is N
    assert dot(N(x), z) == pytest.approx(dot(x, N.adjoint(z)), rel=1e-9, abs=1e-9)
    if N.svd is not None:
        spectral = N.svd.singular_values.to(x.dtype) * N.svd.to_spectral_x(x)
        assert close(N.svd.from_spectral_x(spectral), N(x), 1e-12)
    with pytest.raises(TypeError, match="int64"):
        N(torch.zeros(2, *shape, dtype=torch.int64))


@pytest.mark.parametrize("kind", ["scalar", "per-sample", "function", "entries"])
def test_solve(case, kind):
    A, shape = case
    r = A(draw(A, shape, 3))
    r = r + torch.randn(r.shape, generator=rng(3), dtype=r.dtype)
    s: float | Tensor = 0.3
    if kind == "entries":
        s = 0.2 + torch.rand(r.shape[1:], generator=rng(4), dtype=torch.float64)
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    covariance = {
        "scalar": 0.8, "entries": 0.8, "per-sample": weight,
        "function": lambda v: v * weight.reshape(-1, *[1] * (v.ndim - 1)),
    }[kind]  # fmt: skip
    v = A.solve(r, covariance, s)
    c = weight if kind in ("per-sample", "function") else torch.full((3,), 0.8, dtype=torch.float64)
    back = A(c.reshape(-1, *[1] * len(shape)) * A.adjoint(v)) + s * v
    assert float((back - r).norm() / r.norm()) < 1e-8


def test_norm(case):
    A, shape = case
    exact = float(torch.linalg.matrix_norm(dense(A, shape), 2))
    found = A.norm(shape)
    assert found == pytest.approx(exact, rel=1e-5)
    assert found <= exact * (1 + 1e-9)
    assert found == A.norm(shape)


def test_svd_pieces(case):
    A, shape = case
    svd = A.svd
    if svd is None:
        assert not isinstance(A, fm.MatrixOperator)
        return
    x = draw(A, shape, 2)
    s = svd.singular_values.to(x.dtype)
    y = A(x)
    torch.testing.assert_close(svd.from_spectral_y(s * svd.to_spectral_x(x)), y)
    torch.testing.assert_close(svd.to_spectral_y(y), s * svd.to_spectral_x(x))
    z = normal(2, s.numel(), dtype=x.dtype, seed=9)
    torch.testing.assert_close(svd.to_spectral_x(svd.from_spectral_x(z)), z)
    torch.testing.assert_close(svd.to_spectral_y(svd.from_spectral_y(z)), z)
    assert dot(svd.from_spectral_x(z), x) == pytest.approx(dot(z, svd.to_spectral_x(x)))


def test_noiseless_solve_is_the_pseudo_inverse(case, monkeypatch):
    """A^T solve(y, 1, 0) = A^+ y for closed forms: what torch.linalg.pinv says, in both precisions.

    Singular values that are rounding alone are 0 in it; the error of a product with the Gram
    matrix grows with the square of the condition number of the others.
    """
    A, shape = case

    class IterationError(Exception):
        pass

    def iterate(*_, **__):
        raise IterationError

    monkeypatch.setattr(linear_operator, "conjugate_gradients", iterate)
    x = draw(A, shape, 2)
    y = A(x)
    y = y + y.abs().max() * torch.randn(y.shape, generator=rng(5), dtype=y.dtype)
    try:
        found = A.adjoint(A.solve(y, 1.0, 0.0))
    except IterationError:
        assert A.svd is None
        return
    matrix = dense(A, shape)
    values = torch.linalg.svdvals(matrix)
    rank = int(torch.linalg.matrix_rank(matrix))
    condition = float(values[0] / values[rank - 1])
    assert condition < 1e4, "a case this near to singular tests nothing"
    expected = (as_rows(y, A) @ torch.linalg.pinv(matrix).T).reshape(x.shape)
    assert close(found, expected, 1e-13 * condition**2)
    single = A.solve(y.to(torch.complex64 if y.is_complex() else torch.float32), 1.0, 0.0)
    assert close(A.adjoint(single), expected, 1e-5 * condition**2)
    if A.svd is not None:
        assert int((A.svd.singular_values > 0).sum()) == rank


def test_what_is_not_measured_is_zero(case):
    A, shape = case
    y = A(draw(A, shape, 2))
    if A.measured is not None:
        assert A.measured.dtype == torch.bool
        hidden = ~A.measured.expand(y.shape[1:])
        assert float(y[:, hidden].abs().sum()) == 0
        spoilt = y.masked_fill(hidden, math.nan)
        assert torch.equal(A.solve(spoilt, 1.0, 0.1), A.solve(y, 1.0, 0.1))
    y[(0,) * y.ndim] = math.nan
    if A.measured is None:
        with pytest.raises(ValueError, match="non-finite entries"):
            A.solve(y, 1.0, 0.1)


def test_wrong_input_is_refused(case):
    A, shape = case
    x = draw(A, shape, 2)
    with pytest.raises(TypeError, match="int64"):
        A(torch.zeros(2, *shape, dtype=torch.int64))
    with pytest.raises(TypeError, match="bool"):
        A.adjoint(torch.zeros(A(x).shape, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"torch\.Tensor"):
        A(x.numpy())
    if A.event_field == "real":
        with pytest.raises(TypeError, match="imaginary"):
            A(x.to(torch.complex128))
    if A.event_shape is not None or A.event_ndim is not None:
        with pytest.raises(ValueError, match="expected"):
            A(x[..., None])
        with pytest.raises(ValueError, match="batch axis"):
            A(x[0])
    if A.event_shape is not None:
        with pytest.raises(ValueError, match="expected"):
            A(torch.cat([x, x], dim=-1))
    with pytest.raises(ValueError, match="empty"):
        A(x[:0])
    with pytest.raises(ValueError, match="negative"):
        A.solve(A(x), 1.0, -0.1)
    with pytest.raises(ValueError, match="broadcast"):
        A.solve(A(x), 1.0, torch.ones(99))
    with pytest.raises(ValueError, match="multiple of the identity"):
        A.solve(A(x), torch.ones(5), 1.0)


def test_use_in_inference_mode_does_not_spoil_a_later_gradient():
    for make, shape in OPERATORS.values():
        A = make()
        x = draw(A, shape, 1)
        with torch.inference_mode():
            A.adjoint(A(x.clone()))
        x.requires_grad_()
        torch.autograd.grad(A.adjoint(A(x)).abs().sum(), x)


def test_torch_func(case):
    A, shape = case
    x, v = draw(A, shape, 2), draw(A, shape, 2, seed=1)
    y, pullback = torch.func.vjp(A, x)
    torch.testing.assert_close(pullback(y)[0], A.adjoint(y))
    torch.testing.assert_close(torch.func.jvp(A, (x,), (v,))[1], A(v))
    xs, ys = torch.stack([x, v]), torch.stack([y, A(v)])
    torch.testing.assert_close(torch.func.vmap(A)(xs), ys)
    backs = torch.stack([A.adjoint(one) for one in ys])
    torch.testing.assert_close(torch.func.vmap(A.adjoint)(ys), backs)


def test_copies_and_pickles(case):
    A, shape = case
    x = draw(A, shape, 2)
    y = A(x)
    A.adjoint(y)
    assert torch.equal(copy.deepcopy(A)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(A)).adjoint(y), A.adjoint(y))


# ---- of one size ----------------------------------------------------------------------------


def test_sized(case):
    A, shape = case
    x = draw(A, shape, 2)
    y = A(x)
    back, twice = A.T(y), A.normal(x)
    assert A.svd is None or A.event_shape is not None
    before = dict(vars(A))
    sized = A.sized(shape)
    assert vars(A).keys() == before.keys()
    assert all(vars(A)[name] is value for name, value in before.items())
    assert type(sized) is type(A)
    assert (sized.event_shape, sized.measurement_shape) == (shape, y.shape[1:])
    assert (sized.event_ndim, sized.measurement_ndim) == (len(shape), y.ndim - 1)
    assert sized.sized(shape) is sized
    assert torch.equal(sized(x), y)
    assert torch.equal(sized.T(y), back)
    assert torch.equal(sized.normal(x), twice)
    assert sized.T.T is sized
    assert sized.T.event_shape == sized.measurement_shape
    test_svd_pieces((sized, shape))
    test_copies_and_pickles((sized, shape))
    for other in [(*shape[:-1], 0), "(9, 7)", (*shape, 0.5)]:
        with pytest.raises(ValueError, match="event_shape must be"):
            A.sized(other)
    with pytest.raises(ValueError, match="takes images"):
        sized.sized((*shape[:-1], shape[-1] + 1))
    if A.event_ndim is not None:
        with pytest.raises(ValueError, match="takes images"):
            A.sized((*shape, 2))


@pytest.mark.parametrize("name", list(WITH_SIZE))
def test_sized_is_built_with_the_size(name):
    """The same decomposition, to the bit; none of it is known before."""
    free, built = (make() for make in WITH_SIZE[name])
    shape = built.event_shape
    assert free.svd is None
    sized = free.sized(shape)
    assert free.svd is None
    x = draw(built, shape, 2)
    y = built(x)
    r = y + torch.randn(y.shape, generator=rng(3), dtype=y.dtype)
    found, expected = sized.svd, built.svd
    assert torch.equal(found.singular_values, expected.singular_values)
    assert torch.equal(found.to_spectral_x(x), expected.to_spectral_x(x))
    z = expected.to_spectral_y(r)
    assert torch.equal(found.to_spectral_y(r), z)
    assert torch.equal(found.from_spectral_x(z), expected.from_spectral_x(z))
    assert torch.equal(found.from_spectral_y(z), expected.from_spectral_y(z))
    assert torch.equal(sized.solve(r, 0.8, 0.3), built.solve(r, 0.8, 0.3))
    assert sized.norm() == built.norm()


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        (fm.Downsampling(2), (1, 5, 4)),
        (fm.Inpainting(torch.ones(9, 7)), (1, 7, 9)),
        (fm.greyscale(), (1, 9, 7)),
        (fm.Downsampling(2).T @ fm.Downsampling(2), (1, 5, 4)),
        (fm.ChannelsToComplex().T, (2, 9, 7)),
        (fm.Blur(torch.ones(3, 3), "valid").normal, (1, 2, 9)),
        (fm.Identity() + fm.Inpainting(torch.ones(9, 7)), (1, 7, 9)),
        (fm.Stack([fm.Identity()], event_shape=(3,)), (4,)),
    ],
)
def test_sizes_that_do_not_fit_are_refused(operator, shape):
    with pytest.raises(ValueError, match=r"\d"):
        operator.sized(shape)
