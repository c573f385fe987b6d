"""Recipes: what they accept, what they refuse and how, and that they come back as written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import priors
from priors.training import Augmentation, Optimizer, Recipe, read_recipe, recipe_text
from priors.training import recipe as parts
from priors.training.recipe_file import build, parse

WORDS = st.text("abcdefghij_-0123456789 :#'\"{}[]&*!|>%@`", min_size=1, max_size=12)
POSITIVE = st.floats(1e-6, 1e6)
SPANS = st.tuples(st.floats(-1e4, 0), st.floats(1e-3, 1e4))
RECIPES = st.builds(
    Recipe,
    st.builds(
        parts.Data,
        WORDS,
        st.none() | WORDS,
        st.none() | SPANS,
        st.none() | st.integers(0, 9) | st.lists(WORDS | st.integers(0, 99)).map(tuple),
    ),
    st.integers(1, 10**6),
    batch=st.integers(1, 512),
    seed=st.integers(0, 2**31 - 1),
    precision=st.sampled_from(["float32", "bfloat16", "float16"]),
    name=st.none() | WORDS,
    network=st.builds(
        parts.Network,
        st.lists(st.integers(1, 8).map(lambda n: 16 * n), min_size=1, max_size=4).map(tuple),
        attention=st.booleans(),
    ),
    denoiser=st.builds(
        parts.Denoiser,
        st.sampled_from(["epsilon", "v", "x0", "score", "flow"]),
        st.none() | st.sampled_from(["ve", "vp", "cosine"]).map(parts.Noising),
        SPANS,
        sigma_data=st.none() | POSITIVE,
    ),
    levels=st.builds(parts.Levels, mean=st.floats(-2, 2), std=st.floats(0.1, 3)),
    optimizer=st.builds(Optimizer, POSITIVE, half_life=st.none() | POSITIVE),
    augmentation=st.builds(Augmentation, st.none() | st.integers(1, 64), flip=st.booleans()),
)


@settings(max_examples=40, deadline=None)
@given(RECIPES)
def test_a_recipe_comes_back_from_its_text(recipe):
    assert build(Recipe, parse(recipe_text(recipe))) == recipe


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


GOOD = "data: {path: images}\nsteps: 10\n"


def test_changes_go_over_the_file(tmp_path):
    path = write(tmp_path, GOOD + "optimizer: {learning_rate: 1e-3}\n")
    assert read_recipe(path).optimizer.learning_rate == 1e-3
    changed = read_recipe(
        path,
        ["steps=20", "data.path=a/b c.npz", "optimizer.learning_rate=2E-4", "data.range=[0,1]",
         "network.widths=[16, 32]", "augmentation.flip=true", "data.key=null"],
    )  # fmt: skip
    assert changed == Recipe(
        parts.Data("a/b c.npz", range=(0.0, 1.0)),
        20,
        network=parts.Network((16, 32)),
        optimizer=Optimizer(2e-4),
        augmentation=Augmentation(flip=True),
    )


REFUSED = {
    "unknown key": (GOOD + "stepz: 3", "unknown key stepz; did you mean steps"),
    "unknown key inside": (GOOD + "network: {width: [16]}", "did you mean network.widths"),
    "twice": (GOOD + "steps: 11", "'steps' is given twice"),
    "twice inside": (GOOD + "network: {patch: 1, patch: 2}", "'patch' is given twice"),
    "missing": ("steps: 3", "data is missing"),
    "missing inside": ("data: {key: a}\nsteps: 3", "data.path is missing"),
    "not whole": (GOOD + "batch: 2.5", "batch must be a whole number, got 2.5"),
    "true is no number": (GOOD + "batch: true", "batch must be a whole number, got True"),
    "words": (GOOD + "optimizer: {clip: big}", "optimizer.clip must be a number, got 'big'"),
    "a number for a flag": (GOOD + "augmentation: {flip: 1}", "augmentation.flip must be true or"),
    "one for two": (
        GOOD + "denoiser: {sigma_range: [1]}",
        "denoiser.sigma_range must be [a",
    ),
    "not increasing": (GOOD + "denoiser: {sigma_range: [2, 1]}", "low < high"),
    "not finite": (GOOD + "optimizer: {learning_rate: .nan}", "optimizer.learning_rate must be po"),
    "widths": (GOOD + "network: {widths: [20]}", "multiples of 16, got (20,)"),
    "choice": (GOOD + "precision: bfloat", "did you mean 'bfloat16'"),
    "schedule": (
        GOOD + "denoiser: {parametrization: v, schedule: {kind: subvp}}",
        "did you mean 'sub-vp'",
    ),
    "constants": (
        GOOD + "denoiser: {parametrization: v, schedule: {kind: vp, offset: 0.1}}",
        "vp has no offset",
    ),
    "edm has no schedule": (GOOD + "denoiser: {schedule: {kind: vp}}", "edm has none"),
    "weighting's constant": (GOOD + "loss: {gamma: 3}", "gamma belongs to min-snr"),
    "density's constant": (GOOD + "levels: {kind: geometric, mean: 1}", "belong to log-normal"),
    "time of what": (GOOD + "levels: {kind: uniform-time}", "needs levels.schedule"),
    "levels apart": (GOOD + "levels: {mean: 30}", "in one unit"),
    "two held out": (
        "data: {path: a, held_out: 3, held_out_key: b}\nsteps: 1",
        "data.held_out takes images out",
    ),
    "a list": ("- steps", "made of lines"),
    "code": (GOOD + "name: !!python/object/apply:os.system [ls]", "the tag"),
    "alias": ("data: &a {path: b}\nsteps: 1\nnetwork: *a", "anchors and aliases"),
    "bomb": ("a: &a [1]\nb: &b [*a, *a]\n", "anchors and aliases"),
    "no YAML": ("data: {path: a", "is no YAML"),
    "deep": ("a: " + "[" * 3000, "nested too deeply"),
    "a key that is no word": ("? [a, b]\n: 1\n", "a key must be a word"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_refusals_name_the_key_and_what_came(tmp_path, case):
    text, message = case
    with pytest.raises(ValueError, match=r"recipe\.yaml") as caught:
        read_recipe(write(tmp_path, text))
    assert message in str(caught.value)


def test_all_faults_are_told_at_once(tmp_path):
    text = """
