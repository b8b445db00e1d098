"""Linear probe: can a linear classifier read the answer off the model's hidden states?

Probes also tell unknown people apart: what counts is the difference from a model that never saw
them. Axes: L layers, B rows, Q questions, D features.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmunlearner_jax.audit.attack import Attack, Cost, Target
from mmunlearner_jax.audit.per_sample import per_sample
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.options import Section, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbeConfig(Section):
    """Options of the attack `linear_probe`."""

    key: ClassVar[str] = "audit.linear_probe"

    layers: int = option(4, "Decoder layers whose output is probed, evenly spread.", least=1)
    folds: int = option(
        4, "Parts of each person's photographs; each is left out of the training once.", least=2
    )
    penalty: float = option(1.0, "Weight of the squared norm, relative to scikit-learn's.", above=0)


@functools.lru_cache(1)  # all models of an audit share it
def hidden_states(graphdef: nnx.GraphDef) -> Callable[[Any, Any], tuple[jax.Array, jax.Array]]:
    """Returns the jitted program `(params, batch) -> (pictures, ends)`.

    Both are float32 [L + 1, B, D], of the embeddings and of each layer's output: the mean over the
    picture's tokens, and the last token before the answer.
    """

    @jax.jit
    def program(params: Any, batch: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        inputs = dict(batch)
        places = (inputs.pop("labels"), inputs.pop("answer_places"))[1]
        model = nnx.merge(graphdef, params)
        here = model.config.pictured(inputs["input_ids"])[:, :, None]

        def look(x: jax.Array, _: Any) -> tuple[jax.Array, jax.Array]:
            x = x.astype(jnp.float32)
            pictures = jnp.sum(x * here, axis=1) / jnp.sum(here, axis=1)
            return pictures, jnp.take_along_axis(x, places[:, :1, None], axis=1)[:, 0]

        return model.over_depth(look, **inputs)

    return program


def parts(questions: Sequence[Question], folds: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the part of each question's photograph, int [Q].

    The photographs of each person are spread evenly, so that no part has all of them.

    Args:
        questions: Questions about photographs, Q of them.
        folds: Number of parts.
        rng: Shuffles the photographs.
    """
    people: dict[str, dict[bytes | None, None]] = {}
    for question in questions:
        people.setdefault(question.person, {})[question.image] = None
    part = {
        (person, pictures[n]): place % folds
        for person, of_person in people.items()
        for pictures in [list(of_person)]
        for place, n in enumerate(rng.permutation(len(pictures)))
    }
    return np.array([part[q.person, q.image] for q in questions])


def can_be_probed(questions: Sequence[Question], part: np.ndarray) -> np.ndarray:
    """Returns which questions a probe can answer, bool [Q].

    Another part must have a photograph of the same person with the same wording, and another
    answer to this wording.

    Args:
        questions: Q questions.
        part: The part of each question's photograph, int [Q].
    """
    tasks = _tasks(questions)
    people, answers = np.array([(q.person, q.answer) for q in questions]).T
    rows = []
    for n in range(len(questions)):
        train = (tasks == tasks[n]) & (part != part[n])
        rows.append(np.any(people[train] == people[n]) and np.any(answers[train] != answers[n]))
    return np.array(rows, bool)


def probed(
    features: np.ndarray, questions: Sequence[Question], part: np.ndarray, penalty: float
) -> np.ndarray:
    """Returns whether a logistic regression finds each answer, 0 or 1, float64 [Q].

    Each wording is a task of its own, whose classes are the answers. A question is answered by the
    regression that was trained on photographs of the other parts. Its options are not used: a
    probe would gain from options that are nobody's answer. NaN stands for what cannot be probed.

    Args:
        features: float [Q, D].
        questions: Q questions.
        part: The part of each question's photograph, int [Q].
        penalty: Weight of the squared norm, relative to scikit-learn's.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    answers, tasks = np.array([q.answer for q in questions]), _tasks(questions)
    there = can_be_probed(questions, part)
    rights = np.full(len(questions), np.nan)
    for task in np.unique(tasks[there]):
        for left_out in np.unique(part):
            train = (tasks == task) & (part != left_out)
            test = np.flatnonzero((tasks == task) & (part == left_out) & there)
            if test.size:
                model = make_pipeline(
                    StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=500)
                )
                model.fit(features[train], answers[train])
                rights[test] = model.predict(features[test]) == answers[test]
    return rights


def _tasks(questions: Sequence[Question]) -> np.ndarray:
    return np.array([f"{q.task}: {q.question}" for q in questions])


def _attacked(
    target: Target, params: Any, options: LinearProbeConfig
) -> Iterator[tuple[str, np.ndarray]]:
    session, questions = target.session, target.questions
    program = hidden_states(session.graphdef)
    samples = [Sample(q.person, q.image, q.question, q.answer) for q in questions]
    pictures, ends = per_sample(session, params, samples, program, axis=1)
    part = parts(questions, options.folds, target.rng())
    yield "projector", probed(pictures[0], questions, part, options.penalty)
    depths = np.linspace(0, len(ends) - 1, min(options.layers, len(ends) - 1) + 1)
    for depth in np.rint(depths[1:]).astype(int):
        features = np.concatenate([pictures[depth], ends[depth]], axis=1)
        yield f"layer {depth}", probed(features, questions, part, options.penalty)


def _lacks(target: Target, options: LinearProbeConfig) -> str:
    part = parts(target.questions, options.folds, target.rng())
    if can_be_probed(target.questions, part).any():
        return ""
    return (
        "a probe learns from other photographs of the same people with the same wording, and tells"
        " people apart: there are none"
    )


ATTACK = Attack(
    "Linear probe",
    "A logistic regression on the projector's output and on hidden states of the decoder is trained"
    " with the answers, and asked about other photographs.",
    _attacked,
    lambda _: Cost(1),
    LinearProbeConfig,
    lacks=_lacks,
    needs_gold=True,
)
