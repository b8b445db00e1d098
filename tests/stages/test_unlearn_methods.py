"""A short run of the loop by every method: what moves, by what losses, and the same bits again."""

import itertools
import json

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from mmunlearner_jax import compilations, preemption
from mmunlearner_jax.config import typed
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.data import references
from mmunlearner_jax.data.refusals import REFUSALS
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.groups import GROUPS
from mmunlearner_jax.models.packing import IGNORE
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.reference_model import ask_vanilla
from mmunlearner_jax.stages.unlearn import Unlearner
from mmunlearner_jax.stages.unlearn_batches import forget_batches, retain_batches
from mmunlearner_jax.unlearn.anchors.picture_features import feature_distance
from mmunlearner_jax.unlearn.losses import OF_TOKENS
from mmunlearner_jax.unlearn.methods import METHODS
from mmunlearner_jax.unlearn.scoring import EXAMPLE_NLL, LOG_PROBS
from tests.helpers import tiny

# What a run without retain steps has in its lines, and what batches hold of the vanilla model.
ALONE = {"ga", "npo"}
HELD = {"npo": ("forget", EXAMPLE_NLL), "kl_min": ("pictures", LOG_PROBS)}
HELD["undial"] = ("forget", LOG_PROBS)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def at(workdir):
    return tiny.session(workdir)


def half(at):
    """A mask with every second weight."""
    return jax.tree.map(
        lambda p: jax.device_put(np.arange(p.size).reshape(p.shape) % 2 == 0, p.sharding), at.params
    )


def lines(folder, label="unlearn"):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["stage"] == label]


def run(at, folder, method, **unlearn):
    folder.mkdir(exist_ok=True)
    mask = half(at) if METHODS[method].masked else None
    return Unlearner(tiny.varied(at, folder, method=method, **unlearn)).run(mask)


@pytest.mark.parametrize("method", METHODS)
def test_a_run(at, tmp_path, method):
    before = jax.tree.map(np.asarray, at.params)
    outcome = run(at, tmp_path, method)
    retained = 0 if method in ALONE else 4
    assert (outcome.forget_steps, outcome.retain_steps) == (4, retained)
    rows = lines(tmp_path)
    assert len(rows) == 4
    for row in rows:
        assert np.isfinite(row["forget_loss"])
        assert ("retain_loss" in row) == (method not in ALONE)
    # The vanilla parameters are what they were, and the others moved.
    for old, kept, new in zip(
        *map(jax.tree.leaves, (before, at.params, outcome.params)), strict=True
    ):
        np.testing.assert_array_equal(old, kept)
        assert np.isfinite(new).all()
    if method == "npo":  # at first the model is its reference: -2/beta log sigmoid(0)
        np.testing.assert_allclose(rows[0]["forget_loss"], 20 * np.log(2), rtol=1e-4)


@pytest.mark.parametrize(("method", "direction"), [("ga", 1), ("npo", -1), ("idk_nll", -1)])
def test_forget_steps_raise_or_lower_their_loss(at, tmp_path, method, direction):
    run(at, tmp_path, method, iterations=12, learning_rate=1e-3, forget_batch=2)
    losses = [row["forget_loss"] for row in lines(tmp_path)]
    assert direction * (np.mean(losses[-4:]) - np.mean(losses[:4])) > 0


@pytest.mark.parametrize(
    ("method", "options"), [("mmunlearner", {"moves": ("vision", "projector")}), ("unsee", {})]
)
def test_what_unlearning_holds_stays_bit_by_bit(at, tmp_path, method, options):
    outcome = run(at, tmp_path, method, **options, learning_rate=1e-3)
    old, new = (nnx.to_pure_dict(tree) for tree in (at.params, outcome.params))
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), old, new)
    moved = {part for part in same if not all(jax.tree.leaves(same[part]))}
    assert moved == {"vision_tower", "multi_modal_projector"}


def test_the_rule_asks_relative_to_the_vanilla_model(at, tmp_path):
    rule = {"iterations": 12, "learning_rate": 1e-3, "forget_batch": 2}
    rule |= {"stop_by": "probability", "stop_remembered": 0.5}
    outcome = run(at, tmp_path, "ga", **rule)
    assert outcome.forget_steps < 12
    assert 0 < outcome.remembered <= 0.5 * outcome.remembered_before
    rows = lines(tmp_path)
    assert rows[0]["remembered_before"] == outcome.remembered_before
    assert all(row["remembered"] > 0.5 * outcome.remembered_before for row in rows[:-1])


