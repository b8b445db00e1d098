"""The files `audit.json`, and `compare/audits/NAME.json` of a comparison: what attacks came to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmunlearner_jax.errors import refusing
from mmunlearner_jax.files import read_json

FILE = "audit.json"
MEND = "remove it and run the stage audit again"


def audit_of(workdir: Path, name: str) -> Path:
    """Returns the file of a model of a comparison.

    Args:
        workdir: Workdir of the cell.
        name: Name of the model.
    """
    return workdir / "compare/audits" / f"{name}.json"


def is_audited(workdir: Path, name: str, settings: Mapping[str, Any]) -> bool:
    """Returns whether a model of a comparison was attacked with some settings.

    Args:
        workdir: Workdir of the cell.
        name: Name of the model.
        settings: `config.audit` as a dict.

    Raises:
        InputError: The file is damaged.
    """
    made = read_audit(audit_of(workdir, name))
    return bool(made) and made.get("settings") == json.loads(json.dumps(settings))


def read_audit(path: Path) -> dict[str, Any]:
    """Returns what attacks came to; {} where there is no such file.

    Args:
        path: The file.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return {}
    audit = read_json(path, mend=MEND)
    with refusing(path, MEND):
        for result in audit["attacks"].values():
            str(result["verdict"])
            if "recovered" in result:
                numbers = [result["recovered"], result["before"]["clean"]]
                numbers += [result["after"][name] for name in ("clean", "attacked")]
                numbers += result["ci95"] or []
                [float(number) for number in numbers]
    return audit
