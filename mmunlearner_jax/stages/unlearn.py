"""Stage `unlearn`: forget steps, alternating with retain steps, by any of the methods."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from mmunlearner_jax.ahead import compiling
from mmunlearner_jax.artefacts import is_done
from mmunlearner_jax.checkpoint import Checkpoints, load_tree, save_tree
from mmunlearner_jax.data.pipeline import Batches, packing
from mmunlearner_jax.data.refusals import refused
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import Diverged
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.results import update_results
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.stages import adapters, setup
from mmunlearner_jax.stages.mask import load_mask
from mmunlearner_jax.stages.planned import optimizers, planned_for
from mmunlearner_jax.stages.programs import Programs, programs
from mmunlearner_jax.stages.references import asked_beforehand
from mmunlearner_jax.unlearn import lora
from mmunlearner_jax.unlearn.methods import METHODS, Loss
from mmunlearner_jax.unlearn.schedule import StopRule
from mmunlearner_jax.unlearn.steps import TrainState

RETAINED = "pictures", "text"  # a retain step sees a batch of each
# What is remembered, of (parameters, iterations so far, forget steps so far).
Watch = Callable[[Any, int, int], float]
_MEND = "the run diverged; lower config.unlearn.learning_rate, or clip (config.unlearn.clip)"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an unlearning run ended.

    Attributes:
        params: the unlearned parameters, those of adapters merged.
        parts: what the run moved, as it left it, and the rest.
        forget_steps: forget steps taken.
        retain_steps: retain steps taken.
        remembered: fraction of the forget set's training answers still given exactly, or what was
            watched instead; None where no rule asks.
    """

    params: Any
    parts: adapters.Parts
    forget_steps: int
    retain_steps: int
    remembered: float | None


