"""Stage `unlearn`: masked ascent on the forget set, alternating with descent on the retain set."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
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
from mmunlearner_jax.stages import adapters, setup
from mmunlearner_jax.stages.mask import load_mask
from mmunlearner_jax.unlearn import lora
from mmunlearner_jax.unlearn.schedule import Schedule, StopRule, published_schedule
from mmunlearner_jax.unlearn.steps import TrainState, ascent_step, descent_step, exact_counter
from mmunlearner_jax.unlearn.transforms import masked_ascent


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an unlearning run ended.

    Attributes:
        params: the unlearned parameters, those of adapters merged.
        parts: what the run moved, as it left it, and the rest.
        forget_steps: ascent steps taken.
        retain_steps: descent steps taken.
        remembered: fraction of the forget set's training answers still given exactly.
    """

    params: Any
    parts: adapters.Parts
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
        # Of a graph definition: adapters with a mask and without are two.
        self._steps = functools.cache(
            lambda graphdef: (
                ascent_step(graphdef, ascend),
                descent_step(graphdef, self._descend),
                exact_counter(graphdef),
            )
        )
        self._forget_set = at.bench.training(at.forget)
        self._stop = StopRule(options.stop_remembered, options.stop_every)
        self._looked_at = at.batches(
            at.drawn(self._forget_set, options.stop_examples),
            batch_size=options.forget_batch,
            pack=options.pack,
            shuffle=False,
            repeat=False,
        )

    def remembered(self, graphdef: nnx.GraphDef, params: Any) -> float:
        """Fraction of training answers of the forget set that greedy decoding gives exactly.

        Args:
            graphdef: of the model.
            params: all of them.
        """
        exact = self._steps(graphdef)[-1]
        counts = [exact(params, put_batch(b, self._at.mesh)) for b in self._looked_at]
        right, answers = (sum(int(x) for x in column) for column in zip(*counts, strict=True))
        return right / answers

    def run(
        self,
        folder: Path,
        mask: Any | None,
        *,
        label: str = "unlearn",
        retain: bool = True,
        forget_text: bool = True,
    ) -> Outcome:
        """Unlearns, from the vanilla parameters or from the latest checkpoint.

        Args:
            folder: the workdir.
            mask: True where ascent may move a weight, a tree like all parameters; None: anywhere.
            label: name of the checkpoints and of the metrics.
            retain: False for plain gradient ascent.
            forget_text: whether the text questions of the people to forget are retained.
        """
        at, options = self._at, self._config.unlearn
        text_people = at.bench.everyone if forget_text else at.retain
        graphdef, params, frozen, mask = begin = adapters.parts(self._config, at, mask)
        forget_step, retain_step, exact = self._steps(graphdef)
        state = TrainState.create(params, self._descend, optimizers=options.optimizers)

        def look() -> float:
            return self.remembered(graphdef, nnx.merge_state(state.params, frozen))

        def put(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
            return put_batch(batch, at.mesh)

        make = functools.partial(at.batches, pack=options.pack)
        with compiling() as ahead:
            if self._stop.remembered >= 0:
                whole = nnx.merge_state(params, frozen)
                ahead(exact, whole, put(self._looked_at.example()))
            forget = make(self._forget_set, stream=1, batch_size=options.forget_batch)
            ahead(forget_step, state, [put(forget.example())], mask, frozen)
            pictures = make(at.bench.training(at.retain), stream=2, batch_size=options.retain_batch)
            text = at.batches(
                at.bench.text_training(text_people),
                stream=3,
                batch_size=options.text_batch,
                pack=options.text_pack,
            )
            if retain:
                examples = [put(pictures.example()), put(text.example())]
                ahead(retain_step, state, examples, frozen)
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
                    remembered = look()
                for i, forgets in schedule.steps(done):
                    if self._stop.reached(remembered):
                        break
                    row = {}
                    if forgets:
                        state, row["forget_loss"] = forget_step(
                            state, [batch("forget")], mask, frozen
                        )
                    if retain:
                        state, row["retain_loss"] = retain_step(
                            state, [batch("pictures"), batch("text")], frozen
                        )
                    done = i + 1
                    if self._stop.due(i):
                        remembered = row["remembered"] = look()
                    metrics.write(done, **row)
                    saved.save(done, state, data)
        # On one device XLA names shardings its own way: other names would be other programs.
        homes = jax.tree.map(lambda p: p.sharding, at.params)
        return Outcome(
            params=jax.device_put(lora.merged(graphdef, state.params, frozen), homes),
            parts=begin._replace(moving=state.params),
            forget_steps=schedule.forget_steps(done),
            retain_steps=done if retain else 0,
            remembered=remembered,
        )


def run(config: ConfigDict, workdir: Path) -> bool:
    """Writes `unlearned/`, the parameters after the run."""
    if (workdir / "unlearned").exists():
        return False
    vanilla = setup.vanilla_checkpoint(config, workdir)
    at = setup.load(config, workdir, vanilla)
    outcome = Unlearner(config, at).run(
        workdir, load_mask(workdir, at.params), forget_text=config.unlearn.forget_text
    )
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
