"""Runs of a comparison: unlearning, followed look by look down to what the gold model knows."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmunlearner_jax.comparison.examiner import (
    FORGET_KIND,
    Accuracies,
    Examiner,
    accuracies,
)
from mmunlearner_jax.comparison.paths import area, crossing
from mmunlearner_jax.comparison.staleness import Shares
from mmunlearner_jax.comparison.variants import Variants
from mmunlearner_jax.errors import refusing
from mmunlearner_jax.evaluation.likelihoods import Line
from mmunlearner_jax.files import parse_json, read_bytes, write_json
from mmunlearner_jax.processes import wait
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.unlearn import Outcome
from mmunlearner_jax.unlearn.controls import Control

HALFWAY, FORGOTTEN = "halfway", "forgotten"  # levels at which variants are compared
RELEARNED = "relearned"  # the last model after a few steps on what it forgot


def relearned_level(steps: int) -> str:
    """Returns the name of the level at which a last model has relearned for so many steps."""
    return f"{RELEARNED}/{steps}"


@dataclasses.dataclass(frozen=True)
class Levels:
    """How much a run is to forget.

    Attributes:
        start: The vanilla model's look, by kind.
        gold: Accuracy of the gold model about the forget set's pictures, or chance.
        fraction: Part of the way from the vanilla model to gold at which runs are compared.
        halfway: Whether half of the way is a level, too.
    """

    start: Mapping[str, float]
    gold: float
    fraction: float
    halfway: bool = True

    @property
    def end(self) -> float:
        """Accuracy about the forget set's pictures at which runs are compared."""
        return self._at(self.fraction)

    @property
    def of(self) -> dict[str, float]:
        """The levels by name."""
        before = {HALFWAY: self._at(0.5)} if self.halfway else {}
        return {**before, FORGOTTEN: self.end}

    def _at(self, fraction: float) -> float:
        return self.start[FORGET_KIND] + fraction * (self.gold - self.start[FORGET_KIND])


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that was followed.

    Attributes:
        looks: The looks, the vanilla model's first: iteration, forget steps and accuracies.
        matched: Forget steps and scored accuracies by level, as far as the run reached it.
        outcome: How the run ended.
        end: Scored answers of the last model; None where no scored question was asked of it.
    """

    looks: list[dict[str, Any]]
    matched: dict[str, dict[str, Any]]
    outcome: Outcome
    end: list[Line] | None

    def of(self, kind: str) -> list[float]:
        """Returns the accuracies of one kind along the path."""
        return [look["accuracies"][kind] for look in self.looks]

    def kept(self, kinds: Sequence[str]) -> list[float]:
        """Returns the mean accuracy of several kinds, of those that were asked, along the path."""
        there = [kind for kind in kinds if kind in self.looks[0]["accuracies"]]
        return np.mean([self.of(kind) for kind in there], axis=0).tolist()


class Follower:
    """Unlearns with variants and follows their paths.

    Args:
        session: Session of the run, whose workdir holds `importance/` and `mask/`.
        examiner: Asks the questions.
        levels: How much runs are to forget.
        scores: Whether scored questions are asked where a path crosses a level.
    """

    def __init__(self, session: Session, examiner: Examiner, levels: Levels, *, scores: bool):
        self._session, self._examiner, self._levels = session, examiner, levels
        self._scores = scores
        self.variants = Variants(session)
        options, every = session.config.compare, session.config.unlearn.forget_every
        self._changes = {
            "unlearn.epochs": 0,
            "unlearn.iterations": options.forget_steps * every,
            "unlearn.stop_every": every,
            "unlearn.stop_remembered": 0.0,  # the watcher says when a run ends
        }
        self._depth = options.depth

    def follow(
        self, name: str, control: Control, mask: Any, rate: float, shares: Shares | None = None
    ) -> Run:
        """Unlearns once and looks after every forget step.

        Args:
            name: Name of the variant.
            control: What is changed.
            mask: Mask of the control; None: there is none.
            rate: Learning rate.
            shares: Measures the squared gradients within masks; None: they are not measured.

        Raises:
            Diverged: A loss, a score or a weight is not finite.
        """
        label = f"compare/{name}/{rate:g}"
        file = self._session.workdir / "compare/paths" / f"{name}-{rate:g}.json"
        watcher = _Watcher(
            self._examiner,
            self._levels,
            self._depth,
            file,
            self._session.params,
            shares,
            scores=self._scores,
        )
        wait(f"looks of {label}")
        changes = {**self._changes, "unlearn.learning_rate": rate}
        outcome = self.variants.run(
            control, mask, changes=changes, label=label, watch=watcher.watch
        )
        return Run([watcher.start, *watcher.looks], watcher.matched, outcome, watcher.end)


class _Watcher:
    """Looks at a model after every forget step, and scores it where its path crosses a level.

    Args:
        examiner: Asks the questions.
        levels: How much the run is to forget.
        depth: How many times the forget steps to the last level the run takes.
        file: Keeps looks and scores for a run that is interrupted.
        params: Parameters of the vanilla model.
        shares: Measures the squared gradients within masks; None: they are not measured.
        scores: Whether scored questions are asked.
    """

    def __init__(
        self,
        examiner: Examiner,
        levels: Levels,
        depth: float,
        file: Path,
        params: Any,
        shares: Shares | None,
        *,
        scores: bool,
    ):
        self._examiner, self._file = examiner, file
        self._end, self._depth = levels.end, depth
        self._levels = levels.of if scores else {}
        self._before, self._shares = params, shares
        self.start: dict[str, Any] = {
            **{"iteration": 0, "forget_steps": 0},
            "accuracies": dict(levels.start),
        }
        if shares:
            self.start["shares"] = shares.measure(params)
        self.looks, self.matched = _read(file)
        self.end: list[Line] | None = None
        self._end_before: list[Line] | None = None  # `end` of the look before

    def watch(self, params: Any, iteration: int, forget_steps: int) -> tuple[float, bool]:
        """Returns the accuracy about the forget set's pictures, and whether the run ends here."""
        label = self._file.stem
        seen = self._examiner.look(params, label)
        look: dict[str, Any] = {
            "iteration": iteration,
            "forget_steps": forget_steps,
            "accuracies": seen,
        }
        if self._shares and self._shares.due(forget_steps):
            look["shares"] = self._shares.measure(params)
        # An interrupted run has looks of after its checkpoint, which are made again.
        self.looks = [*(x for x in self.looks if x["iteration"] < iteration), look]
        path = [self.start, *self.looks]
        self._end_before, self.end = self.end, None
        for level, value in self._levels.items():
            place = crossing([x["accuracies"][FORGET_KIND] for x in path], value)
            if place is None or place.after != len(path) - 1:
                continue
            if self.matched.get(level, {}).get("iteration") == iteration:
                continue  # it was scored before the run was interrupted
            self.end = self.end or self._examiner.scored(params, f"{label}/{level}")
            if self._end_before is None:
                self._end_before = self._examiner.scored(self._before, f"{label}/{level}, before")
            both = accuracies(self._end_before), accuracies(self.end)
            self.matched[level] = {
                "iteration": iteration,
                "forget_steps": place.of([x["forget_steps"] for x in path]),
                "accuracies": interpolated(*both, place.weight),
            }
        # The next step takes the arrays of this model, which is scored if a level lies behind it.
        ahead = self._levels.keys() - self.matched.keys()
        self._before = jax.tree.map(jnp.copy, params) if ahead else None
        write_json(self._file, {"looks": self.looks, "matched": self.matched})
        there = crossing([x["accuracies"][FORGET_KIND] for x in path], self._end)
        enough = there and forget_steps >= self._depth * path[there.after]["forget_steps"]
        return seen[FORGET_KIND], bool(enough)


