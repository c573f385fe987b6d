"""Operators made of operators: sums, products, stacks, normal operators, norms."""

import numpy as np
import pytest
import torch
from operator_cases import KERNEL, SOFT, Dft, normal

import forward_models as fm


def test_algebra_equals_matrices():
    a, b, c = normal(4, 5, seed=1), normal(5, 6, seed=2), normal(4, 6, seed=3)
    A, B, C = (fm.MatrixOperator(m) for m in (a, b, c))
    x = normal(2, 6, seed=5)
    torch.testing.assert_close((A @ B + 2 * C)(x), x @ (a @ b + 2 * c).T)
    torch.testing.assert_close((C / 4)(x), x @ c.T / 4)
    torch.testing.assert_close((A @ B - C).T(normal(2, 4)), normal(2, 4) @ (a @ b - c))
    torch.testing.assert_close((C * np.float32(0.5))(x), 0.5 * C(x))
    S = fm.Stack([B, C])
    torch.testing.assert_close(S(x), x @ torch.cat([b, c]).T)
    assert [p.shape for p in S.split(S(x))] == [(2, 5), (2, 4)]
    with pytest.raises(ValueError, match="do not fit"):
        A @ C
    with pytest.raises(ValueError, match="do not fit"):
        B + C
    with pytest.raises(ValueError, match="do not fit"):
        fm.Stack([A, B])
    with pytest.raises(ValueError, match="do not fit"):
        A + fm.MatrixOperator(a.to(torch.complex128))
    with pytest.raises(TypeError):
        A + 1


def test_stack_of_images():
    blur, mask = fm.Blur(KERNEL, "valid"), fm.Inpainting(SOFT)
    with pytest.raises(ValueError, match="event_shape="):
        fm.Stack([blur, mask])
    S = fm.Stack([blur, mask], event_shape=(2, 9, 7))
    x = normal(3, 2, 9, 7)
    first, second = S.split(S(x))
    torch.testing.assert_close(first, blur(x))
    torch.testing.assert_close(second, mask(x))
    assert S.measured.shape == S.measurement_shape
    assert int(S.measured.sum()) == 2 * 7 * 4 + 2 * int((SOFT > 0).sum())


def test_stack_refuses_other_things():
    with pytest.raises(TypeError, match=r"list of LinearOperators, got Identity; .*\[A, B\]"):
        fm.Stack(fm.Identity((4,)))
    with pytest.raises(TypeError, match=r"operators\[1\] must be a LinearOperator, got str"):
        fm.Stack([fm.Identity((4,)), "a"])
    with pytest.raises(TypeError, match=r"operators\[0\].*got str"):
        fm.Stack("a")


def test_composition_measures_what_both_do():
    """Entry by entry; an operator that spreads its entries leaves none unseen."""
    mask, other = fm.Inpainting(SOFT > 0.3), fm.Inpainting(SOFT < 0.7)
    both = (SOFT > 0.3) & (SOFT < 0.7)
    signs = fm.RandomSigns((2, 9, 7))
    for outer in (fm.Identity(), 2.0 * fm.Identity(), fm.Identity() @ (-1 * fm.Identity()), signs):
        assert torch.equal((outer @ mask).measured, mask.measured)
    assert torch.equal((mask @ other).measured, both)
    assert torch.equal((3.0 * mask @ fm.Identity() @ other).measured, both)
    assert torch.equal((mask @ fm.Blur(KERNEL) @ other).measured, mask.measured)
    assert (fm.Blur(KERNEL) @ mask).measured is None


def test_decompositions_are_made_once():
    A = 2.0 * (fm.MatrixOperator(normal(3, 8), (8, 1, 1)) @ fm.CosineTransform((8, 1, 1)))
    assert A.svd is not None
    assert A.svd is A.svd
    assert A.normal.svd is A.normal.svd


def test_composition_keeps_the_field_of_what_takes_both():
    mask = fm.Inpainting(SOFT)
    for A in (mask @ Dft(), Dft() @ mask, mask @ Dft() @ mask):
        assert A.event_field == A.measurement_field == "complex"
    assert (mask @ mask).event_field == "any"
    assert (mask @ fm.Blur(KERNEL)).measurement_field == "real"


