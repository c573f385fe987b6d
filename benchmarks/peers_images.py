"""Image problems as Tasks of the peers: our operators, flattened into real vectors.

Entries that are no data are left out, and a complex value is two real ones, each with noise of
sigma. Linear operators of the digits are matrices; of larger images functions, with the singular
value decomposition where it is known in closed form. A linear operator's norm is divided out of A,
y and sigma (that of masks and blurs is 1, of 4 x 4 averages 1/4, of line integrals in mm 35 to 70):
deepinv's documentation asks for it, and what weight 1 of a guidance means depends on it.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from images_problems import ImageProblem, prior_of
from peers_task import SVD, InapplicableError, Map, Task, matrix
from torch import Tensor

from forward_models import (
    Gaussian,
    Inpainting,
    LinearGaussian,
    LinearOperator,
    Observation,
    Operator,
)
from forward_models.linear import conjugate_gradients
from forward_models.linear.svd import divide
from inverse.likelihoods import Measured

LARGEST_MATRIX = 1000


def linear(model: LinearGaussian, y: Tensor, shape: tuple[int, ...]) -> Map:
    """The operator of a model, on what y (1, *measurement) holds as data."""
    measured, A = Measured(model, y), model.operator

    def apply(x: Tensor) -> Tensor:
        return measured.pack(A.apply(x))

    if math.prod(shape) <= LARGEST_MATRIX:
        eye = torch.eye(math.prod(shape), dtype=torch.float64)
        return matrix(apply(eye.reshape(-1, *shape)).T, shape, y.dtype)
    known = None if A.svd is None else directions(A, measured, shape)

    def inverse(u: Tensor) -> Tensor:
        if known is not None:
            return known.V(divide(known.Ut(u), known.s.expand(len(u), -1)))
        b = A.adjoint(measured.unpack(u))
        x, info = conjugate_gradients(A.normal.apply, b, max_iterations=50, tolerance=1e-3)
        if not bool(info.converged.all()):
            raise InapplicableError("it takes a pseudo-inverse, which 50 iterations do not find")
        return x

    return Map(
        apply,
        lambda: A.norm(shape, iterations=50, tolerance=1e-3),
        lambda u: A.adjoint(measured.unpack(u)),
        inverse,
        None if known is None else lambda: known,
        A.mask.expand(shape).bool() if isinstance(A, Inpainting) else None,
    )


def directions(operator: LinearOperator, measured: Measured, shape: tuple[int, ...]) -> SVD:
    """The known directions, and where they are not all of them what they leave of the image."""
    svd, D = operator.svd, math.prod(shape)
    assert svd is not None
    R = len(svd.singular_values)
    rest = 0 if R == D else D

    def left(x: Tensor) -> Tensor:
        return x - svd.from_spectral_x(svd.to_spectral_x(x))

    def V(z: Tensor) -> Tensor:
        x = svd.from_spectral_x(z[:, :R])
        return x + left(z[:, R:].reshape(-1, *shape)) if rest else x

    def Vt(x: Tensor) -> Tensor:
        z = svd.to_spectral_x(x)
        return torch.cat([z, left(x).flatten(1)], 1) if rest else z

    def Ut(u: Tensor) -> Tensor:
        z = svd.to_spectral_y(measured.unpack(u))
        return torch.cat([z, z.new_zeros(len(z), rest)], 1)

    s = torch.cat([svd.singular_values, torch.zeros(rest)]).float()
    return SVD(s, lambda z: measured.pack(svd.from_spectral_y(z[:, :R])), Ut, V, Vt)


def nonlinear(operator: Operator, low: float, high: float, shape: tuple[int, ...]) -> Map:
    """Any differentiable operator with real measurements."""

    def norm() -> float:
        """By power iteration, at an image of noise."""
        generator = torch.Generator().manual_seed(0)
        x = low + (high - low) * torch.rand(1, *shape, generator=generator)
        v = torch.randn(1, *shape, generator=generator)
        for _ in range(50):
            v = operator.vjp(x, operator.jvp(x, v / v.norm()))
        return float(v.norm().sqrt())

    return Map(lambda x: operator.apply(x).flatten(1), norm)


def posed(problem: ImageProblem) -> tuple[Map, Tensor, float]:
    """f, y (1, M) and the noise of one real value."""
    model, y, shape = problem.model, problem.y, tuple(problem.truth.shape[1:])
    if isinstance(model, LinearGaussian):
        assert isinstance(model.sigma, float)
        norm = model.operator.norm(shape, iterations=50, tolerance=1e-3)
        if abs(norm - 1) > 1e-2:
            model, y = LinearGaussian(model.operator / norm, model.sigma / norm), y / norm
        return linear(model, y, shape), Measured(model, y).pack(y), float(model.sigma)
    assert isinstance(model, Observation)
    assert isinstance(model.noise, Gaussian)
    data_range = prior_of(problem.prior).data_range
    assert data_range is not None
    return nonlinear(model.operator, *data_range, shape), y.flatten(1), float(model.noise.sigma)


def run(
    module: Any, name: str, problem: ImageProblem, calls: int, n: int, seed: int
) -> tuple[Tensor, dict[str, float]]:
    """Samples of a peer's method, network calls and seconds. Raises InapplicableError."""
    prior, shape, spent = prior_of(problem.prior), tuple(problem.truth.shape[1:]), 0

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal spent
        spent += 1
        return prior.denoise(x.float(), sigma.float()).to(x)

    assert prior.data_range is not None
    f, y, sigma = posed(problem)
    task = Task(shape, denoise, f, sigma, y, *prior.data_range, prior.scale, n, calls, seed)
    start = time.process_time()
    x = module.run(name, task).reshape(n, *shape).float()
    return x, {"network_calls": spent, "seconds": time.process_time() - start}
