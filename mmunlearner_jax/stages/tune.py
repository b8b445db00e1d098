"""Stage `tune`: chooses a comparison's learning rates on questions that it does not score."""

from mmunlearner_jax.comparison.contest import Contest
from mmunlearner_jax.comparison.tuning import is_tuned
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.session import Session


def run(session: Session) -> bool:
    """Writes the entry `tuning` of `results.json`: the outcome of every learning rate.

    Rates that are added to the grid later are tried beside those that were tried before.
    """
    workdir, options = session.workdir, session.config.compare
    trials = read_results(workdir).get("tuning", {})
    todo = [x for x in options.methods if not is_tuned(trials.get(x), options.learning_rates)]
    if not todo:
        return False
    contest = Contest(session, scores=False)
    for name in todo:
        update_results(workdir, "tuning", {name: contest.tune(name, trials.get(name, ()))})
        contest.forget_checkpoints(name)
    return True
