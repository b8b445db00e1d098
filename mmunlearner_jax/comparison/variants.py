"""Variants of one run: methods with other settings, and controls."""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import importance
from mmunlearner_jax.stages.importance import load_sums
from mmunlearner_jax.stages.mask import cover_pattern, load_mask, make_mask
from mmunlearner_jax.stages.unlearn import Outcome, Unlearner, Watch
from mmunlearner_jax.unlearn.controls import Control, Known
from mmunlearner_jax.unlearn.mask import all_true
from mmunlearner_jax.weights.io import leaf_labels


class Variants:
    """Runs variants of one run, which share its data and, where possible, compiled steps.

    Args:
        session: Session of the run, whose workdir holds `importance/` and `mask/`.
    """

    def __init__(self, session: Session):
        self._session = session

    def run(
        self,
        control: Control,
        mask: Any | None,
        *,
        changes: Mapping[str, Any],
        label: str,
        watch: Watch | None = None,
    ) -> Outcome:
        """Unlearns once.

        Args:
            control: The control, which says what is changed.
            mask: Mask of the control, from `mask`.
            changes: Further changes of the config, by dotted keys.
            label: Name of the checkpoints and of the metrics.
            watch: See `Unlearner.run`.
        """
        unlearner = Unlearner(self._changed(control, changes))
        return unlearner.run(mask, label=label, watch=watch)

    def mask(self, control: Control) -> Any | None:
        """Returns the mask of a control, a tree like all parameters, or None if it has no mask.

        If the control needs other importances than the run's, they are first computed in a
        separate folder.
        """
        session = self._changed(control, {})
        if control.mask is None or not session.config.unlearn.is_masked:
            return None
        if session.config.mask.by == "random":
            mask = make_mask(session)
            return control.mask(mask, self._known(session, session.workdir, mask))
        folder, sets = session.workdir / self._measured_by(session), importance.sets
        if control.of_others:
            folder, sets = folder / "importance_of_others", importance.sets_of_others
        importance.measure(session, folder, sets)
        mask = make_mask(session, folder) if control.remakes_mask else self._own
        return control.mask(mask, self._known(session, folder, mask))

    def _measured_by(self, session: Session) -> str:
        """Returns the subfolder of a session whose importances are not the run's own; "" if so."""
        options, own = session.config.importance, self._session.config.importance
        path = options.path
        where = f"{path.points}x{path.every}_{path.learning_rate:g}_{'_'.join(path.moves)}"
        named = {
            f"by_{options.fisher}": options.fisher != own.fisher,
            f"with_{options.weights}": options.weights != own.weights,
            f"on_{where}": path != own.path,
        }
        return "_".join(("importance", *filter(named.get, named))) if any(named.values()) else ""

    def _changed(self, control: Control, changes: Mapping[str, Any]) -> Session:
        return self._session.with_values({**control.values, **changes})

    @functools.cached_property
    def _own(self) -> Any:
        """The mask of the run."""
        return load_mask(self._session.workdir, self._session.abstract)

    def _known(self, session: Session, folder: Path, mask: Any) -> Known:
        frozen, moving = session.split_frozen(mask)

        def movable() -> Any:
            return nnx.merge_state(all_true(moving), jax.tree.map(jnp.zeros_like, frozen))

        def covered() -> Any:
            pattern = cover_pattern(session)
            covers = jax.tree.map(
                lambda m, name: jnp.full_like(m, bool(re.search(pattern, name))),
                moving,
                session.split_frozen(leaf_labels(session.model)[0])[1],
            )
            return nnx.merge_state(covers, jax.tree.map(jnp.zeros_like, frozen))

        def forget() -> Any:
            nothing = jax.tree.map(lambda m: jnp.zeros(m.shape), frozen)
            return nnx.merge_state(load_sums(folder, "forget", session.moving).mean(), nothing)

        names, groups = leaf_labels(session.model)
        return Known(session.config.seed, groups, names, movable, covered, forget)
