"""Stage `unlearn`: alternates forget steps and retain steps of any of the methods."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmunlearner_jax.artefacts import is_done
from mmunlearner_jax.checkpoint import Checkpoints, load_tree, save_tree
from mmunlearner_jax.data.pipeline import Batches, packing
from mmunlearner_jax.errors import Diverged
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.movable import Movable, movable, save_peft
from mmunlearner_jax.precompile import compiling
from mmunlearner_jax.results import update_results
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.stages.mask import load_mask, preserved
from mmunlearner_jax.stages.naming_watch import naming_watch
from mmunlearner_jax.stages.refreshing import refreshed
from mmunlearner_jax.stages.relearning_watch import relearning_watch
from mmunlearner_jax.stages.unlearn_batches import forget_batches, retain_batches
from mmunlearner_jax.unlearn import lora
from mmunlearner_jax.unlearn.compiled_steps import Steps, compiled_steps
from mmunlearner_jax.unlearn.optimizers import state_optimizers
from mmunlearner_jax.unlearn.schedule import StopRule
from mmunlearner_jax.unlearn.scoring import NOTHING
from mmunlearner_jax.unlearn.steps import TrainState, share

# Returns what is remembered, and whether the run ends here, given (parameters, iterations so far,
# forget steps so far).
Watch = Callable[[Any, int, int], tuple[float, bool]]
_WATCHES = {"named": naming_watch, "relearned": relearning_watch}
_MEND = "the run diverged; lower config.unlearn.learning_rate, or clip (config.unlearn.clip)"


def run(session: Session) -> bool:
    """Writes `unlearned/`, the parameters after unlearning."""
    workdir = session.workdir
    if is_done(workdir / "unlearned"):
        return False
    masked = session.config.unlearn.is_masked
    unlearner = Unlearner(session, alone=True)
    # No name here holds the mask, which the run packs.
    outcome = unlearner.run(load_mask(workdir, session.abstract) if masked else None)
    adapters = save_peft(session, outcome.parts)
    save_tree(workdir / "unlearned", outcome.params)
    update_results(workdir, "unlearn", summary(outcome) | adapters)
    return True


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an unlearning run ended.

    Attributes:
        params: The unlearned parameters, with adapters merged.
        parts: The moving parameters after the last step, and the frozen ones.
        forget_steps: Number of forget steps taken.
        retain_steps: Number of retain steps taken.
        remembered: What the model remembers of the forget set's training answers by
            `config.unlearn.stop_by`, or the last value of `watch`; None without a stopping rule.
        remembered_before: What the vanilla model remembered; None without a stopping rule, or with
            `watch`.
    """

    params: Any
    parts: Movable
    forget_steps: int
    retain_steps: int
    remembered: float | None
    remembered_before: float | None = None


def summary(outcome: Outcome) -> dict[str, Any]:
    """Returns a run's entry of `results.json`."""
    return {
        "forget_steps": outcome.forget_steps,
        "retain_steps": outcome.retain_steps,
        "remembered": outcome.remembered,
        "remembered_before": outcome.remembered_before,
    }


def load_unlearned(workdir: Path, params: Any) -> Any:
    """Reads the parameters that this stage wrote, with the shapes and shardings of `params`."""
    return load_tree(workdir / "unlearned", params)


class _Beside(NamedTuple):
    """What steps take besides the train state, batches and the mask.

    Attributes:
        forget: Of forget steps: the frozen parameters, and importances for an optimizer.
        retain: Of retain steps: the frozen parameters, and the vanilla model for an anchor.
    """

    forget: tuple[Any, ...]
    retain: tuple[Any, ...]


