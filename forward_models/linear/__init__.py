"""Linear operators: the interface with exact adjoints and solves, and operators made of others."""

from .algebra import AdjointOperator, Scaled, Sum
from .composition import Composition
from .dot_test import DotTest, check_operator, dot_test
from .function import FunctionOperator, from_function
from .isometry import Isometry
from .linear_operator import LinearOperator
from .matrix import Identity, MatrixOperator
from .normal import Normal
from .solvers import SolveInfo, conjugate_gradients
from .stack import Stack
from .svd import SVD

__all__ = [
    "SVD",
    "AdjointOperator",
    "Composition",
    "DotTest",
    "FunctionOperator",
    "Identity",
    "Isometry",
    "LinearOperator",
    "MatrixOperator",
    "Normal",
    "Scaled",
    "SolveInfo",
    "Stack",
    "Sum",
    "check_operator",
    "conjugate_gradients",
    "dot_test",
    "from_function",
]
