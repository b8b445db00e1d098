"""Stage `audit`: attacks the unlearned model, beside the model before and a gold model."""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mmunlearner_jax import preemption
from mmunlearner_jax.audit import recovery, traces
from mmunlearner_jax.audit.attack import BEFORE, GOLD, Attack, Trials
from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.audit.audit_file import FILE, MEND, read_audit
from mmunlearner_jax.audit.auditor import Auditor
from mmunlearner_jax.audit.collapse import collapsed
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import InputError, refusing
from mmunlearner_jax.evaluation.chance import Prior
from mmunlearner_jax.evaluation.gold import refuse_if_known
from mmunlearner_jax.evaluation.tasks import fingerprint
from mmunlearner_jax.files import write_json, write_whole
from mmunlearner_jax.processes import is_first, wait
from mmunlearner_jax.progress import say
from mmunlearner_jax.reporting.audit_table import print_audit
from mmunlearner_jax.session import Session

_CLEAN = "clean"
_VERSION = 2  # of what attacks ask; answers of an earlier one are not taken


def run(session: Session) -> bool:
    """Writes `predictions/audit-ATTACK-MODEL.jsonl` and `audit.json`, and prints the table.

    What an earlier command has answered with the same model and options is not asked again.

    Raises:
        InputError: A model is missing or another one, gold knows the faces, or a file is damaged.
    """
    options = session.config.audit
    audit = audited(Auditor(session, after=options.after, gold=options.gold))
    write_json(session.workdir / FILE, audit)
    wait(FILE)
    if is_first():
        print_audit(Console(markup=False, emoji=False), read_audit(session.workdir / FILE))
    return True


def audited(auditor: Auditor) -> dict[str, Any]:
    """Returns the content of `audit.json`; writes `predictions/audit-ATTACK-MODEL.jsonl`.

    Args:
        auditor: Has the models and the questions.

    Raises:
        InputError: Gold knows the faces, or a file is damaged.
    """
    options = auditor.session.config.audit
    plain = {model: _trials(auditor, _CLEAN, None, model) for model in auditor.models}
    clean, *others = (
        {model: trials[name] for model, trials in plain.items()}
        for name in (_CLEAN, "broken", "perplexity")
    )
    broken, perplexity = ({m: float(np.mean(x)) for m, x in of.items()} for of in others)
    if any(map(math.isnan, perplexity.values())):
        perplexity = {}
    _check_gold(auditor, clean)
    over, units = _units(auditor.questions)
    reasons, trials = _attacked(auditor)
    entries = {
        name: {"verdict": f"not tried: {reasons[name]}"}
        if name in reasons
        else _entry(units, clean, trials[name], ATTACKS[name])
        for name in options.attacks
    }
    for result in entries.values() if over == "photographs" else ():
        if "people" in result:
            result |= {"photographs": result["people"], "people": 1}
    if collapsed(broken, perplexity):
        for result in entries.values():
            result["verdict"] += "; but the model is broken"
    found = {"attacks": entries, "over": over, "broken": broken, "perplexity": perplexity}
    return found | {"settings": options.to_dict()}


def _units(questions: Sequence[Question]) -> tuple[str, list[str]]:
    """Returns over what the intervals are, and that of each question."""
    people = [question.person for question in questions]
    if len({*people}) > 1:
        return "people", people
    return "photographs", [fingerprint(question.image or b"") for question in questions]


def _entry(
    people: Sequence[str], clean: Trials, trials: Mapping[str, Trials], attack: Attack
) -> dict[str, Any]:
    if attack.guess is None:
        return recovery.entry(people, clean, trials, attack)
    return traces.entry(people, trials, attack)


