"""The loop, run as a recipe says, whatever it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

from .checkpoint import Checkpoint
from .loop import Loss, Optimizer, Precision, Step, train
from .processes import Processes


class Plan(Protocol):
    """What every recipe says of its run; see `train`."""

    @property
    def steps(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def precision(self) -> Precision: ...


def train_as(
    plan: Plan,
    network: nn.Module,
    loss: Loss,
    checkpoint: Checkpoint | None,
    callback: Callable[[Step], None] | None,
    processes: Processes,
) -> None:
    """`train` a network as a recipe says, in place; its weights need no gradient afterwards.

    Raises what `train` raises.
    """
    train(
        network,
        loss,
        plan.steps,
        seed=plan.seed,
        optimizer=plan.optimizer,
        precision=plan.precision,
        checkpoint=checkpoint,
        callback=callback,
        processes=processes,
    )
    network.requires_grad_(False)
