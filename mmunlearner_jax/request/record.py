"""`record.json`: what was done for a request, and what was measured; it names nobody."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmunlearner_jax.audit.audit_file import FILE as AUDIT
from mmunlearner_jax.audit.audit_file import read_audit
from mmunlearner_jax.config import Config
from mmunlearner_jax.errors import refusing
from mmunlearner_jax.files import read_json
from mmunlearner_jax.provenance import ENTRY, now
from mmunlearner_jax.reporting.run_results import METRICS, ScoreChange, rows
from mmunlearner_jax.reporting.verdicts import AIMS, judgement
from mmunlearner_jax.request import MODEL, RECORD

MISSED = 3  # exit status where a bar is missed
NOT_SHOWN = (
    "This is a record of what was done and measured. It is no certificate of erasure.",
    "Answers that are gone may be hidden, and come back under an attack that was not tried. The"
    " entry `audit` lists those that were.",
    "Only the given photographs, names and wordings were asked about. With few photographs the"
    " intervals are wide, and questions about one person are not independent.",
    "It says nothing of other copies of the model, of the data that it learned from, or of models"
    " that were made from it.",
    "What is kept was measured on the given or bundled pictures and questions alone.",
)
NOT_ASKED = (
    "Earlier requests were carried out on this model, and not all of their people were asked about"
    " again: no record keeps photographs and names, so they must be given (--earlier)."
)
_MEND = "restore it, or name a copy of the model that is in another folder"


def earlier_requests(checkpoint: str) -> int:
    """Returns how many requests a model has seen, by the record beside it; 0 without a record.

    Args:
        checkpoint: The model: a folder, or a name on the hub.

    Raises:
        InputError: The record is damaged.
    """
    file = Path(checkpoint).parent / RECORD
    if Path(checkpoint).name != MODEL or not file.is_file():
        return 0
    with refusing(file, _MEND):
        return 1 + int(read_json(file)["request"].get("earlier_requests", 0))


def record(
    config: Config, workdir: Path, results: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the content of `record.json` before redaction.

    Args:
        config: Config of the run.
        workdir: Folder of the run.
        results: Content of its `results.json`.
        about: What was requested, without names.
    """
    judged = rows(results, config.report)
    aims = {AIMS[falls].lower(): judgement(judged, falls=falls) for falls in AIMS}
    attacks = read_audit(workdir / AUDIT).get("attacks", {})
    wanted = ("verdict", "before", "after", "recovered", "ci95", "n", "people")
    provenance = results.get(ENTRY, {})
    asked_again = about["earlier_asked"] >= about["earlier_requests"]
    return {
        "written": now(),
        "request": dict(about),
        "bars": config.report.to_dict(),
        "aims": {
            name: {"verdict": it.words, "bars_met": it.met, "bars": len(it.rows)}
            for name, it in aims.items()
        },
        "scores": [_score(row) for row in judged],
        "audit": {
            name: {key: it[key] for key in wanted if key in it} for name, it in attacks.items()
        },
        "unlearning": results.get("unlearn", {}),
        "weights": provenance.get("checkpoints", {}),
        "commands": provenance.get("commands", {}),
        "stages": provenance.get("stages", {}),
        "seconds": results.get("seconds", {}),
        "what_this_does_not_show": [*NOT_SHOWN, *([] if asked_again else [NOT_ASKED])],
    }


def missed(written: Mapping[str, Any]) -> list[str]:
    """Returns a line for each bar that is not met."""
    return [
        f"{it['kind']}, {it['metric'].lower()}: {100 * it['before']['value']:.0f} % before,"
        f" {100 * it['after']['value']:.0f} % after: {it['verdict']}"
        for it in written["scores"]
        if it["bar"] is not None and not it["met"]
    ]


def _score(row: ScoreChange) -> dict[str, Any]:
    return {
        "kind": row.label,
        "metric": METRICS[row.metric],
        "should": "fall" if row.falls else "stay",
        "before": row.before,
        "after": row.after,
        "bar": row.verdict.bar,
        "met": row.verdict.grade == "met",
        "sure": row.verdict.sure,
        "verdict": row.verdict.words,
    }
