"""The typed configuration: what it refuses, what it says, and its reference."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs import orl
from mmunlearner_jax.config import Config, defaults, typed
from mmunlearner_jax.config.__main__ import page, sections
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.options import flatten
from mmunlearner_jax.unlearn.methods import METHODS

ROOT = Path(__file__).parents[1]
METHOD = "mmunlearner_jax/unlearn/methods/simnpo.py"


def test_the_reference_is_that_of_the_options():
    said = "run python -m mmunlearner_jax.config > docs/reference/config.md"
    assert (ROOT / "docs/reference/config.md").read_text() == page(), said


def test_every_option_has_a_meaning_and_stands_in_the_reference():
    text = page()
    for kind in sections(Config):
        assert f"## `config{'.' if kind.key else ''}{kind.key}`" in text
        for field in dataclasses.fields(kind):
            assert field.metadata["rule"].meaning.endswith(".")


def test_a_config_survives_the_way_through_json_and_overrides():
    config = typed(orl.get_config())
    assert Config.of(config.to_dict()) == config
    assert Config.of({}) == Config() == typed(defaults())
    assert config.with_values({"unlearn.npo.beta": 3}).unlearn.own["npo"].to_dict() == {
        "beta": 3.0,
        "over": "example",
    }
    assert config.unlearn.epochs == 0 and config.with_values({}) == config


def test_every_method_with_options_has_a_section():
    keys = flatten(Config().to_dict())
    for method in METHODS.values():
        if method.options:  # which a method may share with the one that it changes
            own = {field.name for field in dataclasses.fields(method.options)}
            section = f"{method.options.key}."
            assert own == {key.split(".")[2] for key in keys if key.startswith(section)}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"unlearn": {"lerning_rate": 1.0}},
            "config.unlearn.lerning_rate: no such option. Did you",
        ),
        ({"unlern": {}}, 'config.unlern: no such option. Did you mean "unlearn"?'),
        ({"unlearn": {"method": "gadiff"}}, 'give .* Did you mean "ga_diff"?'),
        ({"stages": ("unlern",)}, "not 'unlern'. Did you mean \"unlearn\"?"),
        ({"seed": "one"}, "config.seed is 'one': give a whole number"),
        ({"seed": True}, "config.seed is True: give a whole number"),
        ({"mesh": 4}, "config.mesh is 4: give a tuple"),
        ({"mesh": (1, "2", 1)}, "config.mesh is .*: give a whole number"),
        ({"model": {"checkpoint": 7}}, "config.model.checkpoint is 7: give a string"),
        ({"model": 7}, "config.model is 7: give "),
        ({"prepare": {"vision": 7}}, "config.prepare.vision is 7: give "),
        ({"data": {"supervise_end": 1}}, "config.data.supervise_end is 1: give True or False"),
        ({"compare": {"apart": 0.0}}, "give a number above 0 and below 1"),
        ({"compare": {"apart": 1.0}}, "give less than 1"),
        ({"unlearn": {"npo": {"bta": 1}}}, "config.unlearn.npo.bta: no such option. Did you mean"),
    ],
)
def test_values_that_are_refused(values, said):
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        Config.of(values)


def test_the_page_on_methods_shows_a_real_file():
    text = (ROOT / "docs/add-a-method.md").read_text()
    assert f"```python\n{(ROOT / METHOD).read_text()}```" in text
    for name in METHODS:
        assert f"| `{name}` |" in text


def test_a_file_in_the_folder_is_a_method(tmp_path):
    """Nothing else is changed: the copy of a file, under another name, is a method with options."""
    shutil.copytree(ROOT / "mmunlearner_jax", tmp_path / "mmunlearner_jax")
    text = (ROOT / METHOD).read_text()
    for old, new in (('"simnpo"', '"mine"'), ('"SimNPO"', '"Mine"'), ("n.simnpo", "n.mine")):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "mmunlearner_jax/unlearn/methods/mine.py").write_text(text)
    program = """
from mmunlearner_jax.comparison.cells import label
from mmunlearner_jax.config import Config
config = Config.of({"unlearn": {"method": "mine", "mine": {"gamma": 2}}})
options = config.unlearn.of_loss(config.unlearn.chosen.forget)
print(options, "mine" in config.compare.methods, label("mine"))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    options = "SimNPOConfig(beta=2.5, gamma=2.0)"
    assert said.stdout == f"{options} True Mine\n", said.stderr
