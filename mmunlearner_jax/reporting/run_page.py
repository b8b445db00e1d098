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
from mmunlearner_jax.reporting import audit_figure, figures
from mmunlearner_jax.reporting.cases import Predictions
from mmunlearner_jax.reporting.run_results import (
    METRICS,
    RUNS,
    choice_score,
    control_runs,
    mask_verdict,
    rows,
    run_kinds,
)
from mmunlearner_jax.reporting.templates import environment

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
    changes, kinds = rows(results), run_kinds(results)
    audit = read_audit(workdir / FILE)
    attacks = audit.get("attacks", {})
    shares = {name: it for name, it in attacks.items() if "recovered" in it}
    curve = audit_figure.relearning(shares[SHOWN]) if SHOWN in shares else None
    blocks = results.get("mask", {}).get("by_block", {})
    template = environment().get_template("reporting/run.html.j2")
    return template.render(
        run=shown(workdir.name),
        results=results,
        config=json.dumps(config.to_dict(), indent=2),
        orl=_has_orl_faces(config),
        forgotten=predictions.people("forget"),
        taught=predictions.taught,
        chance=predictions.chance,
        prior=results.get("chance", {}).get("/".join(FORGET), {}).get("prior"),
        tables={m: [r for r in changes if r.metric == m] for m in METRICS},
        metrics=METRICS,
        kinds=kinds,
        highlights=[r for r in changes if r.headline],
        examples=predictions.examples(),
        people=predictions.by_person(),
        unseen=predictions.unseen,
        runs=RUNS,
        controls=control_runs(results),
        choice_score=choice_score,
        verdict=mask_verdict(results["after"], results.get("controls", {}), kinds),
        heat=figures.data_uri(figures.densities(blocks)) if any(blocks.values()) else "",
        charts=charts(workdir),
        audit=audit,
        attacks=attacks,
        attack_records=ATTACKS,
        attack_figure=figures.data_uri(audit_figure.recovered(shares)) if shares else "",
        relearning=figures.data_uri(curve) if curve else "",
        gold_audited=any(it.get("gold") for it in shares.values()),
    )


def _has_orl_faces(config: Config) -> bool:
    written = "prepare" in config.stages and not config.data.benchmark
    return written and config.prepare.benchmark != "flags"


@dataclass(frozen=True)
class Chart:
    """A figure of the page: `image` is a data URI, `alt` describes it in words."""

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
            image = figures.data_uri(figures.line_chart(title, series, log=log))
            drawn.append(Chart(image, f"{title}: {ends}"))
    return drawn
