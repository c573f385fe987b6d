"""Operators from functions, and the tests that a user's own operators can be put to."""

import pytest
import torch
from operator_cases import KERNEL, Dft, normal

import forward_models as fm

MATRIX = normal(5, 6)
COMPLEX = normal(5, 6, dtype=torch.complex128)


def by_matrix(x):
    return x @ MATRIX.to(x.dtype).T


def test_from_function_equals_the_matrix():
    A, M = fm.from_function(by_matrix, (6,)), fm.MatrixOperator(MATRIX)
    y = normal(3, 5)
    assert A.measurement_shape == (5,)
    torch.testing.assert_close(A.adjoint(y), M.adjoint(y))
    C = fm.from_function(lambda x: x @ COMPLEX.to(x.dtype).T, (6,), field="complex")
    z = normal(3, 5, dtype=torch.complex128)
    torch.testing.assert_close(C.adjoint(z), fm.MatrixOperator(COMPLEX).adjoint(z))
    blur = fm.Blur(KERNEL, "reflect")
    B = fm.from_function(blur, (2, 9, 7))
    torch.testing.assert_close(B.adjoint(normal(2, 2, 9, 7)), blur.adjoint(normal(2, 2, 9, 7)))
    spectrum = fm.from_function(lambda x: torch.fft.rfft(x), (7,))
    assert (spectrum.event_field, spectrum.measurement_field) == ("real", "complex")
    assert spectrum.measurement_shape == (4,)
    assert fm.dot_test(spectrum).passed


