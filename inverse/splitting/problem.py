"""A posterior as splitting methods take it apart: what is denoised, and what the data step sees."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from forward_models import ForwardModel, LinearGaussian, TimeDependent
from priors import Prior

from ..lift import joint
from ..likelihoods import Measured
from ..posterior import Posterior
from .discrepancy import believed


@final
class Problem:
    """The two sides of a posterior.

    Attributes:
        posterior: the whole.
        prior: what is denoised: the prior, with time-dependent factors, which are of noisy images
            and exact there.
        clean: the other factors, pairs (forward model, y): what the data step sees.
        measured: those of them that are linear with Gaussian noise, stacked into one; None if
            another kind is among them, or a decoder comes between.
        scale: the standard deviation of a value of z.
    """

    def __init__(self, posterior: Posterior) -> None:
        timed = tuple((m, y) for m, y in posterior.factors if isinstance(m, TimeDependent))
        self.clean = tuple((m, y) for m, y in posterior.factors if isinstance(m, ForwardModel))
        self.posterior, self.decoder = posterior, posterior.decoder
        self.prior: Prior = posterior.prior
        self.scale = posterior.prior.scale
        if timed:
            self.prior = Posterior(posterior.prior, timed, posterior.lift, posterior.decoder)
        self.measured = self._stacked()

    def _stacked(self) -> Measured | None:
        if self.decoder is None and all(isinstance(m, LinearGaussian) for m, _ in self.clean):
            for model, y in joint(self.clean):
                assert isinstance(model, LinearGaussian)
                return Measured(model, y)
        return None

    def of_images(self) -> Problem:
        """The same measurements as a function of decoded images; no prior of those is known."""
        if self.decoder is None:
            return self
        images, (low, high) = copy.copy(self), self.decoder.prior.image_range
        images.decoder, images.scale = None, (high - low) / 2
        images.measured = images._stacked()
        return images

    def linear(self) -> Measured:
        """`measured`; TypeError where there is none."""
        if self.measured is None:
            kinds = ", ".join(type(m).__name__ for m, _ in self.clean) or "nothing clean"
            where = " behind a decoder" if self.decoder is not None else ""
            raise TypeError(f"needs linear measurements with Gaussian noise, got {kinds}{where}")
        return self.measured

    @cached_property
    def believed(self) -> Measured:
        """`linear()`, held to what of it the noise lets one believe; see `discrepancy`."""
        return believed(self.linear())

    def log_likelihood(self, z: Tensor) -> Tensor:
        """log p(y | z) of clean images or latents z (B, *event), (B,)."""
        image = z if self.decoder is None else self.decoder.apply(z)
        return torch.stack([m.log_likelihood(y, image) for m, y in self.clean]).sum(0)

    def gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(y | z), (B,), and its gradient, (B, *event); TypeError for a black box."""
        for model, _ in self.clean:
            if not model.differentiable:
                raise TypeError(
                    f"{type(model).__name__} is a black box: log p(y | x0) has no gradient"
                )
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = self.log_likelihood(z)
            (slope,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), slope

    def explained(self, z: Tensor) -> Tensor:
        """(B,) whether z explains each measurement to its noise; never where that is unknown."""
        image = z if self.decoder is None else self.decoder.apply(z)
        done = torch.ones(len(z), dtype=torch.bool, device=z.device)
        for model, y in self.clean:
            misfit = model.misfit(y, image)
            done = done & (misfit <= 1 if misfit is not None else torch.zeros_like(done))
        return done
