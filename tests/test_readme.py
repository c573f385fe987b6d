"""The README is true: its Python runs as printed, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import forward_models
import inverse
from inverse import cli

README = Path(__file__).parent.parent / "README.md"
CATALOGUE = README.parent / "forward_models/README.md"
BENCHMARKS = README.parent / "benchmarks/README.md"


def test_the_examples_run_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["samples"].x.shape == (4, 1, 8, 8)
    assert {p.name for p in Path("out").iterdir()} == {
        "samples.npy", "mean.npy", "std.npy", "diagnostics.json"
    }  # fmt: skip
    # The network of the example is the same white prior as the class above it.
    x = 3 * names["torch"].randn(2, 1, 8, 8)
    ours = names["prior"].denoise(x, 0.7)
    assert names["torch"].allclose(ours, names["White"]().denoise(x, 0.7), atol=1e-5)


def test_the_catalogue_is_true(capsys):
    text = CATALOGUE.read_text()
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(block, "forward_models/README.md", "exec"), names)
    assert "the adjoint fits" in capsys.readouterr().out
    y, x = names["y"], names["samples"].x
    white, black = (names[model].log_likelihood(y, x) for model in ("model", "box"))
    assert names["torch"].allclose(white, black)
    with pytest.raises(ValueError, match="black box"):
        inverse.sample(inverse.condition(names["prior"], names["box"], y), n=1, method="mmps")
    found = inverse.sample(inverse.condition(names["prior"], names["box"], y), n=1, steps=2, seed=0)
    assert found.diagnostics["method"] == "scg"
    listed = set(re.findall(r"`(?:fm\.)?([A-Za-z_]\w+)(?=[`(])", text))
    known = {name for name in listed if hasattr(forward_models, name)}
    assert len(known) > 80
    assert not {name for name in listed - known if name[0].isupper()}


def test_every_command_is_one_of_the_parser(capsys):
    text = README.read_text()
    commands = set(re.findall(r"^inverse (\w+)", text, re.M))
    assert commands == {"demo", "sample", "reconstruct", "train", "methods", "calibrate"}
    for command in commands:
        assert cli.main([command, "--help"]) == 0
    assert "@@" not in text


def test_linked_files_exist():
    for page in (README, CATALOGUE, BENCHMARKS):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_recipes_are_valid(tmp_path):
    from inverse.classifier_training import ClassifierRecipe
    from priors.training import read_recipe
    from priors.training.recipe_file import read

    prior, classifier = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.S)
    (tmp_path / "recipe.yaml").write_text(prior)
    assert read_recipe(tmp_path / "recipe.yaml").steps == 5000
    (tmp_path / "classifier.yaml").write_text(classifier)
    assert read(tmp_path / "classifier.yaml", (), lambda _: ClassifierRecipe).steps == 2000
