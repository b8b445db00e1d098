"""Stage `evaluate`: scores every split, with pictures and in words, before and after unlearning.

Before the stage `unlearn` it scores the vanilla model; after it, also the unlearned model.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from mmunlearner_jax import preemption
from mmunlearner_jax.artefacts import is_done
from mmunlearner_jax.data.abilities import ABILITIES
from mmunlearner_jax.data.ability import SPLIT
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import InputError, refusing
from mmunlearner_jax.evaluation.both_modalities import both_modalities
from mmunlearner_jax.evaluation.chance import chances
from mmunlearner_jax.evaluation.general_scores import general_changes, general_scores
from mmunlearner_jax.evaluation.kinds import entry
from mmunlearner_jax.evaluation.likelihoods import Definition, Line
from mmunlearner_jax.evaluation.predictions import MEND, read_predictions
from mmunlearner_jax.evaluation.questions import general_questions
from mmunlearner_jax.evaluation.reference import find_reference
from mmunlearner_jax.evaluation.scores import scored
from mmunlearner_jax.evaluation.summary import quality, summary, utility
from mmunlearner_jax.evaluation.tasks import Answerer
from mmunlearner_jax.files import write_whole
from mmunlearner_jax.processes import is_first, wait
from mmunlearner_jax.profiling import Trace
from mmunlearner_jax.progress import say
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.unlearn import load_unlearned

REFERENCE = "reference-forget.jsonl"


def evaluate(
    workdir: Path,
    label: str,
    params: Any,
    answerer: Answerer,
    questions: dict[str, list[Question]],
    *,
    profile: int = 0,
) -> list[Line]:
    """Answers the questions of every split; a split that has predictions already is only read.

    Args:
        workdir: Folder that holds `predictions/`.
        label: First part of the files' names: `before`, `after` or a control.
        params: All parameters of the model to score.
        answerer: Decodes and scores the answers.
        questions: Questions by split.
        profile: Number of batches to trace; 0: none.

    Returns:
        The lines of all splits.
    """
    folder = workdir / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    with Trace(workdir / "tensorboard/evaluate" / label, steps=profile) as trace:
        for split, of_split in questions.items():
            preemption.heed()
            path = folder / f"{label}-{split}.jsonl"
            if path.exists():
                say(f"{label}/{split}: answered before")
            else:
                answers = answerer.answer(
                    params, of_split, split=split, label=label, after_batch=trace.step
                )
                if is_first():
                    write_whole(path, "".join(json.dumps(line) + "\n" for line in answers))
    wait(f"predictions of {label}")
    answered = []
    for split, of_split in questions.items():
        path = folder / f"{label}-{split}.jsonl"
        lines = read_predictions(path)
        if len(lines) != len(of_split):
            raise InputError(
                f"{path}: has {len(lines)} lines for {len(of_split)} questions; remove it and run"
                " the same command again"
            )
        answered += lines
    return answered


def write_scores(protocol: str, workdir: Path, label: str, lines: Sequence[Line]) -> dict[str, Any]:
    """Writes the scores of a model's lines to `results.json`.

    Args:
        protocol: `config.evaluate.protocol`.
        workdir: Folder of the run.
        label: `before` or `after`.
        lines: Scored predictions of all splits.

    Returns:
        The scores by split.
    """
    released = protocol == "released"
    definition: Definition = "released" if released else "paper"
    folder = workdir / "predictions"
    with refusing(folder, MEND):
        scores = summary(lines, definition)
    update_results(workdir, label, scores)
    with refusing(folder, MEND):
        model_utility = utility(lines, definition)
    if model_utility:
        update_results(workdir, "model_utility", {label: model_utility})
    reference = folder / REFERENCE
    if reference.exists():
        theirs = read_predictions(reference)
        with refusing(reference, MEND):
            forget_quality = quality(lines, theirs, definition)
        update_results(workdir, "forget_quality", {label: forget_quality})
    if joint := both_modalities(lines):
        update_results(workdir, "both_modalities", {label: joint})
    if general := general_scores(lines):
        _add_general(workdir, label, general)
        if label == "after":
            files = [folder / f"before-{SPLIT}_{name}.jsonl" for name in general]
            before = [scored(line) for file in files for line in read_predictions(file)]
            _add_general(workdir, "change", general_changes(before, lines))
    return scores


def _add_general(workdir: Path, part: str, entries: dict[str, Any]) -> None:
    """Adds entries of sets to a part of `general`; those of sets that were asked before stay."""
    old = read_results(workdir).get("general", {}).get(part, {})
    update_results(workdir, "general", {part: {**old, **entries}})


def run(session: Session) -> bool:
    """Writes `predictions/{before,after}-*.jsonl` and the scores."""
    config, workdir = session.config, session.workdir
    results = read_results(workdir)
    models = {"before": True, "after": is_done(workdir / "unlearned")}
    splits = {ABILITIES[name].split for name in config.evaluate.general}
    # A set of general ability may be asked of a run that was evaluated before.
    todo = [
        label
        for label, exists in models.items()
        if exists and (label not in results or not splits <= results[label].keys())
    ]
    if not todo:
        return False
    reference = find_reference(config)
    answerer = session.answerer()
    asked = {**session.questions(), **general_questions(config, session.bench.check)}
    (workdir / "predictions").mkdir(exist_ok=True)
    if reference and is_first():
        shutil.copy(reference, workdir / "predictions" / REFERENCE)
    for label in todo:
        params = session.params if label == "before" else load_unlearned(workdir, session.abstract)
        lines = evaluate(workdir, label, params, answerer, asked, profile=config.profile.steps)
        scores = write_scores(config.evaluate.protocol, workdir, label, lines)
        update_results(workdir, "seed", config.seed)
        update_results(workdir, "kinds", entry(session.kinds))
        update_results(workdir, "chance", chances(asked, session.bench.names()))
        if label == "before" and "unlearn" in config.stages:
            warn_if_unknown(scores)
    return True


def warn_if_unknown(scores: dict[str, Any], *, known: float = 0.5) -> None:
    """Warns if the vanilla model does not know the people to forget.

    Args:
        scores: Scores of the vanilla model by split.
        known: Least accuracy on the forget set's picture questions, 0 to 1.
    """
    score = scores.get("forget", {}).get("vqa", {}).get("classification")
    if score and score["value"] < known:
        logging.warning(
            "the vanilla model answers only %.0f %% of the forget set's picture questions right"
            " (n=%d), so there is little to forget and the scores after unlearning will mean"
            " little; fine-tune it longer or check config.model.checkpoint",
            100 * score["value"],
            score["n"],
        )