class Unlearner:
    """The data of one method; runs it and its controls.

    Args:
        config: of the run.
        at: the vanilla model beside its data.
        method: a name of `METHODS`.
    """

    def __init__(self, config: ConfigDict, at: setup.Setup, method: str):
        self._config, self._at, self._method = config, at, METHODS[method]
        options, plan = config.unlearn, self._method
        self._schedule = planned_for(options, plan, at.pictures, at.forget, at.retain)
        self._forget_set = at.pictures(at.forget)
        self._stop = StopRule(options.stop_remembered, options.stop_every)

    @functools.cached_property
    def _looked_at(self) -> Batches:
        """The training answers that the stopping rule asks for."""
        options = self._config.unlearn
        return self._at.batches(
            self._at.drawn(self._forget_set, options.stop_examples),
            batch_size=options.forget_batch,
            pack=options.pack,
            encoder=self._at.answers,
            shuffle=False,
            repeat=False,
        )

    def remembered(self, graphdef: nnx.GraphDef, params: Any) -> float:
        """Fraction of training answers of the forget set that greedy decoding gives exactly.

        Args:
            graphdef: of the model.
            params: all of them.

        Returns:
            0 to 1; NaN where the model's logits are not finite.
        """
        exact = self._programs(graphdef).exact
        counts = [exact(params, put_batch(b, self._at.mesh)) for b in self._looked_at]
        right, answers = (sum(float(x) for x in column) for column in zip(*counts, strict=True))
        return right / answers

    def run(
        self,
        folder: Path,
        mask: Any | None,
        *,
        label: str = "unlearn",
        watch: Watch | None = None,
    ) -> Outcome:
        """Unlearns, from the vanilla parameters or from the latest checkpoint.

        Args:
            folder: the workdir.
            mask: True where forget steps may move a weight, a tree like all parameters; None:
                anywhere.
            label: name of the checkpoints and of the metrics.
            watch: how much is remembered, by another measure than the training answers.

        Raises:
            Diverged: a loss, what a look sees, or a weight at the end is not finite.
        """
        at, options, schedule = self._at, self._config.unlearn, self._schedule
        graphdef, params, frozen, mask = begin = adapters.parts(self._config, at, mask)
        forget_step, retain_step, exact = self._programs(graphdef)
        optimizer, _ = optimizers(options, self._method, schedule)
        state = TrainState.create(params, optimizer, optimizers=options.optimizers)

        # On one device XLA names shardings its own way: other names would be other programs.
        homes = jax.tree.map(lambda p: p.sharding, at.params)

        def whole() -> Any:
            return jax.device_put(lora.merged(graphdef, state.params, frozen), homes)

        def look(iterations: int) -> float:
            if watch is not None:
                return watch(whole(), iterations, schedule.counts(iterations)[0])
            found = self.remembered(graphdef, nnx.merge_state(state.params, frozen))
            if math.isnan(found):  # no answer is exact, but nothing is forgotten
                raise Diverged(f"{label}, step {iterations}: logits are not finite: {_MEND}")
            return found

        def put(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
            return put_batch(batch, at.mesh)

        with compiling() as ahead:
            if self._stop.remembered >= 0 and watch is None:
                ahead(exact, nnx.merge_state(params, frozen), put(self._looked_at.example()))
            given = {"forget": self._raised()}
            ahead(forget_step, state, [put(given["forget"].example())], mask, frozen)
            if self._method.retain is not None:
                given |= self._retained(self._method.retain)
                retained = [put(given[name].example()) for name in RETAINED]
                ahead(retain_step, state, retained, frozen)
        data = {name: iter(batches) for name, batches in given.items()}

        def batch(name: str) -> dict[str, jax.Array]:
            return put(next(data[name]))

        remembered = None
        # Saved where the rule looks, so that what it saw last need not be saved.
        every = -(-self._config.checkpoint_every // self._stop.every) * self._stop.every
        with Checkpoints(folder / "checkpoints" / label, every=every) as saved:
            state, done = saved.restore(state, data)
            begin = begin._replace(moving=state.params)  # what a checkpoint replaced is let go
            del params
            with Metrics(
                folder,
                label,
                total=schedule.iterations,
                start=done,
                saved=every,
                profile=self._config.profile.steps,
                once=packing(given),
            ) as metrics:
                if done and self._stop.due(done - 1):
                    remembered = look(done)
                for i, forgets, retains in schedule.steps(done):
                    if remembered is not None and self._stop.reached(remembered):
                        break
                    row = {}
                    for _ in range(forgets * options.accumulate):
                        state, row["forget_loss"] = forget_step(
                            state, [batch("forget")], mask, frozen
                        )
                    for _ in range(retains * options.accumulate):
                        state, row["retain_loss"] = retain_step(
                            state, [batch(name) for name in RETAINED], frozen
                        )
                    done = i + 1
                    if self._stop.due(i):
                        remembered = row["remembered"] = look(done)
                    metrics.write(done, **row)
                    saved.save(done, state, data)
            # The same wherever the run was interrupted.
            if self._stop.remembered >= 0 and not self._stop.due(done - 1):
                remembered = look(done)
        if not _finite(state.params):  # what the last step did is in no loss
            raise Diverged(f"{label}, step {done}: weights are not finite: {_MEND}")
        return Outcome(
            whole(),
            begin._replace(moving=state.params),
            *schedule.counts(done),
            remembered=remembered,
        )

    def _programs(self, graphdef: nnx.GraphDef) -> Programs:
        return programs(graphdef, self._config.unlearn, self._method, self._schedule)

    def _raised(self) -> Batches:
        """What forget steps see."""
        samples, options = self._forget_set, self._config.unlearn
        if self._method.refuses:
            samples = refused(samples, self._config.seed)
        return self._batches(
            self._method.forget,
            samples,
            stream=1,
            batch_size=options.forget_batch,
            pack=options.pack,
        )

    def _retained(self, loss: Loss) -> dict[str, Batches]:
        """What retain steps see together."""
        at, options = self._at, self._config.unlearn
        text_people = at.bench.everyone if options.forget_text else at.retain
        pictures = self._batches(
            loss,
            at.pictures(at.retain),
            stream=2,
            batch_size=options.retain_batch,
            pack=options.pack,
        )
        text = self._batches(
            loss,
            at.words(text_people),
            stream=3,
            batch_size=options.text_batch,
            pack=options.text_pack,
        )
        return dict(zip(RETAINED, (pictures, text), strict=True))

    def _batches(
        self, loss: Loss, samples: list[Sample], *, batch_size: int, pack: int, stream: int
    ) -> Batches:
        """Batches with what the loss needs to know of the vanilla model."""
        references = None
        if loss.reference is not None:
            references = asked_beforehand(self._at, loss.reference, samples, batch_size=batch_size)
        return self._at.batches(
            samples, batch_size=batch_size, pack=pack, stream=stream, references=references
        )


@jax.jit
def _finite(params: Any) -> jax.Array:
    """Whether all weights are, a bool scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(params)]))


def run(config: ConfigDict, workdir: Path) -> bool:
    """Writes `unlearned/`, the parameters after the run."""
    if is_done(workdir / "unlearned"):
        return False
    vanilla = setup.vanilla_checkpoint(config, workdir)
    at = setup.load(config, workdir, vanilla)
    method = config.unlearn.method
    mask = load_mask(workdir, at.params) if METHODS[method].masked else None
    outcome = Unlearner(config, at, method).run(workdir, mask)
    told = adapters.save(config, workdir, at, outcome.parts, base=vanilla)
    save_tree(workdir / "unlearned", outcome.params)
    update_results(workdir, "unlearn", summary(outcome) | told)
    return True


def summary(outcome: Outcome) -> dict[str, Any]:
    """What `results.json` tells of a run."""
    return {
        "forget_steps": outcome.forget_steps,
        "retain_steps": outcome.retain_steps,
        "remembered": outcome.remembered,
    }


def load_unlearned(workdir: Path, params: Any) -> Any:
    """The parameters that this stage wrote, shaped and sharded like `params`."""
    return load_tree(workdir / "unlearned", params)
