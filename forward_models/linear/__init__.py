"""Linear operators: the interface with exact adjoints and solves, and operators made of others."""

from .algebra import AdjointOperator, Composition, Scaled, Stack, Sum
from .linear_operator import SVD, LinearOperator
from .matrix import Identity, MatrixOperator
from .solvers import SolveInfo, conjugate_gradients

__all__ = [
    "SVD",
    "AdjointOperator",
    "Composition",
    "Identity",
    "LinearOperator",
    "MatrixOperator",
    "Scaled",
    "SolveInfo",
    "Stack",
    "Sum",
    "conjugate_gradients",
]
