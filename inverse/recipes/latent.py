"""Methods that are stated for latent diffusion: the sampler sees latents, the data their images."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from forward_models import LinearGaussian, LinearOperator, Observation, TimeDependent
from forward_models.operator import Chain
from priors import VP, karras
from priors.grids import unit_of

from ..checks import flag, positive, whole
from ..decoder import Decoder
from ..lift import Model
from ..likelihoods import Exact, Glued, Likelihood
from ..likelihoods.glued import encodes
from ..likelihoods.normalized import has_norm
from ..posterior import Posterior
from ..samplers import Ancestral
from ..splitting import Consistent, FlowODE, Fresh, Mean, Renewed, Resampled, Slack, Splitting
from . import applies
from .decoupled import annealed_range, draw
from .lifts import vp_levels
from .plug_in import ZETA, dps
from .recipe import Method, Recipe


def latent(instead: str, *further: Callable[[Posterior], str | None]) -> Callable:
    """Refuses posteriors of images, with the method for those, then what `further` refuses."""

    def why(posterior: Posterior) -> str | None:
        if posterior.decoder is None:
            return f"it needs a latent prior; for priors of images use {instead}"
        return next((said for check in further if (said := check(posterior))), None)

    return why


def has_encoder(posterior: Posterior) -> str | None:
    assert posterior.decoder is not None
    prior = posterior.decoder.prior
    return None if encodes(prior) else f"{type(prior.autoencoder).__name__} has no encode"


def linear_in_images(posterior: Posterior) -> str | None:
    for model, _ in posterior.factors:
        if not isinstance(model, LinearGaussian | TimeDependent):
            return f"{type(model).__name__} is not linear in the image with Gaussian noise"
    return None


def _ldps(
    posterior: Posterior, steps: int, *, zeta: float | None = None, bounded: bool = True
) -> Recipe:
    if zeta is None and not any(
        isinstance(m, LinearGaussian | Observation) and has_norm(m) for m, _ in posterior.factors
    ):
        return dps(posterior, steps, bounded=bounded)
    assert posterior.decoder is not None
    # |r| counts in half the images' range, the step in that of the latents.
    low, high = posterior.decoder.prior.image_range
    own = positive(ZETA if zeta is None else zeta, "zeta") * unit_of(posterior.prior)
    return dps(posterior, steps, zeta=2 * own / (high - low), bounded=bounded)


def _psld(
    posterior: Posterior,
    steps: int,
    *,
    omega: float = 1.0,
    gamma: float = 0.1,
    bounded: bool = True,
) -> Recipe:
    flag(bounded, "bounded")
    width, schedule = unit_of(posterior.prior), VP()

    def lift(model: Model, y: Tensor) -> Likelihood:
        if isinstance(model, TimeDependent):
            return Exact(model, y)
        images, decoder = apart(model)
        return Glued(
            images, y, decoder.prior, omega=omega, gamma=gamma, schedule=schedule, steps=steps,
            unit=width, bounded=bounded,
        )  # fmt: skip

    return Recipe(posterior.lifted(lift), Ancestral(vp_levels(posterior, steps)))


def apart(model: Model) -> tuple[LinearGaussian, Decoder]:
    """The linear model of images and the decoder that `decoder.after` made `model` of."""
    assert isinstance(model, Observation)
    assert isinstance(model.operator, Chain)
    A, decoder = model.operator.outer, model.operator.inner
    assert isinstance(A, LinearOperator)
    assert isinstance(decoder, Decoder)
    return LinearGaussian(A, model.noise.sigma), decoder  # type: ignore[attr-defined]


def _resample(
    posterior: Posterior,
    steps: int,
    *,
    every: int = 10,
    scale: float = 40.0,
    iterations: int = 50,
) -> Recipe:
    data = Consistent(late=2 * steps // 3, iterations=iterations)
    update = Resampled(data, scale, every, first=steps // 3)
    return Recipe(posterior, Splitting(vp_levels(posterior, steps), Mean(), update))


def _latent_daps(
    posterior: Posterior,
    steps: int,
    *,
    inner: str = "hmc",
    length: int | None = None,
    ode_steps: int = 2,
    start: float = 10.0,
    end: float = 0.1,
) -> Recipe:
    update = Renewed(draw(posterior, Slack(), inner, length), Fresh())
    levels = karras(steps, annealed_range(posterior, start, end))
    ode = FlowODE(whole(ode_steps, "ode_steps"))
    return Recipe(posterior, Splitting(levels, ode, update))


LATENT = (
    Method(
        name="ldps",
        family="guidance",
        asks="gradient",
        needs="a latent prior and a differentiable forward model of its images",
        jacobian=True,
        cost="1 network call and 1 vector-Jacobian product a step, and the decoder's",
        exact_when="never: as `dps`, through the decoder",
        paper="Rout et al. 2023, Solving Linear Inverse Problems Provably via Posterior Sampling "
        "with Latent Diffusion Models, https://arxiv.org/abs/2307.00619 (its baseline)",
        steps=1000,
        applies=latent("dps", applies.differentiable),
        build=_ldps,
        own_sampler=True,
        deviates="as `dps`; the residual counts in half the range of the images",
    ),
    Method(
        name="psld",
        family="guidance",
        asks="adjoint",
        needs="a latent prior with an encoder, linear-Gaussian factors",
        jacobian=True,
        cost="1 network call and 1 vector-Jacobian product a step, and the decoder's and encoder's",
        exact_when="never: a normalised step, not a posterior score",
        paper="Rout et al. 2023, Solving Linear Inverse Problems Provably via Posterior Sampling "
        "with Latent Diffusion Models, https://arxiv.org/abs/2307.00619",
        steps=1000,
        applies=latent("dps", linear_in_images, applies.measures_clean_images, has_encoder),
        build=_psld,
        own_sampler=True,
        deviates="two bounds on the step (off: `bounded=False`); A in the glue scaled to norm 1",
    ),
    Method(
        name="resample",
        family="splitting",
        asks="gradient",
        needs="a latent prior with an encoder, a differentiable forward model of its images",
        jacobian=False,
        cost="1 network call a step; at every `every`-th up to twice `iterations` gradients of "
        "p(y | x0), through the decoder in the last third of the steps",
        exact_when="never: a point that fits y to its noise, with spread",
        paper="Song et al. 2023, Solving Inverse Problems with Latent Diffusion Models via Hard "
        "Data Consistency, https://arxiv.org/abs/2307.08123",
        steps=500,
        applies=latent("diffpir", applies.split, has_encoder),
        build=_resample,
        deviates="each fit by conjugate gradients until the residual is that of the noise, for up "
        "to 2000 (images) and 500 (latents) steps of Adam; its released code adds a step of DPS "
        "after each of DDIM, and fits what further steps of DDIM lead to",
    ),
    Method(
        name="latent-daps",
        family="splitting",
        asks="gradient",
        needs="a latent prior and a differentiable forward model of its images",
        jacobian=False,
        cost="`ode_steps` network calls a step, and `length` trajectories of 10 gradients of "
        "p(y | x0) through the decoder",
        exact_when="never: as `daps` with its ODE",
        paper="Zhang et al. 2024, Improving Diffusion Inverse Problem Solving with Decoupled Noise "
        "Annealing, https://arxiv.org/abs/2407.01521",
        steps=50,
        applies=latent("daps", applies.split),
        build=_latent_daps,
        deviates="chains with a test of acceptance and steps by the curvature, under sigma_y; "
        "the released code has a rate for each task and a noise of 0.01",
    ),
)