def test_another_rate_is_no_other_program(at, tmp_path):
    def moved(label, **unlearn):
        session = tiny.varied(at, tmp_path, mask_on="gradient", **unlearn)
        end = Unlearner(session).run(half(at), label=label)
        old, new = (jax.tree.leaves(tree) for tree in (at.params, end.params))
        return max(float(np.abs(a - b).max()) for a, b in zip(old, new, strict=True))

    slow, so_far = moved("slow", learning_rate=1e-5, warmup=2), compilations.count()
    fast = moved("fast", learning_rate=1e-3, warmup=2)
    assert not so_far()["programs"]
    assert fast > 20 * slow > 0
    moved("other looks", learning_rate=1e-3, warmup=2, stop_every=2)
    assert not so_far()["programs"]
    moved("other program", learning_rate=1e-3, warmup=2, alpha=2.0)
    assert so_far()["programs"]


@pytest.mark.parametrize("method", ["ga", "ga_diff"])
def test_what_is_remembered_is_of_the_end_wherever_a_run_was_stopped(
    at, tmp_path, method, monkeypatch
):
    rule = {"iterations": 5, "stop_every": 2, "stop_remembered": 0.0}

    def measured(self, steps, params):  # what no two models share
        return float(optax.tree.norm(params))

    monkeypatch.setattr(Unlearner, "remembered", measured)
    whole = run(at, tmp_path / "whole", method, **rule)
    steps = itertools.count(1)
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "due", lambda: next(steps) == 3)
        with pytest.raises(preemption.Preempted):
            run(at, tmp_path / "stopped", method, **rule)
    assert run(at, tmp_path / "stopped", method, **rule).remembered == whole.remembered
    assert whole.remembered == float(optax.tree.norm(whole.params))
    assert run(at, tmp_path / "no rule", method).remembered is None


@pytest.mark.parametrize("labels", ["answer", "full"])
def test_the_stopping_rule_asks_for_answers_whatever_steps_learn(tmp_path, labels):
    at = tiny.session(tmp_path, labels=labels)
    unlearner = Unlearner(tiny.varied(at, method="ga"))
    supervised, learned = (
        sum(int((batch["labels"] != IGNORE).sum()) for batch in batches)
        for batches in (
            unlearner._training_answers,
            [forget_batches(unlearner._session)["forget"].example()] * 2,
        )
    )
    answers = [at.answers.labelled(sample).labels for sample in tiny.FORGET]
    assert supervised == sum(int((labels != IGNORE).sum()) for labels in answers)
    assert (learned > 2 * supervised) == (labels == "full")


def test_refusals_take_the_answers_place(at):
    batches = forget_batches(tiny.varied(at, method="idk_nll"))["forget"]
    assert {sample.answer for sample in batches.samples} <= set(REFUSALS)
    assert [s.question for s in batches.samples] == [s.question for s in tiny.FORGET]


def test_packed_rows_give_the_same_losses(at, tmp_path):
    """All questions about the one picture, thrice: alone in three rows, or together in one."""
    found = []
    for pack in (1, 3):
        folder = tmp_path / str(pack)
        run(
            at,
            folder,
            "npo",
            iterations=3,
            learning_rate=1e-3,
            forget_batch=3,
            pack=pack,
            retain_batch=3,
        )
        found.append([row["forget_loss"] for row in lines(folder)])
    assert np.ptp(found[0]) > 0.1
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)


