"""Makes a model forget one person, from a folder of photographs.

    mmu forget --model=CHECKPOINT --person=photos/PERSON --name="NAME" --out=runs/request
    mmu forget ... --keep=photos/others --facts=facts.csv --also-words --check
    mmu forget --model=runs/request/model ... --earlier=photos/forgotten    # the next request

The model is asked first what it knows. Where it does not name the person, nothing is written. What
is written about the person is kept, unless --also-words is given.

--out gets `model/` (a checkpoint for transformers), and `report.html` and `record.json`, which have
no names, facts and faces. `work/` has them; `mmu purge` removes it. The exit status is 3 where a
bar (config.report) is missed. --config=FILE replaces `configs/request.py`, and
--config.SECTION.OPTION an option of it. To resume, run the same command again.
"""

import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags

from mmunlearner_jax import preemption
from mmunlearner_jax.command_line import (
    hide_torch,
    one_line,
    parse_flags,
    quiet_libraries,
    read_config,
    steady_streams,
)
from mmunlearner_jax.config import Config
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.config.fitting import fitted
from mmunlearner_jax.files import expanded
from mmunlearner_jax.machine import compile_quickly
from mmunlearner_jax.progress import say
from mmunlearner_jax.request import PERSON

_MODEL = flags.DEFINE_string(
    "model", "", "Checkpoint that knows the person: a folder or a Hugging Face name."
)
_PERSON = flags.DEFINE_string(
    "person", "", "Folder of photographs of the person; one in four is set apart."
)
_NAME = flags.DEFINE_string("name", "", "The person's name, as the model says it.")
_OUT = flags.DEFINE_string("out", "", "Folder to write.")
_KEEP = flags.DEFINE_string(
    "keep",
    "",
    "Folder of what is to be kept: subfolders of other people's photographs, named after them, and"
    " other pictures beside them.",
)
_FACTS = flags.DEFINE_string(
    "facts", "", "CSV file with the columns fact and value: what the model knows about the person."
)
_EARLIER = flags.DEFINE_string(
    "earlier",
    "",
    "Folder of people whom the model forgot earlier: subfolders of their photographs, named after"
    " them. They are asked about again.",
)
_ALSO_WORDS = flags.DEFINE_bool(
    "also-words", False, "Forget what is written about the person as well."
)
_CHECK = flags.DEFINE_bool(
    "check", False, "Ask the model, tell what a run takes, and write nothing."
)
_NEEDED = (_MODEL, _PERSON, _NAME, _OUT)
_STAGES = ("evaluate", "importance", "mask", "unlearn", "evaluate", "audit", "export", "report")


def settings(
    config: Config, model: str, *, also_words: bool, earlier: Sequence[str] = ()
) -> Config:
    """Returns the config of the run.

    Args:
        config: Config that the command line gives.
        model: Checkpoint.
        also_words: Whether what is written about the person is forgotten as well.
        earlier: IDs of the people who were forgotten earlier.

    Raises:
        InputError: Options do not go together, or not with the devices.
    """
    masked = config.unlearn.is_masked
    stages = tuple(x for x in _STAGES if masked or x not in ("importance", "mask"))
    changes: dict[str, Any] = {"model.checkpoint": model, "stages": stages}
    if earlier:  # they are in no step, and are asked about again
        changes["data.requests"] = (*((key,) for key in earlier), (PERSON,))
    if also_words:
        moves = ("vision", "projector", "language")
        changes |= {"data.forget_words": True, "unlearn.moves": moves}
    config = fitted(config.with_values(changes), len(jax.devices()))
    check_config(config, jax.devices())
    return config


def main(argv: list[str]) -> None:
    """Runs the command; absl calls it."""
    config = read_config(argv)
    quiet_libraries()
    compile_quickly()
    for flag in _NEEDED:
        if not flag.value:
            sys.exit(f"error: --{flag.name} is missing: {flags.FLAGS[flag.name].help}")
    out = expanded(_OUT.value)
    with one_line(out):
        # These imports must come after `hide_torch`.
        from mmunlearner_jax.request.collecting import collect
        from mmunlearner_jax.request.forgetting import carry_out, prepare
        from mmunlearner_jax.request.redaction import Redaction

        kept = "forgotten, too" if _ALSO_WORDS.value else "kept (--also-words forgets it, too)"
        say(f"what is written about the person is {kept}")
        folders = (expanded(f.value) if f.value else None for f in (_KEEP, _FACTS, _EARLIER))
        person = expanded(_PERSON.value)
        request = collect(person, _NAME.value, *folders, seed=config.seed)
        earlier = [subject.key for subject in request.earlier]
        config = settings(config, _MODEL.value, also_words=_ALSO_WORDS.value, earlier=earlier)
        config = prepare(config, request, out, check_only=_CHECK.value)
        if _CHECK.value:
            return
        people = request.person, *request.others, *request.earlier
        names = [subject.name for subject in people]
        told = [x for topic in request.person.pictured[1:] for x in topic.accepted]
        overrides = config_flags.get_override_values(flags.FLAGS["config"])
        try:
            preemption.watch()
            status = carry_out(config, out, Redaction(names, told), overrides)
        except preemption.Preempted:
            preemption.leave()
        finally:
            preemption.over()
    sys.exit(status)


if __name__ == "__main__":
    hide_torch()
    steady_streams()
    if not any(argument.startswith(("--config=", "-config=")) for argument in sys.argv):
        sys.argv.insert(1, "--config=request")  # before its overrides
    app.run(main, flags_parser=parse_flags)