def test_from_function_has_differentiable_adjoints():
    """The gradient of the adjoint is A itself, and |A^T y|^2 has the gradient 2 A A^T y."""
    A = fm.from_function(by_matrix, (6,))
    y = normal(2, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(A.adjoint(y).square().sum(), y)
    torch.testing.assert_close(gradient, 2 * y.detach() @ MATRIX @ MATRIX.T)
    assert torch.autograd.gradcheck(A.adjoint, y)
    with torch.no_grad():
        assert A.adjoint(y).grad_fn is None


@pytest.mark.parametrize(
    ("f", "match"),
    [
        (lambda x: x + 1, r"f\(0\) = 0"),
        (lambda x: x.abs(), r"f\(x \+ z\)"),
        (lambda x: x.relu(), "not linear"),
        (lambda x: x**3, "not linear"),
        (lambda x: x.clamp(-100, 100), r"f\(37000 x\)"),
        (lambda x: torch.nn.functional.hardshrink(x, 1e-3), r"f\(-0.0001 x\)"),
        (lambda x: x + torch.randn_like(x), "alone and in a batch"),
        (lambda x: x - x.mean(), "mixes the rows"),
        (lambda x: x.mul_(2), "in place"),
        (lambda x: x.detach() * 2, "not differentiable"),
        (lambda x: torch.as_tensor(x.detach().numpy() * 2), "not differentiable"),
        (lambda x: x / x.norm(dim=1, keepdim=True), "not linear"),
        (lambda x: x.sum(), "batch axis"),
        (lambda x: x.sum(1), "at least one axis"),
        (lambda x: x.float().to(x.dtype), "single precision"),
    ],
)
def test_from_function_refuses_what_is_not_linear(f, match):
    with pytest.raises(ValueError, match=match):
        fm.from_function(f, (6,))


def test_from_function_refuses_other_types():
    with pytest.raises(TypeError, match="must keep the precision"):
        fm.from_function(lambda x: x.float(), (6,))
    with pytest.raises(TypeError, match="must keep the precision"):
        fm.from_function(lambda x: x @ torch.eye(6).double() if x.dtype == torch.float64 else
                         x.double(), (6,))  # fmt: skip
    with pytest.raises(TypeError, match="got tuple"):
        fm.from_function(lambda x: (x, x), (6,))
    with pytest.raises(ValueError, match="complex images"):
        fm.from_function(lambda x: x.real, (6,), field="complex")
    with pytest.raises(ValueError, match="not linear"):
        fm.from_function(lambda x: x.conj(), (6,), field="complex")
    with pytest.raises(ValueError, match="known: 'real'"):
        fm.from_function(lambda x: x, (6,), field="any")


class Shifted(fm.LinearOperator):
    """Adjoints with the faults that people make."""

    event_shape = measurement_shape = (1, 16, 16)

    def __init__(self, fault):
        self.fault = fault
        self.blur = fm.Blur(KERNEL)

    def _apply(self, x):
        return self.blur._apply(x)

    def _adjoint(self, y):
        return self.fault(self.blur, y)


@pytest.mark.parametrize(
    "fault",
    [
        lambda blur, y: 1.001 * blur._adjoint(y),
        lambda blur, y: blur._adjoint(y).roll(1, -1),
        lambda blur, y: blur._apply(y),
        lambda blur, y: blur._adjoint(y) + 1e-6 * y,
    ],
    ids=["scaled", "off-by-one", "not-flipped", "almost"],
)
def test_dot_test_sees_wrong_adjoints(fault):
    result = fm.dot_test(Shifted(fault))
    assert not result.passed
    assert "does not fit" in str(result)
    assert "from_function" in str(result)
    with pytest.raises(ValueError, match="does not fit"):
        fm.check_operator(Shifted(fault))


def poison(y):
    return torch.full_like(y, float("nan"))


def overflow(y):
    return y * 1e30 * 1e30 / 1e60


@pytest.mark.parametrize("spoil", [poison, overflow])
@pytest.mark.parametrize("where", ["_apply", "_adjoint"])
def test_products_that_are_not_finite_fail(spoil, where):
    """Everywhere, or in single precision alone: neither may look like an error of 0."""
    A = fm.Blur(KERNEL, image_shape=(1, 9, 7))
    right = getattr(A, where)
    setattr(A, where, lambda t: spoil(right(t)))
    result = fm.dot_test(A, dtype=torch.float32)
    assert not result.passed
    assert result.random == result.matched == float("inf")
    assert "NaN" in str(result)
    assert fm.dot_test(A).passed == (spoil is overflow)
    with pytest.raises(ValueError, match="NaN"):
        fm.check_operator(A)


@pytest.mark.parametrize("sizes", [{"draws": 0}, {"batch": 0}, {"draws": -1}, {"batch": 1.5}])
def test_a_dot_test_of_nothing_is_refused(sizes):
    with pytest.raises(ValueError, match="batch and draws must be positive"):
        fm.dot_test(Dft(), (1, 2, 2), **sizes)


def test_dot_test_names_a_wrong_scale():
    result = fm.dot_test(Shifted(lambda blur, y: 1.001 * blur._adjoint(y)))
    assert result.matched == pytest.approx(1e-3, rel=1e-3)
    assert result.scale == pytest.approx(1.001)
    assert "by 1.001" in str(result)


def test_dot_test_sees_a_missing_conjugate():
    class Transposed(Dft):
        def _adjoint(self, y):
            return torch.fft.fft2(y, norm="ortho")

    assert fm.dot_test(Dft(), (1, 8, 8)).passed
    assert not fm.dot_test(Transposed(), (1, 8, 8)).passed


def test_check_operator():
    fm.check_operator(fm.Blur(KERNEL, "reflect"), (2, 9, 7))
    fm.check_operator(Dft(), (2, 9, 7))
    fm.check_operator(0.0 * fm.Blur(KERNEL), (1, 9, 7))

    class Affine(fm.LinearOperator):
        def _apply(self, x):
            return x + 1

        def _adjoint(self, y):
            return y

    with pytest.raises(ValueError, match="not linear"):
        fm.check_operator(Affine(), (3,))
    with pytest.raises(ValueError, match="any size"):
        fm.check_operator(Affine())

    class Misnamed(Affine):
        def _apply(self, x):
            return x[:, 1:]

    with pytest.raises(ValueError, match="output_shape promises"):
        fm.check_operator(Misnamed(), (3,))
    with pytest.raises(TypeError, match="float32 or"):
        fm.dot_test(Dft(), (1, 2, 2), dtype=torch.float16)
