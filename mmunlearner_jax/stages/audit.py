"""Stage `audit`: attacks the unlearned model, beside the model before and a gold model."""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from mmunlearner_jax import preemption
from mmunlearner_jax.audit.attack import BEFORE, GOLD, Attack, Trials
from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.audit.audit_file import FILE, MEND, read_audit
from mmunlearner_jax.audit.auditor import Auditor
from mmunlearner_jax.audit.collapse import collapsed
from mmunlearner_jax.audit.recovery import entry
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import InputError, refusing
from mmunlearner_jax.evaluation.chance import Prior
from mmunlearner_jax.evaluation.tasks import fingerprint
from mmunlearner_jax.files import write_json, write_whole
from mmunlearner_jax.processes import is_first, wait
from mmunlearner_jax.reporting.audit_table import print_audit
from mmunlearner_jax.session import Session

_CLEAN, _BROKEN = "clean", "broken"


def run(session: Session) -> bool:
    """Writes `predictions/audit-ATTACK-MODEL.jsonl` and `audit.json`.

    What an earlier command has answered is not asked again.

    Raises:
        InputError: A model is missing or another one, gold knows the faces, or a file is damaged.
    """
    workdir, options = session.workdir, session.config.audit
    path = workdir / FILE
    done = read_audit(workdir)
    if done and {*options.attacks} <= done["attacks"].keys():
        return False
    auditor = Auditor(session)
    unattacked = {model: _trials(auditor, _CLEAN, None, model) for model in auditor.models}
    clean = {model: trials[_CLEAN] for model, trials in unattacked.items()}
    _check_gold(auditor, clean)
    broken = {model: float(np.mean(trials[_BROKEN])) for model, trials in unattacked.items()}
    lacks = {name: ATTACKS[name].lacks(auditor) for name in options.attacks}
    todo = [
        (model, name)
        for model in auditor.models  # each is read once
        for name in options.attacks
        if not lacks[name] and (ATTACKS[name].against_gold or model != GOLD)
    ]
    trials: dict[str, dict[str, Trials]] = {name: {} for name in options.attacks}
    for number, (model, name) in enumerate(todo, 1):
        if is_first():
            progress = f"attack {number} of {len(todo)}: {ATTACKS[name].label}, {model}"
            print(progress, file=sys.stderr, flush=True)
        trials[name][model] = _trials(auditor, name, ATTACKS[name], model)
    people = [question.person for question in auditor.questions]
    entries = {
        name: {"verdict": f"not tried: {lacks[name]}"}
        if lacks[name]
        else entry(people, clean, trials[name], ATTACKS[name])
        for name in options.attacks
    }
    if collapsed(broken):
        for result in entries.values():
            result["verdict"] += "; but its answers are broken"
    if is_first():
        audit = {"attacks": entries, "broken": broken, "settings": options.to_dict()}
        write_json(path, audit)
    wait(FILE)
    if is_first():
        print_audit(Console(markup=False, emoji=False), read_audit(workdir))
    return True


def _trials(auditor: Auditor, name: str, attack: Attack | None, model: str) -> Trials:
    """Returns how right a model's answers are under an attack (None: without one), by trial."""
    file = auditor.session.workdir / f"predictions/audit-{name}-{model}.jsonl"
    if not file.exists():
        preemption.heed()
        auditor.of_attack(name)
        made = dict(_made(auditor, attack, model, f"audit/{name}/{model}"))
        if is_first():
            write_whole(file, "".join(_lines(auditor.questions, made)))
        wait(file.name)
    return _read(file, auditor.questions)


def _made(
    auditor: Auditor, attack: Attack | None, model: str, label: str
) -> Iterator[tuple[str, np.ndarray]]:
    if attack is None:
        yield from zip((_CLEAN, _BROKEN), auditor.clean(model, label), strict=True)
        return
    params, name = auditor.params(model), label.split("/")[1]
    yield from attack.run(auditor, params, label, auditor.session.config.audit.own.get(name))


def _lines(questions: list[Question], trials: Trials) -> Iterator[str]:
    """Yields a line of JSON for each question, with null where a trial does not ask it."""
    for n, question in enumerate(questions):
        rights = {name: float(rights[n]) for name, rights in trials.items()}
        line = {
            "person": question.person,
            "image": question.image and fingerprint(question.image),
            "task": question.task,
            "question": question.question,
            "right": {name: None if math.isnan(x) else x for name, x in rights.items()},
        }
        yield json.dumps(line) + "\n"


def _read(file: Path, questions: list[Question]) -> Trials:
    with refusing(file, MEND):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        wordings = [(line["person"], line["question"]) for line in lines]
        if wordings != [(question.person, question.question) for question in questions]:
            raise ValueError("its questions are not those of this config")
        names = lines[0]["right"]
        return {name: np.array([line["right"][name] for line in lines], float) for name in names}


def _check_gold(auditor: Auditor, clean: Trials) -> None:
    """Refuses a gold model that knows the faces to forget."""
    if GOLD not in clean:
        return
    session = auditor.session
    prior = Prior(session.questions().get("retain", ()), session.bench.names())
    choices = [n for n, question in enumerate(auditor.questions) if question.options]
    if not choices:
        return
    chance = prior.chance([auditor.questions[n] for n in choices]).prior
    gold, before = (float(np.mean(clean[model][choices])) for model in (GOLD, BEFORE))
    if gold > (chance + before) / 2 and before > chance:
        raise InputError(
            f"config.audit.gold: {session.config.audit.gold} knows the faces to forget"
            f" ({100 * gold:.0f} % right, the model before unlearning {100 * before:.0f} %, chance"
            f" {100 * chance:.0f} %): train it with config.finetune.retain_only='gold', the same"
            " seed and forget ratio"
        )
