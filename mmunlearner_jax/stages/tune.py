"""Stage `tune`: chooses a comparison's learning rates on questions that it does not score."""

from mmunlearner_jax.comparison.contest import Contest
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.session import Session


def run(session: Session) -> bool:
    """Writes the entry `tuning` of `results.json`: the outcome of every learning rate."""
    workdir, methods = session.workdir, session.config.compare.methods
    todo = [x for x in methods if x not in read_results(workdir).get("tuning", {})]
    if not todo:
        return False
    contest = Contest(session, scores=False)
    for name in todo:
        update_results(workdir, "tuning", {name: contest.tune(name)})
        contest.forget_checkpoints(name)
    return True
