"""The run of a retain-only model that forget quality compares with."""

import json
from pathlib import Path

from mmunlearner_jax.config import Config
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.files import read_json
from mmunlearner_jax.options import flatten

# Options that both runs must share, so that both were asked the same questions.
SHARED = (
    *("seed", "data.forget_ratio", "data.requests", "evaluate.protocol"),
    *("evaluate.photos_per_person", "evaluate.most_questions"),
)


def find_reference(config: Config) -> Path | None:
    """Returns the file of predictions on the forget set by the retain-only model.

    Args:
        config: Config of this run; `evaluate.reference` is the workdir of the retain-only run.

    Returns:
        The file, or None if `evaluate.reference` is empty.

    Raises:
        InputError: The file is missing, its model was taught the people to forget, or the model was
            asked other questions.
    """
    if not config.evaluate.reference:
        return None
    folder = Path(config.evaluate.reference).expanduser()
    path = folder / "predictions/before-forget.jsonl"
    mend = "give the workdir of an evaluated run with config.finetune.retain_only='never_taught'"
    if not path.exists() or not (folder / "config.json").exists():
        raise InputError(f"config.evaluate.reference: {path} or config.json is missing; {mend}")
    written = flatten(read_json(folder / "config.json", mend=mend))
    # Earlier versions lack them.
    theirs = {"evaluate.most_questions": 0, "data.requests": []} | written
    if theirs.get("finetune.retain_only") == "":
        raise InputError(
            f"config.evaluate.reference: the model of {folder} was taught all people; {mend}"
        )
    ours = flatten(json.loads(json.dumps(config.to_dict())))  # lists for tuples, as written
    for key in SHARED:
        if theirs.get(key) != ours[key]:
            raise InputError(
                f"config.evaluate.reference: {folder} has {key}={theirs.get(key)!r}, this run"
                f" {ours[key]!r}; {mend} and with this run's {', '.join(SHARED)}"
            )
    return path
