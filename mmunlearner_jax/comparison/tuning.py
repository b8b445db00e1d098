"""The learning rate of every variant: the best of a grid on development seeds."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from mmunlearner_jax.config.compare import DEVELOPMENT
from mmunlearner_jax.errors import InputError, refusing
from mmunlearner_jax.files import expanded, plain, read_json
from mmunlearner_jax.results import MEND, read_results

_TUNE = "run the stage tune there, or set config.compare.tuned to workdirs where it was run"
# `learning_rate`, `reached`, `left`, `kept` and, where models relearn, `returns`; of a run that
# diverged `learning_rate`, `diverged`.
Trial = Mapping[str, Any]


class Choice(NamedTuple):
    """A chosen learning rate.

    Attributes:
        rate: The learning rate.
        edge: Whether it is the smallest or the largest that was tried.
    """

    rate: float
    edge: bool


def preference(trials: Sequence[Trial]) -> tuple[bool, float]:
    """Returns the rule by which rates are chosen; the greatest value is best.

    A rate that forgets enough in every seed comes before others. Among those what is kept on the
    way decides, less what relearning brings back beyond gold; among the others what is left to
    forget.

    Args:
        trials: Of one learning rate, one for each seed.
    """
    if all(trial["reached"] for trial in trials):
        return True, float(np.mean([trial["kept"] - trial.get("returns", 0.0) for trial in trials]))
    return False, -float(np.mean([trial["left"] for trial in trials]))


def best(trials: Mapping[float, Sequence[Trial]]) -> Choice:
    """Returns the best of some rates, at least one; the smaller of equals.

    Args:
        trials: Of each rate, one for each seed.
    """
    rates = sorted(trials)
    rate = max(rates, key=lambda rate: preference(trials[rate]))
    return Choice(rate, rate in (rates[0], rates[-1]))


def search(
    rates: Sequence[float],
    extensions: int,
    attempt: Callable[[float], Trial],
    earlier: Sequence[Trial] = (),
) -> list[Trial]:
    """Tries a grid of learning rates, and more beyond an edge that is best.

    Args:
        rates: The grid, two or more.
        extensions: Number of rates that may be added, those of earlier commands included.
        attempt: Runs once and returns what it came to.
        earlier: Trials of an earlier command, whose rates are not tried again.

    Returns:
        All trials, by rate.
    """
    trials = {trial["learning_rate"]: trial for trial in earlier}
    trials |= {rate: attempt(rate) for rate in sorted({*rates} - trials.keys())}
    factor = (max(rates) / min(rates)) ** (1 / (len(rates) - 1))
    for _ in range(extensions - len(trials.keys() - {*rates})):
        made = {rate: [trial] for rate, trial in trials.items() if not trial.get("diverged")}
        if not made:
            break
        rate, edge = best(made)
        beyond = rate * factor if rate == max(trials) else rate / factor
        beyond = float(f"{beyond:.6g}")  # as a grid would write it
        if not edge or beyond in trials:
            break
        if rate not in (min(trials), max(trials)):  # beyond it runs diverged
            break
        trials[beyond] = attempt(beyond)
    return [trials[rate] for rate in sorted(trials)]


def is_tuned(trials: Sequence[Trial] | None, rates: Sequence[float]) -> bool:
    """Returns whether trials were made at all rates of a grid.

    Args:
        trials: What the stage `tune` wrote of one variant; None: nothing.
        rates: The grid.
    """
    return trials is not None and {*rates} <= {trial["learning_rate"] for trial in trials}


def tuned_at(folders: Sequence[str], ratio: int, names: Sequence[str]) -> list[Path]:
    """Returns the workdirs of `config.compare.tuned` that were tuned at a forget ratio.

    Args:
        folders: Their paths.
        ratio: The forget ratio, in percent.
        names: Variants whose learning rates are needed.

    Raises:
        InputError: There is none, one belongs to a scored seed, or one was not tuned to its end.
    """
    there = []
    for workdir in (plain(expanded(folder)) for folder in folders):
        file = workdir / "config.json"
        config = read_json(file, mend=_TUNE)
        with refusing(file, _TUNE):
            seed, own = int(config["seed"]), int(config["data"]["forget_ratio"])
        if seed < DEVELOPMENT:
            raise InputError(
                f"{file}: seed is {seed}: rates are chosen on seeds of {DEVELOPMENT} and more,"
                " which are never scored; tune another workdir"
            )
        if own == ratio:
            there.append(workdir)
    if not there:
        raise InputError(
            f"config.compare.tuned: none was tuned with config.data.forget_ratio={ratio}: {_TUNE}"
        )
    _trials(there, names)
    return there


def choose(workdirs: Sequence[Path], names: Sequence[str]) -> dict[str, Choice | None]:
    """Returns the learning rates that tuned workdirs choose together, by variant.

    Only rates that every workdir tried without diverging are compared. None stands for a variant
    that has no such rate.

    Args:
        workdirs: Workdirs whose stage `tune` is done.
        names: The variants.

    Raises:
        InputError: One has not been tuned.
    """
    tuned = _trials(workdirs, names)
    choices: dict[str, Choice | None] = {}
    for name in names:
        with refusing(f"{workdirs[0] / 'results.json'}, tuning.{name}", MEND):
            tried = [
                {t["learning_rate"]: t for t in entry[name] if not t.get("diverged")}
                for entry in tuned
            ]
            common = sorted(set.intersection(*(set(rates) for rates in tried)))
            there = {rate: [rates[rate] for rates in tried] for rate in common}
            choices[name] = best(there) if there else None
    return choices


def check_rates(workdir: Path, choices: Mapping[str, Choice | None]) -> None:
    """Refuses a cell that scored variants at other learning rates than those chosen now.

    Args:
        workdir: Workdir of the cell.
        choices: The chosen learning rates by variant.

    Raises:
        InputError: A variant was scored at another rate.
    """
    scored = read_results(workdir).get("variants", {})
    for name in choices.keys() & scored.keys():
        choice, rate = choices[name], scored[name].get("learning_rate")
        if choice and rate != choice.rate:
            raise InputError(
                f"{workdir}: {name} was scored at the learning rate {rate}; of the rates that have"
                f" been tried now, {choice.rate:g} is best: remove this folder, to score it again"
            )


def warn_of_edges(choices: Mapping[str, Choice | None]) -> None:
    """Warns of learning rates that are the smallest or the largest that was tried."""
    for name, choice in choices.items():
        if choice and choice.edge:
            logging.warning(
                "%s: the best learning rate, %g, is at the edge of those tried", name, choice.rate
            )


def _trials(workdirs: Sequence[Path], names: Sequence[str]) -> list[Mapping[str, Sequence[Trial]]]:
    """Returns what the stage `tune` wrote in each workdir: trials by variant."""
    tuned = []
    for workdir in workdirs:
        entry = read_results(workdir).get("tuning", {})
        if missing := [name for name in names if name not in entry]:
            raise InputError(
                f"{workdir / 'results.json'}: no learning rates of {', '.join(missing)} were tried:"
                f" {_TUNE}"
            )
        tuned.append(entry)
    return tuned