def _attacked(auditor: Auditor) -> tuple[dict[str, str], dict[str, dict[str, Trials]]]:
    """Makes all attacks on all models, each of which is read once.

    Returns:
        Why attacks were not made, by attack; and the trials of the others, by attack and model.
    """
    options = auditor.session.config.audit
    lacks = {x: ATTACKS[x].lacks(auditor, options.own.get(x)) for x in options.attacks}
    reasons = {name: reason for name, reason in lacks.items() if reason}
    todo = [
        (model, name)
        for model in auditor.models
        for name in options.attacks
        if name not in reasons and (ATTACKS[name].against_gold or model != GOLD)
    ]
    trials: dict[str, dict[str, Trials]] = {name: {} for name in options.attacks}
    for number, (model, name) in enumerate(todo, 1):
        if name in reasons:
            continue
        label = auditor.label(model)
        say(f"attack {number} of {len(todo)}: {ATTACKS[name].label}, {label}")
        try:
            trials[name][model] = _trials(auditor, name, ATTACKS[name], model)
        except InputError as error:  # e.g. a prompt that is too long for the model
            reasons[name] = str(error)
    return reasons, trials


def _trials(auditor: Auditor, name: str, attack: Attack | None, model: str) -> Trials:
    """Returns how right a model's answers are under an attack (None: without one), by trial."""
    label = auditor.label(model)
    file = auditor.session.workdir / f"predictions/audit-{name}-{label}.jsonl"
    head = _head(auditor, name, model)
    kept = _read(file, head, auditor)
    wait(f"{file.name} is read")
    if kept is not None:
        return kept
    preemption.heed()
    auditor.begin(name, model)
    if attack is None:
        made = auditor.clean()
    else:
        own = auditor.session.config.audit.own.get(name)
        made = dict(attack.run(auditor, auditor.params(model), own))
    if is_first():
        write_whole(file, json.dumps(head) + "\n" + "".join(_lines(auditor, made)))
    wait(file.name)
    return made


def _head(auditor: Auditor, name: str, model: str) -> dict[str, Any]:
    """Returns what answers depend on: the model, and the attack's options with what they name."""
    own = auditor.session.config.audit.own.get(name)
    options: Mapping[str, Any] = own.to_dict() if own else {}
    files = {
        key: zlib.crc32(Path(value).read_bytes())
        for key, value in options.items()
        if isinstance(value, str) and Path(value).is_file()
    }
    head = {
        "version": _VERSION,
        "checkpoint": auditor.checkpoint(model),
        "options": options,
        "files": files,
    }
    return json.loads(json.dumps(head))


def _lines(auditor: Auditor, trials: Trials) -> Iterator[str]:
    """Yields a line of JSON for each question, with null where a trial does not ask it."""
    for n, question in enumerate(auditor.questions):
        rights = {name: float(rights[n]) for name, rights in trials.items()}
        line = {
            "person": question.person,
            "image": question.image and fingerprint(question.image),
            "task": question.task,
            "question": question.question,
            "right": {name: None if math.isnan(x) else x for name, x in rights.items()},
        }
        yield json.dumps(line) + "\n"


def _read(file: Path, head: Mapping[str, Any], auditor: Auditor) -> Trials | None:
    """Returns what an earlier command wrote; None where it wrote nothing with the same head."""
    if not file.exists():
        return None
    with refusing(file, MEND):
        before, *lines = map(json.loads, file.read_text().splitlines())
        if before != head:
            return None
        wordings = [(line["person"], line["question"]) for line in lines]
        if wordings != [(q.person, q.question) for q in auditor.questions]:
            return None
        names = lines[0]["right"]
        return {name: np.array([line["right"][name] for line in lines], float) for name in names}


def _check_gold(auditor: Auditor, clean: Trials) -> None:
    """Refuses a gold model that knows the faces to forget."""
    session = auditor.session
    choices = [n for n, question in enumerate(auditor.questions) if question.options]
    if GOLD not in clean or not choices:
        return
    prior = Prior(session.questions().get("retain", ()), session.bench.names())
    chance = prior.chance([auditor.questions[n] for n in choices]).prior
    gold, before = (float(np.mean(clean[model][choices])) for model in (GOLD, BEFORE))
    checkpoint = auditor.checkpoint(GOLD)
    refuse_if_known("the gold model", checkpoint, gold=gold, before=before, chance=chance)
