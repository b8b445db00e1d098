"""The alternation, the learning rate of every step, and the stopping rule."""

import numpy as np
import pytest

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.unlearn.schedule import Schedule, StopRule, published_schedule, shape_of


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ({"forget_every": 3}, "FR R R FR R R FR"),
        ({"forget_every": 1}, "FR FR FR FR FR FR FR"),
        ({"forget_repeat": 3}, "FFFR FFFR FFFR FFFR FFFR FFFR FFFR"),
        ({"forget_every": 3, "forget_repeat": 2}, "FFR R R FFR R R FFR"),
        ({"forget_every": 7, "forget_repeat": 4}, "FFFFR R R R R R R"),
        ({"forget_every": 3, "retains": False}, "F   F   F"),
        ({"forget_repeat": 0}, "R R R R R R R"),
    ],
)
def test_alternation_and_its_count(given, pattern):
    schedule = Schedule(iterations=7, **given)
    steps = ["F" * forgets + "R" * retains for _, forgets, retains in schedule.steps()]
    assert " ".join(steps) == pattern
    for done in range(8):
        so_far = "".join(steps[:done])
        assert schedule.counts(done) == (so_far.count("F"), so_far.count("R"))


def test_it_goes_on_where_it_was():
    schedule = Schedule(iterations=7, forget_every=3)
    assert list(schedule.steps(4)) == list(schedule.steps())[4:]


@pytest.mark.parametrize(
    ("forget", "retain", "every"), [(5, 95, 19), (7, 20, 2), (5, 5, 1), (1, 3, 3)]
)
def test_published_alternation(forget, retain, every):
    assert published_schedule(forget, retain, 2) == Schedule(2 * retain, every)
    alone = published_schedule(forget, retain, 2, retains=False)
    assert alone == Schedule(2 * forget, retains=False)
    assert alone.counts(alone.iterations) == (2 * forget, 0)


def test_the_published_alternation_divides_by_zero():
    with pytest.raises(InputError, match="has 4 steps, fewer than the 9 of the forget set"):
        published_schedule(9, 4)


@pytest.mark.parametrize(
    "bad",
    [
        *({"iterations": 0}, {"iterations": -3}, {"forget_every": 0}),
        *({"forget_repeat": -1}, {"forget_repeat": 0, "retains": False}),
    ],
)
def test_impossible_schedules(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Schedule(**{"iterations": 1, **bad})


@pytest.mark.parametrize(
    ("decay", "wanted"),
    [
        ("constant", lambda passed: 1.0),
        ("linear", lambda passed: 1 - passed),
        ("cosine", lambda passed: (1 + np.cos(np.pi * passed)) / 2),
    ],
)
@pytest.mark.parametrize("warmup", [0, 4])
def test_shape_of_the_learning_rate(decay, wanted, warmup):
    shape = shape_of(decay=decay, warmup=warmup, steps=20)
    for step in range(20):
        rising = step / warmup if step < warmup else None
        height = wanted((step - warmup) / (20 - warmup)) if rising is None else rising
        np.testing.assert_allclose(1.0 if shape is None else shape(step), height, rtol=1e-5)


def test_a_warmup_without_end():
    with pytest.raises(InputError, match=r"config.unlearn.warmup is 20: give fewer than the 20"):
        shape_of(decay="constant", warmup=20, steps=20)


def test_stop_rule():
    rule = StopRule(remembered=0.1, every=6)
    assert [i for i in range(14) if rule.due(i)] == [5, 11]
    assert rule.reached(0.1) and not rule.reached(0.11)
    assert rule.reached(0.05, before=0.5) and not rule.reached(0.06, before=0.5)
    assert not any(StopRule().due(i) for i in range(20))