data: {key: a, range: [1, 0]}
steps: 0
batch: many
stepz: 3
network: {widths: [20], patch: 0, layer: 2}
denoiser: {sigma_range: [2, 1], network_range: [1, 1], parametrization: eps}
optimizer: {clip: big, warmup: -1, betas: [0.9, 1.0]}
"""
    expected = [
        "data.path is missing", "unknown key stepz", "batch must be a whole number, got 'many'",
        "unknown key network.layer", "network.widths must be 1 to 8 positive multiples of 16",
        "network.patch must be from 1 to 64, got 0",
        "denoiser.parametrization must be one of", "denoiser.sigma_range must be (low, high)",
        "denoiser.network_range must be (low, high)", "optimizer.clip must be a number",
        "optimizer.warmup must be at least 0 steps, got -1", "optimizer.betas must be in [0, 1)",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"recipe\.yaml: 12 faults: \(1\) ") as caught:
        read_recipe(write(tmp_path, text))
    assert all(fault in str(caught.value) for fault in expected)
    with pytest.raises(ValueError, match=r"4 faults") as caught:
        read_recipe(write(tmp_path, GOOD.replace("10", "0") + "batch: 0\nseed: -1\nfoo: 2\n"))
    assert "steps must be at least 1, got 0" in str(caught.value)


def test_a_fault_of_one_section_brings_no_false_ones(tmp_path):
    """A density in the denoiser's time is in order, once the denoiser's schedule is."""
    text = GOOD + (
        "denoiser: {parametrization: v, schedule: {kind: subvp}}\nlevels: {kind: uniform-time}\n"
    )
    with pytest.raises(ValueError, match="did you mean 'sub-vp'") as caught:
        read_recipe(write(tmp_path, text))
    assert "faults" not in str(caught.value)


def test_bad_changes_and_files_are_refused(tmp_path):
    path = write(tmp_path, GOOD)
    for change, message in {
        "steps": "is no change",
        "steps.inner=2": "steps is no section",
        "=3": "is no change",
        "batch=x": "batch must be a whole number",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_recipe(path, [change])
    with pytest.raises(FileNotFoundError, match="no such recipe"):
        read_recipe(tmp_path / "none.yaml")
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="UTF-8"):
        read_recipe(path)
    path.write_bytes(b"a" * (2**20 + 1))
    with pytest.raises(ValueError, match="larger"):
        read_recipe(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Augmentation(zoom=(2.0, 1.0)),
        lambda: Augmentation(gain=1.0),
        lambda: Augmentation(saturation=0.5),
        lambda: Augmentation(shift=-1),
        lambda: Augmentation(crop=0),
        lambda: Optimizer(clip=0.0),
        lambda: Optimizer(half_life=math.inf),
        lambda: Optimizer(warmup=-1),
        lambda: Optimizer(betas=(0.9, 1.0)),
        lambda: Optimizer(weight_decay=-0.1),
        lambda: Optimizer(decay="step"),
        lambda: parts.Monitor(checkpoint=0),
        lambda: parts.Output(errors=()),
        lambda: parts.Output(event_shape=(1, 2)),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()


BUNDLED = sorted((Path(priors.__file__).parent / "bundled").glob("*/*.yaml"))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_the_recipes_of_bundled_priors_are_read(path):
    recipe = read_recipe(path)
    assert recipe.name == path.parent.name
    assert not Path(recipe.data.path).is_absolute()
    assert replace(recipe, steps=1).decisive()["network"]["widths"] == recipe.network.widths
    if (path.parent / "model_index.json").exists():
        facts = json.loads((path.parent / "prior.json").read_text())
        law = json.loads((path.parent / "scheduler" / "scheduler_config.json").read_text())
        assert tuple(facts["network_range"]) == recipe.denoiser.network_range
        assert law["sigma_data"] == recipe.denoiser.sigma_data
        assert law["sigma_min"] == pytest.approx(recipe.denoiser.sigma_range[0])
