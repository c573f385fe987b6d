"""Bayes' rule: posteriors are priors, factors add up, and nothing is asked of the network twice."""

from __future__ import annotations

import pytest
import torch
from problems import DOUBLE, Component, problem

import forward_models
import inverse
import priors
from forward_models import (
    JPEG,
    MRI,
    Blur,
    HighDynamicRange,
    Inpainting,
    Laplace,
    LinearGaussian,
    MatrixOperator,
    Observation,
    PhaseRetrieval,
    RealToComplex,
    gaussian_kernel,
)
from inverse.likelihoods import GaussianLift, Isotropic
from inverse.running import Counted


@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_a_posterior_is_the_exact_prior_of_a_gaussian_problem(sigma):
    prior, model, y, x = problem()
    posterior, exact = inverse.condition(prior, model, y), prior.condition(model, y)
    assert isinstance(posterior, priors.Prior)
    for ours, theirs in (
        (posterior.denoise(x, sigma), exact.denoise(x, sigma)),
        (posterior.score(x, sigma), exact.score(x, sigma)),
    ):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-8)


def test_the_covariance_of_a_posterior_is_differentiated_through_its_likelihood():
    """Tweedie holds for posteriors: Cov[x0 | x, y] = sigma^2 dD_y/dx, not the prior's."""
    prior, model, y, x = problem()
    v = torch.randn(3, 6, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    _, ours = inverse.condition(prior, model, y).covariance(x, 0.8)
    _, exact = prior.condition(model, y).covariance(x, 0.8)
    assert torch.allclose(ours(v), exact(v), rtol=1e-6, atol=1e-8)


def test_two_measurements_are_one_joint_measurement():
    """Linear measurements are correlated given x: the sum of their lifts would be wrong."""
    prior, model, y, x = problem()
    second = LinearGaussian(Inpainting(torch.tensor([True, False, True, True, False, True])), 0.3)
    z = torch.randn(1, 6, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)
    both = inverse.condition(prior, model, y).given(second, z)
    exact = prior.condition(model, y).condition(second, z)
    assert torch.allclose(both.denoise(x, 1.0), exact.denoise(x, 1.0), rtol=1e-5, atol=1e-7)
    nested = inverse.condition(inverse.condition(prior, model, y), second, z)
    assert torch.equal(nested.denoise(x, 1.0), both.denoise(x, 1.0))
    flat = (
        inverse.condition(prior, model, y).denoise(x, 1.0)
        + inverse.condition(prior, second, z).denoise(x, 1.0)
        - prior.denoise(x, 1.0)
    )
    assert not torch.allclose(flat, exact.denoise(x, 1.0), rtol=1e-2)


def test_measurements_by_operators_of_any_size_are_stacked():
    g = torch.Generator().manual_seed(0)
    prior = priors.Gaussian(torch.zeros(1, 4, 6, dtype=DOUBLE), 0.8)
    blur = LinearGaussian(Blur(gaussian_kernel(0.8, 3).to(DOUBLE)), 0.3)
    mask = LinearGaussian(Inpainting(torch.rand(4, 6, generator=g) < 0.5), 0.1)
    x = torch.randn(2, 1, 4, 6, generator=g, dtype=DOUBLE)
    y, z = blur.simulate(x[:1], generator=g), mask.simulate(x[:1], generator=g)
    both = inverse.condition(prior, blur, y).given(mask, z)
    exact = prior.condition(blur, y).condition(mask, z)
    assert torch.allclose(both.denoise(x, 1.0), exact.denoise(x, 1.0), rtol=0, atol=1e-5)


def test_linear_and_time_dependent_factors_share_one_network_call():
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=DOUBLE)
    mixture = priors.Mixture(means, 0.2, torch.tensor([0.3, 0.7], dtype=DOUBLE))
    counted = Counted(mixture)
    model = LinearGaussian(MatrixOperator(torch.tensor([[1.0, 2.0]], dtype=DOUBLE)), 0.3)
    y = torch.tensor([0.4], dtype=DOUBLE)
    posterior = inverse.condition(counted, model, y).given(Component(mixture), 1).given(model, y)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    posterior.denoise(x, 0.5)
    assert counted.network_calls == 1


def test_guided_by_an_exact_classifier_the_posterior_is_the_component():
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=DOUBLE)
    mixture = priors.Mixture(means, 0.2, torch.tensor([0.3, 0.7], dtype=DOUBLE))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    for k in (0, 1):
        posterior = inverse.condition(mixture, Component(mixture), k)
        component = priors.Gaussian(means[k], 0.2)
        for sigma in (0.1, 1.0, 5.0):
            assert torch.allclose(posterior.score(x, sigma), component.score(x, sigma), atol=1e-8)


def test_the_log_likelihood_of_a_posterior_is_normalised_bayes():
    prior, model, y, x = problem()
    posterior = inverse.condition(prior, model, y)
    exact = prior.condition(model, y)
    expected = exact.log_density(x, 0.7) + prior.log_evidence(model, y) - prior.log_density(x, 0.7)
    assert torch.allclose(posterior.log_likelihood(x, 0.7), expected, rtol=1e-8)


