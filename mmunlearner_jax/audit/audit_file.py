"""The file `audit.json`: what every attack came to."""

from pathlib import Path
from typing import Any

from mmunlearner_jax.errors import refusing
from mmunlearner_jax.files import read_json

FILE = "audit.json"
MEND = "remove it and run the stage audit again"


def read_audit(workdir: Path) -> dict[str, Any]:
    """Returns the content of `audit.json`; {} where there is none.

    Raises:
        InputError: The file is damaged.
    """
    path = workdir / FILE
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