def interpolated(before: Accuracies, after: Accuracies, weight: float) -> Accuracies:
    """Returns accuracies between those of two models, person by person.

    Args:
        before: Of the first model.
        after: Of the second model, about the same people.
        weight: Weight of the second, 0 to 1.
    """
    return {
        kind: {
            person: ((1 - weight) * before[kind][person][0] + weight * accuracy, n)
            for person, (accuracy, n) in people.items()
        }
        for kind, people in after.items()
    }


def summarised(run: Run, levels: Levels, to_keep: Sequence[str]) -> dict[str, Any]:
    """Returns what a run comes to: whether it forgot enough, and how much it kept on its way.

    Args:
        run: The run.
        levels: How much the run was to forget.
        to_keep: Kinds whose mean is to stay.

    Returns:
        `reached`; `left`, the least that was left; `kept`, the mean kept from the vanilla model's
        level to the end's, None where it was not reached.
    """
    left = run.of(FORGET_KIND)
    kept = area(left, run.kept(to_keep), left[0], levels.end)
    return {"reached": kept is not None, "left": min(left), "kept": kept}


def _read(file: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the looks and the scores that an interrupted run left."""
    if not file.exists():
        return [], {}
    mend = "remove it, and checkpoints/compare, and run the same command again"
    with refusing(file, mend):
        kept = parse_json(read_bytes(file, mend=mend))
        if not all(isinstance(look["iteration"], int) for look in kept["looks"]):
            raise TypeError("a look has no iteration")
        return kept["looks"], kept["matched"]
