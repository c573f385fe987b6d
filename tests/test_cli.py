"""The command line, end to end on tiny priors: results, one-line errors, exit statuses."""

import errno
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from pydicom.data import get_testdata_file

import inverse
import priors
from forward_models import Classifier, ConvClassifier, NoisyClassifier, save_classifier
from inverse import cli, commands, demo, figures, option_text
from inverse.recipes import find
from inverse.recipes.recipe import Asks
from inverse.samplers.names import NAMES, named
from inverse.training_data import read_data
from priors.training import denoising_error, unet
from priors.training.recipe import Data

CT = str(get_testdata_file("CT_small.dcm", download=False))
PATIENT = (b"CompressedSamples", b"1CT1")
SAVED = {"samples.npy", "mean.npy", "std.npy", "diagnostics.json", "panel.png"}


def tiny(folder, channels=1, data_range=(0.0, 1.0), any_size=True):
    torch.manual_seed(0)
    unit = (data_range[1] - data_range[0]) / 2
    priors.save(
        unet((channels, 16, 16), (16, 16), 1), folder, event_shape=(channels, 16, 16),
        data_range=data_range, sigma_range=(0.01 * unit, 20 * unit), sigma_data=0.5,
        any_size=any_size, stride=2,
    )  # fmt: skip
    return str(folder)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small lose time by sharing their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("grey"))


@pytest.fixture(scope="module")
def hounsfield(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("ct"), data_range=(-1024.0, 3072.0))


@pytest.fixture
def picture(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (16, 20)).astype(np.uint8)
    Picture.fromarray(values).save(tmp_path / "in.png")
    return str(tmp_path / "in.png")


@pytest.fixture
def fails(capsys):
    """Run a command that must be refused; gives its one line on stderr."""

    def run(*argv, status=2):
        capsys.readouterr()  # what came before is not its own
        assert cli.main([str(a) for a in argv]) == status
        text = capsys.readouterr().err
        assert text.startswith("error: "), text
        assert text.count("\n") == 1, text
        assert "Traceback" not in text
        return text

    return run


def names(folder):
    return {p.name for p in Path(folder).iterdir()}


def test_parsing_needs_no_torch():
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('cli', {cli.__file__!r})\n"
        "cli = importlib.util.module_from_spec(spec); spec.loader.exec_module(cli)\n"
        "for argv in (['--help'], ['reconstruct', '--help'], ['sample', '--bad']):\n"
        "    cli.main(argv)\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'tqdm'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "exit status" in done.stdout


def test_the_installed_command_needs_no_torch_for_help():
    code = (
        "import sys; from inverse.cli import main\n"
        "assert main(['--help']) == 0 and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_methods_lists_every_method(capsys):
    assert cli.main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert all(m.name in printed and m.paper in printed for m in inverse.methods())


def test_methods_by_name_and_by_need(capsys, fails):
    def shown(*argv):
        capsys.readouterr()
        assert cli.main(["methods", *argv]) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line.split()[0] for line in lines if line.endswith(" steps by default)")}

    assert shown("tds", "dps") == {"tds", "dps"}
    assert get_args(Asks) == cli.ASKS
    for asks in cli.ASKS:
        expected = {m.name for m in inverse.methods() if m.asks == asks}
        if expected:
            assert shown("--asks", asks) == expected
    free = shown("--asks", "black box", "--no-jacobian")
    assert free == {m.name for m in inverse.methods() if m.asks == "black box" and not m.jacobian}
    assert "did you mean 'tds'" in fails("methods", "TDS")
    assert "no method is of all these kinds" in fails("methods", "dps", "--no-jacobian")


