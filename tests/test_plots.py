"""What the pictures of scores and densities show: values at points, read back from the axes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import forward_models as fm
import inverse
import priors
from inverse import plots

WINDOW = (-3.0, 3.0, -2.0, 2.5)


def mixture():
    means = torch.tensor([[-1.5, -0.6], [1.3, 1.0]])
    return priors.Mixture(means, torch.tensor([0.3, 0.2]), torch.tensor([0.6, 0.4]))


def measured():
    model = fm.LinearGaussian(fm.MatrixOperator(torch.tensor([[1.0, 0.5]])), 0.6)
    return model, torch.tensor([[0.9]])


def shown(axes):
    """The map (H, W) and its points (H * W, 2)."""
    image = axes.images[0]
    values = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()
    high, wide = values.shape
    a = left + (right - left) * (np.arange(wide) + 0.5) / wide
    b = bottom + (top - bottom) * (np.arange(high) + 0.5) / high
    return values, torch.tensor(np.stack(np.meshgrid(a, b), -1).reshape(-1, 2))


def arrows(axes):
    """Where arrows start and where they lead, both (N, 2)."""
    quiver = axes.collections[-1]
    return torch.tensor(np.asarray(quiver.get_offsets())), torch.tensor(
        np.stack([quiver.U, quiver.V], 1)
    )


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


@pytest.mark.parametrize("sigma", [0.0, 0.4, 2.0])
def test_a_map_shows_the_density(sigma):
    prior = mixture()
    values, points = shown(plots.density(prior, sigma, extent=WINDOW))
    exact = prior.log_density(points, sigma).exp()
    np.testing.assert_allclose(values.ravel(), exact / exact.max(), atol=1e-5)


def test_a_posterior_has_the_density_of_the_closed_form():
    """Under a Gaussian prior the default lift is exact."""
    prior = priors.Gaussian(torch.tensor([0.4, -0.3]), 1.2)
    model, y = measured()
    window = {"extent": WINDOW}
    ours = shown(plots.density(inverse.condition(prior, model, y), 0.5, **window))[0]
    exact = shown(plots.density(prior.condition(model, y), 0.5, **window))[0]
    np.testing.assert_allclose(ours, exact, atol=1e-4)


def test_arrows_point_along_the_score_and_are_scaled_alike():
    prior, sigma = mixture(), 0.5
    axes = plots.score_field(prior, sigma, extent=WINDOW, arrows=9, longest=4.0)
    points, drawn = arrows(axes)
    assert len(points) == 9 * 7
    score = prior.score(points.double(), sigma)
    length = score.norm(dim=1, keepdim=True)
    gap = 6.0 / 9
    expected = score * gap / torch.maximum(length, torch.tensor(4.0))
    assert torch.allclose(drawn.double(), expected, atol=1e-5)
    assert bool((length > 4).any())
    assert bool((length < 4).any())


def test_a_network_prior_shows_arrows_alone():
    network = priors.NetworkPrior(lambda x, t: 0 * x, "x0", (2,), sigma_range=(0.01, 10.0))
    axes = plots.score_field(network, 1.0)
    assert not axes.images
    points, drawn = arrows(axes)
    assert float((drawn + points).norm(dim=1).min()) < float(points.norm(dim=1).max())
    assert bool(((drawn * points).sum(1) <= 0).all()), "towards the mean, 0"
    posterior = inverse.condition(network, *measured())
    assert not plots.score_field(posterior, 1.0).images
    with pytest.raises(ValueError, match="NetworkPrior has no log_density"):
        plots.density(network, 1.0)
    with pytest.raises(ValueError, match="Posterior has no log_density"):
        plots.density(posterior, 1.0)


def test_in_bayes_rule_two_columns_of_arrows_add_up_to_the_third():
    prior = mixture()
    for posterior in (prior.condition(*measured()), inverse.condition(prior, *measured())):
        figure = plots.bayes_rule(prior, posterior, (0.3, 1.5), extent=WINDOW, arrows=11)
        assert len(figure.axes) == 6
        for row, sigma in ((figure.axes[:3], 0.3), (figure.axes[3:], 1.5)):
            points, first = arrows(row[0])
            second, third = arrows(row[1])[1], arrows(row[2])[1]
            gap = 6.0 / 11
            whole = torch.stack([a.norm(dim=1) for a in (first, second, third)]).amax(0)
            whole = whole < 0.999 * gap  # none of the three is cut
            assert int(whole.sum()) > 30
            assert torch.allclose((first + second)[whole], third[whole], atol=1e-6)
            score = posterior.score(points.float(), sigma)
            cosine = torch.cosine_similarity(score, third.to(score))
            assert float(cosine.min()) > 0.999
        likelihood, points = shown(figure.axes[1])
        exact = posterior.log_density if hasattr(posterior, "log_density") else None
        if exact is not None:
            ratio = (exact(points, 0.3) - prior.log_density(points, 0.3)).exp()
            np.testing.assert_allclose(likelihood.ravel(), ratio / ratio.max(), atol=1e-3)


def test_axes_of_the_caller_are_used_and_windows_are_not_opened():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plots.density(mixture(), 0.5, ax=left) is left
    assert plots.score_field(mixture(), 0.5, ax=right, extent=WINDOW) is right
    assert right.get_xlim() == WINDOW[:2]
    assert right.get_ylim() == WINDOW[2:]
    assert right.get_aspect() == 1.0
    assert png(figure).startswith(b"\x89PNG")
    assert "pyplot" not in Path(plots.__file__).read_text()


def test_the_default_window_holds_the_prior():
    for prior in (mixture(), inverse.condition(mixture(), *measured())):
        axes = plots.score_field(prior, 0.2)
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        draws = mixture().sample(500, torch.Generator().manual_seed(0))
        inside = (draws > torch.tensor([left, bottom])) & (draws < torch.tensor([right, top]))
        assert float(inside.all(1).double().mean()) > 0.98


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"over \(2,\) values, got \(3,\)"):
        plots.score_field(priors.Gaussian(torch.zeros(3), 1.0), 0.5)
    with pytest.raises(ValueError, match="sigma"):
        plots.score_field(mixture(), 0.0)
    with pytest.raises(ValueError, match="sigma must be"):
        plots.density(mixture(), -1.0)
    for bad in ((1.0, 0.0, 0.0, 1.0), (0.0, float("inf"), 0.0, 1.0)):
        with pytest.raises(ValueError, match="extent must be"):
            plots.density(mixture(), 0.5, extent=bad)
    for bad in (1, 2.5, True):
        with pytest.raises(ValueError, match="arrows must be"):
            plots.score_field(mixture(), 0.5, arrows=bad)
    with pytest.raises(ValueError, match="at least one noise level"):
        plots.bayes_rule(mixture(), mixture(), ())
