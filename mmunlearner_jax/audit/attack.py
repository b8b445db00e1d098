"""The record that defines an attack on an unlearned model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from mmunlearner_jax.options import Section

if TYPE_CHECKING:  # it imports the config, which imports the attacks
    from mmunlearner_jax.data.samples import Question
    from mmunlearner_jax.session import Session

BEFORE, AFTER, GOLD = "before", "after", "gold"  # the models of an audit

# By name of the trial: how right each question's answer is, 0 to 1 (or what `Attack.guess` says),
# float64 [Q]; NaN where the trial does not ask the question.
Trials = Mapping[str, np.ndarray]


class Target(Protocol):
    """What an attack may use.

    Attributes:
        session: Session of the audit.
        questions: The questions about pictures of forgotten people, Q of them.
        before: Parameters of the model before unlearning.
    """

    session: Session
    questions: list[Question]

    @property
    def before(self) -> Any:  # noqa: D102 - see above
        ...

    def answers(self, params: Any, questions: Sequence[Question | None], trial: str) -> np.ndarray:
        """Returns how right a model's answers are, 0 to 1, float64 [Q].

        Args:
            params: All parameters of the model.
            questions: What is asked in place of each of the Q questions; None: nothing, which
                gives NaN.
            trial: Name of the trial, shown beside the progress bar.

        Raises:
            Diverged: A log-probability is not finite.
            InputError: A prompt is too long for the model.
        """
        ...

    def stems(self, params: Any) -> list[str]:
        """Returns the words that a model itself says before it answers, for each question.

        Args:
            params: As in `answers`.
        """
        ...

    def rng(self) -> np.random.Generator:
        """Returns the attack's generator, the same for all models and processes."""
        ...


class Cost(NamedTuple):
    """What an attack on one model costs.

    Attributes:
        passes: How often all questions are asked, or their prompts computed.
        learned: Number of questions that are learned in steps, forward and backward.
    """

    passes: int
    learned: int = 0


@dataclasses.dataclass(frozen=True)
class Attack:
    """One attack. Its module's name is its name in `config.audit.attacks`.

    Attributes:
        label: Name in tables.
        about: What the attacker does, in one or two sentences.
        run: Attacks a model: a function of the target, all parameters of the model (which stay as
            they are) and the attack's options. It yields trials, each as soon as it is made.
        cost: Returns what the attack costs with its options.
        options: Class of the section `config.audit.NAME`; None: the attack has no options.
        lacks: Returns why an attack cannot be made on a target with the options; "" where it can.
        counts: What counts of several trials: the one that brings most back ("best"); whether a
            question comes back in any ("any"); or their mean ("mean"), which tells fast from slow
            where every model gets everything back in the end.
        against_gold: Whether a model that never saw the faces can be attacked in the same way.
        needs_gold: Whether the result says nothing without such a model, because the attack shows
            answers, or guesses several times.
        guess: What trials give where nothing is left, if they do not give right answers: of an AUC
            one half. None: they give right answers.
    """

    label: str
    about: str
    run: Callable[[Target, Any, Any], Iterator[tuple[str, np.ndarray]]]
    cost: Callable[[Any], Cost]
    options: type[Section] | None = None
    lacks: Callable[[Target, Any], str] = lambda *_: ""
    counts: Literal["best", "any", "mean"] = "best"
    against_gold: bool = True
    needs_gold: bool = False
    guess: float | None = None
