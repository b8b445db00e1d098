"""Variants of one run: the methods at other settings, and their controls."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from mmunlearner_jax.stages import importance, setup
from mmunlearner_jax.stages.importance import load_sums
from mmunlearner_jax.stages.mask import all_true, load_mask, make_mask
from mmunlearner_jax.stages.unlearn import Outcome, Unlearner, Watch
from mmunlearner_jax.unlearn.controls import Control, Known
from mmunlearner_jax.unlearn.methods import METHODS
from mmunlearner_jax.weights.io import leaf_labels


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy of a config with other values, by dotted keys."""
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict(dict(changes))
    return other


class Variants:
    """Runs variants of one run, which share its data and, where they can, compiled steps.

    Args:
        config: of the run.
        workdir: of the run, with `importance/` and `mask/`.
        at: the vanilla model beside its data.
    """

    def __init__(self, config: ConfigDict, workdir: Path, at: setup.Setup):
        self._config, self._workdir, self._at = config, workdir, at
        self._setups = {at.targets: at}  # what is cached of one, features say, is kept

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
            control: what is changed.
            mask: of the control, as `mask` makes it.
            changes: more values of the config, by dotted keys.
            label: name of the checkpoints and of the metrics.
            watch: see `Unlearner.run`.
        """
        config, at = changed(self._config, {**control.changes, **changes}), self._at
        method = control.method or config.unlearn.method
        targets = setup.lora_targets(config, at.model.config.model_type, at.graphdef, at.params)
        if targets not in self._setups:
            self._setups[targets] = dataclasses.replace(at, targets=targets)
        unlearner = Unlearner(config, self._setups[targets], method)
        return unlearner.run(self._workdir, mask, label=label, watch=watch)

    def mask(self, control: Control) -> Any | None:
        """The mask of a control, like all parameters; None where it, or its method, has none.

        Importances that are not the run's own are computed first, in a folder of their own.
        """
        method = METHODS[control.method or self._config.unlearn.method]
        if control.mask is None or not method.masked:
            return None
        config, folder = changed(self._config, control.changes), self._workdir
        if config.importance.fisher != self._config.importance.fisher:
            folder = folder / f"importance_by_{config.importance.fisher}"
            importance.measure(config, folder, self._at)
        if control.remakes_mask:
            mask = make_mask(config, folder, self._at)
        else:
            mask = self._own
        return control.mask(mask, self._known(config, folder, mask))

    @functools.cached_property
    def _own(self) -> Any:
        """The mask of the run."""
        return load_mask(self._workdir, self._at.params)

    def _known(self, config: ConfigDict, folder: Path, mask: Any) -> Known:
        at = self._at
        frozen, moving = at.apart(mask)

        def movable() -> Any:
            return nnx.merge_state(all_true(moving), jax.tree.map(jnp.zeros_like, frozen))

        def forget() -> Any:
            nothing = jax.tree.map(lambda m: jnp.zeros(m.shape), frozen)
            return nnx.merge_state(load_sums(folder, "forget", at.moving).mean(), nothing)

        return Known(config.seed, leaf_labels(at.model)[1], movable, forget)