@pytest.mark.parametrize("method", ["npo", "kl_min", "unsee"])
def test_stopped_and_run_again_it_gives_the_same_bits(at, tmp_path, method, monkeypatch):
    whole = run(at, tmp_path / "whole", method)
    steps = itertools.count(1)
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "due", lambda: next(steps) == 2)
        with pytest.raises(preemption.Preempted):
            run(at, tmp_path / "stopped", method)
    asked = []
    monkeypatch.setattr("mmunlearner_jax.reference_model.to_host", asked.append)
    again = run(at, tmp_path / "stopped", method)
    assert not asked  # the vanilla model was asked once a workdir
    for one, other in zip(*map(jax.tree.leaves, (whole.params, again.params)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (
        lines(tmp_path / "whole")[-1]["forget_loss"]
        == lines(tmp_path / "stopped")[-1]["forget_loss"]
    )


@pytest.mark.parametrize("method", HELD)
def test_batches_hold_what_the_vanilla_model_said(at, method):
    session = tiny.varied(at, method=method)
    name, array = HELD[method]
    plan = METHODS[method]
    given = forget_batches(session)
    if plan.retain is not None:
        given |= retain_batches(session, plan.retain)
    for key, batches in given.items():
        assert (array in batches.example()) == (key == name or (name, key) == ("pictures", "text"))


def test_a_smaller_retain_set_is_refused_before_anything_runs(at):
    with pytest.raises(InputError, match="fewer than the"):
        Unlearner(tiny.varied(at, method="ga_diff", epochs=1, forget_batch=1, retain_batch=5))
    session = tiny.varied(at, method="ga", epochs=2, forget_batch=1, retain_batch=5)
    schedule = Unlearner(session)._schedule
    assert schedule.counts(schedule.iterations) == (2 * len(tiny.FORGET), 0)


def test_what_a_stage_counts_is_what_batches_have(at):
    session = tiny.varied(at, method="ga_diff", epochs=1, pack=2, forget_batch=2, retain_batch=2)
    unlearner = Unlearner(session)
    pictures = retain_batches(session, METHODS["ga_diff"].retain)["pictures"]
    steps = len(pictures), len(pictures) // len(forget_batches(session)["forget"])
    assert (unlearner._schedule.iterations, unlearner._schedule.forget_every) == steps


def test_asking_that_was_interrupted_gives_the_same_answers(at, tmp_path, monkeypatch):
    monkeypatch.setattr(references, "FILE", 1)
    samples = [*tiny.RETAIN, *tiny.FORGET]
    pack = {"questions": 1, "tokens": 16}

    def ask(folder):
        one = tiny.varied(at, tmp_path / folder)
        return ask_vanilla(one, OF_TOKENS, samples, batch_size=3)

    whole = ask("whole").pack([[s] for s in samples], **pack)[LOG_PROBS]
    calls = []

    def stopped(array):
        calls.append(array)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return to_host(array)

    with monkeypatch.context() as patch:
        patch.setattr("mmunlearner_jax.reference_model.to_host", stopped)
        with pytest.raises(KeyboardInterrupt):
            ask("stopped")
    assert len(list((tmp_path / "stopped").rglob("*.array_record"))) == 1
    again = ask("stopped").pack([[s] for s in samples], **pack)[LOG_PROBS]
    np.testing.assert_array_equal(again, whole)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.frozen": ("vision", "projector")}, "unlearn.moves .*model.frozen lacks"),
        ({"unlearn.moves": ("vision",), "model.frozen": ("vision",)}, "unlearn.moves"),
        (
            {"unlearn.method": "ga", "unlearn.anchor": "picture_features"},
            "anchor .*no retain steps",
        ),
        ({"unlearn.moves": ("language",)}, "unlearn.anchor .*no step moves vision or projector"),
        ({"unlearn.method": "mmunlearner", "controls": ("unsee_ascent",)}, ""),
    ],
)
def test_parts_that_do_not_go_together_are_refused(changes, said):
    made = typed(tiny.config(method="unsee")).with_values({"stages": ("unlearn",), **changes})
    if not said:
        return check_config(made, jax.devices()[:1])
    with pytest.raises(InputError, match=said):
        check_config(made, jax.devices()[:1])
    return None


@pytest.mark.parametrize(
    ("method", "moves", "wanted"),
    [
        ("unsee", (), {"pictures"}),
        ("unsee", GROUPS, {"pictures", "text"}),
        ("mmunlearner", ("vision", "projector"), {"pictures"}),
        ("mmunlearner", (), {"pictures", "text"}),
    ],
)
def test_text_is_learned_where_the_language_model_moves(at, method, moves, wanted):
    session = tiny.varied(at, method=method, moves=moves)
    assert {*retain_batches(session, METHODS[method].retain)} == wanted


def test_adapters_are_anchored_to_the_model_without_them(at, tmp_path):
    outcome = run(at, tmp_path, "unsee", lora={"rank": 2}, learning_rate=1e-3)
    batch = at.batches(at.pictures("retain"), batch_size=2, pack=1).example()
    models = ((at.graphdef, params) for params in (outcome.params, at.params))
    assert 0 < feature_distance(*models, batch) < 0.1
    old, new = (nnx.to_pure_dict(tree) for tree in (at.params, outcome.params))
    for one, other in zip(
        *(jax.tree.leaves(tree["language_model"]) for tree in (old, new)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_another_methods_forget_loss_and_no_anchor(at, tmp_path):
    parts = {"target": "ga", "anchor": "none", "moves": GROUPS, "text_batch": 0}
    same = Unlearner(tiny.varied(at, tmp_path / "a", method="unsee", **parts)).run(None)
    wanted = Unlearner(tiny.varied(at, tmp_path / "b", method="ga_diff", text_batch=0)).run(None)
    for one, other in zip(*(jax.tree.leaves(x.params) for x in (same, wanted)), strict=True):
        np.testing.assert_array_equal(one, other)
