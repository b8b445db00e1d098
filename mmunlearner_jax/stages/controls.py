"""Stage `controls`: the same run with one thing changed, so that the mask gets only its due."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmunlearner_jax.evaluation.metrics import summarise
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.stages import setup
from mmunlearner_jax.stages.evaluate import evaluate
from mmunlearner_jax.stages.mask import load_mask
from mmunlearner_jax.stages.unlearn import Unlearner, summary
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
    mask = load_mask(workdir, at.params)
    kept = config.unlearn.forget_text
    runs: dict[str, dict[str, Any]] = {
        "no_forget_text": {"mask": mask, "forget_text": False},
        "random_mask": {"mask": random_mask(mask, config.seed), "forget_text": kept},
        "no_mask": {"mask": None, "forget_text": kept},
        "ga": {"mask": None, "retain": False},
    }
    unlearner = Unlearner(config, at)
    answerer = setup.answerer(config, at)
    asked = setup.asked(config, at.bench, at.forget, at.retain)
    # Multiple choice only: it is what the comparison rests on, and the cheapest to ask.
    questions = {split: [q for q in asked[split] if q.task == "classification"] for split in asked}
    for name in todo:
        outcome = unlearner.run(workdir, label=f"controls/{name}", **runs[name])
        scores = summarise(evaluate(workdir, name, outcome.params, answerer, questions))
        update_results(workdir, "controls", {name: {**scores, "unlearn": summary(outcome)}})
    return True
