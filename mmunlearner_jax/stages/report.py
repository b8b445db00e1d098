"""Stage `report`: the table in the terminal and a self-contained `report.html`.

Nothing is measured here: every number comes from what the stages before have written. What the
page says about the mask is worked out from the control runs and their intervals.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.files import write_whole
from mmunlearner_jax.metrics import read_metrics
from mmunlearner_jax.results import MEND, read_results
from mmunlearner_jax.stages.examples import Predictions
from mmunlearner_jax.stages.plots import Chart, line_chart
from mmunlearner_jax.unlearn.controls import CONTROLS

Score = Mapping[str, Any]  # {"value": x, "n": n, "ci95": [low, high]}
Scores = Mapping[str, Any]  # {split: {modality: {metric: Score}}}


class Asked(NamedTuple):
    """A kind of question: what it is about, and whether its score is meant to fall."""

    label: str
    falls: bool = False


# In the order of the tables.
ASKED = {
    ("forget", "vqa"): Asked("Forgotten people, training photographs", falls=True),
    ("test", "vqa"): Asked("Forgotten people, unseen photographs", falls=True),
    ("forget", "qa"): Asked("Forgotten people, in words"),
    ("test", "qa"): Asked("Forgotten people, in other words"),
    ("retain", "vqa"): Asked("Other people, training photographs"),
    ("test_retain", "vqa"): Asked("Other people, unseen photographs"),
    ("retain", "qa"): Asked("Other people, in words"),
    ("test_retain", "qa"): Asked("Other people, in other words"),
    ("real_faces", "vqa"): Asked("Other faces"),
    ("realworld", "vqa"): Asked("Other things, pictures"),
    ("realworld", "qa"): Asked("Other things, in words"),
}
METRICS = {
    "classification": "Multiple choice",
    "classification_letter": "Multiple choice, the letter read as published",
    "cloze": "Fill in the blank",
    "naming": "Names in free answers",
    "rougeL": "Free answers, ROUGE-L",
    "probability": "Probability of the true answer, per token",
    "naming_probability": "Probability of the name beside wrong ones",
}
HIGHLIGHTS = {
    ("forget", "vqa", "classification"),
    ("test", "vqa", "classification"),
    ("forget", "qa", "classification"),
    ("test_retain", "vqa", "classification"),
    ("real_faces", "vqa", "classification"),
}
RUNS = {
    "before": "Before",
    "after": "This run",
    **{name: control.label for name, control in CONTROLS.items()},
}


@dataclass(frozen=True)
class Row:
    """The same questions before and after."""

    split: str
    modality: str
    metric: str
    before: Score
    after: Score

    @property
    def label(self) -> str:
        """What the questions are about."""
        return ASKED[self.split, self.modality].label

    @property
    def falls(self) -> bool:
        """Whether the score is meant to fall."""
        return ASKED[self.split, self.modality].falls


def run(config: ConfigDict, workdir: Path) -> bool:
    """Prints the results and writes `report.html`; always True, as it is quick.

    Raises:
        InputError: the workdir holds no scores of before and after.
    """
    results = read_results(workdir)
    if not {"before", "after"} <= results.keys():
        raise InputError(
            f"{workdir / 'results.json'}: no 'before' and 'after': run the stages unlearn and"
            " evaluate first"
        )
    console = Console(markup=False, emoji=False)  # brackets in a path are brackets
    with refusing(workdir / "results.json", MEND):
        print_results(console, results)
    page = workdir / "report.html"
    write_whole(page, render(config, workdir, results))
    console.print(f"Report: {shown(page, 4096)}", soft_wrap=True)
    return True


def rows(results: Mapping[str, Any]) -> list[Row]:
    """The rows of the results table, metric by metric."""
    before, after = results["before"], results["after"]
    return [
        Row(split, modality, metric, found, after[split][modality][metric])
        for metric in METRICS
        for split, modality in ASKED
        if (found := before.get(split, {}).get(modality, {}).get(metric))
    ]


def control_runs(results: Mapping[str, Any]) -> dict[str, Scores]:
    """This run and the runs it is to be compared with, by name; empty without controls."""
    controls = results.get("controls", {})
    own = {"before": results["before"], "after": results["after"]}
    return own | controls if controls else {}


def choice_score(scores: Scores, asked: tuple[str, str]) -> Score | None:
    """The multiple-choice score of one kind of question, if there is one."""
    return scores.get(asked[0], {}).get(asked[1], {}).get("classification")


def mask_verdict(own: Scores, controls: Mapping[str, Scores]) -> str:
    """What the control rows bear out about the mask, and no more.

    Two runs differ on a row where their 95 % intervals do not overlap. Only what is better than
    both a random mask and no mask, with nothing worse, is put down to the mask.
    """
    rivals = ("random_mask", "no_mask")
    if not set(rivals) <= controls.keys():
        return (
            "There is no run with a random mask beside one without a mask: nothing here tells what"
            " the mask contributes."
        )
    better = {name: _apart(own, controls[name], better=True) for name in rivals}
    worse = {name: _apart(own, controls[name], better=False) for name in rivals}
    said = []
    for name in rivals:
        found = [
            f"{word} on {_listed(labels)}"
            for word, labels in (("better", better[name]), ("worse", worse[name]))
            if labels
        ]
        said.append(
            f"Against {RUNS[name].lower()} it is {' and '.join(found)}."
            if found
            else f"Against {RUNS[name].lower()} the intervals overlap on every row."
        )
    both = [label for label in better["random_mask"] if label in better["no_mask"]]
    if both and not any(worse.values()):
        said.append(
            f"In this run, then, the mask does something of its own on {_listed(both)}. It is one"
            " seed, and questions about one person are not independent."
        )
    else:
        said.append(
            "So this run does not show that the mask, rather than the alternation, does this."
        )
    return " ".join(said)


def _apart(own: Scores, rival: Scores, *, better: bool) -> list[str]:
    """Labels of the rows where `own` is better (or worse) and the intervals do not overlap."""
    labels = []
    for asked, (label, falls) in ASKED.items():
        mine, other = choice_score(own, asked), choice_score(rival, asked)
        if mine and other:
            high, low = (mine, other) if better != falls else (other, mine)
            if high["ci95"][0] > low["ci95"][1]:
                labels.append(label)
    return labels


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(f"“{label.lower()}”" for label in labels)


def percent(fraction: float) -> str:
    """A fraction as a percentage with at most one decimal, e.g. "97.5 %"."""
    return f"{_number(fraction)}\u00a0%"


def interval(score: Score) -> str:
    """The 95 % interval in percent, e.g. "26 – 38.1 %"; resampling equal values gives none."""
    low, high = score["ci95"]
    return f"{_number(low)} – {percent(high)}" if low < high else "all equal"


def _number(fraction: float) -> str:
    return f"{100 * fraction:.1f}".removesuffix(".0")


def print_results(console: Console, results: Mapping[str, Any]) -> None:
    """Prints split x modality x metric, then the control runs and what they bear out."""
    table = Table(title=f"Before and after unlearning, seed {shown(results['seed'], 20)}")
    for name in ("split", "", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("before → after", "n", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows(results):
        change = f"{percent(row.before['value'])} → {percent(row.after['value'])}"
        cells = (row.split, row.modality.upper(), row.metric, change)
        table.add_row(*cells, str(row.after["n"]), interval(row.after))
    console.print(table)
    if "model_utility" in results:
        before, after = (results["model_utility"][when] for when in ("before", "after"))
        change = f"{percent(before['value'])} → {percent(after['value'])} ({interval(after)})"
        console.print(f"Model utility: {change}")
    for task, found in results.get("forget_quality", {}).get("after", {}).items():
        console.print(
            f"Forget quality, {shown(task, 40)}: p = {found['p_value']:.2g}, n = {found['n']}"
        )
    controls = control_runs(results)
    if not controls:
        return
    table = Table(title="Multiple choice by run, with 95 % intervals", leading=1)
    table.add_column("", no_wrap=True)
    for name in controls:
        table.add_column(shown(name, 40).replace("_", " "), justify="right", min_width=7)
    for asked in ASKED:
        scores = [choice_score(scores, asked) for scores in controls.values()]
        if any(scores):
            cells = [f"{percent(s['value'])}\n{_whole(*s['ci95'])}" if s else "" for s in scores]
            table.add_row(f"{asked[0]} {asked[1].upper()}", *cells)
    console.print(table)
    console.print(mask_verdict(results["after"], results["controls"]))


def _whole(low: float, high: float) -> str:
    return f"{100 * low:.0f}–{100 * high:.0f}"


def environment() -> jinja2.Environment:
    """What fills in the package's templates: pages are escaped, unknown names are errors."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("mmunlearner_jax", ""),
        autoescape=jinja2.select_autoescape(("html.j2",), default=False),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters |= {"pct": percent, "interval": interval}
    return found


