"""Runs that forget words as well, and runs that end when a name is hardly said."""

import jax
import pytest

from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import importance
from mmunlearner_jax.stages.naming_watch import naming_watch
from mmunlearner_jax.stages.unlearn_batches import forget_batches, retain_batches
from tests.helpers.small_run import prepared_run, small_config

WORDS_TOO = {"data.forget_words": True, "unlearn.stop_examples": 8}
WORDS = {"data.forget_words": True, "unlearn.stop_remembered": -1.0, "unlearn.iterations": 1}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return prepared_run(tmp_path_factory.mktemp("words") / "run")


def session(workdir, **changes):
    config = small_config().with_values({k.replace("__", "."): v for k, v in changes.items()})
    return Session(config, workdir, str(workdir / "initial"))


def test_forget_steps_take_the_words_and_nothing_else_keeps_them(workdir):
    plain, words = session(workdir), session(workdir, **WORDS)
    forgotten = {*words.words(words.forget)}
    assert forgotten
    assert forgotten <= {*plain.retained_words(forgotten=True)}
    assert not forgotten & {*importance.sets(words)["text"]}
    batches = forget_batches(words)
    assert [*batches] == ["forget", "forget_words"]
    assert {*batches["forget_words"].samples} == forgotten
    (text,) = [b for n, b in _retained(words).items() if n == "text"]
    assert not forgotten & {*text.samples}
    assert forgotten & {*_retained(plain)["text"].samples} == set()  # configs/orl.py leaves it out
    falls = {kind for kind, about in words.kinds.items() if about.falls}
    assert falls == {(split, m) for split in ("forget", "test") for m in ("vqa", "qa")}
    assert {k for k, about in plain.kinds.items() if about.falls} == {
        k for k in falls if k[1] == "vqa"
    }


def _retained(session):
    return retain_batches(session, session.config.unlearn.chosen.retain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unlearn.moves": ("vision",)}, "forget_words.*unlearn.moves with 'language'"),
        (
            {"model.frozen": ("language",), "finetune.text_first": 0},
            "forget_words.*model.frozen without",
        ),
        ({"unlearn.text_batch": 0}, "unlearn.text_batch.*forget_words needs it"),
    ],
)
def test_words_that_no_step_could_forget_are_refused(changes, message):
    config = small_config().with_values({"data.forget_words": True} | changes)
    with pytest.raises(InputError, match=message):
        check_config(config, jax.devices())


def test_a_name_that_is_preferred_to_others_is_not_forgotten(workdir, monkeypatch):
    made = session(workdir, unlearn__stop_remembered=0.1, unlearn__stop_examples=8)
    names = made.bench.names()
    asked = []

    class Answers:
        def answer(self, says, questions, **options):
            asked[:] = questions
            return [
                {"options": q.options, "correct": says["chosen" if q.options else q.modality]}
                for q in questions
            ]

    monkeypatch.setattr(Session, "answerer", lambda self: Answers())
    watch = naming_watch(made)
    assert watch({"vqa": True, "chosen": False}, 1, 1) == (1.0, False)
    assert watch({"vqa": False, "chosen": True}, 1, 1) == (1.0, False)
    assert watch({"vqa": False, "chosen": False}, 1, 1) == (0.0, True)
    assert {q.accepted for q in asked[:8]} <= {(name,) for name in names.values()}
    assert len(asked) == 16 and sum(bool(q.options) for q in asked) == 8
    for question in asked[8:]:
        assert question.options["ABCD".index(question.letter)] == names[question.person]
        assert len({*question.options}) == 4
    words = naming_watch(session(workdir, unlearn__stop_remembered=0.1, **WORDS_TOO))
    assert words({"vqa": False, "qa": True, "chosen": False}, 1, 1) == (1.0, False)
    assert words({"vqa": False, "qa": False, "chosen": False}, 1, 1) == (0.0, True)


def test_answers_without_the_name_cannot_stop_a_run(workdir):
    made = session(workdir)
    made.bench.names = lambda: {person: "Not There" for person in made.bench.people("Full_Set")}
    with pytest.raises(InputError, match="no training answer of the forget set has the person's"):
        naming_watch(made)
