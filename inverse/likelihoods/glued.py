"""The residual of the decoded image, and what glues latents to their own encoding (PSLD)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from forward_models import LinearGaussian
from priors import LatentPrior, Schedule

from ..checks import between, flag, positive, whole
from ..norms import norm_of
from .likelihood import Likelihood, Moments
from .normalized import published_grid
from .smoothed import safe_step


@final
class Glued(Likelihood):
    """The gradient of PSLD as published: two norms per sample, of the residual and of the glue.

        z' <- ancestral(z) - grad_z [ omega |r| / w + gamma |g| / u ],
        r = y - A x,      x = decode(D(z, sigma)),
        g = D(z, sigma) - encode(x + A^T r / |A|^2),

    with w half the width of the images' range and u that of the latents', in which the paper's
    constants are stated, and A scaled to norm 1, as its are. If |A|^-2 A^T A is a projection the
    glue asks for latents that encode their image with y put in; where encode inverts decode it is
    0 if r is. As a score in noise-level coordinates it is a multiple of that gradient; see
    NormalizedPlugIn, whose grid this is.

    Two bounds, which the paper has not, hold where its constants, chosen for images of many pixels,
    would overshoot: the weight on r is at most 1 / sigma_y^2, that of log p(y | x) itself, and a
    step is shortened where it would raise k_r |r|^2 + k_g |g|^2, which has the gradient that is
    stepped along.

    Not a posterior score: no prior or noise level makes it exact. log_likelihood is
    log p(y | decode(D)). Costs one vector-Jacobian product of the network; one decoder and one
    encoder call with the gradient of each, and with the bounds one call of both or more.

    Args:
        model, y: a LinearGaussian forward model of images, and its measurement.
        prior: the LatentPrior with the autoencoder, which must have `encode`.
        omega, gamma: > 0 and >= 0.
        schedule, steps: of the grid, in units of `unit`; unit: u.
        bounded: False for the published step alone.

    Raises TypeError for another model or prior, or an autoencoder without encode; ValueError for
    numbers out of range.

    Paper: Rout et al., "Solving Linear Inverse Problems Provably via Posterior Sampling with Latent
    Diffusion Models", 2023, https://arxiv.org/abs/2307.00619
    """

    needs_covariance = True
    weighs_with_covariance = False

    def __init__(
        self,
        model: LinearGaussian,
        y: Tensor,
        prior: LatentPrior,
        *,
        schedule: Schedule,
        steps: int,
        omega: float = 1.0,
        gamma: float = 0.1,
        unit: float = 1.0,
        bounded: bool = True,
    ) -> None:
        if not isinstance(model, LinearGaussian):
            raise TypeError(
                f"Glued needs a LinearGaussian model of images, got {type(model).__name__}"
            )
        if not isinstance(prior, LatentPrior) or not encodes(prior):
            raise TypeError(
                "Glued needs a LatentPrior whose autoencoder has encode, got "
                f"{type(getattr(prior, 'autoencoder', prior)).__name__}"
            )
        self.model, self.y, self.prior, self.schedule = model, y, prior, schedule
        self.omega, self.gamma = positive(omega, "omega"), between(gamma, "gamma", 0)
        self.steps, self.unit = whole(steps, "steps"), positive(unit, "unit")
        self.bounded = flag(bounded, "bounded")
        low, high = prior.image_range
        self._width = (high - low) / 2
        self._operator_norm: float | None = None

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.model.log_likelihood(self.y, self.prior.decode(moments.x0))

    def shift(self, moments: Moments) -> Tensor:
        D, nested = moments.x0, moments.x0.requires_grad
        decay, drop = (
            t.to(D).reshape(-1, *[1] * (D.ndim - 1))
            for t in published_grid(moments.sigma.flatten(), self.schedule, self.steps, self.unit)
        )
        with torch.enable_grad():
            leaf = D if nested else D.detach().requires_grad_()
            r, g = self.parts(leaf)
            k_r, k_g = self._weights(r, g, D, decay * drop)
            (u,) = torch.autograd.grad((r, g), leaf, (-k_r * r, -k_g * g), create_graph=nested)
        d = moments.covariance(u)
        if not self.bounded:
            return d

        k_r, k_g = k_r.detach(), k_g.detach()

        def objective(r: Tensor, g: Tensor) -> Tensor:
            return -(_total(k_r * r.abs().square()) + _total(k_g * g.square())) / 2

        value = objective(r.detach(), g.detach())
        moved = (drop / moments.sigma**2 * d).detach()
        t = safe_step(lambda z: objective(*self.parts(z)), D.detach(), value, u.detach(), moved)
        return t * d

    def parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """r (B, *measurement) and g (B, *event) of clean latents z."""
        x = self.prior.decode(z)
        r = self.model.residual(self.y, x)
        pulled = self.model.operator.adjoint(r) / self._norm() ** 2
        return r, z - self.prior.encode(x + pulled)[0]

    def _weights(self, r: Tensor, g: Tensor, D: Tensor, fall: Tensor) -> tuple[Tensor, Tensor]:
        """What r and g are multiplied by: the two strengths over the norms, within the bounds."""

        def over(strength: float, parts: Tensor, least: Tensor) -> Tensor:
            norm = norm_of(parts)
            norm = torch.maximum(norm, least.reshape(-1, *[1] * (parts.ndim - 1)))
            return self.unit * strength / (fall.reshape(norm.shape) * norm)

        finfo = torch.finfo(D.dtype)
        k_r = over(self.omega * self.unit / self._width, r, torch.full_like(fall, finfo.tiny))
        # Below rounding g has no direction.
        k_g = over(self.gamma, g, finfo.eps * norm_of(D.detach()) + finfo.tiny)
        if self.bounded:
            k_r = torch.minimum(k_r, 1 / torch.as_tensor(self.model.noise_variance).to(k_r))
        return k_r, k_g

    def _norm(self) -> float:
        if self._operator_norm is None:
            shape = self.prior.image_shape
            self._operator_norm = self.model.operator.norm(shape, iterations=50, tolerance=1e-3)
        return self._operator_norm


def encodes(prior: LatentPrior) -> bool:
    """Whether the autoencoder of a latent prior has an encoder."""
    return callable(getattr(prior.autoencoder, "encode", None))


def _total(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1).sum(1)
