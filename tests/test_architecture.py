"""Imports go one way: priors and forward_models know nothing of ours, inverse knows both."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("priors", "forward_models", "inverse")
OUTER_ROOMS = (
    "inverse.io", "inverse.dicom", "inverse.figures", "inverse.classical", "inverse.demo",
    "inverse.__main__", "inverse.cli", "inverse.commands", "inverse.measurement",
    "inverse.training_command", "inverse.calibrate_command",
    "inverse.training_data", "inverse.training_watch", "inverse.plots",
    "inverse.classifier_command",
)  # fmt: skip
LAZY = (
    "diffusers",
    "torchvision",
    "matplotlib",
    "skimage",
    "scipy",
    "kornia",
    "pydicom",
    "finufft",
    "diffct",
    "yaml",
    "tensorboard",
)


def imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, anywhere in it."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, node.module)) if node.module else ".".join(base)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def files(*folders: str) -> list[Path]:
    found = [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def touches(names: set[str], package: str) -> set[str]:
    return {name for name in names if name == package or name.startswith(package + ".")}


@pytest.mark.parametrize("package", ["priors", "forward_models"])
def test_priors_and_forward_models_import_nothing_of_ours(package):
    others = [p for p in PACKAGES if p != package]
    for path in files(package):
        for other in others:
            assert not touches(imports(path), other), f"{path} imports {other}"


def test_samplers_see_a_prior_and_nothing_else():
    for path in files("inverse/samplers"):
        names = imports(path)
        assert not touches(names, "forward_models"), path
        for room in ("inverse.likelihoods", "inverse.posterior", "inverse.recipes"):
            assert not touches(names, room), f"{path} imports {room}"


def test_likelihoods_never_see_a_sampler():
    for path in files("inverse/likelihoods"):
        for room in ("inverse.samplers", "inverse.posterior", "inverse.recipes"):
            assert not touches(imports(path), room), f"{path} imports {room}"


def test_the_core_does_not_import_the_outer_rooms():
    outer = {ROOT / (room.replace(".", "/") + ".py") for room in OUTER_ROOMS}
    for path in files(*PACKAGES):
        if path not in outer:
            for room in OUTER_ROOMS:
                assert not touches(imports(path), room), f"{path} imports {room}"


def test_importing_is_light_and_leaves_no_trace():
    code = (
        "import sys, random, numpy, torch\n"
        "before = set(sys.modules)\n"
        "state, rng = torch.get_rng_state(), random.getstate()\n"
        "import inverse, priors, forward_models\n"
        f"heavy = [m for m in {LAZY!r} if m in sys.modules and m not in before]\n"
        "assert not heavy, heavy\n"
        "assert torch.equal(state, torch.get_rng_state()) and rng == random.getstate()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_package_is_typed():
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").exists()
