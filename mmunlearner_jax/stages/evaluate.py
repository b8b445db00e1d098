"""Stage `evaluate`: every split, image and text, before unlearning and after.

Run before `unlearn` it scores the vanilla model, run after it the unlearned one too.
"""

import json
import os
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation.metrics import summarise
from mmunlearner_jax.evaluation.tasks import Answerer
from mmunlearner_jax.processes import is_first, wait
from mmunlearner_jax.results import read_lines, read_results, update_results
from mmunlearner_jax.stages import setup
from mmunlearner_jax.stages.unlearn import load_unlearned


def evaluate(
    workdir: Path, label: str, params: Any, answerer: Answerer, questions: dict[str, list[Question]]
) -> dict[str, Any]:
    """Answers and scores every split; a split whose predictions lie there is only read.

    Args:
        workdir: holds `predictions/`.
        label: first part of the files' names: `before`, `after` or a control.
        params: of the model to score.
        answerer: decodes and scores.
        questions: by split.

    Returns:
        The scores by split, modality and metric.
    """
    folder = workdir / "predictions"
    folder.mkdir(exist_ok=True)
    for split, asked in questions.items():
        path = folder / f"{label}-{split}.jsonl"
        if not path.exists():
            answers = answerer.answer(params, asked, split=split, label=label)
            if is_first():
                partial = path.with_suffix(".partial")
                partial.write_text("".join(json.dumps(line) + "\n" for line in answers))
                os.replace(partial, path)
    wait(f"predictions of {label}")
    files = [folder / f"{label}-{split}.jsonl" for split in questions]
    return summarise([line for file in files for line in read_lines(file)])


def run(config: ConfigDict, workdir: Path) -> bool:
    """Writes `predictions/{before,after}-*.jsonl` and the scores."""
    results = read_results(workdir)
    models = {"before": True, "after": (workdir / "unlearned").exists()}
    todo = [k for k, there in models.items() if there and k not in results]
    if not todo:
        return False
    at = setup.load(config, workdir, setup.vanilla_checkpoint(config, workdir))
    answerer = Answerer(at.graphdef, at.encoder, at.mesh, **config.evaluate.decode)
    few = config.evaluate.photos_per_person
    questions = at.bench.scored(at.forget, at.retain, photos_per_person=few)
    for label in todo:
        params = at.params if label == "before" else load_unlearned(workdir, at.params)
        scores = evaluate(workdir, label, params, answerer, questions)
        update_results(workdir, label, scores)
        update_results(workdir, "seed", config.seed)
        if label == "before":
            warn_if_unknown(scores)
    return True


def warn_if_unknown(scores: dict[str, Any], *, known: float = 0.5) -> None:
    """Warns when the vanilla model has not learned what it is to forget."""
    score = scores["forget"].get("vqa", {}).get("classification")
    if score and score["value"] < known:
        logging.warning(
            "the vanilla model answers only %.0f %% of the forget set's picture questions (n=%d):"
            " there is little to forget, and the figures after unlearning will mean little;"
            " fine-tune it longer or check config.model.checkpoint",
            100 * score["value"],
            score["n"],
        )