def render(config: ConfigDict, workdir: Path, results: Mapping[str, Any]) -> str:
    """The page, as HTML that needs nothing beside it."""
    found = rows(results)
    predictions = Predictions(config, workdir)
    template = environment().get_template("stages/report.html.j2")
    return template.render(
        run=shown(workdir.name),
        results=results,
        config=config.to_json_best_effort(indent=2),
        orl="prepare" in config.stages and not config.data.benchmark,
        forgotten=predictions.people("forget"),
        taught=predictions.taught,
        chance=predictions.chance,
        tables={m: [r for r in found if r.metric == m] for m in METRICS},
        metrics=METRICS,
        asked=ASKED,
        highlights=[r for r in found if (r.split, r.modality, r.metric) in HIGHLIGHTS],
        examples=predictions.examples(),
        people=predictions.by_person(),
        unseen=predictions.unseen,
        runs=RUNS,
        controls=control_runs(results),
        choice_score=choice_score,
        verdict=mask_verdict(results["after"], results.get("controls", {})),
        heat=heat_maps(results.get("mask", {}).get("by_block", {})),
        charts=charts(workdir),
    )


def heat_maps(by_block: Mapping[str, float]) -> dict[str, dict[str, dict[str, float]]]:
    """Mask densities by part of the model, matrix and layer.

    Args:
        by_block: density by Hugging Face parameter name.

    Returns:
        `{part: {matrix: {layer: density}}}`; matrices that are closed in every layer are left out,
        a matrix outside the layers has the one layer ".".
    """
    maps: dict[str, dict[str, dict[str, float]]] = {}
    for name, value in by_block.items():
        path = name.removeprefix("model.").removesuffix(".weight")
        layered = re.fullmatch(r"(.+?)(?:\.encoder)?\.layers\.(\d+)\.(.+)", path)
        part, layer, matrix = layered.groups() if layered else path.rpartition(".")
        maps.setdefault(part, {}).setdefault(matrix, {})[layer] = value
    for part, matrices in maps.items():
        maps[part] = {name: cells for name, cells in matrices.items() if any(cells.values())}
    return {part: matrices for part, matrices in maps.items() if matrices}


def charts(workdir: Path) -> list[Chart]:
    """Curves of `metrics.jsonl`: the finetuning loss, both losses of unlearning, what is left."""
    lines = read_metrics(workdir)

    def curve(stage: str, name: str) -> list[tuple[float, float]]:
        return [(x["step"], x[name]) for x in lines if x["stage"] == stage and name in x]

    wanted = (
        ("Learning: loss", "finetune", {"loss": "loss"}, True),
        ("Unlearning: loss", "unlearn", {"forget_loss": "forget", "retain_loss": "retain"}, False),
        ("Forget answers still exact", "unlearn", {"remembered": "fraction"}, False),
    )
    found = []
    for title, stage, names, log in wanted:
        series = {label: pairs for name, label in names.items() if (pairs := curve(stage, name))}
        if series:
            found.append(line_chart(title, series, log=log))
    return found
