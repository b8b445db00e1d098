"""Stage `compare`: every method at its best setting of a small grid, and controls, by one rule.

Settings are chosen by questions set apart, which are never scored: `config.compare`.
"""

import dataclasses
import functools
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx

from mmunlearner_jax import preemption
from mmunlearner_jax.comparison.jobs import RETAIN_ONLY, VANILLA, rows
from mmunlearner_jax.comparison.variants import Variants
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import Diverged, InputError, refusing
from mmunlearner_jax.evaluation.kinds import entry
from mmunlearner_jax.evaluation.scores import summarise
from mmunlearner_jax.evaluation.selection import chosen_by, preference, set_apart
from mmunlearner_jax.evaluation.tasks import Answerer
from mmunlearner_jax.files import parse_json, read_bytes, write_json
from mmunlearner_jax.processes import is_first, to_host, wait
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.session import Session, load_model
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.stages.evaluate import evaluate
from mmunlearner_jax.stages.unlearn import Outcome, summary
from mmunlearner_jax.unlearn.controls import CONTROLS, Control
from mmunlearner_jax.unlearn.mask import density
from mmunlearner_jax.unlearn.methods import METHODS
from mmunlearner_jax.unlearn.scoring import answer_nll
from mmunlearner_jax.weights.io import leaf_labels

_TEXTS = 256  # training answers that tell a model's perplexity


def run(session: Session) -> bool:
    """Writes `compare/predictions/NAME-*.jsonl` and the entry `variants` of `results.json`."""
    config, workdir = session.config, session.workdir
    told = read_results(workdir).get("variants", {})
    wanted = rows(config, retain_only=bool(config.compare.retain_only))
    todo = [name for name in wanted if name not in told]
    if not todo:
        return False
    contest = Contest(session)
    update_results(workdir, "seed", config.seed)
    update_results(workdir, "kinds", entry(session.bench.record.kinds))
    for name in todo:
        earlier = read_results(workdir).get("interrupted", {}).get(name, 0.0)
        begin = time.monotonic() - earlier
        try:
            found = contest.play(name)
        except preemption.Preempted:
            update_results(workdir, "interrupted", {name: round(time.monotonic() - begin, 1)})
            raise
        seconds = round(time.monotonic() - begin, 1)
        update_results(workdir, "variants", {name: {**found, "seconds": seconds}})
        if earlier:
            update_results(workdir, "interrupted", {name: 0.0})
        if is_first():
            shutil.rmtree(workdir / "checkpoints/compare" / name, ignore_errors=True)
    return True


@dataclasses.dataclass(frozen=True)
class Setting:
    """One point of the grid, where its run ended.

    Attributes:
        rate: Learning rate.
        looks: All looks at the forget set's pictures that are set apart; the run ended at the
            last, which has everything that is set apart.
        outcome: Of the run.
        preference: Of the last look, see `selection.preference`.
    """

    rate: float
    looks: list[dict[str, Any]]
    outcome: Outcome
    preference: tuple[bool, float]


