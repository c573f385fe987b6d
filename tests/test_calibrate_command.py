"""`inverse calibrate`, end to end on tiny priors: verdicts, files, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import priors
from inverse import cli
from priors.training import unet


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """A Gaussian prior of images (1, 4, 4)."""
    place = torch.arange(4.0)
    one = torch.exp(-(place[:, None] - place).abs() / 2)
    prior = priors.Gaussian(torch.zeros(1, 4, 4), torch.kron(one, one), data_range=(-3.0, 3.0))
    folder = tmp_path_factory.mktemp("field")
    priors.save_analytic(prior, folder)
    return str(folder)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    state = torch.get_rng_state()
    torch.manual_seed(0)
    priors.save(
        unet((1, 16, 16), (16, 16), 1), folder, event_shape=(1, 16, 16), data_range=(0.0, 1.0),
        sigma_range=(0.005, 10.0), sigma_data=0.5, any_size=True, stride=2,
    )  # fmt: skip
    torch.set_rng_state(state)
    return str(folder)


def run(prior, out, *more):
    argv = ["calibrate", "--prior", prior, "--forward", "inpaint", "--keep", "0.5"]
    argv += ["--sigma", "0.3", "--draws", "9", "--out", str(out), *more]
    return cli.main([str(word) for word in argv])


def test_an_exact_method_is_called_calibrated(field, tmp_path, capsys):
    assert run(field, tmp_path, "-n", 100) == 0
    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "calibration.json").read_text())
    assert told["calibrated"] is True
    assert f"exact: {told['verdict']}" in printed
    assert told["verdict"].startswith("calibrated: no fault found in 100 simulations")
    assert told["n"] == 100
    assert told["draws"] == 9
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in tmp_path.iterdir()} == {"calibration.json", "calibration.png"}
    again = tmp_path / "again"
    assert run(field, again, "-n", 100) == 0
    other = json.loads((again / "calibration.json").read_text())
    for both in (told, other):
        del both["settings"]
    assert told == other


def test_a_fault_is_told_and_the_status_is_0_still(field, tmp_path, capsys):
    options = ("--method", "dps", "--option", "zeta=0.001", "--steps", 4)
    assert run(field, tmp_path, "-n", 60, *options) == 0
    told = json.loads((tmp_path / "calibration.json").read_text())
    assert told["calibrated"] is False
    assert told["findings"][0].startswith("ignores the data")
    assert "not calibrated: ignores the data" in capsys.readouterr().out


def test_given_images_of_another_law_show(field, tmp_path):
    images = 2 + np.random.default_rng(0).standard_normal((60, 4, 4)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    out = tmp_path / "out"
    assert run(field, out, "-n", 50, "--images", tmp_path / "images.npy") == 0
    told = json.loads((out / "calibration.json").read_text())
    assert told["truths"] == "are given images"
    assert any(words.startswith("shifted by") for words in told["findings"])


def test_a_network_and_an_interrupt(network, tmp_path, monkeypatch, capsys):
    """Truths by the network's own sampler, at another size; what is done is kept."""
    import inverse.diagnostics.simulations as simulations

    monkeypatch.setattr(simulations, "MOST", 10)
    more = ("-n", 20, "--size", 4, 4, "--method", "mmps", "--steps", 2)
    whole = simulations.Experiment._block

    def stops(self, rows, block, progress):
        if block == 1:
            raise KeyboardInterrupt
        return whole(self, rows, block, progress)

    monkeypatch.setattr(simulations.Experiment, "_block", stops)
    assert run(network, tmp_path, *more) == cli.INTERRUPTED
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(simulations.Experiment, "_block", whole)
    assert run(network, tmp_path, *more) == 0
    told = json.loads((tmp_path / "calibration.json").read_text())
    assert "own sampler" in told["truths"]
    assert not (tmp_path / ".state").exists()


def test_the_forward_models_of_reconstruct(field, tmp_path, monkeypatch):
    """All of them, in the prior's size and units; a sampler on levels in a method's place."""
    import inverse

    seen = []

    class StopError(ValueError):
        pass

    def record(prior, model, method, **options):
        seen.append((model, method, options))
        raise StopError("seen")

    monkeypatch.setattr(inverse, "calibrate", record)
    base = ["calibrate", "--prior", field, "--sigma", "0.1", "--out", str(tmp_path)]
    for forward in (
        ["--forward", "blur", "--blur-sigma", "1"],
        ["--forward", "downsample", "--factor", "2"],
        ["--forward", "ct", "--angles", "5"],
    ):
        assert cli.main([*base, *forward]) == 2
    assert [type(model.operator).__name__ for model, _, _ in seen] == [
        "Blur", "Downsampling", "Tomography"
    ]  # fmt: skip
    assert all(model.sigma == pytest.approx(0.1) for model, _, _ in seen)
    assert seen[0][2]["n"] == 200
    cli.main([*base, "--forward", "blur", "--blur-sigma", "1", "--sampler", "heun", "--absorb",
              "--method", "mmps"])  # fmt: skip
    _, method, options = seen[-1]
    assert method == "mmps"
    assert type(options["sampler"]).__name__ == "Heun"
    assert options["absorb"] is True


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("-n", 5), "n must be an integer >= 20, got 5"),
        (("--draws", 0), "--draws 0: must be at least 1"),
        (("--method", "mmpz"), "unknown method 'mmpz'"),
        (("--option", "zeta=1"), "options are of a --method"),
        (("--sigma", 0), "--sigma 0.0: the noise must be positive"),
        (("--size", 5, 5), "--size 5 5: the prior takes 4 x 4 pixels"),
        (("--images", "nowhere.npy"), "nowhere.npy"),
        (("--mask", "nowhere.npy"), "needs --mask, or"),
        (("--levels", "karras"), "are those of a --sampler"),
    ],
)
def test_bad_input_is_refused(field, tmp_path, capsys, more, words):
    assert run(field, tmp_path / "out", *more) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert words in text


def test_images_that_do_not_fit_are_refused(field, tmp_path, capsys):
    np.save(tmp_path / "few.npy", np.zeros((30, 4, 4), np.float32))
    np.save(tmp_path / "large.npy", np.zeros((300, 5, 4), np.float32))
    assert run(field, tmp_path / "out", "--images", tmp_path / "few.npy") == 2
    assert "holds 30 images" in capsys.readouterr().err
    assert run(field, tmp_path / "out", "--images", tmp_path / "large.npy") == 2
    assert "cut them to that size" in capsys.readouterr().err
