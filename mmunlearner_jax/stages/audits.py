"""Stage `audits`: attacks the models of a comparison, beside the vanilla and the gold model."""

from mmunlearner_jax.audit.audit_file import audit_of
from mmunlearner_jax.audit.auditor import Auditor
from mmunlearner_jax.comparison.jobs import GOLD, VANILLA
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.files import write_json
from mmunlearner_jax.processes import wait
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.audit import audited


def run(session: Session) -> bool:
    """Writes `compare/audits/NAME.json`: what `audit.json` has, of each model.

    The answers of the vanilla and of the gold model are asked once.

    Raises:
        InputError: The weights of a model are missing, or as in `audited`.
    """
    options, workdir = session.config.compare, session.workdir
    todo = [name for name in options.audit if not audit_of(workdir, name).exists()]
    for name in todo:
        references = {VANILLA: session.checkpoint, GOLD: options.gold}
        after = references.get(name) or str(workdir / "compare/models" / name)
        if name == GOLD and not options.gold:
            options.refuse("audit", "no 'gold': there is no config.compare.gold")
        try:
            auditor = Auditor(session, after=after, gold=options.gold, name=f"of-{name}")
        except InputError as error:
            raise InputError(f"config.compare.audit: {name}: {error}") from error
        write_json(audit_of(workdir, name), audited(auditor))
        wait(name)
    return bool(todo)
