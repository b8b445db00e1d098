"""The retain-only run that forget quality compares with."""

from pathlib import Path

from mmunlearner_jax.config import Config
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.files import read_json
from mmunlearner_jax.options import flatten

# What both runs share: otherwise the reference was asked about other people, or in other words.
SHARED = ("seed", "data.forget_ratio", "evaluate.protocol", "evaluate.photos_per_person")


def find_reference(config: Config) -> Path | None:
    """Returns the forget set's predictions of `config.evaluate.reference`; None where it is empty.

    Raises:
        InputError: There are none, or they are of a model that was taught the people to forget, or
            that was asked something else.
    """
    if not config.evaluate.reference:
        return None
    folder = Path(config.evaluate.reference).expanduser()
    path = folder / "predictions/before-forget.jsonl"
    mend = "give the workdir of an evaluated run with config.finetune.retain_only='never_taught'"
    if not path.exists() or not (folder / "config.json").exists():
        raise InputError(f"config.evaluate.reference: {path} or config.json is missing; {mend}")
    theirs = flatten(read_json(folder / "config.json", mend=mend))
    if theirs.get("finetune.retain_only") == "":
        raise InputError(f"config.evaluate.reference: {folder} was taught everybody; {mend}")
    ours = flatten(config.to_dict())
    for key in SHARED:
        if theirs.get(key) != ours[key]:
            raise InputError(
                f"config.evaluate.reference: {folder} has {key}={theirs.get(key)!r}, this run"
                f" {ours[key]!r}; {mend}, the same in {', '.join(SHARED)}"
            )
    return path
