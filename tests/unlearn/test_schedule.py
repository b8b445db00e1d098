"""The alternation and the stopping rule."""

import pytest

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.unlearn.schedule import Schedule, StopRule, published_schedule


def test_alternation_and_its_count():
    schedule = Schedule(iterations=7, forget_every=3)
    assert [i for i, forgets in schedule.steps() if forgets] == [0, 3, 6]
    for done in range(8):
        forgets = [f for i, f in schedule.steps() if i < done]
        assert schedule.forget_steps(done) == sum(forgets)


def test_it_goes_on_where_it_was():
    schedule = Schedule(iterations=7, forget_every=3)
    assert list(schedule.steps(4)) == list(schedule.steps())[4:]


@pytest.mark.parametrize(
    ("forget", "retain", "every"), [(5, 95, 19), (7, 20, 2), (5, 5, 1), (9, 4, 1), (1, 3, 3)]
)
def test_published_alternation_also_where_it_divided_by_zero(forget, retain, every):
    assert published_schedule(forget, retain, 2) == Schedule(2 * retain, every)


@pytest.mark.parametrize("bad", [{"iterations": 0}, {"iterations": -3}, {"forget_every": 0}])
def test_impossible_schedules(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Schedule(**{"iterations": 1, **bad})


def test_stop_rule():
    rule = StopRule(remembered=0.1, every=6)
    assert [i for i in range(14) if rule.due(i)] == [5, 11]
    assert rule.reached(0.1) and not rule.reached(0.11)
    assert not any(StopRule().due(i) for i in range(20))
