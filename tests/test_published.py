"""The published ddpm-cifar10-32 configuration at its real size, with random weights."""

import importlib.util
import sys
from pathlib import Path


def test_ddpm_cifar10_loads_and_takes_a_guided_step(monkeypatch):
    path = Path(__file__).parent.parent / "benchmarks" / "pretrained_diffusers.py"
    spec = importlib.util.spec_from_file_location("pretrained_diffusers", path)
    published = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, published)  # dataclasses look their module up
    spec.loader.exec_module(published)
    figures = published.measure(published.CASES["ddpm-cifar10-32"], times=(300,))
    assert figures["parameters"] == 35_746_307
    assert figures["relative_difference"] < 1e-5
