"""Parts of methods that need more than a loss: own answers, gradients ahead, masks of the way."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmunlearner_jax import preemption
from mmunlearner_jax.artefacts import writing
from mmunlearner_jax.checkpoint import begin_to_save
from mmunlearner_jax.config import typed
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.data.noising import PROMPT, noised
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.reference_model import ask_vanilla
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.mask import load_mask
from mmunlearner_jax.stages.own_answers import ABOUT_PICTURES, own_answers
from mmunlearner_jax.stages.relearning_watch import relearning_watch
from mmunlearner_jax.stages.unlearn import Unlearner
from mmunlearner_jax.stages.unlearn_batches import forget_batches, retain_batches
from mmunlearner_jax.unlearn.importance import FisherSums
from mmunlearner_jax.unlearn.losses import OF_NOISED, OF_TOKENS
from mmunlearner_jax.unlearn.method import ANSWERS
from mmunlearner_jax.unlearn.scoring import LOG_PROBS
from tests.helpers import tiny
from tests.helpers.small_run import prepared_run, small_config

# Parts that are combined with methods, and whether the run has a mask.
PARTS = {
    "ahead": ({"method": "foresee", "ahead": {"steps": 2, "batch": 2}}, False),
    "preconditioned": (
        {"method": "unsee", "masked": "yes", "forget_optimizer": "preconditioned"},
        True,
    ),
    "adapters": (
        {"method": "foresee", "ahead": {"batch": 2}, "lora": {"rank": 2}}
        | {"pack": 3, "forget_batch": 3, "retain_batch": 3},
        False,
    ),
    "refreshed": ({"method": "ga", "masked": "yes", "refresh": 2}, True),
}


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    """A session whose workdir has importances."""
    made = tiny.session(tmp_path_factory.mktemp("run"))
    config = tiny.config()
    config.importance.batch_size = 3
    made.config = typed(config)
    rng = np.random.default_rng(0)
    with writing(made.workdir / "importance") as partial:
        for name in ("pictures", "text"):
            squares = jax.tree.map(
                lambda p: jax.device_put(np.float32(rng.exponential(size=p.shape)), p.sharding),
                made.params,
            )
            begin_to_save(partial / name, FisherSums(squares, jnp.float32(2)))()
    return made


def run(at, folder, parts, masked):
    folder.mkdir(exist_ok=True)
    session = tiny.varied(at, folder, learning_rate=1e-3, **parts)
    if not (folder / "importance").exists():
        (folder / "importance").symlink_to(at.workdir / "importance")
    mask = None
    if masked:
        mask = jax.tree.map(
            lambda p: jax.device_put(np.arange(p.size).reshape(p.shape) % 2 == 0, p.sharding),
            at.params,
        )
    return Unlearner(session).run(mask), mask


@pytest.mark.parametrize("name", PARTS)
def test_it_moves_what_it_may_and_goes_on_with_the_same_bits(at, tmp_path, monkeypatch, name):
    whole, mask = run(at, tmp_path / "whole", *PARTS[name])
    steps = itertools.count(1)
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "due", lambda: next(steps) == 3)
        with pytest.raises(preemption.Preempted):
            run(at, tmp_path / "stopped", *PARTS[name])
    again, _ = run(at, tmp_path / "stopped", *PARTS[name])
    for one, other in zip(*map(jax.tree.leaves, (whole.params, again.params)), strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(one).all()
    old, new = (nnx.to_pure_dict(tree) for tree in (at.params, whole.params))
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), old, new)
    assert not all(jax.tree.leaves(same["vision_tower"]))
    spared = all(jax.tree.leaves(same["language_model"]))
    assert spared == (name != "refreshed")
    if name == "refreshed":
        _check_refreshed(at, whole.params, mask, tmp_path)


def _check_refreshed(at, params, first, workdir):
    """Without retain steps nothing else moves: weights that no mask has chosen keep their bits."""
    one, again = (workdir / name / "masks/unlearn" for name in ("whole", "stopped"))
    assert [p.name for p in one.iterdir()] == [p.name for p in again.iterdir()] == ["1"]
    folder = one / "1"
    left = {p.name for p in folder.iterdir()}
    assert "mask" in left and not left & {"importance", "checkpoints"}
    second = load_mask(folder, at.abstract)
    for old, new, one, other in zip(
        *map(jax.tree.leaves, (at.params, params, first, second)), strict=True
    ):
        moved = np.asarray(old) != np.asarray(new)
        assert not moved[~np.asarray(one) & ~np.asarray(other)].any()
        assert not (np.asarray(one) == np.asarray(other)).all()


def test_the_gradient_ahead_learns_the_last_picture(at):
    session = tiny.varied(at, method="unsee", ahead={"steps": 1, "batch": 2})
    made = forget_batches(session)
    assert [*made] == ["forget", "forget_shown"]
    assert {s.image for s in made["forget_shown"].samples} == {tiny.FORGET[-1].image}


def test_pictures_that_hide_who_is_seen(at, tmp_path):
    hidden = noised([*tiny.FORGET, *tiny.OTHERS], seed=1)
    asked = [*tiny.FORGET, *tiny.OTHERS]
    for new, old in zip(hidden, asked, strict=True):
        assert new.question == PROMPT + old.question and new.answer == old.answer
        assert (new.image is None) == (old.image is None)
    assert len({sample.image for sample in hidden}) == len({sample.image for sample in asked})
    assert hidden == noised(asked, seed=1) != noised(asked, seed=2)
    session = tiny.varied(at, tmp_path)
    pack = {"questions": 1, "tokens": 16}
    own, unknown = (
        ask_vanilla(session, reference, tiny.FORGET, batch_size=2).pack(
            [[s] for s in tiny.FORGET], **pack
        )[LOG_PROBS]
        for reference in (OF_TOKENS, OF_NOISED)
    )
    assert own.shape == unknown.shape and np.abs(own - unknown).max() > 0.01
    np.testing.assert_array_equal((own == 0).all(-1), (unknown == 0).all(-1))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return prepared_run(tmp_path_factory.mktemp("own") / "run")


def small(workdir, **changes):
    config = small_config().with_values({k.replace("__", "."): v for k, v in changes.items()})
    return Session(config, workdir, str(workdir / "initial"))


def test_anchors_on_the_models_own_answers(workdir, monkeypatch):
    session = small(workdir, unlearn__anchor="own_words", unlearn__iterations=1)
    own = own_answers(session, "words")
    asked = {sample.question for sample in session.words(session.forget)}
    assert {sample.question for sample in own} <= asked
    made = retain_batches(session, ANSWERS)
    assert [*made] == ["pictures", "text", "anchor"]
    assert {*made["anchor"].samples} == {*own}
    assert LOG_PROBS in made["anchor"].example() and LOG_PROBS not in made["text"].example()

    said = iter([])

    class Answers:
        def answer(self, params, questions, **options):
            return [{"response": next(said)} for _ in questions]

    monkeypatch.setattr(Session, "answerer", lambda self, name: Answers())
    names = session.bench.names()
    said = itertools.cycle(["A wall.", *names.values()])
    old = own_answers(session, "pictures")
    assert old and {sample.answer for sample in old} == {"A wall."}
    assert {sample.question for sample in old} <= {*ABOUT_PICTURES}
    said = itertools.cycle([""])
    with pytest.raises(InputError, match="anchor: the vanilla model gives no answer of its own"):
        own_answers(session, "pictures")


def test_a_run_ends_when_little_comes_back(workdir):
    rule = {"unlearn__stop_by": "relearned", "unlearn__stop_examples": 8}
    session = small(workdir, unlearn__stop_remembered=0.5, unlearn__probe__steps=2, **rule)
    watch = relearning_watch(session)
    left, over = watch(session.params, 0, 0)
    assert 0 < left < 1 and not over
    damaged = jax.tree.map(lambda p: 5 * p, session.params)  # sure of something else
    assert watch(damaged, 0, 0)[1]
    session.pictures = {session.forget: tiny.FORGET}.__getitem__
    with pytest.raises(InputError, match="'relearned', but no person to forget has a second pic"):
        relearning_watch(session)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unlearn.refresh": 2}, "unlearn.refresh .*forget steps have no mask"),
        ({"unlearn.masked": "yes", "unlearn.forget_repeat": 0}, "unlearn.masked .*no forget steps"),
        ({"unlearn.anchor": "own_words"}, "unlearn.anchor .*no step moves language"),
        (
            {"unlearn.forget_optimizer": "preconditioned", "unlearn.lora.rank": 2},
            "forget_optimizer .*'adamw' with adapters",
        ),
        (
            {"unlearn.forget_optimizer": "preconditioned", "unlearn.optimizers": 2},
            "unlearn.optimizers .*give 1",
        ),
        (
            {"unlearn.target": "rmu", "unlearn.moves": ("language",), "unlearn.anchor": "none"},
            "unlearn.target .*no step moves vision",
        ),
        ({"unlearn.target": "vgid", "data.labels": "full"}, "unlearn.target .*labels='full'"),
        (
            {"unlearn.masked": "yes", "unlearn.refresh": 2, "mask.by": "random"},
            "unlearn.refresh .*not measured",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        check_config(
            typed(tiny.config(method="unsee")).with_values({"stages": ("unlearn",), **changes}),
            jax.devices()[:1],
        )


def test_a_refresh_longer_than_the_run_is_refused(at):
    session = tiny.varied(at, method="unsee", masked="yes", refresh=4)
    with pytest.raises(InputError, match="unlearn.refresh is 4: give fewer than the 4 forget st"):
        Unlearner(session)
