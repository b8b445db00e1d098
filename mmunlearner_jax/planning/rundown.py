"""What each stage of a run has done and has to do: steps, bytes and seconds; runs none of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mmunlearner_jax.artefacts import is_done
from mmunlearner_jax.checkpoint import latest_step
from mmunlearner_jax.data.rows import count_batches
from mmunlearner_jax.machine import machine
from mmunlearner_jax.memory import STAGES, least
from mmunlearner_jax.progress import FOLDER, read_progress
from mmunlearner_jax.results import read_results
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.importance import sets

# What stages write whole or not at all.
_WRITES: Mapping[str, tuple[str, ...]] = {
    "prepare": ("benchmark", "initial"),
    "align": ("aligned",),
    "finetune": ("vanilla",),
    "importance": ("importance",),
    "mask": ("mask",),
    "unlearn": ("unlearned",),
    "export": ("export",),
}


class Work(NamedTuple):
    """A part of a stage that can be interrupted.

    Attributes:
        label: Its name in `metrics.jsonl` and `progress/`.
        unit: What is counted.
        total: Number of units.
        done: Number of units after which it goes on.
    """

    label: str
    unit: str
    total: int
    done: int


class Row(NamedTuple):
    """A stage of a run.

    Attributes:
        stage: Its name.
        done: Whether what it writes is there; None: it has to be run to know.
        works: Its parts with a known number of units.
        held: Bytes of one device that it needs at least, see `memory.least`; None: unknown.
        taken: Seconds that earlier commands have spent on it; None: none.
        left: Seconds of the units that are left, as measured on this machine; None: unknown.
    """

    stage: str
    done: bool | None
    works: Sequence[Work]
    held: int | None
    taken: float | None
    left: float | None


def rundown(session: Session, workdir: Path) -> list[Row]:
    """Returns a row for each stage of the config, in order.

    Args:
        session: A session whose `model` is abstract and whose benchmark can be read.
        workdir: Folder of the run.
    """
    results, measured = read_results(workdir), _measured(workdir)
    rows, before = [], set()
    taken = dict(results.get("seconds", {}))
    for stage in session.config.stages:
        # The second time, `evaluate` scores the unlearned model.
        label = "after" if stage == "evaluate" and "unlearn" in before else "before"
        before.add(stage)
        done = _is_done(stage, label, session, workdir, results)
        works = [] if done else list(_works(stage, label, session, workdir))
        held = None
        if stage in STAGES:
            held = sum(least(session.config, stage, session.model).values())
        left = _left(works, measured)
        rows.append(Row(stage, done, works, held, taken.pop(stage, None), left))
    return rows


def _is_done(
    stage: str, label: str, session: Session, workdir: Path, results: Mapping[str, Any]
) -> bool | None:
    if stage in _WRITES:
        return all(is_done(workdir / name) for name in _WRITES[stage])
    if stage == "evaluate":
        return label in results
    if stage == "controls":
        return {*session.config.controls} <= results.get("controls", {}).keys()
    return None


def _works(stage: str, label: str, session: Session, workdir: Path) -> Iterator[Work]:
    config, checkpoints = session.config, workdir / "checkpoints"

    def steps(name: str, total: int) -> Work:
        return Work(name, "step", total, latest_step(checkpoints / name))

    if stage == "align":
        yield steps("align", config.align.steps)
    elif stage == "finetune":
        if config.finetune.text_first:
            work = steps("finetune_text", config.finetune.text_first)
            taught = is_done(checkpoints / "text_first")
            yield work._replace(done=work.total) if taught else work
        yield steps("finetune", config.finetune.steps)
    elif stage == "importance":
        options = config.importance
        for name, samples in sets(session).items():
            pack = options.text_pack if name == "text" else options.pack
            count = count_batches(samples, options.batch_size, pack)
            yield steps(f"importance/{name}", count * max(options.path.points, 1))
    elif stage == "unlearn":
        yield steps("unlearn", session.schedule().iterations)
    elif stage == "evaluate":
        for split, questions in session.questions().items():
            there = (workdir / "predictions" / f"{label}-{split}.jsonl").exists()
            count = len(questions)
            yield Work(f"{label}/{split}", "question", count, count if there else 0)
    elif stage == "controls":
        for name in config.controls:
            yield steps(f"controls/{name}", session.schedule().iterations)


def _measured(workdir: Path) -> dict[str, float]:
    """Returns the seconds of a unit by label, as this machine took them in this workdir."""
    path = workdir / FOLDER / f"{jax.process_index()}.json"
    known = read_progress(path)["measured"] if path.exists() else {}
    here = machine()
    return {name: x["seconds"] for name, x in known.items() if x["machine"] == here}


def _left(works: Sequence[Work], measured: Mapping[str, float]) -> float | None:
    """Returns the seconds that are left, None if a part was not measured on this machine."""
    left = 0.0
    for work in works:
        if work.total > work.done:
            # The unlearned model answers by the same programs.
            labels = work.label, work.label.replace("after/", "before/")
            known = [measured[label] for label in labels if label in measured]
            left += (work.total - work.done) * (known[0] if known else math.nan)
    return left if works and math.isfinite(left) else None
