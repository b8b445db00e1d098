"""The level at which runs end, and checkpoints that are no gold standard."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest

from mmunlearner_jax.comparison import staleness
from mmunlearner_jax.comparison.contest import Contest
from mmunlearner_jax.comparison.runs import Levels, interpolated
from mmunlearner_jax.errors import InputError

VANILLA = {"forget/vqa": 0.98, "forget/qa": 1.0, "retain/qa": 1.0}


def ended(gold, *, checkpoint="gold/vanilla"):
    """The level at which runs end, where the gold model answers so."""
    contest: Any = object.__new__(Contest)
    contest._options = SimpleNamespace(gold=checkpoint, never_taught="")
    contest.examiner = SimpleNamespace(chance=lambda: 0.16, look=lambda params, name: gold)
    contest.reference = lambda name: None
    return contest._gold(VANILLA)


def test_runs_end_at_what_gold_knows_and_else_at_chance():
    assert ended(VANILLA | {"forget/vqa": 0.14}) == 0.14
    assert ended({}, checkpoint="") == 0.16
    levels = Levels(VANILLA, 0.18, 0.9)  # from 98 to 18 %
    assert levels.of == pytest.approx({"halfway": 0.58, "forgotten": 0.26})
    assert levels.end == levels.of["forgotten"]
    assert Levels(VANILLA, 0.18, 0.9, halfway=False).of.keys() == {"forgotten"}


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"forget/vqa": 0.95}, r"gold/vanilla knows the faces to forget \(95 % right"),
        ({"forget/vqa": 0.15, "forget/qa": 0.2}, "lacks the text about the people to forget"),
    ],
)
def test_a_checkpoint_that_is_no_gold_standard(answers, said):
    with pytest.raises(InputError, match=said) as error:
        ended(VANILLA | answers)
    assert "config.finetune.retain_only='gold'" in str(error.value)


def test_accuracies_between_two_models():
    before, after = ({"forget/qa": {"s1": (x, 6), "s2": (1.0, 6)}} for x in (1.0, 0.5))
    assert interpolated(before, after, 0.25) == {"forget/qa": {"s1": (0.875, 6), "s2": (1.0, 6)}}


def test_a_share_counts_covered_weights_alone():
    squares = {"a": jnp.array([1.0, 3.0]), "b": jnp.array([100.0])}
    covered = {"a": jnp.array([True, True]), "b": jnp.array([False])}
    mask = {"a": jnp.array([False, True]), "b": jnp.array([True])}
    assert float(staleness._share(squares, mask, covered)) == 0.75
