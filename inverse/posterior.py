"""Bayes' rule for scores: a prior and its measurements make a posterior, which is a prior.

    grad log p_sigma(x | y) = grad log p_sigma(x) + grad log p_sigma(y | x)

times sigma^2, with Tweedie's formula on both sides:

    E[x0 | x, y]            = E[x0 | x]           + shift(x, sigma; y).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from forward_models import (
    ForwardModel,
    Observation,
    Operator,
    TimeDependent,
)
from priors import LatentPrior, Prior

from .decoder import Decoder, after
from .image_shape import agreed
from .lift import Lift, Model, default_lift, joint
from .likelihoods import Cost, Likelihood, Moments


@final
class Posterior(Prior):
    """p_sigma(x | y) for a prior and one or several measurements; one network call a `denoise`.

    Args:
        prior: any Prior.
        factors: pairs (forward model, y) with y already checked, (1 or B, *measurement).
        lift: how each forward model is seen at noise level sigma. Linear-Gaussian factors are
            stacked into one first: the lift of several such measurements is not the sum of their
            lifts, because they are correlated given x.
        decoder: of a latent prior, whose latents are what is sampled; by default the prior's own.
            Forward models are of images and follow it, once for all linear-Gaussian ones together;
            time-dependent ones are of latents.

    Exact if every likelihood is; see the lift.
    """

    def __init__(
        self,
        prior: Prior,
        factors: tuple[tuple[Model, Tensor], ...],
        lift: Lift = default_lift,
        decoder: Decoder | None = None,
    ) -> None:
        self.prior, self.factors, self.lift = prior, tuple(factors), lift
        self.decoder = decoder_of(prior) if decoder is None else decoder
        self.event_shape = prior.event_shape
        self.data_range = prior.data_range
        self.sigma_range = prior.sigma_range
        self.scale = prior.scale
        self.likelihoods = tuple(
            _lifted(lift, model if self.decoder is None else after(model, self.decoder), y)
            for model, y in joint(self.factors)
        )

    def given(self, model: Model, y: Tensor | int) -> Posterior:
        """The posterior after one more measurement."""
        added = condition(self.prior, model, y, lift=self.lift)
        if added.event_shape != self.event_shape:
            raise ValueError(
                f"the measurements so far are of images {self.event_shape}, this one of "
                f"{added.event_shape}"
            )
        factors = self.factors + added.factors
        batches = {z.shape[0] for _, z in factors} - {1}
        if len(batches) > 1:
            raise ValueError(
                f"measurements of {sorted(batches)} samples do not go together; give one for all "
                "samples, or as many in each"
            )
        kinds = {z.dtype.to_real() for _, z in factors if z.is_floating_point() or z.is_complex()}
        if len(kinds) > 1:
            raise TypeError(f"the measurements have dtypes {kinds}; convert them to one")
        return Posterior(self.prior, factors, self.lift, self.decoder)

    def lifted(self, lift: Lift) -> Posterior:
        """The same measurements, seen at noise level sigma in another way."""
        return Posterior(self.prior, self.factors, lift, self.decoder)

    def over(self, prior: Prior) -> Posterior:
        """The same measurements and lift over another prior of the same images."""
        return Posterior(prior, self.factors, self.lift, self.decoder)

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        return self.prior.initial(eps, sigma)

    def accepts(self, event_shape: tuple[int, ...]) -> bool:
        return tuple(event_shape) == self.event_shape

    def log_likelihood(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """log p_sigma(y | x), (B,), as the likelihoods have it; exact if they are."""
        self.check_input(x)
        moments = self._moments(x, self.check_sigma(sigma, x))
        return torch.stack([li.log_likelihood(moments) for li in self.likelihoods]).sum(0)

    @property
    def unmeasured(self) -> Prior:
        return self.prior

    def guided(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        self.check_input(x)
        moments = self._moments(x, self.check_sigma(sigma, x))
        return moments.x0, self._shift(moments)

    def twisted(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """`guided` and `log_likelihood` from one network call: what particles are weighed by."""
        self.check_input(x)
        moments = self._moments(x, self.check_sigma(sigma, x))
        if _lost(moments):
            nowhere = torch.full_like(moments.x0, math.nan)
            return moments.x0, nowhere, nowhere.reshape(len(nowhere), -1)[:, 0]
        shifts, values = zip(*(li.evaluate(moments) for li in self.likelihoods), strict=True)
        return moments.x0, sum(shifts[1:], shifts[0]), sum(values[1:], values[0])

    def weighed(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and log p_sigma(y | x) from one network call, without any gradient of either.

        Likelihoods that need Cov[x0 | x] for their density still take products with it.
        """
        self.check_input(x)
        level = self.check_sigma(sigma, x)
        if any(likelihood.weighs_with_covariance for likelihood in self.likelihoods):
            moments = self._moments(x, level)
        else:
            moments = Moments(x, level, self.prior.denoise(x, level.flatten()), prior=self.prior)
        if not bool(torch.isfinite(moments.x0).all()):
            return moments.x0, moments.x0.new_full((len(x),), math.nan)
        return moments.x0, torch.stack(
            [li.log_likelihood(moments) for li in self.likelihoods]
        ).sum(0)  # fmt: skip

    def log_clean(self, x0: Tensor) -> Tensor:
        """log p(y | x0) of clean images, (B,); time-dependent factors at noise level 0."""
        image = x0 if self.decoder is None else self.decoder.apply(x0)
        zero = x0.new_zeros(len(x0))
        return torch.stack([
            m.log_likelihood(y, x0, zero) if isinstance(m, TimeDependent)
            else m.log_likelihood(y, image)
            for m, y in self.factors
        ]).sum(0)  # fmt: skip

    def exact_at(self, sigma: float) -> bool:
        """Whether every likelihood is exact at this noise level; see `Likelihood.exact_at`."""
        return all(likelihood.exact_at(sigma) for likelihood in self.likelihoods)

    @property
    def cost(self) -> Cost:
        """What `denoise` costs beside the one network call of the prior."""
        return _total([likelihood.cost for likelihood in self.likelihoods])

    @property
    def density_cost(self) -> Cost:
        """What `twisted` costs beside `cost` and the one network call of the prior."""
        return _total([likelihood.density_cost for likelihood in self.likelihoods])

    def paired(self, rows: Sequence[int]) -> Posterior:
        """The posterior of samples that take these rows of y, where y holds several."""
        if all(y.shape[0] == 1 for _, y in self.factors):
            return self
        index = torch.as_tensor(rows)
        factors = tuple(
            (m, y if y.shape[0] == 1 else y[index.to(y.device)]) for m, y in self.factors
        )
        return Posterior(self.prior, factors, self.lift, self.decoder)

    def _moments(self, x: Tensor, sigma: Tensor) -> Moments:
        level = sigma.flatten()
        if any(likelihood.needs_covariance_at(sigma) for likelihood in self.likelihoods):
            x0, product = self.prior.covariance(x, level)
            # Behind a decoder no product is cheap.
            cheap = self.prior.exact_covariance and self.decoder is None
            return Moments(x, sigma, x0, product, cheap, self.prior)
        return Moments(x, sigma, self.prior.denoise(x, level), prior=self.prior)

    def _particulars(self) -> dict[str, Any]:
        return {"prior": type(self.prior), "measured": [type(model) for model, _ in self.factors]}

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        moments = self._moments(x, sigma)
        return moments.x0 + self._shift(moments)

    def _shift(self, moments: Moments) -> Tensor:
        if _lost(moments):
            return torch.full_like(moments.x0, math.nan)
        shifts = [likelihood.shift(moments) for likelihood in self.likelihoods]
        return sum(shifts[1:], shifts[0])


