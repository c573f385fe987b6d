"""All methods by name, and the documented choice among them."""

from __future__ import annotations

import difflib

from ..posterior import Posterior
from .exact import EXACT
from .gaussian import GAUSSIAN
from .loss_guidance import LOSS_GUIDANCE
from .particles import PARTICLES
from .plug_in import PLUG_IN
from .recipe import Method
from .splitting import SPLITTING

_METHODS: tuple[Method, ...] = (
    EXACT,
    *GAUSSIAN,
    *PLUG_IN,
    *LOSS_GUIDANCE,
    *SPLITTING,
    *PARTICLES,
)


def methods() -> tuple[Method, ...]:
    """All named methods, in the order of the README's table."""
    return _METHODS


def find(name: str) -> Method:
    """The method called `name`; an unknown name is refused with the known ones."""
    for method in _METHODS:
        if method.name == name:
            return method
    known = [m.name for m in _METHODS]
    close = difflib.get_close_matches(str(name), known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown method {name!r}; known: {', '.join(known)}{hint}")


def choose(posterior: Posterior) -> Method:
    """The documented default: exact where it can be, mmps where it applies, else dps."""
    for name in ("exact", "mmps", "dps"):
        method = find(name)
        reason = method.refusal(posterior)
        if reason is None:
            return method
    able = [m.name for m in _METHODS if m.refusal(posterior) is None]
    raise ValueError(
        f"no default method samples this posterior: {reason}. "
        f"Methods that can: {', '.join(able) or 'none'}"
    )
