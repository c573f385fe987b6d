"""Several processes that train one network, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def local_device() -> torch.device:
    """Where this process trains: a GPU of its own, by torchrun's LOCAL_RANK, or the CPU.

    Raises:
        ValueError: more processes on this machine than it has GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise ValueError(
            f"process {index} of this machine has no GPU to itself, there are {count}; start "
            f"torchrun with --nproc-per-node {count}"
        )
    return torch.device("cuda", index)


class Processes:
    """The group that trains together: equal weights, averaged gradients.

    Gradients are averaged after the backward pass rather than by DistributedDataParallel, which
    cannot serve losses that take derivatives of the network themselves.

    Args:
        together: join the processes that torchrun has started, each on its `local_device`; else
            this one is alone.
    """

    def __init__(self, together: bool = False) -> None:
        self.rank, self.size = 0, 1
        if together:
            device = local_device()
            if device.type == "cuda":  # before the group, which else meets on the first GPU
                torch.cuda.set_device(device)
            if not dist.is_initialized():
                dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            self.rank, self.size = dist.get_rank(), dist.get_world_size()

    @classmethod
    def from_environment(cls) -> Processes:
        """All that torchrun has started, or this process alone."""
        return cls(together=int(os.environ.get("WORLD_SIZE", "1")) > 1)

    def part(self, batch: int) -> int:
        """This process's number of samples out of a batch."""
        if batch % self.size:
            raise ValueError(
                f"a batch of {batch} cannot be shared equally by {self.size} processes; choose a "
                "multiple"
            )
        return batch // self.size

    def share(self, network: nn.Module) -> None:
        """Give all processes the first one's weights."""
        if self.size > 1:
            for value in network.state_dict().values():
                dist.broadcast(value, 0)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        if self.size > 1:
            present = [p.grad for p in parameters if p.grad is not None]
            flat = torch.cat([g.flatten() for g in present])
            dist.all_reduce(flat)
            parts = (flat / self.size).split([g.numel() for g in present])
            for gradient, part in zip(present, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def mean(self, value: Tensor) -> float:
        """Over all processes, of a scalar on the device that they train on."""
        if self.size > 1:
            dist.all_reduce(value)
            value = value / self.size
        return float(value)

    def any(self, value: bool, device: torch.device) -> bool:
        """Whether it holds for one of them; `device` is the one that they train on."""
        if self.size == 1:
            return value
        flag = torch.tensor(float(value), device=device)
        dist.all_reduce(flag)
        return bool(flag > 0)

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            dist.barrier()
