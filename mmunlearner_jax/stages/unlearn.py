"""Stage `unlearn`: masked ascent on the forget set, alternating with descent on the retain set."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from mmunlearner_jax.ahead import compiling
from mmunlearner_jax.checkpoint import Checkpoints, load_tree, save_tree
from mmunlearner_jax.data.pipeline import packing
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.results import update_results
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.stages import setup
from mmunlearner_jax.stages.mask import load_mask
from mmunlearner_jax.unlearn.schedule import Schedule, StopRule, published_schedule
from mmunlearner_jax.unlearn.steps import TrainState, ascent_step, descent_step, exact_counter
from mmunlearner_jax.unlearn.transforms import masked_ascent


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an unlearning run ended.

    Attributes:
        params: the unlearned parameters.
        forget_steps: ascent steps taken.
        retain_steps: descent steps taken.
        remembered: fraction of the forget set's training answers still given exactly.
    """

    params: Any
    forget_steps: int
    retain_steps: int
    remembered: float


def optimizers(
    options: ConfigDict,
) -> tuple[optax.GradientTransformation, optax.GradientTransformationExtraArgs]:
    """The optimizers of retain and forget steps, of `config.unlearn`; their states are alike."""
    adam = optax.adamw(
        options.learning_rate, eps=options.adam_eps, weight_decay=options.weight_decay
    )
    # The gradient is clipped before it is masked, as published.
    clip = optax.clip_by_global_norm(options.clip)
    ascend = masked_ascent(adam, mask_on=options.mask_on, alpha=options.alpha)
    return optax.chain(clip, adam), optax.chain(clip, ascend)


class Unlearner:
    """The compiled steps and the data of one config; runs the method and its controls."""

    def __init__(self, config: ConfigDict, at: setup.Setup):
        self._config, self._at = config, at
        options = config.unlearn
        self._descend, ascend = optimizers(options)
        self._retain_step = descent_step(at.graphdef, self._descend)
        self._forget_step = ascent_step(at.graphdef, ascend)
        self._exact = exact_counter(at.graphdef)
        self._forget_set = at.bench.training(at.forget)
        self._stop = StopRule(options.stop_remembered, options.stop_every)
        self._looked_at = at.batches(
            at.drawn(self._forget_set, options.stop_examples),
            batch_size=options.forget_batch,
            pack=options.pack,
            shuffle=False,
            repeat=False,
        )

    def remembered(self, params: Any) -> float:
        """Fraction of training answers of the forget set that greedy decoding gives exactly.

        Args:
            params: those that move.
        """
        params = nnx.merge_state(params, self._at.frozen)
        counts = [self._exact(params, put_batch(b, self._at.mesh)) for b in self._looked_at]
        right, answers = (sum(int(x) for x in column) for column in zip(*counts, strict=True))
        return right / answers

    def run(
        self,
        folder: Path,
        mask: Any,
        *,
        label: str = "unlearn",
        retain: bool = True,
        forget_text: bool = True,
    ) -> Outcome:
        """Unlearns, from the vanilla parameters or from the latest checkpoint.

        Args:
            folder: the workdir.
            mask: True where ascent may move a weight, a tree like all parameters.
            label: name of the checkpoints and of the metrics.
            retain: False for plain gradient ascent.
            forget_text: whether the text questions of the people to forget are retained.
        """
        at, options = self._at, self._config.unlearn
        text_people = at.bench.everyone if forget_text else at.retain
        # The vanilla parameters stay: the state's own copy is donated to the steps.
        params = jax.tree.map(jnp.copy, at.moving)
        mask = at.apart(mask)[1]
        state = TrainState.create(params, self._descend, optimizers=options.optimizers)

        def put(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
            return put_batch(batch, at.mesh)

        make = functools.partial(at.batches, pack=options.pack)
        with compiling() as ahead:
            if self._stop.remembered >= 0:
                ahead(self._exact, at.params, put(self._looked_at.example()))
            forget = make(self._forget_set, stream=1, batch_size=options.forget_batch)
            ahead(self._forget_step, state, [put(forget.example())], mask, at.frozen)
            pictures = make(at.bench.training(at.retain), stream=2, batch_size=options.retain_batch)
            text = at.batches(
                at.bench.text_training(text_people),
                stream=3,
                batch_size=options.text_batch,
                pack=options.text_pack,
            )
            if retain:
                examples = [put(pictures.example()), put(text.example())]
                ahead(self._retain_step, state, examples, at.frozen)
        if options.epochs:
            schedule = published_schedule(len(forget), len(pictures), options.epochs)
        else:
            schedule = Schedule(options.iterations, options.forget_every)
        given = {"forget": forget, "pictures": pictures, "text": text}
        data = {name: iter(batches) for name, batches in given.items()}

        def batch(name: str) -> dict[str, jax.Array]:
            return put(next(data[name]))

        remembered = 1.0
        # Saved where the rule looks, so that what it saw last need not be saved.
        every = -(-self._config.checkpoint_every // self._stop.every) * self._stop.every
        with Checkpoints(folder / "checkpoints" / label, every=every) as saved:
            state, done = saved.restore(state, data)
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
                    remembered = self.remembered(state.params)
                for i, forgets in schedule.steps(done):
                    if self._stop.reached(remembered):
                        break
                    row = {}
                    if forgets:
                        state, row["forget_loss"] = self._forget_step(
                            state, [batch("forget")], mask, at.frozen
                        )
                    if retain:
                        state, row["retain_loss"] = self._retain_step(
                            state, [batch("pictures"), batch("text")], at.frozen
                        )
                    done = i + 1
                    if self._stop.due(i):
                        remembered = row["remembered"] = self.remembered(state.params)
                    metrics.write(done, **row)
                    saved.save(done, state, data)
        # On one device XLA names shardings its own way: other names would be other programs.
        homes = jax.tree.map(lambda p: p.sharding, at.params)
        return Outcome(
            params=jax.device_put(nnx.merge_state(state.params, at.frozen), homes),
            forget_steps=schedule.forget_steps(done),
            retain_steps=done if retain else 0,
            remembered=remembered,
        )


def run(config: ConfigDict, workdir: Path) -> bool:
    """Writes `unlearned/`, the parameters after the run."""
    if (workdir / "unlearned").exists():
        return False
    at = setup.load(config, workdir, setup.vanilla_checkpoint(config, workdir))
    outcome = Unlearner(config, at).run(
        workdir, load_mask(workdir, at.params), forget_text=config.unlearn.forget_text
    )
    save_tree(workdir / "unlearned", outcome.params)
    update_results(workdir, "unlearn", summary(outcome))
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
