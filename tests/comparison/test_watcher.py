"""How far a followed run goes: to the level, or so many times as far."""

import pytest

from mmunlearner_jax.comparison.examiner import FORGET_KIND
from mmunlearner_jax.comparison.runs import Levels, _Watcher


class Examiner:
    """Says that a model, which is a number, has that much of what was to be forgotten."""

    def look(self, params, label):
        return {FORGET_KIND: params}

    def scored(self, params, label):
        line = {"split": "forget", "modality": "vqa", "task": "classification", "person": "Kim"}
        return [line | {"correct": n < 100 * float(params)} for n in range(100)]


def ends(path, file, depth, scores=True):
    levels = Levels({FORGET_KIND: 1.0}, gold=0.0, fraction=0.5, halfway=False)
    watcher = _Watcher(Examiner(), levels, depth, file, 1.0, None, scores=scores)
    for step, left in enumerate(path, 1):
        seen, over = watcher.watch(left, 3 * step, step)
        assert seen == left
        if over:
            return step, watcher
    return None, watcher


@pytest.mark.parametrize(("depth", "last"), [(1.0, 3), (1.5, 5), (2.0, 6), (3.0, None)])
def test_a_run_ends_at_so_many_times_the_steps_to_the_level(tmp_path, depth, last):
    path = [0.9, 0.7, 0.4, 0.6, 0.3, 0.2, 0.1]
    step, watcher = ends(path, tmp_path / "looks.json", depth)
    assert step == last
    matched = watcher.matched["forgotten"]
    assert matched["forget_steps"] == pytest.approx(2 + 2 / 3)  # of 0.7 to 0.4, where it is 0.5
    assert matched["accuracies"][FORGET_KIND]["Kim"] == pytest.approx((0.5, 100))
    # An interrupted run goes on, also past the level.
    again = _Watcher(
        Examiner(),
        Levels({FORGET_KIND: 1.0}, 0.0, 0.5, halfway=False),
        *(depth, tmp_path / "looks.json", 1.0, None),
        scores=True,
    )
    assert again.watch(path[3], 12, 4)[1] == (depth == 1.0)
    assert again.matched["forgotten"]["forget_steps"] == matched["forget_steps"]


def test_a_tuning_run_scores_nothing(tmp_path):
    step, watcher = ends([0.9, 0.4, 0.1, 0.1], tmp_path / "looks.json", 2.0, scores=False)
    assert step == 4 and not watcher.matched
