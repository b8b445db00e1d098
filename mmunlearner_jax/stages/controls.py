"""Stage `controls`: the same run with one thing changed, so that the mask gets only its due."""

import functools
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmunlearner_jax.evaluation.metrics import summarise
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.stages import setup
from mmunlearner_jax.stages.evaluate import evaluate
from mmunlearner_jax.stages.unlearn import Unlearner, mask_of, summary
from mmunlearner_jax.unlearn.mask import random_mask


def run(config: ConfigDict, workdir: Path) -> bool:
    """Unlearns and scores once per name in `config.controls`.

    `no_forget_text`: the text of the people to forget is not among the retain steps;
    `random_mask`: as many weights per array, drawn at random; `no_mask`: all weights;
    `ga`: gradient ascent alone, on all weights.
    """
    done = read_results(workdir).get("controls", {})
    todo = [name for name in config.controls if name not in done]
    if not todo:
        return False
    at = setup.load(config, workdir, setup.vanilla_checkpoint(config, workdir))
    method, kept = config.unlearn.method, config.unlearn.forget_text
    mask = mask_of(method, workdir, at)
    runs: dict[str, tuple[str, Any | None, bool]] = {
        "no_forget_text": (method, mask, False),
        "random_mask": (method, mask and random_mask(mask, config.seed), kept),
        "no_mask": (method, None, kept),
        "ga": ("ga", None, kept),
    }
    answerer = setup.answerer(config, at)
    asked = setup.asked(config, at.bench, at.forget, at.retain)
    # Multiple choice only: it is what the comparison rests on, and the cheapest to ask.
    questions = {split: [q for q in asked[split] if q.task == "classification"] for split in asked}
    unlearner = functools.cache(functools.partial(Unlearner, config, at))
    for name in todo:
        by, moved, forget_text = runs[name]
        outcome = unlearner(by).run(
            workdir, moved, label=f"controls/{name}", forget_text=forget_text
        )
        scores = summarise(evaluate(workdir, name, outcome.params, answerer, questions))
        update_results(workdir, "controls", {name: {**scores, "unlearn": summary(outcome)}})
    return True
