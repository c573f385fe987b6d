"""A likelihood at every noise level, learned from simulated pairs of one forward model."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from forward_models import ForwardModel, TimeDependent

from .exact import Exact
from .learned_networks import HTransform, look
from .likelihood import Likelihood, Moments


@final
class Learned(Likelihood):
    """E[x0 | x, y] ~ D + shift(x, D, grad log p(y | D), y, sigma), by a network; see `HTransform`.

    The shift is the minimiser of E|D + shift - x0|^2 over simulated pairs (x0, y): as exact as the
    network. `log_likelihood` is learned apart, as the log ratio p_sigma(y | x) / p(y) that tells
    matched pairs (x, y) from shuffled ones: log p_sigma(y | x) up to an additive constant of y,
    which weights of particles do not feel, as it enters at their start and leaves at their end,
    where p(y | x0) itself takes its place. The two are not each other's derivatives: a particle
    method may take any shift and any twist, and converges to the posterior whatever they are.

    Cost: one gradient of the forward model, and one call of a small network for each of the two;
    neither calls nor derivatives of the prior's network beyond the one that denoises x.

    Args:
        networks: trained by `inverse.learn` for this model under the prior.
        model, y: the forward model and its measurement.

    Paper: Denker et al., "DEFT: Efficient Fine-Tuning of Diffusion Models by Learning the
    Generalised h-transform", 2024, https://arxiv.org/abs/2406.01781; Gutmann and Hyvarinen,
    "Noise-contrastive estimation", 2010, https://proceedings.mlr.press/v9/gutmann10a.html
    """

    def __init__(self, networks: HTransform, model: ForwardModel, y: Tensor) -> None:
        self.networks, self.model, self.y = networks, model, y
        self._of_y: tuple[Tensor, Tensor] | None = None

    def shift(self, moments: Moments) -> Tensor:
        features, _, gradient = self._look(moments)
        return self.networks.shift(features, moments.sigma, gradient)

    def log_likelihood(self, moments: Moments) -> Tensor:
        features, log_p, _ = self._look(moments)
        return self._ratio(features, moments, log_p)

    def evaluate(self, moments: Moments) -> tuple[Tensor, Tensor]:
        features, log_p, gradient = self._look(moments)
        shift = self.networks.shift(features, moments.sigma, gradient)
        return shift, self._ratio(features, moments, log_p)

    def _look(self, moments: Moments) -> tuple[Tensor, Tensor, Tensor | None]:
        """The features, log p(y | D) and its gradient."""
        x0 = moments.x0
        log_p, gradient = look(self.model, self.y, x0, nested=x0.requires_grad)
        if self._of_y is None or self._of_y[1].dtype != x0.dtype:
            self._of_y = self.networks.of_measurement(self.model, self.y, x0.dtype)
        features = self.networks.features(moments.x, moments.sigma, x0, gradient, self._of_y[1])
        return features, log_p, gradient

    def _ratio(self, features: Tensor, moments: Moments, log_p: Tensor) -> Tensor:
        assert self._of_y is not None
        return self.networks.log_ratio(features, moments.sigma, log_p, self._of_y)


@final
class LearnedLift:
    """A lift for one forward model under one prior: `inverse.condition(prior, model, y, lift=...)`.

    Made by `inverse.learn` or `inverse.load_learned`; any measurement of that model will do.
    Time-dependent models, such as noise-conditional classifiers, stay exact beside it. The forward
    model is checked; the prior, which a lift does not see, is the caller's to keep.

    Attributes:
        networks: the trained networks.

    Raises, when called:
        ValueError: a forward model that gives other likelihoods than the one it was trained for.
    """

    def __init__(self, networks: HTransform) -> None:
        self.networks = networks
        self._known: Any = None

    def __call__(self, model: ForwardModel | TimeDependent, y: Tensor) -> Likelihood:
        if isinstance(model, TimeDependent):
            return Exact(model, y)
        if model is not self._known:
            self._check(model)
            self._known = model
        return Learned(self.networks, model, y)

    def __repr__(self) -> str:
        event = tuple(self.networks.config["event_shape"])
        return f"LearnedLift(event_shape={event}, widths={self.networks.config['widths']})"

    def _check(self, model: ForwardModel) -> None:
        advice = "train one for it: inverse.learn(prior, model)"
        if model.differentiable != self.networks.differentiable:
            raise ValueError(f"these networks were trained for another forward model; {advice}")
        try:
            found = probe_value(model, self.networks.probe)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"these networks were trained for another forward model; {advice} ({error})"
            ) from error
        expected = float(self.networks.probe_value)
        if not abs(found - expected) <= 1e-3 * (1 + abs(expected)):
            raise ValueError(
                f"these networks were trained for another forward model: log p(y | x0) of a known "
                f"pair was {expected:.6g}, is {found:.6g}; {advice}"
            )


@torch.no_grad()
def probe_value(model: ForwardModel, images: Tensor) -> float:
    """log p(y | second image) for y simulated from the first: tells forward models apart."""
    generator = torch.Generator().manual_seed(0)
    y = model.check_measurement(model.simulate(images[:1], generator))
    return float(model.log_likelihood(y, images[1:]))