class Unlearner:
    """The unlearning loop of one config.

    Args:
        session: Session of the run, with the vanilla model's parameters.
        alone: Whether nobody else needs these parameters, which are freed before the first step.
    """

    def __init__(self, session: Session, *, alone: bool = False):
        self._session, self._options = session, session.config.unlearn
        self._alone = alone
        self._method = self._options.chosen
        self._schedule = session.schedule()
        self._forget_set = session.pictures(session.forget)
        self._stop = StopRule(self._options.stop_remembered, self._options.stop_every)
        # Checkpoints coincide with looks, so the result of the last look need not be saved.
        looks = -(-session.config.checkpoint_every // self._stop.every)
        self._every = looks * self._stop.every
        self._measured, self._mask_now = 0, None  # with config.unlearn.refresh

    def run(
        self, mask: Any | None, *, label: str = "unlearn", watch: Watch | None = None
    ) -> Outcome:
        """Unlearns, starting from the vanilla parameters or the latest checkpoint.

        Args:
            mask: Bools like all parameters, True where forget steps may move; None: everywhere.
            label: Name of the checkpoints and of the metrics.
            watch: Measures what is remembered and ends the run, instead of the stopping rule.

        Raises:
            Diverged: A loss, the logits of a look, or a weight at the end is not finite.
        """
        session, schedule, parts = self._session, self._schedule, movable(self._session, mask)
        del mask  # `parts` has it in bits
        watch, (graphdef, _, frozen, _) = watch or self._stop_watch(), parts
        steps = compiled_steps(graphdef, session.graphdef, self._options, schedule)
        state, beside = self._initial(parts.moving), self._beside(parts)
        batches = self._compile(steps, state, parts.mask, beside, watched=watch is not None)
        data = {name: iter(of_kind) for name, of_kind in batches.items()}
        remembered, over = None, False
        before = None if watch else self._before(steps, parts.moving, frozen)

        def look(iterations: int) -> tuple[float, bool]:
            if watch is not None:
                whole = self._merged(graphdef, state.params, frozen)
                return watch(whole, iterations, schedule.counts(iterations)[0])
            fraction = self.remembered(steps, nnx.merge_state(state.params, frozen))
            if math.isnan(fraction):  # nothing is remembered, but this is not forgetting
                raise Diverged(f"{label}, step {iterations}: logits are not finite: {_MEND}")
            return fraction, self._stop.reached(fraction, before)

        with Checkpoints(session.workdir / "checkpoints" / label, every=self._every) as saved:
            state, done = saved.restore(state, data)
            parts = parts._replace(moving=state.params)  # frees what a checkpoint replaced
            with self._metrics(label, start=done, batches=batches, before=before) as metrics:
                if done and self._stop.due(done - 1):
                    remembered, over = look(done)
                for i, forgets, retains in schedule.steps(done):
                    if over:
                        break
                    row, mask = {}, self._mask(label, i, parts._replace(moving=state.params))
                    for _ in range(forgets * self._options.accumulate):
                        forget = self._next(data, forget=True)
                        state, row["forget_loss"] = steps.forget(
                            state, forget, mask, *beside.forget
                        )
                    for _ in range(retains * self._options.accumulate):
                        both = self._next(data, forget=False)
                        state, row["retain_loss"] = steps.retain(state, both, *beside.retain)
                    done = i + 1
                    if self._stop.due(i):
                        remembered, over = look(done)
                        row["remembered"] = remembered
                    metrics.write(done, **row)
                    saved.save(done, state, data)
            if self._stop.remembered >= 0 and not self._stop.due(done - 1):
                remembered, _ = look(done)  # the same after an interruption
        _refuse_infinite(state.params, f"{label}, step {done}")
        return self._outcome(parts._replace(moving=state.params), done, remembered, before)

    def _mask(self, label: str, iteration: int, parts: Movable) -> Any:
        """Returns the mask of an iteration's forget steps, measured again where that is due."""
        every = self._options.refresh
        number = self._schedule.counts(iteration)[0] // every if every else 0
        if number > self._measured:
            whole, self._measured = self._merged(*parts[:3]), number
            self._mask_now = refreshed(self._session, label, number, whole)
        return parts.mask if self._mask_now is None else self._mask_now

    def _stop_watch(self) -> Watch | None:
        """Returns the watch of `config.unlearn.stop_by`; None where a step of its own measures."""
        make = _WATCHES.get(self._options.stop_by) if self._stop.remembered >= 0 else None
        return make(self._session) if make else None

    def _beside(self, parts: Movable) -> _Beside:
        """Returns what steps take besides: the vanilla model, and importances."""
        session, options, frozen = self._session, self._options, (parts.frozen,)
        forget = retain = frozen
        if options.forget_optimizer == "preconditioned":
            whole = preserved(session)
            forget = (*frozen, session.split_frozen(whole, options.held)[1])
        if options.chosen_anchor:
            retain = (*frozen, NOTHING if options.chosen_anchor.samples else session.params)
        return _Beside(forget, retain)

    def _initial(self, moving: Any) -> TrainState:
        """Returns the train state before the first step."""
        seed = self._session.config.seed
        return TrainState.create(moving, *state_optimizers(self._options, self._schedule, seed))

    def _next(self, data: Mapping[str, Iterator[dict[str, np.ndarray]]], *, forget: bool) -> list:
        """Returns the next batches of a forget step, or of a retain step, pictures first."""
        chosen = (x for name, x in data.items() if name.startswith("forget") == forget)
        return [self._put(next(batches)) for batches in chosen]

    def _outcome(
        self, parts: Movable, done: int, remembered: float | None, before: float | None
    ) -> Outcome:
        """Returns the outcome after `done` iterations."""
        params = self._merged(parts.graphdef, parts.moving, parts.frozen)
        return Outcome(params, parts, *self._schedule.counts(done), remembered, before)

    def _before(self, steps: Steps, params: Any, frozen: Any) -> float | None:
        """Returns what the vanilla model remembers; None without a stopping rule."""
        if self._stop.remembered < 0:
            return None
        return self.remembered(steps, nnx.merge_state(params, frozen))

    def remembered(self, steps: Steps, params: Any) -> float:
        """Returns what is remembered of the forget set's training answers.

        Args:
            steps: The compiled steps.
            params: All parameters.

        Returns:
            0 to 1, or NaN if the model's logits are not finite.
        """
        assert steps.memory is not None  # or else the run is watched
        return share(steps.memory, params, map(self._put, self._training_answers))

    def _compile(
        self,
        steps: Steps,
        state: TrainState,
        mask: Any,
        beside: _Beside,
        *,
        watched: bool,
    ) -> dict[str, Batches]:
        """Compiles the loop's functions while data is read; returns the batches by name.

        Args:
            steps: The functions.
            state: The train state.
            mask: True where forget steps may move something.
            beside: What steps take besides.
            watched: Whether the stopping rule's function is not needed.
        """
        frozen = beside.forget[0]
        with compiling() as compile_program:
            if self._stop.remembered >= 0 and not watched:
                answers = self._put(self._training_answers.example())
                compile_program(steps.memory, nnx.merge_state(state.params, frozen), answers)
            batches = forget_batches(self._session)
            examples = [self._put(of_kind.example()) for of_kind in batches.values()]
            compile_program(steps.forget, state, examples, mask, *beside.forget)
            if self._method.retain is not None:
                retained = retain_batches(self._session, self._method.retain)
                batches |= retained
                both = [self._put(of_kind.example()) for of_kind in retained.values()]
                compile_program(steps.retain, state, both, *beside.retain)
        if self._alone:  # the vanilla model has been asked; `beside` keeps what an anchor needs
            self._session.forget_params()
        return batches

    def _metrics(
        self, label: str, *, start: int, batches: Mapping[str, Batches], before: float | None
    ) -> Metrics:
        """Returns the writer of `metrics.jsonl`."""
        once = {} if before is None else {"remembered_before": before}
        return Metrics(
            self._session.workdir,
            label,
            total=self._schedule.iterations,
            start=start,
            saved=self._every,
            profile=self._session.config.profile.steps,
            once=packing(batches) | once,
        )

    def _merged(self, graphdef: nnx.GraphDef, moving: Any, frozen: Any) -> Any:
        """Returns all parameters, with adapters merged, sharded like the vanilla model's."""
        # On one device XLA writes shardings differently, and programs would be compiled again.
        homes = jax.tree.map(lambda p: p.sharding, self._session.abstract)
        return jax.device_put(lora.merged(graphdef, moving, frozen), homes)

    def _put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        return put_batch(batch, self._session.mesh)

    @functools.cached_property
    def _training_answers(self) -> Batches:
        """The training answers that the stopping rule looks at."""
        session, options = self._session, self._options
        return session.batches(
            session.drawn(self._forget_set, options.stop_examples),
            batch_size=options.forget_batch,
            pack=options.pack,
            encoder=session.answers,
            shuffle=False,
            repeat=False,
        )


def _refuse_infinite(params: Any, place: str) -> None:
    """Refuses weights that are not finite: no loss shows the effect of the last step."""
    if not _finite(params):
        raise Diverged(f"{place}: weights are not finite: {_MEND}")


@jax.jit
def _finite(params: Any) -> jax.Array:
    """Returns whether all weights are finite, a bool scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(params)]))