def test_another_lift_leaves_the_measurement_alone():
    prior, model, y, x = problem(isotropic=True)
    posterior = inverse.condition(prior, model, y)
    other = posterior.lifted(lambda m, z: GaussianLift(m, z, Isotropic(s=prior.scale)))
    assert other.factors is posterior.factors
    assert torch.allclose(other.denoise(x, 1.0), posterior.denoise(x, 1.0), rtol=1e-6)


def test_one_measurement_for_each_sample():
    prior, model, y, x = problem()
    many = torch.cat([y, y + 1, y - 2])
    posterior = inverse.condition(prior, model, many)
    together = posterior.denoise(x, 0.5)
    for i in range(3):
        alone = inverse.condition(prior, model, many[i]).denoise(x[i : i + 1], 0.5)
        assert torch.allclose(together[i : i + 1], alone, rtol=1e-8, atol=1e-10)


def test_a_prior_of_any_size_adopts_the_image_of_the_measurement():
    network = priors.NetworkPrior(
        lambda x, t: 0 * x, "epsilon", (3, 8, 8), any_size=True, stride=4, data_range=(0, 1)
    )
    model = LinearGaussian(Blur(gaussian_kernel(1.0, 5), padding="valid"), 0.1)
    posterior = inverse.condition(network, model, torch.zeros(3, 12, 20))
    assert posterior.event_shape == (3, 16, 24)
    with pytest.raises(ValueError, match="prior and forward model disagree"):
        inverse.condition(network, model, torch.zeros(3, 11, 20))


