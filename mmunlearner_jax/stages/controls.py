"""Stage `controls`: runs with one thing changed, which show what the mask contributes."""

from mmunlearner_jax.comparison.variants import Variants
from mmunlearner_jax.evaluation.scores import summarise
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.evaluate import evaluate
from mmunlearner_jax.stages.unlearn import summary
from mmunlearner_jax.unlearn.controls import CONTROLS


def run(session: Session) -> bool:
    """Unlearns and scores once for each control that `config.controls` names."""
    workdir = session.workdir
    done = read_results(workdir).get("controls", {})
    todo = [name for name in session.config.controls if name not in done]
    if not todo:
        return False
    answerer = session.answerer()
    # Only multiple choice, which the comparison uses and which is the cheapest to score.
    questions = {
        split: [q for q in of_split if q.task == "classification"]
        for split, of_split in session.questions().items()
    }
    variants = Variants(session)
    for name in todo:
        control = CONTROLS[name]
        mask = variants.mask(control)
        outcome = variants.run(control, mask, changes={}, label=f"controls/{name}")
        scores = summarise(evaluate(workdir, name, outcome.params, answerer, questions))
        update_results(workdir, "controls", {name: {**scores, "unlearn": summary(outcome)}})
    return True