class Contest:
    """What the variants of one workdir share.

    Args:
        session: Of the run, whose workdir holds `importance/` and `mask/`.
    """

    def __init__(self, session: Session):
        self._session = session
        self._config, self._workdir = session.config, session.workdir
        self._kinds = session.bench.record.kinds
        self._answerer = session.answerer()
        options = self._config.compare
        choosing, scored = set_apart(session.questions(), options.apart, self._config.seed)
        choosing = _of_tasks(choosing, ("classification",))
        self._faces = {"forget": [q for q in choosing["forget"] if q.modality == "vqa"]}
        self._others = choosing | {"forget": [q for q in choosing["forget"] if q.modality == "qa"]}
        if not self._faces["forget"]:
            raise InputError(
                f"config.compare.apart={options.apart} sets no picture of the forget set apart to"
                " choose by: there are too few; give a larger fraction"
            )
        asked_of = {(split, q.modality) for split, qs in self._others.items() for q in qs}
        if not asked_of & {*chosen_by(self._kinds)}:
            raise InputError(
                f"config.compare.apart={options.apart} sets no multiple-choice question about what"
                " is to be kept apart: give a larger fraction, or more config.evaluate.splits"
            )
        self._scored = _of_tasks(scored, options.tasks)
        # The rule ends a run as soon as enough is forgotten, so that all are compared there.
        rules = {"unlearn.stop_remembered": options.forgotten, "unlearn.epochs": 0}
        limits = {"unlearn.iterations": options.iterations}
        self._rules = {**rules, **limits, "unlearn.stop_every": options.stop_every}
        self._variants = Variants(session)
        made = read_results(self._workdir).get("variants", {})
        self._rates = {name: variant["learning_rate"] for name, variant in made.items()}
        self._nats = jax.jit(functools.partial(answer_nll, session.graphdef))

    def play(self, name: str) -> dict[str, Any]:
        """Unlearns as a variant does, chooses its setting, scores it, and tells of it.

        Learning rates at which it diverged are told and never chosen; where it did at all of them,
        it is not scored.
        """
        options = self._config.compare
        if name in (VANILLA, RETAIN_ONLY):
            params = self._session.params if name == VANILLA else self._retain_only()
            return {**self._score(name, params), **_NOTHING}
        control = Control(name, method=name) if name in METHODS else CONTROLS[name]
        labels = leaf_labels(self._session.model)
        own = self._config.unlearn.method
        # A control of a method that diverged everywhere has no rate to run at.
        chosen = filter(None, [self._rates.get(own)])
        rates = options.learning_rates if name in options.methods else chosen
        mask = self._variants.mask(control)
        looks: list[dict[str, Any]] = []
        diverged: list[float] = []

        def setting(rate: float) -> Setting | None:
            try:
                found = self._setting(name, control, mask, rate)
            except Diverged as error:
                logging.warning("%s", error)
                diverged.append(rate)
                return None
            looks.extend(found.looks)
            return found

        ended = filter(None, map(setting, rates))  # two models at a time
        best = max(ended, key=lambda it: it.preference, default=None)
        told = {
            "method": control.method or own,
            "control": name in options.controls,
            "learning_rate": best.rate if best else None,
            "points": [{**look, "chosen": look is best.looks[-1]} for look in looks if best],
        }
        if diverged:
            told["diverged"] = diverged
        if best:
            self._rates[name] = best.rate
            told["unlearn"] = summary(best.outcome)
        told["density"] = None if mask is None else density(mask, *labels)["density"]
        return told | (self._score(name, best.outcome.params) if best else {})

    def _setting(self, name: str, control: Control, mask: Any | None, rate: float) -> Setting:
        label = f"compare/{name}/{rate:g}"
        file = self._workdir / "compare/looks" / f"{name}-{rate:g}.json"
        # An interrupted run has the looks of before its checkpoint, and makes the others again.
        looks = _read_looks(file)
        wait(f"looks of {label}")

        def watch(params: Any, iteration: int, forget_steps: int) -> float:
            scores = _ask(self._answerer, params, self._faces, label)
            looks[:] = [look for look in looks if look["iteration"] < iteration]
            look = {"learning_rate": rate, "iteration": iteration, "forget_steps": forget_steps}
            looks.append({**look, "selection": scores})
            write_json(file, looks)
            return scores["forget"]["vqa"]["value"]

        changes = {**self._rules, "unlearn.learning_rate": rate}
        outcome = self._variants.run(control, mask, changes=changes, label=label, watch=watch)
        # What is kept decides between runs, not when one ends: it is asked once, not at every look.
        scores = _ask(self._answerer, outcome.params, self._others, label)
        scores.setdefault("forget", {}).update(looks[-1]["selection"]["forget"])
        end = looks[-1] | {"selection": scores}
        rule = preference(scores, self._config.compare.forgotten, self._kinds)
        return Setting(rate, [*looks[:-1], end], outcome, rule)

    def _score(self, name: str, params: Any) -> dict[str, Any]:
        # Stage `controls` has rows of the same names, and scores all questions.
        evaluate(self._workdir / "compare", name, params, self._answerer, self._scored)
        session, batch = self._session, self._config.evaluate.decode.batch_size
        texts = session.drawn(session.words(session.retain), _TEXTS)
        batches = session.batches(
            texts, batch_size=batch, pack=1, encoder=session.answers, shuffle=False, repeat=False
        )
        found = [to_host(self._nats(params, put_batch(b, session.mesh))) for b in batches]
        nats, tokens = (
            sum(float(np.sum(x)) for x in column) for column in zip(*found, strict=True)
        )
        if not nats >= 0:
            raise Diverged(f"compare/{name}: the retained texts' log-likelihood is not a number")
        return {"perplexity": float(np.exp(min(nats / tokens, _MOST_NATS)))}

    def _retain_only(self) -> Any:
        checkpoint = self._config.compare.retain_only
        return nnx.split(load_model(self._config, checkpoint, self._session.mesh))[1]


_MOST_NATS = 700.0  # a token; of more there is no float64
_NOTHING = {
    "method": None,
    "control": False,
    "learning_rate": None,
    "points": [],
    "density": None,
}


def _read_looks(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    mend = "remove it, and checkpoints/compare, and run the same command again"
    with refusing(file, mend):
        looks = parse_json(read_bytes(file, mend=mend))
        if not isinstance(looks, list) or not all(isinstance(x["iteration"], int) for x in looks):
            raise TypeError("it is no list of looks, each with its iteration")
        return looks


def _of_tasks(
    questions: dict[str, list[Question]], tasks: Iterable[str]
) -> dict[str, list[Question]]:
    return {split: [q for q in asked if q.task in tasks] for split, asked in questions.items()}


def _ask(
    answerer: Answerer, params: Any, questions: dict[str, list[Question]], label: str
) -> dict[str, Any]:
    """Scores of the questions set apart, which are answered together."""
    together = [(split, question) for split, asked in questions.items() for question in asked]
    lines = answerer.answer(params, [q for _, q in together], split="apart", label=label)
    splits = (split for split, _ in together)
    found = summarise(line | {"split": split} for line, split in zip(lines, splits, strict=True))
    return {
        split: {modality: score["classification"] for modality, score in by_modality.items()}
        for split, by_modality in found.items()
    }