def test_missing_values_behind_a_mask_are_no_data():
    prior, _, _, x = problem()
    mask = torch.tensor([True, False, True, False, True, True])
    model = LinearGaussian(Inpainting(mask), 0.1)
    y = torch.randn(6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    holes = torch.where(mask, y, float("nan"))
    a = inverse.condition(prior, model, y).denoise(x, 0.5)
    assert torch.equal(inverse.condition(prior, model, holes).denoise(x, 0.5), a)


def test_measurements_that_do_not_go_together_are_refused():
    prior, model, y, _ = problem()
    two, three = torch.cat([y, y]), torch.cat([y, y, y])
    with pytest.raises(ValueError, match=r"\[2, 3\] samples do not go together"):
        inverse.condition(prior, model, three).given(model, two)
    with pytest.raises(TypeError, match="dtypes"):
        inverse.condition(prior, model, y).given(model, y.float())
    network = priors.NetworkPrior(
        lambda x, t: 0 * x, "epsilon", (1, 8, 8), any_size=True, stride=4, data_range=(0, 1)
    )
    blur = LinearGaussian(Blur(gaussian_kernel(1.0, 5)), 0.1)
    posterior = inverse.condition(network, blur, torch.zeros(1, 16, 16))
    with pytest.raises(ValueError, match=r"so far are of images \(1, 16, 16\)"):
        posterior.given(blur, torch.zeros(1, 8, 8))


def test_bad_calls_say_what_came_and_what_was_expected():
    prior, model, y, x = problem()
    with pytest.raises(ValueError, match=r"\(1, 5\)"):
        inverse.condition(prior, model, torch.zeros(1, 5, dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"4 non-finite entries of 4"):
        inverse.condition(prior, model, y.clone().fill_(float("nan")))
    small = priors.Gaussian(torch.zeros(5), 1.0)
    with pytest.raises(ValueError, match=r"prior takes \(5,\), the forward model \(6,\)"):
        inverse.condition(small, model, y)
    with pytest.raises(TypeError, match="prior must be"):
        inverse.condition(lambda x, s: x, model, y)
    with pytest.raises(TypeError, match="LinearGaussian\\(operator, sigma\\)"):
        inverse.condition(prior, model.operator, y)
    posterior = inverse.condition(prior, model, y)
    with pytest.raises(ValueError, match="sigma must be finite and >= 0"):
        posterior.denoise(x, -1.0)
    with pytest.raises(ValueError, match="must have shape"):
        posterior.denoise(x[:, :5], 1.0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        LinearGaussian(model.operator, 0.0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        LinearGaussian(model.operator, -0.1)


def test_complex_images_are_refused_with_the_way_out():
    prior = priors.Gaussian(torch.zeros(1, 4, 4), 1.0)
    mri = MRI(torch.ones(4, dtype=torch.bool))
    y = torch.zeros(1, 4, 4, dtype=torch.complex64)
    with pytest.raises(TypeError, match="RealToComplex"):
        inverse.condition(prior, LinearGaussian(mri, 0.1), y)
    assert inverse.condition(prior, LinearGaussian(mri @ RealToComplex(), 0.1), y) is not None


@pytest.mark.parametrize(
    "operator",
    [HighDynamicRange(), HighDynamicRange() @ Blur(gaussian_kernel(1.0)), JPEG(), PhaseRetrieval()],
)
def test_a_prior_of_any_size_adopts_the_image_of_any_operator(operator):
    network = priors.NetworkPrior(
        lambda x, t: 0 * x, "epsilon", (3, 8, 8), any_size=True, stride=4, data_range=(0, 1)
    )
    model = Observation(operator, Laplace(0.1))
    y = model.simulate(torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)))
    for measured in (y, y[0]):
        assert inverse.condition(network, model, measured).event_shape == (3, 16, 24)


def test_a_lift_that_is_none_and_a_class_that_is_no_index_are_refused():
    model = forward_models.LinearGaussian(forward_models.Downsampling(2), 0.1)
    prior = priors.Gaussian(torch.zeros(1, 4, 4), 1.0)
    posterior = inverse.condition(prior, model, torch.zeros(1, 1, 2, 2))
    with pytest.raises(TypeError, match=r"lift must be a function of \(model, y\), got 3"):
        posterior.lifted(3)
    with pytest.raises(TypeError, match=r"lift must return a likelihoods.Likelihood, got int"):
        posterior.lifted(lambda model, y: 3)
    network = forward_models.ConvClassifier(10, (8,), (1, 4, 4)).eval()
    classifier = forward_models.Classifier(network, 10, (1, 4, 4))
    for y in (7.0, "7", None):
        with pytest.raises(TypeError, match=f"y must be a class index, an int from 0 to 9, .*{y}"):
            inverse.condition(prior, classifier, y)


def test_a_linear_operator_of_any_size_is_taken_as_one_of_the_prior():
    """So that its closed forms are known; the one that was given stays as it is."""
    mask = torch.arange(16).reshape(4, 4) % 3 > 0
    prior = priors.Gaussian(torch.zeros(3, 4, 4), 1.0)
    for operator, count in (
        (forward_models.Downsampling(2), 12),
        (forward_models.Inpainting(mask), 3 * int(mask.sum())),
        (0.5 * forward_models.greyscale(), 16),
    ):
        before = dict(vars(operator))
        for model in (
            forward_models.LinearGaussian(operator, 0.1),
            Observation(operator, Laplace(0.1)),
        ):
            y = model.simulate(torch.rand(1, 3, 4, 4))
            posterior = inverse.condition(prior, model, y)
            ((taken, kept),) = posterior.factors
            assert type(taken) is type(model)
            assert taken.event_shape == (3, 4, 4)
            assert torch.equal(kept, y)
            assert len(taken.operator.svd.singular_values) == count
            assert model.operator is operator
            assert model.event_shape is None
            assert inverse.condition(prior, taken, y).factors[0][0] is taken
            both = posterior.given(model, y)
            assert [m.event_shape for m, _ in both.factors] == 2 * [(3, 4, 4)]
        assert vars(operator) == before


def test_an_operator_of_any_size_takes_that_of_y_where_the_prior_does():
    network = priors.NetworkPrior(
        lambda x, t: 0 * x, "epsilon", (1, 8, 8), any_size=True, stride=4, data_range=(0, 1)
    )
    model = forward_models.LinearGaussian(forward_models.Downsampling(4), 0.1)
    posterior = inverse.condition(network, model, torch.zeros(1, 3, 5))
    assert posterior.event_shape == posterior.factors[0][0].event_shape == (1, 12, 20)
    assert inverse.sample(posterior, method="ddrm", steps=2, seed=0).x.shape == (1, 1, 12, 20)


class Rows(forward_models.LinearOperator):
    """Of a user's, who told how large the image is and not the measurement: every other row."""

    event_ndim = measurement_ndim = 3

    def input_shape(self, measurement_shape):
        c, h, w = measurement_shape
        return (c, 2 * h, w)

    def _apply(self, x):
        return x[..., ::2, :]

    def _adjoint(self, y):
        return torch.stack([y, torch.zeros_like(y)], -2).flatten(-3, -2)


def test_an_operator_that_leaves_its_output_shape_untold_stays_as_it_is():
    prior = priors.Gaussian(torch.zeros(1, 4, 4), 1.0)
    model = forward_models.LinearGaussian(Rows(), 0.1)
    posterior = inverse.condition(prior, model, torch.zeros(1, 2, 4))
    assert posterior.factors[0][0] is model
    inverse.sample(posterior, method="pigdm", steps=2, seed=0)


def test_a_measurement_of_another_size_is_told_beside_what_the_operator_makes():
    prior = priors.Gaussian(torch.zeros(1, 4, 4), 1.0)

    def refusal(operator, *shape):
        with pytest.raises(ValueError, match="images") as error:
            inverse.condition(
                prior, forward_models.LinearGaussian(operator, 0.1), torch.zeros(1, *shape)
            )
        return str(error.value)

    coarse = forward_models.Downsampling(2)
    assert refusal(coarse, 1, 3, 3) == (
        "y has shape (1, 3, 3), but Downsampling makes (1, 2, 2) of the prior's images (1, 4, 4)"
    )
    third = forward_models.Downsampling(3)
    assert "does not fit the prior's images (1, 4, 4): the image is" in refusal(third, 1, 2, 2)
    flat = priors.Gaussian(torch.zeros(16), 1.0)
    with pytest.raises(ValueError, match=r"takes images of 3 axes, those of the prior are \(16,\)"):
        inverse.condition(flat, forward_models.LinearGaussian(coarse, 0.1), torch.zeros(1, 2, 2))