class Unitary(fm.LinearOperator):
    """The orthonormal Fourier transform, times 3, that knows its Gram matrix: 9 I."""

    event_ndim = measurement_ndim = 3
    event_field = measurement_field = "complex"

    def _apply(self, x):
        return 3 * torch.fft.fft2(x, norm="ortho")

    def _adjoint(self, y):
        return 3 * torch.fft.ifft2(y, norm="ortho")

    def _gram_diagonal(self, y):
        return torch.full((), 9.0, dtype=y.dtype.to_real(), device=y.device)


def refuse_iterations(*_, **__):
    raise AssertionError("this solve has a closed form")


def test_closed_forms_of_a_composition(monkeypatch):
    """With B B^T = 9 I inside, A B has the closed forms of A: here a mask, and a matrix."""
    from forward_models.linear import linear_operator

    mask = fm.Inpainting(SOFT, channels=2)
    inner = fm.MatrixOperator(torch.eye(6, dtype=torch.float64)[:5] * 2)
    box = fm.Downsampling(2, image_shape=(1, 4, 6))
    outer = fm.MatrixOperator(normal(4, 6), event_shape=(1, 2, 3))
    cases = [
        (mask @ Unitary(), (2, 9, 7), torch.complex128),
        (2.0 * (mask @ Unitary()), (2, 9, 7), torch.complex128),
        (outer @ box, (1, 4, 6), torch.float64),
    ]
    monkeypatch.setattr(linear_operator, "conjugate_gradients", refuse_iterations)
    for A, shape, dtype in cases:
        x = normal(3, *shape, dtype=dtype)
        r, c = A(x), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
        v = A.solve(r, c, 0.3)
        back = A(c.reshape(-1, 1, 1, 1) * A.adjoint(v)) + 0.3 * v
        torch.testing.assert_close(back, r)
        assert A.svd is not None
        spectral = A.svd.singular_values.to(dtype) * A.svd.to_spectral_x(x)
        torch.testing.assert_close(A.svd.from_spectral_y(spectral), r)
        again = A.svd.to_spectral_x(A.svd.from_spectral_x(spectral))
        torch.testing.assert_close(again, spectral)
    # A matrix does not say that its Gram matrix is diagonal, and a zero inside has no svd.
    assert (fm.MatrixOperator(normal(2, 5)) @ inner).svd is None
    assert (mask @ (0.0 * Unitary())).svd is None


def test_normal_operators_take_their_shortcuts():
    tall = fm.MatrixOperator(normal(40, 3))
    tall.normal(normal(1, 3))
    tall._apply = tall._adjoint = refuse_iterations
    matrix = tall.matrix
    torch.testing.assert_close(tall.normal(normal(1, 3)), normal(1, 3) @ (matrix.T @ matrix))
    scaled, S = -2.0 * tall, fm.Stack([tall, -2.0 * tall])
    torch.testing.assert_close(scaled.normal(normal(1, 3)), 4 * tall.normal(normal(1, 3)))
    torch.testing.assert_close(S.normal(normal(1, 3)), 5 * tall.normal(normal(1, 3)))
    with pytest.raises(ValueError, match="agree in height and width"):
        fm.Inpainting(SOFT).normal(normal(1, 1, 7, 9))


def test_norm_of_a_clustered_spectrum():
    """Eigenvalues as close as those of a large blur, where power iteration creeps."""
    values = torch.linspace(0.99, 1, 300, dtype=torch.float64)

    class Diagonal(fm.LinearOperator):
        event_shape = measurement_shape = (300,)

        def _apply(self, x):
            return values.to(x.dtype) * x

        _adjoint = _apply

    A = Diagonal()
    assert A.norm() == pytest.approx(1, abs=2e-6)
    assert A.norm(dtype=torch.float32) == pytest.approx(1, abs=1e-5)
    assert (0.0 * A).norm() == 0
    with pytest.warns(RuntimeWarning, match="lower bound"):
        assert A.norm(iterations=2) < 1
    with pytest.raises(ValueError, match="event_shape"):
        fm.Blur(KERNEL).norm()
