"""Stage `rescore`: computes the scores in `results.json` again, without a model.

    python -m mmunlearner_jax.main --config=... --workdir=... --config.stages='("rescore",)'

It reads `predictions/`. Give the config and the overrides of the run.
"""

import functools
from typing import Any

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.predictions import prediction
from mmunlearner_jax.evaluation.scores import scored, summarise
from mmunlearner_jax.files import read_lines
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.evaluate import write_scores


def run(session: Session) -> bool:
    """Rewrites the scores of `before`, `after` and every control.

    If nothing has changed, `results.json` keeps its bytes.

    Raises:
        InputError: Predictions are missing, or one of their lines cannot be read.
    """
    workdir, protocol = session.workdir, session.config.evaluate.protocol
    results = read_results(workdir)
    controls = results.get("controls", {})
    labels = [label for label in ("before", "after") if label in results] + list(controls)
    if not labels:
        raise InputError(f"{workdir / 'results.json'}: holds no scores; run the stage evaluate")
    read = functools.partial(_scored, published=protocol == "released")
    for label in labels:
        old = controls[label] if label in controls else results[label]
        splits = [name for name in old if name != "unlearn"]  # a control's numbers of steps
        files = [workdir / "predictions" / f"{label}-{split}.jsonl" for split in splits]
        lines = [line for file in files for line in read_lines(file, read)]
        if label in controls:
            update_results(workdir, "controls", {label: {**old, **summarise(lines)}})
        else:
            write_scores(protocol, workdir, label, lines)
    return False


def _scored(text: str, *, published: bool) -> dict[str, Any]:
    return scored(prediction(text), published=published)
