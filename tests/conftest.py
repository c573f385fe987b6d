"""Fixtures that several files of tests ask for."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores among themselves
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For networks too small to share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[None]:
    """Modules of benchmarks and benchmarks/truth can be imported, and are not left behind."""
    root = Path(__file__).parents[1] / "benchmarks"
    folders, before = [str(root), str(root / "truth")], set(sys.modules)
    sys.path[:0] = folders
    yield
    for folder in folders:
        sys.path.remove(folder)
    for name in set(sys.modules) - before:
        if root in Path(getattr(sys.modules[name], "__file__", None) or "").parents:
            del sys.modules[name]
