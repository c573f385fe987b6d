"""All methods by name, and the documented choice among them."""

from __future__ import annotations

from priors.prior import event_size
from priors.words import did_you_mean

from ..posterior import Posterior
from . import applies
from .classifier import CLASSIFIER
from .decoupled import DECOUPLED
from .exact import EXACT
from .gaussian import GAUSSIAN
from .latent import LATENT
from .learned import LEARNED
from .loss_guidance import LOSS_GUIDANCE
from .particles import PARTICLES
from .plug_in import PLUG_IN
from .projection import PROJECTION
from .recipe import Method
from .splitting import SPLITTING
from .variational import VARIATIONAL

_METHODS: tuple[Method, ...] = (
    EXACT,
    *GAUSSIAN,
    *PLUG_IN,
    *LOSS_GUIDANCE,
    *CLASSIFIER,
    LEARNED,
    *SPLITTING,
    *PROJECTION,
    *DECOUPLED,
    *LATENT,
    *PARTICLES,
    *VARIATIONAL,
)

DEFAULTS = ("exact", "mmps", "dps", "unscented", "scg")
"""In this order. Exact where that is known. Linear-Gaussian: mmps, of the methods with samples of
equal weight and 90 % intervals that hold 88 % or more the nearest to the posterior in five of six
cells at d = 8 and 80, within the errors in the sixth (benchmarks/results/distances.json). Other
differentiable ones, such as clean classifiers: dps, whose samples are of the class as often as
exact ones (benchmarks/results/class_conditional.json). Black boxes: unscented where few enough
values are unknown (benchmarks/results/distances.json), else scg, which keeps the residual at the
noise."""

DEFAULTS_OF_CURVED = ("exact", "daps", "dps", "scg")
"""For differentiable models with independent noise that are not linear: daps is nearer the
posterior than mmps on all of four such problems (benchmarks/results/distances.json), and keeps the
residual at the noise on images where mmps does not (benchmarks/results/images.json)."""

DEFAULTS_OF_FEW = ("exact", "unscented", "dps", "scg")
"""The same, of images of at most `FEW` values: unscented is as near the posterior as daps, within
the errors, in fewer network calls by default, and nearer than mmps on three of the four."""

FEW = 32
"""Values up to which `unscented` sees every direction, for one product each."""


def methods(posterior: Posterior | None = None) -> tuple[Method, ...]:
    """All named methods, in the order of the README's table; of a posterior, those that can
    sample it. `Method.asks`, `.jacobian`, `.family` and `.exact_when` choose among them;
    `.calibrated` and `.measured` tell what simulations found of their samples."""
    if posterior is None:
        return _METHODS
    if not isinstance(posterior, Posterior):
        raise TypeError(f"posterior must be from inverse.condition, got {posterior!r}")
    return tuple(m for m in _METHODS if m.refusal(posterior) is None)


def find(name: str) -> Method:
    """The method called `name`; an unknown name is refused with the known ones."""
    for method in _METHODS:
        if method.name == name:
            return method
    if not isinstance(name, str):
        kind = f"the Method itself; give {name.name!r}" if isinstance(name, Method) else repr(name)
        raise TypeError(f"method must be a name from inverse.methods(), got {kind}")
    if name == "auto":
        raise ValueError(
            "'auto' is no method of its own: inverse.sample(posterior, n, method='auto') chooses "
            "one for a measurement and a number of samples"
        )
    known = [m.name for m in _METHODS]
    hint = did_you_mean(name.lower(), known)
    then = f"{hint} Known" if hint else "; known"
    raise ValueError(f"unknown method {name!r}{then}: {', '.join(known)}")


def choose(posterior: Posterior) -> Method:
    """The documented default, the first that can of the DEFAULTS that apply."""
    few = event_size(posterior.event_shape) <= FEW
    gaussian = find("mmps").refusal(posterior) is None and posterior.decoder is None
    curved = gaussian and applies.linear(posterior) is not None
    order = DEFAULTS if not curved else DEFAULTS_OF_FEW if few else DEFAULTS_OF_CURVED
    for name in order:
        method = find(name)
        reason = method.refusal(posterior)
        if reason is None and (few or name != "unscented"):
            return method
    able = [m.name for m in methods(posterior)]
    raise ValueError(
        f"no default method samples this posterior: {reason}. "
        f"Methods that can: {', '.join(able) or 'none'}"
    )