def test_options_are_read_by_the_kind_of_their_default():
    def build(posterior, steps, *, rho=1.0, draws=8, greedy=True, stage=(0.4, 0.7), through="a",
              spread=None):  # fmt: skip
        raise NotImplementedError

    method = replace(find("freedom"), build=build)
    for text, value in (
        ("rho=1e0", 1.0), ("rho= -2", -2.0), ("rho=inf", float("inf")), ("draws=3", 3),
        ("greedy=False", False), ("greedy=true", True), ("stage=(0.4, 0.7)", (0.4, 0.7)),
        ("stage=0.3,1e-1", (0.3, 0.1)), ("stage=[0,1]", (0.0, 1.0)), ("through=norm", "norm"),
        ("through='norm'", "norm"), ("spread=None", None), ("spread=0.5", 0.5),
        ("spread=hmc", "hmc"), ("spread='hmc'", "hmc"), ("spread=inf", float("inf")),
    ):  # fmt: skip
        name = text.partition("=")[0]
        read = option_text.read(method, [text])
        assert read == {name: value}
        assert type(read[name]) is type(value)
    for name, value in method.options.items():  # as `inverse methods` lists them
        assert option_text.read(method, [f"{name}={value}"]) == {name: value}
    for text, words in (
        ("rho=abc", "expected a number, such as rho=1.0"), ("rho=nan", "expected a number"),
        ("draws=2.5", "a whole number"), ("greedy=1", "true or false"), ("rho", "KEY=VALUE"),
        ("stage=0.4", "2 numbers"), ("spread=__import__('os')", "a number, a name or None"),
        ("spread=nan", "a number, a name or None"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"--option {re.escape(text)}: .*{words}"):
            option_text.read(method, [text])
    with pytest.raises(TypeError, match=r"no option 'spraed'; known: .*did you mean.*spread"):
        option_text.read(method, ["spraed=__import__('os')"])
    assert option_text.read(find("daps"), ["inner=hmc", "length=3"]) == {
        "inner": "hmc",
        "length": 3,
    }


class TestSample:
    @pytest.mark.parametrize("name", cli.SAMPLERS)
    def test_every_sampler_by_its_name(self, name, grey, tmp_path, capsys):
        out = tmp_path / "out"
        argv = ["sample", "--prior", grey, "-n", "2", "--steps", "2", "--sampler", name]
        assert cli.main([*argv, "--out", str(out)]) == 0
        assert names(out) == SAVED
        report = json.loads((out / "diagnostics.json").read_text())
        sampler = named(name, priors.load(grey), 2)
        assert report["method"] == type(sampler).__name__
        assert sampler.network_calls in (report["network_calls"], None)

    def test_the_samplers_are_those_of_the_library_and_in_the_help(
        self, fails, grey, tmp_path, capsys
    ):
        assert set(NAMES) == set(cli.SAMPLERS)
        assert set(priors.GRIDS) == set(cli.GRIDS)
        assert "are those of a --sampler" in fails(
            "sample", "--prior", grey, "--levels", "karras", "--out", tmp_path / "out"
        )
        assert cli.main(["sample", "--help"]) == 0
        listed = "".join(capsys.readouterr().out.split())  # lines break at hyphens
        assert all(name in listed for name in cli.SAMPLERS)
        argv = ("sample", "--prior", "digits", "--out", tmp_path / "out", "--sampler")
        assert "invalid choice" in fails(*argv, "dpm")
        assert "give one of them" in fails(*argv, "heun", "--method", "dps", "--class", "3")
        with pytest.raises(ValueError, match=r"unknown sampler 'hein'; known: .* mean 'heun'"):
            named("hein", priors.Gaussian(torch.zeros(1), 1.0))

    def test_end_to_end_and_the_seed_decides_the_bytes(self, grey, tmp_path):
        outs = []
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            argv = ["sample", "--prior", grey, "-n", "2", "--steps", "3", "--seed", str(seed)]
            assert cli.main([*argv, "--out", str(tmp_path / name)]) == 0
            assert names(tmp_path / name) == SAVED
            outs.append((tmp_path / name / "samples.npy").read_bytes())
            panel = (tmp_path / name / "panel.png").read_bytes()
            outs[-1] = outs[-1] + panel
        assert outs[0] == outs[1]
        assert outs[0] != outs[2]

    def test_a_class_by_a_classifier(self, grey, tmp_path):
        network = ConvClassifier(10, (8,), (1, 16, 16), noise_conditional=True).eval()
        save_classifier(NoisyClassifier(network, 10, (1, 16, 16)), tmp_path / "c")
        argv = ["sample", "--prior", grey, "-n", "2", "--steps", "3", "--class", "4"]
        argv += ["--classifier", str(tmp_path / "c"), "--out", str(tmp_path / "o")]
        assert cli.main(argv) == 0
        report = json.loads((tmp_path / "o" / "diagnostics.json").read_text())
        assert report["method"] == "exact"

    @pytest.mark.parametrize("span", [(0.0, 1.0), None])
    def test_an_analytic_prior(self, span, tmp_path, picture, fails):
        mean = torch.linspace(0, 2, 16).expand(1, 4, 16)
        priors.save_analytic(priors.Gaussian(mean, 1e-4, data_range=span), tmp_path / "g")
        argv = ["sample", "--prior", str(tmp_path / "g"), "-n", "2"]
        assert cli.main([*argv, "--out", str(tmp_path / "o")]) == 0
        assert names(tmp_path / "o") == SAVED
        error = np.load(tmp_path / "o" / "samples.npy") - mean.numpy()
        assert 0.008 < error.std() < 0.012
        text = fails("reconstruct", picture, "--forward", "blur", "--blur-sigma", 1, "--sigma",
                     0.1, *argv[1:], "--out", tmp_path / "p")  # fmt: skip
        assert "an analytic prior" in text
        priors.save_analytic(priors.Gaussian(torch.zeros(5), 1.0), tmp_path / "flat")
        text = fails("sample", "--prior", tmp_path / "flat", "--out", tmp_path / "p")
        assert "no images" in text

    def test_a_class_of_a_bundled_prior_needs_a_classifier_that_exists(
        self, tmp_path, monkeypatch, fails
    ):
        argv = ("sample", "--class", 3, "--out", tmp_path / "o", "--prior")
        for name in ("digits-mixture", "ct"):
            text = fails(*argv, name)
            assert f"{name} has no classifier of its own" in text
            assert "--classifier: digits-noisy, fashion-noisy" in text
        asked = []

        def load(name):
            asked.append(name)
            raise ValueError("far enough")

        monkeypatch.setattr(commands, "load_classifier", load)
        monkeypatch.setattr(commands, "load_prior", lambda args, label: None)
        fails(*argv, "digits")
        fails(*argv, "digits-mixture", "--classifier", "digits-noisy")
        assert asked == ["digits-noisy", "digits-noisy"]
        assert not (tmp_path / "o").exists()

    def test_a_prior_that_draws_classes_itself_takes_no_method(self, tmp_path, monkeypatch, fails):
        monkeypatch.setattr(commands, "load_prior", lambda args, label: None)
        text = fails(
            "sample", "--prior", "mine", "--class", 1, "--method", "dps", "--out", tmp_path
        )
        assert "--method dps: the prior draws class 1 by itself" in text

    def test_refusals(self, grey, tmp_path, fails):
        out = tmp_path / "o"
        text = fails("sample", "--prior", "nothing", "--out", out)
        assert "--prior nothing" in text
        text = fails("sample", "--prior", grey, "--class", 1, "--method", "mmpz", "--out", out)
        assert "mmps" in text
        argv = ("sample", "--prior", grey, "--out", out)
        text = fails(*argv, "--method", "dps")
        assert "--method dps: is for drawing a class" in text
        assert "--classifier" not in text
        text = fails(*argv, "--classifier", "digits-noisy")
        assert "--classifier digits-noisy: is for drawing a class" in text
        assert "--method" not in text
        text = fails(*argv, "--sampler", "heun", "--method", "dps")
        assert "--sampler and --method: give one of them" in text
        assert "-n 0" in fails("sample", "--prior", grey, "-n", 0, "--out", out)
        assert "--seed" in fails("sample", "--prior", grey, "--seed", -1, "--out", out)
        fails("sample", "--prior", grey, "--class", 3, "--out", out)  # it has no classes
        fails("sample", "--out", out)
        fails("simple")
        assert not out.exists()

    def test_what_is_there_is_not_replaced_without_force(self, grey, tmp_path, fails):
        (tmp_path / "mean.npy").write_bytes(b"mine")
        argv = ["sample", "--prior", grey, "-n", "2", "--steps", "2", "--out", str(tmp_path)]
        assert "mean.npy" in fails(*argv)
        assert (tmp_path / "mean.npy").read_bytes() == b"mine"
        assert cli.main([*argv, "--force"]) == 0
        assert (tmp_path / "mean.npy").read_bytes() != b"mine"


class TestReconstruct:
    def run(self, prior, source, forward, *more):
        argv = ["reconstruct", source, "--forward", forward, "--prior", prior, "-n", "2"]
        return cli.main([str(a) for a in (*argv, "--steps", 2, *more)])

    @pytest.mark.parametrize(("forward", "options"), [
        ("blur", ("--blur-sigma", 1)),
        ("blur", ("--blur-sigma", 1, "--padding", "circular")),
        ("inpaint", ("--keep", 0.5)),
        ("inpaint", ("--keep", 0.5, "--method", "ddrm")),
        ("downsample", ("--factor", 2)),
        ("ct", ("--angles", 7)),
    ])  # fmt: skip
    def test_simulated(self, grey, picture, tmp_path, forward, options):
        out = tmp_path / "o"
        more = ("--sigma", 0.05, "--simulate", "--out", out)
        assert self.run(grey, picture, forward, *options, *more) == 0
        assert names(out) == SAVED | {"metrics.json"}
        report = json.loads((out / "metrics.json").read_text())
        classical = forward != "downsample" and options[-1] != 1
        expected = {"residual_sigma", "psnr_mean", "ssim_mean"}
        expected |= {"psnr_classical", "ssim_classical"} if classical else set()
        assert set(report) == expected
        assert np.load(out / "samples.npy").shape == (2, 1, 16, 20)

    def test_a_sampler_on_levels_with_or_without_a_method(self, grey, picture, tmp_path, capsys):
        common = ("--sigma", 0.5, "--simulate", "--blur-sigma", 1, "--sampler", "heun")
        for i, (more, label) in enumerate((
            (("--method", "pigdm", "--levels", "karras"), "pigdm by Heun"), ((), "Heun"),
        )):  # fmt: skip
            out = tmp_path / str(i)
            assert self.run(grey, picture, "blur", *common, *more, "--out", out) == 0
            report = json.loads((out / "diagnostics.json").read_text())
            assert (report["method"], report["levels"]) == (label, 2)
            assert f"2 samples by {label} are in" in capsys.readouterr().out

    def test_particles_say_what_they_are_worth_and_warnings_are_one_line(
        self, grey, picture, tmp_path, capsys
    ):
        options = ("--blur-sigma", 1, "--sigma", 1e-5, "--simulate", "--method", "bootstrap")
        assert self.run(grey, picture, "blur", *options, "--out", tmp_path / "o") == 0
        printed = capsys.readouterr()
        roots = json.loads((tmp_path / "o" / "diagnostics.json").read_text())["roots"]
        told = f"effective samples 1 of 2, 1 at the worst step, descended from {roots} at the start"
        assert told in printed.out.splitlines()
        assert "log p(y)" in printed.out
        lines = printed.err.strip().splitlines()
        assert all(line.startswith("warning: ") for line in lines)
        assert any("of its noise, where 1 is expected" in line for line in lines)
        assert any("take more particles" in line for line in lines)

    def test_weighted_particles_and_options(self, grey, picture, tmp_path, fails):
        common = ("--sigma", 0.5, "--simulate", "--blur-sigma", 1)
        out = tmp_path / "o"
        more = ("--method", "bootstrap", "--option", "resample_below=0.9", "--absorb", "--out", out)
        assert self.run(grey, picture, "blur", *common, *more) == 0
        assert names(out) == SAVED | {"metrics.json", "weights.npy"}
        assert np.load(out / "weights.npy").sum() == pytest.approx(1)
        report = json.loads((out / "diagnostics.json").read_text())
        assert report["method"] == "bootstrap, absorbed"
        argv = ("reconstruct", picture, "--forward", "blur", "--prior", grey, *common, "-n", 2)
        argv = (*argv, "--out", tmp_path / "p")
        assert "options are of a --method" in fails(*argv, "--option", "zeta=1")
        assert "expected KEY=VALUE" in fails(*argv, "--method", "dps", "--option", "zeta")
        assert "no option 'zet'" in fails(*argv, "--method", "dps", "--option", "zet=1")

    def test_measured(self, grey, picture, tmp_path):
        np.save(tmp_path / "kernel.npy", np.full((3, 3), 1 / 9))
        np.save(tmp_path / "mask.npy", np.arange(16 * 20).reshape(16, 20) % 3 > 0)
        np.save(tmp_path / "sinogram.npy", np.ones((4, 23), np.float32))
        (tmp_path / "angles.txt").write_text("0\n45 90\n135")
        for i, (source, forward, options, shape) in enumerate((
            (picture, "blur", ("--kernel", tmp_path / "kernel.npy"), (16, 20)),
            (picture, "inpaint", ("--mask", tmp_path / "mask.npy"), (16, 20)),
            (picture, "downsample", ("--factor", 2), (32, 40)),
            (tmp_path / "sinogram.npy", "ct", ("--angles-file", tmp_path / "angles.txt"), (16, 16)),
        )):  # fmt: skip
            out = tmp_path / str(i)
            assert self.run(grey, source, forward, *options, "--sigma", 0.1, "--out", out) == 0
            assert np.load(out / "mean.npy").shape == (1, *shape)
            assert set(json.loads((out / "metrics.json").read_text())) == {"residual_sigma"}

    def test_dicom_and_no_patient_in_any_output(self, hounsfield, tmp_path, capsys, fails):
        out = tmp_path / "o"
        options = ("--angles", 6, "--sigma", 0.01, "--out", out)
        text = fails("reconstruct", CT, "--forward", "ct", "--prior", hounsfield, *options)
        assert "--simulate" in text
        assert self.run(hounsfield, CT, "ct", *options, "--simulate") == 0
        printed = capsys.readouterr()
        written = [p.read_bytes() for p in out.iterdir()]
        for content in (*written, printed.out.encode(), printed.err.encode(), text.encode()):
            assert not any(secret in content for secret in PATIENT)
        assert np.load(out / "mean.npy").shape == (1, 128, 128)

    def test_sizes(self, grey, tmp_path, fails):
        odd = tmp_path / "odd.png"
        Picture.fromarray(np.zeros((17, 18), np.uint8)).save(odd)
        options = ("--blur-sigma", "1", "--sigma", "0.1", "--simulate")
        argv = ["reconstruct", odd, "--forward", "blur", "--prior", grey, *options, "-n", 2]
        text = fails(*argv, "--out", tmp_path / "o")
        assert "17 x 18" in text
        assert "multiples of 2" in text
        assert self.run(grey, odd, "blur", *options, "--crop", "--out", tmp_path / "o") == 0
        assert np.load(tmp_path / "o" / "mean.npy").shape == (1, 16, 18)
        fixed = tiny(tmp_path / "fixed", any_size=False)
        argv[5] = fixed
        assert "16 x 16" in fails(*argv, "--out", tmp_path / "p")

    @pytest.mark.parametrize(("argv", "word"), [
        (["in.png", "--forward", "blur"], "--blur-sigma or --kernel"),
        (["in.png", "--forward", "inpaint"], "--mask"),
        (["in.png", "--forward", "inpaint", "--keep", "0.5"], "--simulate"),
        (["in.png", "--forward", "downsample"], "--factor"),
        (["in.png", "--forward", "ct"], "--angles"),
        (["in.png", "--forward", "ct", "--angles", "5"], "sinogram"),
        (["in.png", "--forward", "ct", "--angles", "0"], "--angles 0"),
        (["none.png", "--forward", "blur", "--blur-sigma", "1"], "no such file"),
        (["in.png", "--forward", "blur", "--blur-sigma", "-1"], "sigma"),
        (["rgb.png", "--forward", "blur", "--blur-sigma", "1"], "3 channels"),
        (["in.png", "--forward", "sharpen"], "sharpen"),
        (["in.png", "--forward", "blur", "--blur-sigma", "1", "--method", "magic"], "known:"),
        (["in.png", "--forward", "blur", "--blur-sigma", "1", "--method", "exact"], "that can:"),
        (["in.png", "--forward", "blur", "--blur-sigma", "1", "--sigma", "0"], "positive"),
        (["in.png", "--forward", "blur", "--blur-sigma", "1", "--sigma", "nan"], "positive"),
        (["big.npy", "--forward", "blur", "--blur-sigma", "1", "--simulate"], "units"),
        (["nan.npy", "--forward", "blur", "--blur-sigma", "1"], "not finite"),
        (["in.png", "--forward", "inpaint", "--mask", "in.png"], "threshold"),
        (["in.png", "--forward", "inpaint", "--mask", "big.npy"], "shape"),
    ])  # fmt: skip
    def test_refusals(self, grey, picture, tmp_path, monkeypatch, fails, argv, word):
        monkeypatch.chdir(tmp_path)
        Picture.fromarray(np.zeros((16, 16, 3), np.uint8)).save("rgb.png")
        np.save("big.npy", np.full((16, 16), 100.0))
        np.save("nan.npy", np.full((16, 16), np.nan))
        noise = [] if "--sigma" in argv else ["--sigma", "0.1"]
        text = fails("reconstruct", *argv, *noise, "--prior", grey, "--out", "o")
        assert word in text
        assert not Path("o").exists()

    def test_units_of_prior_and_picture_must_agree(self, hounsfield, grey, picture, fails):
        for prior, source, word in ((hounsfield, picture, "[0, 1]"), (grey, CT, "Hounsfield")):
            text = fails("reconstruct", source, "--forward", "ct", "--angles", 5, "--sigma", 1,
                         "--prior", prior, "--simulate", "--out", "o")  # fmt: skip
            assert word in text


class TestTrain:
    def test_array_to_prior_and_use(self, tmp_path, capsys, fails):
        values = np.random.default_rng(0).integers(0, 256, (20, 16, 16)).astype(np.uint8)
        np.savez(tmp_path / "d.npz", x_train=values)
        out = tmp_path / "prior"
        argv = ["train", "--data", str(tmp_path / "d.npz"), "--key", "x_train", "--out", str(out)]
        argv += ["--steps", "3", "--batch", "2", "--widths", "16", "16", "--rotate"]
        assert cli.main(argv) == 0
        assert "2 held-out images" in capsys.readouterr().out
        assert not (out / ".state").exists()
        prior = priors.load(out)
        assert prior.event_shape == (1, 16, 16)
        assert prior.data_range == (0, 1)
        assert "model_index.json" in fails(*argv)

    def test_every_option_says_what_it_is(self, capsys):
        actions = {a.dest: a for a in cli.parser()._actions}["command"].choices["train"]._actions
        assert all(len((a.help or "").split()) > 1 for a in actions)
        assert cli.main(["train", "--help"]) == 0
        assert "kind: classifier" in capsys.readouterr().out

    def test_interrupted_before_anything_is_saved(self, tmp_path, monkeypatch, capsys):
        from inverse import training_command

        def interrupted(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(training_command, "read_data", interrupted)
        argv = ["train", "--data", str(tmp_path), "--out", str(tmp_path / "o")]
        assert cli.main(argv) == 130
        assert "nothing was saved yet" in capsys.readouterr().err

    def test_resumes_to_the_same_weights(self, tmp_path, monkeypatch, capsys):
        np.save(tmp_path / "d.npy", np.random.default_rng(0).random((8, 1, 8, 8)))
        argv = ["train", "--data", str(tmp_path / "d.npy"), "--data-range", "0", "1"]
        argv += ["--steps", "4", "--batch", "2", "--widths", "16", "--out"]
        assert cli.main([*argv, str(tmp_path / "a")]) == 0

        from priors.training import loop

        save = loop.Checkpoint.save

        def interrupted(self, *args):
            save(self, *args)
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(loop.Checkpoint, "due", lambda self, step, steps: step == 2)
        monkeypatch.setattr(loop.Checkpoint, "save", interrupted)
        assert cli.main([*argv, str(tmp_path / "b")]) == 130
        assert names(tmp_path / "b") == {".state"}
        assert "; the same command goes on\n" in capsys.readouterr().err
        monkeypatch.undo()
        assert cli.main([*argv, str(tmp_path / "b")]) == 0
        weights = "unet/diffusion_pytorch_model.safetensors"
        first, second = ((tmp_path / f / weights).read_bytes() for f in ("a", "b"))
        assert first == second

    def test_a_folder_of_pictures(self, tmp_path, fails):
        folder = tmp_path / "pictures"
        folder.mkdir()
        out = tmp_path / "prior"
        argv = ["train", "--data", str(folder), "--out", str(out), "--crop", "8", "--steps", "2"]
        argv += ["--batch", "2", "--widths", "16", "--patch", "2"]
        assert "no images" in fails(*argv)
        rng = np.random.default_rng(0)
        for i, side in enumerate((12, 16)):
            values = rng.integers(0, 256, (side, 12, 3)).astype(np.uint8)
            Picture.fromarray(values).save(folder / f"{i}.png")
        (folder / "notes.txt").write_text("not a picture")
        assert cli.main(argv) == 0
        assert priors.load(out).event_shape == (3, 8, 8)

    def test_a_recipe(self, tmp_path, monkeypatch, capsys, fails):
        values = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 2)).astype(np.uint8)
        np.savez(tmp_path / "d.npz", a=values[..., 0], b=values[..., 1])
        (tmp_path / "r.yaml").write_text(
            "name: tiny\nsteps: 50\nbatch: 2\n"
            "data: {path: d.npz, key: a, held_out_key: b}\n"
            "network: {widths: [16]}\n"
            "denoiser: {parametrization: v, schedule: {kind: cosine}}\n"
            "monitor: {samples: 2, count: 3, sample_steps: 2, logs: 1}\n"
            "output: {errors: [0.1, 1], judged: 5}\n"
        )
        monkeypatch.chdir(tmp_path)
        assert cli.main(["train", "r.yaml", "steps=3", "denoiser.sigma_data=0.5"]) == 0
        assert "5 training images         5 held-out images" in capsys.readouterr().out
        out = tmp_path / "tiny"
        assert {"recipe.yaml", "run.json", "prior.json", "logs"} <= names(out)
        assert names(out / "samples") == {"step-000002.png", "step-000003.png"}
        assert np.asarray(Picture.open(out / "samples" / "step-000003.png")).shape == (16, 16)
        assert [p for p in (out / "logs").iterdir() if p.stat().st_size > 500]
        run = json.loads((out / "run.json").read_text())
        assert run["images"] == {**run["images"], "training": 12, "held_out": 12}
        assert [e["sigma"] for e in run["errors"]] == [0.05, 0.5]
        prior = priors.load(out)
        assert prior.parametrization == "v"
        held = torch.from_numpy(values[[0, 2, 4, 7, 9], ..., 1])[:, None] / 255
        again = denoising_error(prior, held, [0.05, 0.5])
        assert again == pytest.approx([e["held-out"] for e in run["errors"]])
        # The recipe beside the weights gives them once more.
        assert cli.main(["train", str(out / "recipe.yaml"), "--out", "again"]) == 0
        weights = "unet/diffusion_pytorch_model.safetensors"
        assert (out / weights).read_bytes() == (tmp_path / "again" / weights).read_bytes()
        assert "do not go with a recipe" in fails("train", "r.yaml", "--steps", 4)
        assert "holds model_index.json" in fails("train", "r.yaml")
        assert "did you mean steps" in fails("train", "r.yaml", "stepp=4", "--out", "o")
        assert "needs a recipe" in fails("train", "--out", "o")

    def test_logs_need_their_extra(self, tmp_path, monkeypatch, fails):
        np.save(tmp_path / "d.npy", np.zeros((4, 8, 8), np.uint8))
        (tmp_path / "r.yaml").write_text("steps: 1\ndata: {path: d.npy}\nmonitor: {logs: 1}\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        text = fails("train", "r.yaml", "network.widths=[16]", "--out", "o")
        assert "inverse[train]" in text

    def test_which_images_are_held_out(self, tmp_path, fails):
        values = np.arange(5, dtype=np.int16)[:, None, None].repeat(4, 1).repeat(4, 2)
        np.save(tmp_path / "d.npy", values)
        data = Data(str(tmp_path / "d.npy"), range=(0.0, 4.0), held_out=(3, "1"))
        training, held, span = read_data(data, 0)
        assert span == (0.0, 4.0)
        assert [int(x[0, 0, 0]) for x in training] == [0, 2, 4]
        assert [int(x[0, 0, 0]) for x in held] == [1, 3]
        for seed in (0, 1):
            training, held, _ = read_data(replace(data, held_out=2), seed)
            assert sorted(int(x[0, 0, 0]) for x in training + held) == [0, 1, 2, 3, 4]
            assert len(held) == 2
        for held_out, message in (((7,), "no 7 to hold out"), (5, "leave none to train")):
            with pytest.raises(ValueError, match=message):
                read_data(replace(data, held_out=held_out), 0)

    def test_refusals(self, tmp_path, fails):
        np.save(tmp_path / "f.npy", np.random.default_rng(0).random((4, 8, 8)) * 3)
        np.save(tmp_path / "i.npy", np.zeros((4, 8, 8), np.int64))
        more = ["--out", tmp_path / "o", "--widths", "16", "--steps", "1"]
        assert "--data-range" in fails("train", "--data", tmp_path / "f.npy", *more)
        text = fails("train", "--data", tmp_path / "f.npy", "--data-range", 0, 1, *more)
        assert "widen" in text
        assert "int64" in fails("train", "--data", tmp_path / "i.npy", *more)
        assert "no such file" in fails("train", "--data", tmp_path / "none.npy", *more)


class TestExitStatus:
    @pytest.mark.parametrize(("error", "status"), [
        (OSError(errno.ENOSPC, "No space left on device"), 74),
        (OSError("1000000 requested and 131056 written"), 74),
        (FloatingPointError("the run diverged"), 1),
        (ValueError("two\nlines"), 2),
    ])  # fmt: skip
    def test_of_failures(self, monkeypatch, tmp_path, fails, error, status):
        monkeypatch.setattr(demo, "run", lambda *a, **k: (_ for _ in ()).throw(error))
        text = fails("demo", "--out", tmp_path / "o", status=status)
        assert status != 74 or str(tmp_path / "o") in text

    def test_interruption_and_debug(self, monkeypatch, tmp_path):
        def stop(*args, **kwargs):
            raise kwargs_error

        monkeypatch.setattr(demo, "run", stop)
        kwargs_error = KeyboardInterrupt()
        assert cli.main(["demo", "--out", str(tmp_path / "o")]) == 130
        kwargs_error = ValueError("shown whole")
        with pytest.raises(ValueError, match="shown whole"):
            cli.main(["demo", "--debug", "--out", str(tmp_path / "o")])

    @pytest.mark.parametrize(("home", "name", "words"), [
        ("commands", "draw_from_prior", "sample --prior digits"),
        ("commands", "reconstruct", "reconstruct y.npy --prior ct --forward ct --sigma 1"),
        ("calibrate_command", "calibrate", "calibrate --prior ct --forward ct --sigma 1"),
        ("training_command", "train_prior", "train --data images"),
    ])  # fmt: skip
    def test_an_interrupt_ends_in_one_line(self, monkeypatch, tmp_path, capsys, home, name, words):
        """The same command goes on where a state is kept and was saved."""

        def stop(args):
            raise KeyboardInterrupt

        monkeypatch.setattr(f"inverse.{home}.{name}", stop)
        argv = [*words.split(), "--out", str(tmp_path)]
        keeps = argv[0] in ("calibrate", "train")
        told = ["interrupted" + "; nothing was saved yet, the same command starts again" * keeps]
        assert cli.main(argv) == cli.INTERRUPTED
        assert capsys.readouterr().err.splitlines() == told
        (tmp_path / ".state" / "truths").mkdir(parents=True)
        (tmp_path / ".state" / "truths" / "batch0.safetensors").touch()
        assert cli.main(argv) == cli.INTERRUPTED
        told = ["interrupted" + "; the same command goes on" * keeps]
        assert capsys.readouterr().err.splitlines() == told

    def test_an_interrupted_import_is_told_without_another(self):
        """torch cannot be imported again after an import that was cut off."""
        program = (
            "import sys\nfrom inverse import cli\n"
            "def stop(args): raise KeyboardInterrupt\n"
            "cli._run = stop\n"
            "status = cli.main('calibrate --prior p --forward ct --sigma 1 --out no'.split())\n"
            "assert 'torch' not in sys.modules\n"
            "sys.exit(status)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=Path(__file__).parent.parent, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == cli.INTERRUPTED
        assert done.stderr.splitlines() == [
            "interrupted; nothing was saved yet, the same command starts again"
        ]

    def test_samples_that_are_not_finite_are_not_written(self, monkeypatch, grey, tmp_path, fails):
        broken = inverse.Samples(torch.full((2, 1, 16, 16), torch.nan), {"seconds": 0.0})
        monkeypatch.setattr(inverse, "sample", lambda *a, **k: broken)
        text = fails("sample", "--prior", grey, "--out", tmp_path / "o", status=1)
        assert "not finite" in text
        assert not (tmp_path / "o").exists()


def gaussian(name):
    """N(centre, s^2 I) in network units, as a network that gives its score."""
    channels = 3 if name == "photographs" else 1
    side = 28 if name == "digits" else 16
    return priors.NetworkPrior(
        lambda x, sigma: -x / (0.25 + sigma.reshape(-1, 1, 1, 1) ** 2),
        "score",
        (channels, side, side),
        data_range=(-1024.0, 1024.0) if name == "ct" else (0.0, 1.0),
        any_size=name != "digits",
        stride=8,
    )


def classifier(name):
    torch.manual_seed(0)
    noisy = name == "digits-noisy"
    network = ConvClassifier(10, (8,), noise_conditional=noisy).eval()
    return (NoisyClassifier if noisy else Classifier)(network, 10, (1, 28, 28))


class TestDemo:
    def test_panels_and_metrics(self, tmp_path):
        jobs = tuple(demo.Job(j.name, j.prior, j.method, 3, 3) for j in demo.JOBS)
        seen = []
        results = demo.run(
            tmp_path, 0, lambda job, step: seen.append((job, step.index)), digit=3,
            load=gaussian, load_classifier=classifier, jobs=jobs,
        )  # fmt: skip
        order = ["digits", "deblur", "inpaint", "ct"]
        assert seen == [(job, k) for job in order for k in (1, 2, 3)]
        assert names(tmp_path) == {f"{job}.png" for job in order} | {"banner.png", "metrics.json"}
        report = json.loads((tmp_path / "metrics.json").read_text())
        assert report["jobs"] == results
        assert [r["job"] for r in results] == order
        common = {"job", "method", "steps", "n", "network_calls", "jacobian_products", "seconds"}
        assert set(results[0]) == common | {"class", "class_accuracy", "class_probability"}
        for result in results[1:]:
            assert set(result) == common | {
                "psnr_classical", "psnr_mean", "ssim_classical", "ssim_mean", "residual_sigma",
                "coverage90",
            }  # fmt: skip
        assert all(r["network_calls"] == 3 for r in results)
        lines = demo.table(results).split("\n")
        assert len(lines) == 5
        assert len({len(line) for line in lines}) == 1

    def test_coverage_of_independent_draws_is_the_level(self):
        draws = torch.randn(9, 200_000, generator=torch.Generator().manual_seed(0))
        share = demo.coverage(inverse.Samples(draws[:8]), draws[8])
        assert share == pytest.approx(0.9, abs=0.004)

    def test_pictures_need_columns(self, tmp_path):
        with pytest.raises(ValueError, match="column"):
            figures.banner(tmp_path / "a.png", [])
        with pytest.raises(ValueError, match="shape"):
            figures.panel(tmp_path / "a.png", [("two channels", torch.zeros(2, 4, 4))])
        assert names(tmp_path) == set()
