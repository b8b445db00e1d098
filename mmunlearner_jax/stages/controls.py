"""Stage `controls`: the same run with one thing changed, so that the mask gets only its due."""

from pathlib import Path

from ml_collections import ConfigDict

from mmunlearner_jax.evaluation.scores import summarise
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.stages import setup
from mmunlearner_jax.stages.evaluate import evaluate
from mmunlearner_jax.stages.unlearn import summary
from mmunlearner_jax.stages.variants import Variants
from mmunlearner_jax.unlearn.controls import CONTROLS


def run(config: ConfigDict, workdir: Path) -> bool:
    """Unlearns and scores once per name in `config.controls`, of those of `CONTROLS`."""
    done = read_results(workdir).get("controls", {})
    todo = [name for name in config.controls if name not in done]
    if not todo:
        return False
    at = setup.load(config, workdir, setup.vanilla_checkpoint(config, workdir))
    answerer = setup.answerer(config, at)
    asked = setup.asked(config, at.bench, at.forget, at.retain)
    # Multiple choice only: it is what the comparison rests on, and the cheapest to ask.
    questions = {split: [q for q in asked[split] if q.task == "classification"] for split in asked}
    variants = Variants(config, workdir, at)
    for name in todo:
        control = CONTROLS[name]
        mask = variants.mask(control)
        outcome = variants.run(control, mask, changes={}, label=f"controls/{name}")
        scores = summarise(evaluate(workdir, name, outcome.params, answerer, questions))
        update_results(workdir, "controls", {name: {**scores, "unlearn": summary(outcome)}})
    return True
