"""Stage `audits`: attacks the models of a comparison, beside the vanilla and the gold model."""

from absl import logging

from mmunlearner_jax.audit.audit_file import audit_of, is_audited
from mmunlearner_jax.audit.auditor import Auditor
from mmunlearner_jax.comparison.jobs import GOLD, VANILLA
from mmunlearner_jax.errors import Diverged, InputError
from mmunlearner_jax.files import write_json
from mmunlearner_jax.processes import wait
from mmunlearner_jax.results import read_results
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.audit import audited


def run(session: Session) -> bool:
    """Writes `compare/audits/NAME.json`: what `audit.json` has, of each model.

    The answers of the vanilla and of the gold model are asked once. What was attacked with the same
    `config.audit` is not attacked again. A model that diverges is no error.

    Raises:
        InputError: The weights of a model are missing, or as in `audited`.
    """
    options, workdir = session.config.compare, session.workdir
    settings = session.config.audit.to_dict()
    todo = [name for name in options.audit if not is_audited(workdir, name, settings)]
    for name in todo:
        try:
            found = _audited(session, name)
        except Diverged as error:
            logging.warning("%s", error)
            verdict = {"verdict": "not tried: the model diverges"}
            found = {"attacks": dict.fromkeys(session.config.audit.attacks, verdict)}
            found["settings"] = settings
        write_json(audit_of(workdir, name), found)
        wait(name)
    return bool(todo)


def _audited(session: Session, name: str) -> dict:
    """Returns what attacks on a model come to.

    Raises:
        Diverged: It diverges, or diverged while it unlearned.
    """
    options, workdir = session.config.compare, session.workdir
    if read_results(workdir).get("variants", {}).get(name, {}).get("diverged"):
        raise Diverged(f"{name} diverged while it unlearned, so it is not attacked")
    if name == GOLD and not options.gold:
        options.refuse("audit", "no 'gold': there is no config.compare.gold")
    after = {VANILLA: session.checkpoint, GOLD: options.gold}.get(name, "")
    if not after:
        kept = workdir / "compare/models" / name
        if not kept.exists():
            raise InputError(
                f"{kept} is missing, which config.compare.audit would attack: remove {name!r} from"
                f" {workdir / 'results.json'}, variants, and compare again, to make the model anew"
            )
        after = str(kept)
    return audited(Auditor(session, after=after, gold=options.gold, name=f"of-{name}"))