def _lifted(lift: Lift, model: Model, y: Tensor) -> Likelihood:
    if not callable(lift):
        raise TypeError(f"lift must be a function of (model, y), got {lift!r}")
    likelihood = lift(model, y)
    if not isinstance(likelihood, Likelihood):
        raise TypeError(
            f"the lift must return a likelihoods.Likelihood, got {type(likelihood).__name__}"
        )
    return likelihood


def _total(costs: list[Cost]) -> Cost:
    return Cost(sum(c.network_calls for c in costs), sum(c.products for c in costs))


def _lost(moments: Moments) -> bool:
    """Whether the denoised image is no number: nothing can be solved for then, and whoever runs
    the posterior says at which step it happened."""
    return not bool(torch.isfinite(moments.x0).all())


def condition(
    prior: Prior, model: Model, y: Tensor | int, *, lift: Lift = default_lift
) -> Posterior:
    """The posterior p(x | y) of a prior and one measurement; add others with `.given`.

    Args:
        prior: any Prior; one that takes any image size adopts the forward model's. Under a
            LatentPrior the posterior is of latents, forward models are of their images.
        model: ForwardModel p(y | x0), or TimeDependent p_sigma(y | x).
            One that is exactly linear with Gaussian noise is taken as that, and a linear operator
            of images of any size as one of these: see `LinearOperator.sized`.
        y: the measurement, (*measurement) or (1, *measurement), or (B, *measurement) with one
            for each of the B samples to be drawn; for classifiers a class index.
        lift: forward model -> likelihood at every noise level; the default is the documented
            rule `default_lift`, and `inverse.sample(method=...)` names others.
    Raises:
        TypeError: arguments of other kinds. ValueError: a y of the wrong shape or not finite;
        a prior and a forward model of different event shapes.
    """
    if not isinstance(prior, Prior):
        raise TypeError(f"prior must be a priors.Prior, got {type(prior).__name__}")
    if isinstance(prior, Posterior):
        posterior = prior if lift is default_lift else prior.lifted(lift)
        return posterior.given(model, y)
    if not isinstance(model, ForwardModel | TimeDependent):
        raise TypeError(
            f"model must be a forward_models.ForwardModel or TimeDependent, got "
            f"{type(model).__name__}"
            + ("; wrap the operator: LinearGaussian(operator, sigma)" if callable(model) else "")
        )
    y = torch.tensor(y) if isinstance(y, int) else y
    classes = getattr(model, "num_classes", None)
    if isinstance(classes, int) and not isinstance(y, Tensor):
        raise TypeError(f"y must be a class index, an int from 0 to {classes - 1}, got {y!r}")
    y = model.check_measurement(_with_batch_axis(model, y, prior))
    equivalent = model.linear_gaussian(y) if isinstance(model, ForwardModel) else None
    if equivalent is not None:
        model, y = equivalent
    operator = getattr(model, "operator", None)
    if isinstance(operator, Operator) and operator.event_field == "complex":
        raise TypeError(
            f"{type(operator).__name__} measures complex images, priors are of real ones; compose "
            "it: operator @ RealToComplex(), or ChannelsToComplex() for two real channels"
        )
    prior, model = agreed(prior, model, y)
    return Posterior(prior, ((model, y),), lift)


def decoder_of(prior: Prior) -> Decoder | None:
    """The decoder of a LatentPrior; None for priors of images."""
    return Decoder(prior) if isinstance(prior, LatentPrior) else None


def _with_batch_axis(model: Model, y: Tensor, prior: Prior) -> Tensor:
    """y, with a batch axis if a model of images of any shape leaves open whether it has one."""
    operator = getattr(model, "operator", None)
    known = getattr(model, "measurement_shape", None) or getattr(model, "measurement_ndim", None)
    if known is not None or not isinstance(operator, Operator) or not isinstance(y, Tensor):
        return y
    added = model.noise.added_axes if isinstance(model, Observation) else 0
    image = prior.image_shape if isinstance(prior, LatentPrior) else tuple(prior.event_shape)
    ndim = len(operator.output_shape(image)) + added
    return y[None] if y.ndim == ndim else y
