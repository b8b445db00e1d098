"""What the variants of one seed and forget ratio share, and how each of them is run."""

import functools
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from flax import nnx

from mmunlearner_jax.artefacts import writing
from mmunlearner_jax.comparison.examiner import FORGET_KIND, Examiner, accuracies
from mmunlearner_jax.comparison.jobs import GOLD, NEVER_TAUGHT, VANILLA
from mmunlearner_jax.comparison.relearning import relearned
from mmunlearner_jax.comparison.runs import (
    RELEARNED,
    Follower,
    Levels,
    relearned_level,
    summarised,
)
from mmunlearner_jax.comparison.staleness import Shares
from mmunlearner_jax.comparison.tuning import Trial, search
from mmunlearner_jax.errors import Diverged, InputError
from mmunlearner_jax.evaluation.gold import MEND, refuse_if_known
from mmunlearner_jax.evaluation.likelihoods import Line
from mmunlearner_jax.loading import load_model
from mmunlearner_jax.processes import is_first
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.unlearn import summary
from mmunlearner_jax.unlearn.controls import CONTROLS, control_of
from mmunlearner_jax.unlearn.mask import density
from mmunlearner_jax.weights.io import leaf_labels, save_pretrained

# Masks whose share of squared gradients is followed, beside the method's own.
SHARED_MASKS = ("random_mask", "other_people_mask")
FORGET_TEXT = "forget/qa"


