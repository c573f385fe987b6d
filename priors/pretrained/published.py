"""The published models whose settings `load` knows by name."""

from __future__ import annotations


def published_names() -> dict[str, tuple[str, ...]]:
    """What `load(file, settings=NAME)` takes, by the format of the file.

    Settings may also be a dictionary: guided-diffusion's are the flags of its scripts (image_size,
    num_channels, num_heads, ...), EDM's the arguments of its networks and preconditioners
    (class_name, model_type, ...; a .pkl holds them itself), score_sde_pytorch's its configuration,
    nested or with dots (model.nf, training.sde, ...). Where one is missing or wrong, the error
    names it.
    """
    from .adm_flags import PUBLISHED as ADM
    from .edm_settings import PUBLISHED as EDM
    from .score_sde_published import PUBLISHED as SCORE_SDE

    tables = {"guided-diffusion": ADM, "EDM": EDM, "score_sde_pytorch": SCORE_SDE}
    return {name: tuple(table) for name, table in tables.items()}
