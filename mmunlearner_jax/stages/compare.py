"""Stage `compare`: scores every method and control where it has forgotten as much as others."""

import time
from pathlib import Path
from typing import Any

from absl import logging

from mmunlearner_jax import preemption
from mmunlearner_jax.comparison.contest import Contest
from mmunlearner_jax.comparison.jobs import REFERENCES, rows
from mmunlearner_jax.comparison.tuning import Choice, check_rates, choose, warn_of_edges
from mmunlearner_jax.errors import Diverged
from mmunlearner_jax.evaluation.chance import chances
from mmunlearner_jax.evaluation.kinds import entry
from mmunlearner_jax.results import read_results, update_results
from mmunlearner_jax.session import Session
from mmunlearner_jax.unlearn.controls import control_of


def run(session: Session) -> bool:
    """Writes `compare/` and the entry `variants` of `results.json`."""
    config, workdir = session.config, session.workdir
    tuned = [Path(folder) for folder in config.compare.tuned] or [workdir]
    choices = choose(tuned, config.compare.methods)
    check_rates(workdir, choices)
    todo = [x for x in rows(config) if x not in read_results(workdir).get("variants", {})]
    if not todo:
        return False
    warn_of_edges(choices)
    contest = Contest(session, scores=True)
    update_results(workdir, "seed", config.seed)
    update_results(workdir, "kinds", entry(session.kinds))
    update_results(workdir, "chance", chances(session.questions(), session.bench.names()))
    update_results(workdir, "levels", contest.levels.of)
    for name in todo:
        earlier = read_results(workdir).get("interrupted", {}).get(name, 0.0)
        begin = time.monotonic() - earlier
        try:
            variant = _variant(contest, session, name, choices)
        except preemption.Preempted:
            update_results(workdir, "interrupted", {name: round(time.monotonic() - begin, 1)})
            raise
        seconds = round(time.monotonic() - begin, 1)
        update_results(workdir, "variants", {name: {**variant, "seconds": seconds}})
        if earlier:
            update_results(workdir, "interrupted", {name: 0.0})
        contest.forget_checkpoints(name)
    return True


def _variant(
    contest: Contest, session: Session, name: str, choices: dict[str, Choice | None]
) -> dict[str, Any]:
    """Returns a variant's entry of `results.json`; it has `diverged` if there are no scores."""
    options = session.config.compare
    if name in REFERENCES:
        return contest.score_reference(name)
    # A control runs at the learning rate of the method that it changes.
    changed = control_of(name).method or session.config.unlearn.method
    choice = choices[name if name in choices else changed]
    kind = {"control": name in options.controls, "edge": choice.edge if choice else False}
    if choice is None:  # it diverged at every learning rate
        return {**kind, "method": None, "learning_rate": None, "diverged": True}
    rate = choice.rate
    try:
        return {**kind, **contest.play(name, rate)}
    except Diverged as error:
        logging.warning("%s", error)
        return {**kind, "method": None, "learning_rate": rate, "diverged": True}