class Contest:
    """The runs of one seed and forget ratio.

    Args:
        session: Session of the run, whose workdir holds `importance/` and `mask/`.
        scores: Whether scored questions are asked, too.

    Raises:
        InputError: The gold model knows the faces to forget, or lacks their text.
    """

    def __init__(self, session: Session, *, scores: bool):
        self._session, self._options = session, session.config.compare
        self.examiner = Examiner(session)
        start = self.examiner.look(session.params, VANILLA)
        options = self._options
        self.levels = Levels(start, self._gold(start), options.forgotten, options.halfway)
        if self.levels.end >= start[FORGET_KIND]:
            logging.warning(
                "the vanilla model knows no more of the faces to forget than %s: no run can forget",
                "gold" if self._options.gold else "chance",
            )
        self._follower = Follower(session, self.examiner, self.levels, scores=scores)
        self._mask = self._follower.variants.mask

    def _gold(self, start: dict[str, float]) -> float:
        """Returns what the gold model knows of the faces; without one, chance."""
        chance = self.examiner.chance()
        if not self._options.gold:
            return chance
        gold = self.examiner.look(self.reference(GOLD), GOLD)
        knows, known = gold[FORGET_KIND], start[FORGET_KIND]
        checkpoint = self._options.gold
        refuse_if_known("config.compare.gold", checkpoint, gold=knows, before=known, chance=chance)
        if gold.get(FORGET_TEXT, 1.0) < start.get(FORGET_TEXT, 0.0) - 0.2:
            raise InputError(
                f"config.compare.gold: {self._options.gold} lacks the text about the people to"
                f" forget ({100 * gold[FORGET_TEXT]:.0f} % right, the vanilla model"
                f" {100 * start[FORGET_TEXT]:.0f} %): {MEND}"
            )
        return knows

    def reference(self, name: str) -> Any:
        """Returns the parameters of a model that unlearned nothing."""
        if name == VANILLA:
            return self._session.params
        checkpoint = {GOLD: self._options.gold, NEVER_TAUGHT: self._options.never_taught}[name]
        return nnx.split(load_model(self._session.config, checkpoint, self._session.mesh))[1]

    def tune(self, name: str, earlier: Sequence[Trial]) -> list[Trial]:
        """Unlearns at every learning rate of the grid, and at more where its edge is best.

        Args:
            name: Name of the variant.
            earlier: Trials of an earlier command, which are not made again.

        Returns:
            What each run came to on the questions set apart.
        """
        control = control_of(name)
        mask = self._mask(control)  # the same at all rates

        def attempt(rate: float) -> Trial:
            try:
                run = self._follower.follow(name, control, mask, rate)
            except Diverged as error:
                logging.warning("%s", error)
                return {"learning_rate": rate, "diverged": True}
            return {
                "learning_rate": rate,
                **summarised(run, self.levels, self.examiner.to_keep),
                **self._returns(run.outcome.params, name),
            }

        return search(self._options.learning_rates, self._options.extensions, attempt, earlier)

    def _returns(self, params: Any, name: str) -> dict[str, float]:
        """Returns how much more a model answers than gold after relearning, on what is set apart.

        Args:
            params: All parameters of the model.
            name: Name of the model.

        Returns:
            `returns`, a mean over numbers of steps, each 0 at least; {} without gold, or if nothing
            is relearned.
        """
        if not (self._options.gold and self._options.relearn_steps):
            return {}
        above = np.subtract(self._after_relearning(params, name), self._gold_after)
        return {"returns": float(np.maximum(above, 0).mean())}

    def _after_relearning(self, params: Any, name: str) -> list[float]:
        """Returns the accuracy about the forget set's pictures after each number of steps."""
        return [
            self.examiner.look(after, f"{name}/{relearned_level(steps)}")[FORGET_KIND]
            for steps, after in relearned(self._session, params)
        ]

    @functools.cached_property
    def _gold_after(self) -> list[float]:
        """The same of the gold model."""
        return self._after_relearning(self.reference(GOLD), GOLD)

    def play(self, name: str, rate: float) -> dict[str, Any]:
        """Unlearns as a variant does and scores it where it has forgotten as much as others.

        Raises:
            Diverged: A loss, a score or a weight is not finite.
        """
        control = control_of(name)
        mask = self._mask(control)
        own = name == self._session.config.unlearn.method and self._options.share_every
        run = self._follower.follow(name, control, mask, rate, self._shares if own else None)
        params, labels = run.outcome.params, leaf_labels(self._session.model)
        if self._options.keep_weights or name in self._options.audit:
            with writing(self._session.workdir / "compare/models" / name) as partial:
                save_pretrained(nnx.merge(self._session.graphdef, params), partial)
        return {
            "method": control.method or self._session.config.unlearn.method,
            "learning_rate": rate,
            "unlearn": summary(run.outcome),
            "density": None if mask is None else density(mask, *labels)["density"],
            "path": run.looks,
            **summarised(run, self.levels, self.examiner.to_keep),
            "matched": run.matched,
            **self._end(params, name, run.end),
        }

    def score_reference(self, name: str) -> dict[str, Any]:
        """Scores a model that unlearned nothing."""
        params = self.reference(name)
        return {
            "method": None,
            "learning_rate": None,
            "path": [{"forget_steps": 0, "accuracies": self.examiner.look(params, name)}],
            **self._end(params, name),
        }

    def _end(self, params: Any, name: str, answers: Sequence[Line] | None = None) -> dict[str, Any]:
        """Returns the scores of a model, and of what was forgotten after relearning.

        Args:
            params: All parameters of the model.
            name: Name of the model.
            answers: Its answers to the scored questions; None: they are asked here.
        """
        answers = answers or self.examiner.scored(params, f"{name}/end")
        scores = {"end": accuracies(answers), **self.examiner.score(params, name, answers)}
        if self._options.relearn_steps:
            scores[RELEARNED] = {
                str(steps): accuracies(
                    self.examiner.scored(after, f"{name}/{relearned_level(steps)}", forgotten=True)
                )
                for steps, after in relearned(self._session, params)
            }
        return scores

    def forget_checkpoints(self, name: str) -> None:
        """Removes the checkpoints of a variant, which are for runs that are interrupted."""
        if is_first():
            folder = self._session.workdir / "checkpoints/compare" / name
            shutil.rmtree(folder, ignore_errors=True)

    @functools.cached_property
    def _shares(self) -> Shares | None:
        own = self._mask(control_of(self._session.config.unlearn.method))
        if own is None:
            return None
        masks = {name: self._mask(CONTROLS[name]) for name in SHARED_MASKS}
        covered = self._mask(CONTROLS["cover_only"])
        return Shares(self._session, {"own": own, **masks}, covered, self._options.share_every)
