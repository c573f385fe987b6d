"""Sparse matrices with a stored transpose, differentiable to any order and under torch.func."""

from __future__ import annotations

import warnings
from typing import Any, final

import torch
from torch import Tensor


@final
class SparseMatrix:
    """A fixed real matrix (M, N) in compressed rows, and its transpose, also in compressed rows.

    Both are kept, in the dtypes and on the devices that were asked for: a product with the
    transpose of one stored matrix alone would be tens of times slower. Memory: 12 bytes per entry
    for the master, and for both directions on the CPU 12 more in single precision (the column
    indices are shared) and 12 more in double.

    Args:
        pointers: (M + 1,) int, where each row starts.
        columns: (nnz,) int32, ascending in each row.
        values: (nnz,) float64.
        shape: (M, N).
    """

    def __init__(
        self, pointers: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]
    ) -> None:
        self.pointers, self.columns, self.values, self.shape = pointers, columns, values, shape
        self._ready: dict[tuple[bool, torch.dtype, torch.device], Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Copies and other processes build their own: torch cannot deep-copy compressed rows.
        return self.__dict__ | {"_ready": {}}

    def product(self, x: Tensor, transpose: bool = False) -> Tensor:
        """S x, or S^T x: (N, B) to (M, B), or (M, B) to (N, B)."""
        result: Tensor = _Product.apply(self, x, transpose)
        return result

    def _matrix(self, transpose: bool, like: Tensor) -> Tensor:
        key = (transpose, like.dtype, like.device)
        if key not in self._ready:
            # A tensor born in inference mode could never be used in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                self._ready[key] = self._build(transpose, like)
        return self._ready[key]

    def _build(self, transpose: bool, like: Tensor) -> Tensor:
        pointers, columns, values = self.pointers, self.columns, self.values.to(like.dtype)
        shape = self.shape
        if transpose:
            from scipy.sparse import csr_matrix

            parts = (values.numpy(), columns.numpy(), pointers.numpy())
            flipped = csr_matrix(parts, shape=shape, copy=False).tocsc()
            pointers, columns, values = (
                torch.from_numpy(part) for part in (flipped.indptr, flipped.indices, flipped.data)
            )
            shape = (shape[1], shape[0])
        with warnings.catch_warnings():
            # torch calls compressed rows a beta feature, once per process; no user can act on it.
            warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
            return torch.sparse_csr_tensor(
                pointers.to(like.device, torch.int32),
                columns.to(like.device, torch.int32),
                values.to(like.device),
                shape,
                check_invariants=False,
            )


class _Product(torch.autograd.Function):
    """(S, x) -> S x. S travels as a Python object: sparse tensors cannot pass torch.func."""

    @staticmethod
    def forward(matrix: SparseMatrix, x: Tensor, transpose: bool) -> Tensor:
        stored = matrix._matrix(transpose, x)
        if x.shape[1] == 1:
            return (stored @ x[:, 0])[:, None]
        return stored @ x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[SparseMatrix, Tensor, bool], output: Tensor) -> None:
        ctx.matrix, _, ctx.transpose = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        return None, _Product.apply(ctx.matrix, gradients[0], not ctx.transpose), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        result: Tensor = _Product.apply(ctx.matrix, tangents[1], ctx.transpose)
        return result

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[None, int | None, None], matrix: SparseMatrix, x: Tensor,
        transpose: bool,
    ) -> tuple[Tensor, int | None]:  # fmt: skip
        if in_dims[1] is None:
            return _Product.apply(matrix, x, transpose), None
        x = x.movedim(in_dims[1], 1)
        flat = _Product.apply(matrix, x.flatten(1), transpose)
        return flat.unflatten(1, x.shape[1:]), 1
