"""Masks that are measured again while a run goes on (`config.unlearn.refresh`)."""

import copy
import shutil
from typing import Any

from mmunlearner_jax.artefacts import is_done
from mmunlearner_jax.checkpoint import save_tree
from mmunlearner_jax.processes import is_first, wait
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import importance
from mmunlearner_jax.stages.mask import load_mask, make_mask
from mmunlearner_jax.unlearn import bits


def refreshed(session: Session, label: str, number: int, params: Any) -> Any:
    """Returns the mask of a model, in bits like the parameters that unlearning moves.

    The workdir keeps it, `masks/LABEL/NUMBER/mask`, so that a run which goes on after an
    interruption has the mask that its next steps had.

    Args:
        session: Session of the run.
        label: Name of the run.
        number: How often the run's mask was measured before.
        params: All parameters of the model now.
    """
    folder = session.workdir / "masks" / label / str(number)
    if not is_done(folder / "mask"):
        here = copy.copy(session)
        here.forget_params()
        here.params = params
        importance.measure(here, folder)
        save_tree(folder / "mask", bits.pack(make_mask(here, folder), bits.FILES))
        wait(f"{folder}: the mask is there")
        if is_first():
            for name in ("importance", "checkpoints"):
                shutil.rmtree(folder / name, ignore_errors=True)
    mask = load_mask(folder, session.abstract)
    return bits.pack(session.split_frozen(mask, session.config.unlearn.held)[1], bits.DEVICES)
