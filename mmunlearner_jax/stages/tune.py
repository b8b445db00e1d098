"""Stage `tune`: chooses a comparison's learning rates on questions that it does not score."""

from absl import logging

from mmunlearner_jax.comparison.contest import Contest
from mmunlearner_jax.comparison.tuning import Trial, search
from mmunlearner_jax.errors import Diverged
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.session import Session


def run(session: Session) -> bool:
    """Writes the entry `tuning` of `results.json`: the outcome of every learning rate."""
    options, workdir = session.config.compare, session.workdir
    todo = [x for x in options.methods if x not in read_results(workdir).get("tuning", {})]
    if not todo:
        return False
    contest = Contest(session, scores=False)
    for name in todo:

        def attempt(rate: float, name: str = name) -> Trial | None:
            try:
                return {"learning_rate": rate, **contest.attempt(name, rate)}
            except Diverged as error:
                logging.warning("%s", error)
                return None

        factor = contest.control(name).rate_factor
        rates = [rate * factor for rate in options.learning_rates]
        update_results(workdir, "tuning", {name: search(rates, options.extensions, attempt)})
        contest.forget_checkpoints(name)
    return True
