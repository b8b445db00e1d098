"""The page of a run: `report.html`, which needs no other file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.audit.audit_file import FILE, read_audit
from mmunlearner_jax.config import Config
from mmunlearner_jax.errors import shown
from mmunlearner_jax.evaluation.kinds import FORGET
from mmunlearner_jax.metrics import read_metrics
from mmunlearner_jax.reporting import audit_figure, browser, figures
from mmunlearner_jax.reporting.cases import Predictions
from mmunlearner_jax.reporting.run_results import (
    METRICS,
    RUNS,
    TASK_OF,
    ScoreChange,
    choice_score,
    control_runs,
    mask_verdict,
    rows,
    run_kinds,
)
from mmunlearner_jax.reporting.templates import environment
from mmunlearner_jax.reporting.terms import TERMS
from mmunlearner_jax.reporting.verdicts import AIMS, MARKS, UNKNOWN, judgement

SHOWN = "relearn_same"  # the attack whose trials are drawn as curves


def render(
    config: Config, workdir: Path, results: Mapping[str, Any], predictions: Predictions
) -> str:
    """Returns the page of a run as HTML that needs no other file.

    Args:
        config: Config of the run, which the page shows.
        workdir: Folder of the run; the page shows its name and the curves of `metrics.jsonl`.
        results: Content of `results.json`.
        predictions: Predictions before and after unlearning.
    """
    bars, kinds = config.report, run_kinds(results)
    changes, chances = rows(results, bars), results.get("chance", {})
    answers, script = browser.answer_rows(predictions), browser.script()
    blocks = results.get("mask", {}).get("by_block", {})
    template = environment().get_template("reporting/run.html.j2")
    return template.render(
        run=shown(workdir.name),
        results=results,
        policy=browser.content_policy(script),
        script=script,
        marks=MARKS,
        explained=TERMS,
        bars=bars,
        aims=[(AIMS[falls], judgement(changes, falls=falls)) for falls in AIMS],
        nothing_known=next((r for r in changes if is_unknown_face(r)), None),
        answers=answers,
        fallback=browser.some_of_each(answers, browser.WITHOUT_SCRIPTS),
        data=browser.packed(answers),
        asked=browser.ASKED,
        tasks=browser.TASKS,
        task_of=TASK_OF,
        config=json.dumps(config.to_dict(), indent=2),
        orl=_has_orl_faces(config),
        forgotten=predictions.people("forget"),
        words_fall=config.data.forget_words,
        taught=predictions.taught,
        chance=predictions.chance,
        prior=chances.get("/".join(FORGET), {}).get("prior"),
        tables={m: [r for r in changes if r.metric == m] for m in METRICS},
        metrics=METRICS,
        kinds=kinds,
        highlights=[r for r in changes if r.headline],
        examples=predictions.examples(),
        people=predictions.by_person(bars, chances),
        unseen=predictions.unseen,
        runs=RUNS,
        controls=control_runs(results),
        choice_score=choice_score,
        verdict=mask_verdict(results["after"], results.get("controls", {}), kinds),
        heat=figures.inline(
            figures.densities(blocks) if any(blocks.values()) else None, "densities"
        ),
        charts=charts(workdir),
        **_audited(workdir),
    )


def _audited(workdir: Path) -> dict[str, Any]:
    """Returns what the page shows of an audit, by name in the template."""
    audit = read_audit(workdir / FILE)
    attacks = audit.get("attacks", {})
    shares = {name: it for name, it in attacks.items() if "recovered" in it}
    curve = audit_figure.relearning(shares[SHOWN]) if SHOWN in shares else None
    returned = audit_figure.recovered(shares) if shares else None
    return {
        "audit": audit,
        "attacks": attacks,
        "attack_records": ATTACKS,
        "attack_figure": figures.inline(returned, "recovered"),
        "relearning": figures.inline(curve, "relearning"),
        "gold_audited": any(it.get("gold") for it in shares.values()),
    }


def is_unknown_face(row: ScoreChange) -> bool:
    """Whether a row shows that the faces to forget were not known before unlearning."""
    kind = row.split, row.modality
    return kind == FORGET and row.metric == "classification" and row.verdict == UNKNOWN


def _has_orl_faces(config: Config) -> bool:
    written = "prepare" in config.stages and not config.data.benchmark
    return written and config.prepare.benchmark != "flags"


@dataclass(frozen=True)
class Chart:
    """A figure of the page: `image` is an SVG element, `alt` describes it in words."""

    image: str
    alt: str


def charts(workdir: Path) -> list[Chart]:
    """Draws the losses of training and of unlearning, and what is still remembered."""
    lines = read_metrics(workdir)

    def curve(stage: str, name: str) -> list[tuple[float, float]]:
        return [(x["step"], x[name]) for x in lines if x["stage"] == stage and name in x]

    wanted = (
        ("Alignment: loss", "align", {"loss": "loss"}, True),
        ("Learning the text: loss", "finetune_text", {"loss": "loss"}, True),
        ("Learning: loss", "finetune", {"loss": "loss"}, True),
        ("Unlearning: loss", "unlearn", {"forget_loss": "forget", "retain_loss": "retain"}, False),
        ("Training answers still remembered", "unlearn", {"remembered": "fraction"}, False),
    )
    drawn = []
    for title, stage, names, log in wanted:
        series = {label: pairs for name, label in names.items() if (pairs := curve(stage, name))}
        if series:
            ends = ", ".join(f"{label} ends at {s[-1][1]:.3g}" for label, s in series.items())
            chart = figures.line_chart(title, series, log=log)
            image = figures.inline(chart, f"chart{len(drawn)}")
            drawn.append(Chart(image, f"{title}: {ends}"))
    return drawn
