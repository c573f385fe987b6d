"""A mixture of factor analysers fitted to images by expectation and maximisation.

Each component is x0 = m_k + F_k h + z with h ~ N(0, I) of R values and z ~ N(0, diag(d_k)). With
the responsibilities r_k of the images, S_k their weighted covariance under component k and
beta = F^T (F F^T + diag(d))^-1, one step is

    F <- S beta^T (I - beta F + beta S beta^T)^-1,      d <- diag(S - F beta S).

Paper: Ghahramani and Hinton, "The EM Algorithm for Mixtures of Factor Analyzers", 1996,
https://mlg.eng.cam.ac.uk/zoubin/papers/tr-96-1.pdf
"""

from __future__ import annotations

import torch
from torch import Tensor

from .mixture import Mixture
from .structured import FactorAnalysis

NEGLIGIBLE = 1e-4
"""Responsibilities below it do not count in a maximisation: they are nearly all 0 or 1."""


def fit_mixture(
    images: Tensor,
    components: int,
    rank: int,
    *,
    seed: int = 0,
    iterations: int = 20,
    smallest_std: float = 1 / (256 * 12**0.5),
    data_range: tuple[float, float] | None = None,
    sigma_range: tuple[float, float] | None = None,
) -> Mixture:
    """An image prior with an exact posterior: sum_k w_k N(m_k, F_k F_k^T + diag(d_k)).

    It starts from scikit-learn's k-means and the principal components of each cluster. How
    probable held-out images are under it is `prior.log_density(held_out).mean()`: more components
    than the images support lower that again.

    Args:
        images: (N, *event), floating point, N >= 2 components (rank + 1). Values that come in 256
            levels need noise of a level's width to have a density: (k + u) / 256, u in [0, 1).
        components: K.
        rank: R, the columns of each factor, below the number of values in an event.
        seed: of k-means.
        iterations: of expectation and maximisation.
        smallest_std: the least standard deviation of a value around the factors, data units; by
            default that of 256 levels' rounding in [0, 1].
        data_range: (low, high) of the images, where they have one.
        sigma_range: noise levels between which samplers run; see `Mixture`.

    Costs O(N K D R + N D^2) an iteration and N (2 D + K) values of memory, at the images' dtype.

    Raises:
        ValueError: too few images, a rank too large, images that are all equal or not finite, or
            a component left with too few images: ask for fewer. ImportError: no scikit-learn.
    """
    flat = _check(images, components, rank, iterations, smallest_std)
    floor = smallest_std**2
    r = _clusters(flat, components, seed)
    parts = [_maximise(flat, r[:, k], rank, floor, None) for k in range(components)]
    for _ in range(iterations):
        r = _responsibilities(flat, r.mean(0), parts)
        parts = [_maximise(flat, r[:, k], rank, floor, C) for k, (_, C) in enumerate(parts)]
    weights = r.mean(0).double()
    prior = Mixture(
        torch.stack([m for m, _ in parts]).reshape(-1, *images.shape[1:]),
        [C for _, C in parts],
        weights / weights.sum(),
        data_range=data_range,
        sigma_range=sigma_range,
    )
    prior.dtype = images.dtype
    return prior


def _check(
    images: Tensor, components: int, rank: int, iterations: int, smallest_std: float
) -> Tensor:
    """The images as (N, D)."""
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim < 2:
        what = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else "none"
        raise ValueError(f"images must be a floating tensor (N, *event), got {what}")
    flat = images.detach().reshape(len(images), -1)
    for name, count in (("components", components), ("rank", rank), ("iterations", iterations)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {count!r}")
    if rank >= flat.shape[1]:
        raise ValueError(f"rank must be below the {flat.shape[1]} values of an event, got {rank}")
    if len(flat) < 2 * components * (rank + 1):
        raise ValueError(
            f"{components} components of rank {rank} need at least {2 * components * (rank + 1)} "
            f"images, got {len(flat)}"
        )
    if not bool(torch.isfinite(flat).all()):
        bad = int((~torch.isfinite(flat)).sum())
        raise ValueError(f"images must be finite; {bad} values are not")
    if bool((flat == flat[0]).all()):
        raise ValueError("the images are all equal: there is nothing to fit")
    if not smallest_std > 0:
        raise ValueError(f"smallest_std must be > 0, got {smallest_std}")
    return flat


def _clusters(flat: Tensor, components: int, seed: int) -> Tensor:
    """k-means: who belongs where, (N, K) of 0 and 1."""
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError as error:
        raise ImportError(
            "fitting a mixture needs scikit-learn: pip install 'inverse[fit]'"
        ) from error
    method = MiniBatchKMeans(components, random_state=seed, n_init=3, batch_size=4096)
    labels = torch.from_numpy(method.fit_predict(flat.cpu().numpy())).long()
    return torch.nn.functional.one_hot(labels, components).to(flat)


def _responsibilities(
    flat: Tensor, weights: Tensor, parts: list[tuple[Tensor, FactorAnalysis]]
) -> Tensor:
    joint = []
    for m, C in parts:
        apart = flat - m.to(flat)
        distance = (apart * C.solve(apart)).sum(-1)
        joint.append(-(distance + C.logdet(torch.zeros((), dtype=flat.dtype))) / 2)
    return (torch.stack(joint, -1) + weights.log()).softmax(-1)


def _maximise(
    flat: Tensor, r: Tensor, rank: int, floor: float, C: FactorAnalysis | None
) -> tuple[Tensor, FactorAnalysis]:
    """m and C of one component, float64: a step from C, or from principal components."""
    members = r > NEGLIGIBLE
    if int(members.sum()) < rank + 2:
        raise ValueError(
            f"a component of rank {rank} was left with {int(members.sum())} images; ask for fewer "
            "components, a smaller rank or another seed"
        )
    weight = (r[members] / r[members].sum()).unsqueeze(-1)
    m = (weight * flat[members]).sum(0)
    apart = (flat[members] - m) * weight.sqrt()
    S = (apart.mT @ apart).double()
    if C is None:
        values, vectors = torch.linalg.eigh(S)
        rest = values[:-rank].mean()
        F = vectors[:, -rank:] * (values[-rank:] - rest).clamp(min=0).sqrt()
        d = S.diagonal() - F.square().sum(-1)
    else:
        beta = C.solve(C.factor.mT)
        S_beta = S @ beta.mT
        unexplained = torch.eye(rank, dtype=S.dtype, device=S.device) - beta @ C.factor
        F = torch.linalg.solve(unexplained + beta @ S_beta, S_beta.mT).mT
        d = S.diagonal() - (F * S_beta).sum(-1)
    return m.double(), FactorAnalysis(F, d.clamp(min=floor))
