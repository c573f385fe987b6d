"""The file of a run's state: what is kept of which parameters, and files that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from priors.training.checkpoint import Checkpoint


class Partly(nn.Module):
    """One layer that learns, one that is frozen and one that nothing uses."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.learns = nn.Linear(width, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.unused = nn.Linear(2, 2)


def run(network: Partly, steps: int, adam: torch.optim.Optimizer | None = None):
    adam = adam or torch.optim.AdamW([p for p in network.parameters() if p.requires_grad])
    for _ in range(steps):
        adam.zero_grad()
        network.frozen(network.learns(torch.ones(4, 3))).square().mean().backward()
        adam.step()
    return adam


def copies(network: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in network.state_dict().items()}


def saved(folder: Path) -> tuple[Partly, torch.optim.Optimizer]:
    network = Partly()
    adam = run(network, 3)
    Checkpoint(folder, {"a": 1}).save(network, copies(network), adam, {"step": 3.0})
    return network, adam


def test_a_network_that_learns_in_part_goes_on(tmp_path):
    network, adam = saved(tmp_path)
    again = Partly()
    other = torch.optim.AdamW([p for p in again.parameters() if p.requires_grad])
    average = copies(again)
    assert Checkpoint(tmp_path, {"a": 1}).restore(again, average, other) == {"step": 3.0}
    run(network, 2, adam)
    run(again, 2, other)
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"network.learns.bias": None}, "missing network.learns.bias"),
        ({"average.unused.bias": None}, "missing average.unused.bias"),
        ({"exp_avg.learns.bias": None}, "missing exp_avg.learns.bias"),
        ({"exp_avg.unused.bias": torch.ones(2)}, "unexpected exp_avg.unused.bias"),
        ({"step.learns.bias": torch.ones(2)}, r"step.learns.bias has shape \(2,\), expected \(\)"),
        ({"network.learns.weight": torch.ones(2, 1)}, r"shape \(2, 1\), expected \(2, 3\)"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(edit, message, tmp_path):
    saved(tmp_path)
    path = tmp_path / "state.safetensors"
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        meta = file.metadata()
    save_file({k: v for k, v in (tensors | edit).items() if v is not None}, path, meta)
    network = Partly()
    before, adam = copies(network), torch.optim.AdamW(network.parameters())
    with pytest.raises(ValueError, match=message):
        Checkpoint(tmp_path, {"a": 1}).restore(network, copies(network), adam)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_network_of_other_shapes(tmp_path):
    saved(tmp_path)
    network = Partly(width=4)
    with pytest.raises(ValueError, match=r"network.learns.weight has shape \(2, 3\), expected"):
        Checkpoint(tmp_path, {"a": 1}).restore(
            network, copies(network), torch.optim.AdamW(network.parameters())
        )
