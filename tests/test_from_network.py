"""Wrapping a network of one's own: good ones pass, misnamed ones are named."""

import warnings

import pytest
import torch
from prior_cases import NETWORKS, SCHEDULES, exact_network, inner_prior, normal
from torch import nn

import priors
from priors import VP, Empirical, Flow, Gaussian
from priors.misfit import CALLS
from priors.network import PARAMETRIZATIONS

INNER = {
    "mixture": inner_prior,
    "white": lambda: Gaussian(torch.zeros(6, dtype=torch.float64), 0.15),
    "data set": lambda: Empirical((0.5 * normal(30, 2, 3)).clamp(-1, 1)),
}
RANGES = {"data_range": (0.0, 1.0), "network_range": (-1.0, 1.0)}


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_exact_network_passes_and_is_the_prior(name, inner):
    # Nearly the denoiser that edm is without a network, which no sign can change.
    tells_nothing = inner == "white" and name in ("edm", "edm, minus F")
    inner = INNER[inner]()
    parametrization, settings, twist = NETWORKS[name]
    schedule = settings.get(
        "schedule", {"flow": Flow(), "score": SCHEDULES["VE"]}.get(parametrization, VP())
    )
    network = exact_network(inner, parametrization, schedule, **twist)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        prior = priors.from_network(
            network, parametrization, event_shape=inner.event_shape, **RANGES, **settings
        )
    assert bool(told) == tells_nothing
    x = 0.5 + normal(3, *inner.event_shape)
    sigma = torch.tensor([0.02, 0.4, 5.0], dtype=torch.float64)
    expected = (inner.denoise(2 * x - 1, 2 * sigma) + 1) / 2
    torch.testing.assert_close(prior.denoise(x, sigma), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("schedule", ["VP", "Cosine", "Flow"])
@pytest.mark.parametrize("true", PARAMETRIZATIONS[:-1])
def test_every_wrong_name_and_sign_is_caught_and_the_right_one_given(true, schedule):
    inner, law = inner_prior(), SCHEDULES[schedule]
    right = exact_network(inner, true, law)
    for named in PARAMETRIZATIONS[:-1]:
        for sign in (1, -1):
            if (named, sign) == (true, 1):
                continue
            with pytest.raises(ValueError, match="does not fit parametrization=") as error:
                priors.from_network(
                    lambda x, t, sign=sign: sign * right(x, t),
                    named,
                    law,
                    event_shape=inner.event_shape,
                    time="1000 t" if true == "flow" else "999 t",
                    **RANGES,
                )
            expected = true if sign == 1 else f"minus the network as {true}"
            assert expected in str(error.value).split("It would fit as")[1]


def test_the_sign_of_edm():
    inner = inner_prior()
    network = exact_network(inner, "edm", None)
    with pytest.raises(ValueError, match="minus the network as edm"):
        priors.from_network(network, "edm", event_shape=inner.event_shape, edm_sign=-1, **RANGES)


@pytest.mark.parametrize(("time", "factor"), [("t", 1.0), ("999 t", 999.0), ("1000 t", 1000.0)])
def test_time_conventions(time, factor):
    inner, seen = inner_prior(), []
    inside = exact_network(inner, "epsilon", VP())

    def network(x, t):
        seen.append(t)
        return inside(x, 999 * t / factor)

    prior = priors.from_network(
        network, "epsilon", event_shape=inner.event_shape, time=time, **RANGES
    )
    assert CALLS < len(seen) <= 2 * CALLS
    seen.clear()
    prior.denoise(normal(1, *inner.event_shape), 1.0)
    torch.testing.assert_close(seen[0], factor * VP().t(torch.tensor([2.0])).double())


def test_a_network_range_that_is_too_narrow_is_caught():
    inner = inner_prior()
    network = exact_network(inner, "epsilon", VP())
    with pytest.raises(ValueError, match="lie outside data_range"):
        priors.from_network(
            network, "epsilon", event_shape=inner.event_shape, network_range=(0, 0.5)
        )


def random_network(scale):
    """As one freshly made: its output knows nothing of x0."""
    weights = scale * normal(8, 8) / 8**0.5
    return lambda x, t: (x.double() @ weights).to(x.dtype)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.1])
