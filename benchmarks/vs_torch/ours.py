"""The works by this package, with the functions that its stages call."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import SingleDeviceSharding

import mmunlearner_jax as mmu
from benchmarks.vs_torch.side import SIZE, Bench, Work, peak_flops
from benchmarks.vs_torch.workload import CLIP, EPSILON, LEARNING_RATE, Preset, Workload, chosen
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.evaluation.batching import batches, cut, padded, rounded
from mmunlearner_jax.evaluation.decoding import Decoder
from mmunlearner_jax.evaluation.protocols import Protocol
from mmunlearner_jax.evaluation.tasks import Answerer
from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.planning.costs import flops
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.unlearn.importance import Fisher, FisherSums, accumulator
from mmunlearner_jax.unlearn.steps import TrainState, forget_step, retain_step
from mmunlearner_jax.unlearn.transforms import masked_ascent
from mmunlearner_jax.weights.io import to_hf_names

Batch = dict[str, Any]


class Ours(Bench):
    """This package's side; it uses the first device only.

    Args:
        preset: Sizes of the model and of the work.
        seed: Seed of the weights and of the work.
        folder: Folder in which the weights are written for torch; None: they are not written.
    """

    def __init__(self, preset: Preset, seed: int, folder: Path | None):
        jax.config.update("jax_default_matmul_precision", "highest")
        self._work, self._dtype = Workload.make(preset, seed), jnp.dtype(preset.dtype)
        self._device = jax.local_devices()[0]
        self._graphdef, shapes = abstract_model(preset.config, None, self._dtype)

        @functools.partial(jax.jit, out_shardings=SingleDeviceSharding(self._device))
        def weights() -> Any:
            model = preset.config.make(rngs=nnx.Rngs(seed))
            return jax.tree.map(lambda x: x.astype(self._dtype), nnx.state(model, nnx.Param))

        # Each work makes new weights, so it may donate them, and none are held between works.
        self._weights, self._shapes = weights, shapes
        if folder is not None:
            mmu.save_pretrained(nnx.merge(self._graphdef, weights()), folder)
        adam = optax.adamw(LEARNING_RATE, eps=EPSILON, weight_decay=0.0)
        clip = optax.clip_by_global_norm(CLIP)
        ascent = optax.chain(clip, masked_ascent(adam, mask_on="gradient"))
        self._descent = optax.chain(clip, adam)
        self._ascend = forget_step(self._graphdef, ascent)
        self._descend = retain_step(self._graphdef, self._descent)
        super().__init__(
            {
                "importance": self._importance,
                "unlearn": self._unlearn,
                "finetune": self._finetune,
                "evaluate": self._evaluate,
                "batch squares, unpacked": lambda: self._squares("batch", packed=False),
                "example squares": lambda: self._squares("example", packed=False),
                "example squares, packed": lambda: self._squares("example", packed=True),
            }
        )

    def facts(self) -> dict[str, Any]:
        """See `Side`."""
        x = jax.device_put(jnp.ones((SIZE, SIZE), self._dtype), self._device)
        product = jax.jit(jnp.matmul)
        return {
            "kind": self._device.platform,
            "device": self._device.device_kind,
            "parameters": sum(x.size for x in jax.tree.leaves(self._shapes)),
            "peak_flops": peak_flops(lambda: jax.block_until_ready(product(x, x))),
        }

    def peak(self) -> int | None:
        """See `Bench`; an accelerator's peak is of all works so far, as JAX cannot reset it."""
        stats = self._device.memory_stats()  # CPUs have none
        return stats["peak_bytes_in_use"] if stats else super().peak()

    def _batches(self, packed: bool) -> tuple[list[Batch], list[Batch]]:
        return jax.device_put(self._work.batches(packed=packed), self._device)

    def _named(self, tree: Any) -> dict[str, np.ndarray]:
        return jax.device_get(to_hf_names(nnx.merge(self._graphdef, self._shapes), tree))

    def _importance(self) -> Work:
        sets, add = self._batches(packed=True), accumulator(self._graphdef, fisher="batch")
        params, compared = self._weights(), self._work.preset.both

        def squares(batches: Sequence[Batch]) -> Any:
            sums = jax.block_until_ready(_squares_of(add, params, batches))
            # For 7B weights, an accelerator has no room for the squares of both sets.
            return sums if compared else None

        def call() -> list[Any]:
            return [squares(batches) for batches in sets]

        def numbers(result: list[Any]) -> dict[str, Any]:
            if not compared:
                return {}
            return dict(zip(("forget", "preserve"), map(self._named, result), strict=True))

        return Work(call, numbers, lambda: self._step_flops(add, sets))

    def _squares(self, fisher: Fisher, *, packed: bool) -> Work:
        (first, *_), _ = self._batches(packed=packed)
        add = accumulator(self._graphdef, fisher=fisher, sizes=self._work.sizes())

        def call() -> Any:
            return jax.block_until_ready(_squares_of(add, self._shared, [first]))

        return Work(call, lambda _: {}, lambda: self._step_flops(add, [[first]]))

    @functools.cached_property
    def _shared(self) -> Any:
        """Weights for all kinds of squares, which are in progress together."""
        return self._weights()

    def _step_flops(self, add: Callable, sets: Sequence[Sequence[Batch]]) -> float:
        def step(params: Any, batch: Batch) -> FisherSums:
            sums = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)
            return add(FisherSums(sums, jnp.zeros(())), params, batch)

        return flops(jax.make_jaxpr(step)(self._shapes, sets[0][0])) * sum(map(len, sets))

    def _unlearn(self) -> Work:
        state = TrainState.create(self._weights(), self._descent)
        forget, retain = self._batches(packed=True)
        mask = jax.tree.map(chosen, state.params)

        def call() -> list[jax.Array]:
            nonlocal state
            losses = []
            for raised, lowered in zip(forget, retain, strict=True):
                state, loss = self._ascend(state, [raised], mask)
                losses.append(loss)
                state, loss = self._descend(state, [lowered])
                losses.append(loss)
            return jax.block_until_ready((losses, state))[0]

        def count() -> float:
            up = jax.make_jaxpr(self._ascend)(state, forget[:1], mask)
            return len(forget) * (
                flops(up) + flops(jax.make_jaxpr(self._descend)(state, retain[:1]))
            )

        return Work(call, _losses, count)

    def _finetune(self) -> Work:
        state = TrainState.create(self._weights(), self._descent)
        every = [batch for batches in self._batches(packed=True) for batch in batches]

        def call() -> list[jax.Array]:
            nonlocal state
            losses = []
            for batch in every:
                state, loss = self._descend(state, [batch])
                losses.append(loss)
            return jax.block_until_ready((losses, state))[0]

        return Work(
            call,
            _losses,
            lambda: len(every) * flops(jax.make_jaxpr(self._descend)(state, every[:1])),
        )

    def _evaluate(self) -> Work:
        work, questions = self._work, self._work.questions()
        mesh, params = make_mesh((1, 1, 1), [self._device]), self._weights()

        def call() -> list[str]:
            # Like torch's side, this reads pictures and questions again; programs are kept.
            answerer = Answerer(
                self._graphdef,
                Encoder(work.encoder.processor),
                mesh,
                Protocol(work.prompt, letters=False, likelihood=False),
                positions=work.preset.config.text.max_position_embeddings,
                batch_size=len(questions),
                max_new_tokens=work.longest_answer,
            )
            lines = answerer.answer(params, questions, split="all", label="ours")
            return [line["response"] for line in lines]

        return Work(call, lambda responses: {"answers": responses}, self._decoding_flops)

    def _decoding_flops(self) -> float:
        """Returns the operations of a batch of all questions, with answers of the most tokens."""
        work, questions = self._work, self._work.questions()
        images = [[question.image or b""] for question in questions]
        ids = [
            work.encoder.prompt_ids(work.prompt(question), image)
            for question, image in zip(questions, images, strict=True)
        ]
        image_token = work.encoder.processor.image_token_id
        prompts = [cut(*pair, {image_token}) for pair in zip(ids, images, strict=True)]
        (batch,) = batches(prompts, len(prompts), 1, work.longest_answer)
        pad = work.encoder.tokenizer.pad_token_id
        rest, beginnings = (
            padded(rows, rounded(max(map(len, rows))), pad)
            for rows in (
                [prompts[n].rest for n in batch.rows],
                [prompts[n].beginning for n in batch.beginnings],
            )
        )
        pixels = [work.encoder.pixels(prompts[n].images) for n in batch.beginnings]
        beginnings |= work.encoder.pictures.pack(pixels, work.preset.config.tokens_per_image)
        decoder = Decoder(self._graphdef, max_new_tokens=work.longest_answer, end_id=0)

        def decode(params: Any, rest: Batch, beginnings: Batch) -> Any:
            logits, cache = decoder.prefill(params, rest, beginnings)
            return decoder.greedy(params, logits, cache, jnp.zeros((len(logits), 1), jnp.int32))

        return flops(jax.make_jaxpr(decode)(self._shapes, rest, beginnings))


def _squares_of(add: Callable, params: Any, batches: Sequence[Batch]) -> Any:
    sums = FisherSums.zeros(params)
    for batch in batches:
        sums = add(sums, params, batch)
    return sums.squares


def _losses(losses: Sequence[jax.Array]) -> dict[str, Any]:
    return {"losses": [float(loss) for loss in losses]}
