"""A prior trained by a recipe on images, and written as a folder that `priors.load` reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..network import NetworkPrior
from ..pretrained.saving import save
from ..schedule import VE
from .checkpoint import Checkpoint
from .images import Images
from .loop import Step
from .networks import unet
from .planned import train_as
from .processes import Processes
from .recipe import Recipe
from .warm_start import bare_unet, start_from

Span = tuple[float, float]


class PriorTraining:
    """One run: the network, its prior in network units, and what it is trained on.

    Args:
        recipe: all that decides the run, beside the images.
        images: (C, H, W) each, data units, to train on.
        data_range: what they span.
        device: where the network is.
        processes: the group that trains together.

    Attributes:
        network: the network in training.
        sigma_data: of the recipe, or measured.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: Sequence[Tensor],
        data_range: Span,
        device: torch.device | str = "cpu",
        processes: Processes | None = None,
    ) -> None:
        self.recipe, self.data_range = recipe, data_range
        self.processes = processes or Processes()
        self._part = self.processes.part(recipe.batch)
        low, high = recipe.denoiser.network_range
        scale = (high - low) / (data_range[1] - data_range[0])
        scaled = [(image - data_range[0]) * scale + low for image in images]
        self.images = Images(scaled, recipe.augmentation, low, high)
        self.unit = 1 / scale
        self.sigma_data = recipe.denoiser.sigma_data or _spread(scaled)
        self.schedule = recipe.denoiser.noising()
        self.device = torch.device(device)
        shape, plan = self.images.event_shape, recipe.network
        own_time = recipe.denoiser.parametrization == "score" and isinstance(self.schedule, VE)
        self.network = unet(
            shape, plan.widths, plan.layers, plan.patch, plan.attention,
            "fourier" if own_time else "positional", recipe.seed,
        )  # fmt: skip
        if recipe.init is not None:
            self.sigma_data = start_from(
                recipe.init, self.network, self.prior(), recipe.denoiser.sigma_data
            )
        self.network.to(self.device)

    def prior(self, units: Span | None = None) -> NetworkPrior:
        """The network, as it is now, as a prior on images of a range; by default network units."""
        plan = self.recipe.denoiser
        images = units or plan.network_range
        unit = (images[1] - images[0]) / (plan.network_range[1] - plan.network_range[0])
        return NetworkPrior(
            self.network,
            plan.parametrization,
            self.images.event_shape,
            data_range=images,
            network_range=plan.network_range,
            schedule=self.schedule,
            sigma_range=(plan.sigma_range[0] * unit, plan.sigma_range[1] * unit),
            sigma_data=self.sigma_data,
            any_size=self.any_size,
            stride=self.stride,
        )

    @property
    def any_size(self) -> bool:
        return not self.recipe.network.attention

    @property
    def stride(self) -> int:
        return self.recipe.network.stride if self.any_size else 1

    def run(
        self,
        state: str | os.PathLike[str] | None = None,
        callback: Callable[[Step], None] | None = None,
    ) -> NetworkPrior:
        """Train; the prior with averaged weights, on the data's own units.

        Args:
            state: folder in which the run's state is kept; a run found there goes on.
            callback: called after every step.
        """
        recipe, prior = self.recipe, self.prior()
        levels = recipe.levels.density(recipe.denoiser)
        objective = recipe.loss.objective(self.sigma_data, levels)

        def loss(generator: torch.Generator) -> Tensor:
            x0 = self.images.batch(self._part, generator).to(self.device)
            sigma = levels.sample(self._part, generator)
            return objective(prior, x0, sigma, generator).mean()

        checkpoint = None
        if state is not None:
            settings = recipe.decisive() | {"data": self.digest(), "sigma_data": self.sigma_data}
            checkpoint = Checkpoint(state, settings, recipe.monitor.checkpoint)
        train_as(recipe, self.network, loss, checkpoint, callback, self.processes)
        return self.prior(self.data_range)

    def digest(self) -> str:
        """SHA-256 of the training images."""
        return self.images.digest().hexdigest()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the prior, as the recipe's output says."""
        recipe, bare = self.recipe, bare_unet(self.network)
        low, high = recipe.denoiser.sigma_range
        # Not diffusers' own `to`, which warns of casts whatever is cast.
        nn.Module.to(bare, getattr(torch, recipe.output.dtype))
        save(
            bare,
            Path(folder),
            event_shape=recipe.output.event_shape or self.images.event_shape,
            data_range=self.data_range,
            network_range=recipe.denoiser.network_range,
            sigma_range=(low * self.unit, high * self.unit),
            parametrization=recipe.denoiser.parametrization,
            schedule=self.schedule,
            sigma_data=self.sigma_data,
            patch=recipe.network.patch,
            any_size=self.any_size,
            stride=self.stride,
            name=recipe.name,
        )


def _spread(images: Sequence[Tensor]) -> float:
    """The standard deviation over all values, to three digits; at least 0.05."""
    count = sum(image.numel() for image in images)
    mean = sum(float(image.double().sum()) for image in images) / count
    square = sum(float((image.double() - mean).square().sum()) for image in images) / count
    return round(max(square**0.5, 0.05), 3)