def test_a_network_whose_sign_does_not_matter_tells_nothing(scale):
    for named in ("epsilon", "v", "x0", "score", "flow"):
        with pytest.raises(ValueError, match="edm would fit, but minus the network fits") as error:
            priors.from_network(random_network(scale), named, event_shape=(8,))
        assert "too small to tell" in str(error.value)
        assert "It would fit as" not in str(error.value)
    with pytest.warns(UserWarning, match="edm fits, but minus the network fits as well"):
        prior = priors.from_network(random_network(scale), "edm", event_shape=(8,))
    # The zero network is the denoiser of N(0, sigma_data^2), so this cannot be an error.
    if scale == 0:
        x = normal(3, 8)
        expected = Gaussian(torch.zeros(8, dtype=torch.float64), 0.25).denoise(x, 0.7)
        torch.testing.assert_close(prior.denoise(x, 0.7), expected)


def test_edm_is_named_without_a_schedule():
    with pytest.raises(ValueError, match="fit parametrization='edm': as a denoiser"):
        priors.from_network(lambda x, t: x, "edm", event_shape=(8,))


def test_what_the_network_raises_is_told_and_the_check_can_be_left_out():
    class Embedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 1)

        def forward(self, x, time):
            return x * self.table(time.long())

    with pytest.raises(ValueError, match="it raises IndexError"):
        priors.from_network(Embedding(), "epsilon", event_shape=(2,))
    for network, cause in (
        (lambda x: x, "it raises TypeError"),
        (lambda x, t: x[..., 1:], r"the network returned \(256, 1\) for an input of \(256, 2\)"),
        (lambda x, t: x / 0, "epsilon' with schedule=VP: .* gives values that are not finite"),
    ):
        with pytest.raises(ValueError, match=rf"{cause}.*\. check=False takes it") as error:
            priors.from_network(network, "epsilon", event_shape=(2,))
        assert "would fit" not in str(error.value)
    prior = priors.from_network(Embedding(), "epsilon", event_shape=(2,), check=False)
    assert prior.event_shape == (2,)


def test_arguments():
    with pytest.raises(ValueError, match="event_shape is needed"):
        priors.from_network(lambda x, t: x, "epsilon")
    with pytest.raises(ValueError, match="unknown time 'index'; known: t, 999 t"):
        priors.from_network(lambda x, t: x, "epsilon", event_shape=(2,), time="index")
    with pytest.raises(ValueError, match="unknown parametrization"):
        priors.from_network(lambda x, t: x, "noise", event_shape=(2,))
    for schedule in ("vp", VP):
        with pytest.raises(TypeError, match=r"such as VP\(\), SubVP.* or Flow\(\), got .*(vp|VP)"):
            priors.from_network(lambda x, t: x, "v", schedule, event_shape=(2,))


def test_the_trial_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    network = exact_network(inner_prior(), "v", VP())
    priors.from_network(network, "v", event_shape=(1, 2, 2), **RANGES)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["digits", "ct"])
def test_bundled_networks_pass(name):
    bundled = priors.load(name)
    prior = priors.from_network(
        bundled.network,
        "edm",
        event_shape=bundled.event_shape,
        data_range=bundled.data_range,
        network_range=bundled.network_range,
        sigma_range=bundled.sigma_range,
        sigma_data=bundled.sigma_data,
        edm_sign=bundled.edm_sign,
        check=name == "digits",
    )
    x = normal(1, *bundled.event_shape).float()
    assert torch.equal(prior.denoise(x, 1.0), bundled.denoise(x, 1.0))
