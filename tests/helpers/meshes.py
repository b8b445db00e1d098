"""The same computation on any mesh, and a comparison of the results."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from mmunlearner_jax.data.benchmarks.mllmu import MLLMU
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.features import Features
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation.decoding import Decoder
from mmunlearner_jax.evaluation.protocols import protocol
from mmunlearner_jax.evaluation.tasks import Answerer
from mmunlearner_jax.models.cache import cache_shardings
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.model import Llava, LlavaConfig
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.sharding import (
    decoding_mesh,
    make_mesh,
    param_shardings,
    process_rows,
    put_batch,
)
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.mask import saliency_mask
from mmunlearner_jax.unlearn.steps import TrainState, forget_step, retain_step
from mmunlearner_jax.unlearn.transforms import masked_ascent
from mmunlearner_jax.weights import io
from tests.helpers.questions import PHOTOS, llava

IMAGE = 31
CONFIG = LlavaConfig(
    vision=ClipConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=8,
        patch_size=4,
    ),
    text=LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
    image_token_id=IMAGE,
)
THRESHOLD = 1.0
STEPS = 20


@functools.cache
def initial():
    model = Llava(CONFIG, rngs=nnx.Rngs(0))
    # Embeddings of size 1: with small ones, the norms would magnify rounding at every step.
    embedding = model.language_model.embed_tokens.embedding
    embedding.set_value(50 * embedding.get_value())
    return nnx.split(model)[1]


def tiny_batch(seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, IMAGE, (8, 12)).astype(np.int32)
    ids[:, 2:6] = IMAGE
    labels = np.where(np.arange(12) >= 9, ids, -100).astype(np.int32)
    pixels = rng.normal(size=(8, 1, 3, 8, 8)).astype(np.float32)
    mask = np.ones_like(ids)
    return dict(input_ids=ids, attention_mask=mask, labels=labels, pixel_values=pixels)


def work(sizes):
    """Computes importances, mask, alternating forget and retain steps, and an answer.

    Returns:
        Whole arrays by name.
    """
    count = int(np.prod(sizes))
    mesh = make_mesh(sizes, jax.devices()[:count])
    graphdef, _ = abstract_model(CONFIG, mesh)
    params = jax.device_put(initial(), param_shardings(initial(), mesh))
    forget, retain = (
        put_batch({k: v[process_rows(mesh, 8)] for k, v in tiny_batch(seed).items()}, mesh)
        for seed in (0, 1)
    )

    add = accumulator(graphdef, fisher="example")
    importances = [add(FisherSums.zeros(params), params, b).squares for b in (forget, retain)]
    by_batch = accumulator(graphdef, fisher="batch")(FisherSums.zeros(params), params, forget)
    mask = saliency_mask(*importances, threshold=THRESHOLD)
    results = {"importances": importances, "by batch": by_batch, "mask": mask}
    # SGD, because Adam's division by |g| would turn rounding into whole steps.
    sgd = optax.sgd(0.05)
    state = TrainState.create(jax.tree.map(jnp.copy, params), sgd)
    ascend, descend = forget_step(graphdef, masked_ascent(sgd)), retain_step(graphdef, sgd)
    results["losses"] = []
    for step in range(STEPS):
        if step % 2:
            state, loss = descend(state, [retain])
        else:
            state, loss = ascend(state, [forget], mask)
        results["losses"].append(loss)
    results["weights"] = state.params
    for leaf, start in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        assert leaf.sharding.is_equivalent_to(start.sharding, leaf.ndim)

    decoder = Decoder(graphdef, max_new_tokens=3, end_id=0)
    prompt = {k: v for k, v in forget.items() if k != "labels"}
    logits, cache = decoder.prefill(params, prompt)
    wanted = cache_shardings(cache, mesh)
    assert cache.keys.sharding.is_equivalent_to(wanted.keys, cache.keys.ndim)
    results["tokens"], _ = decoder.greedy(params, logits, cache, np.zeros((8, 1), np.int32))
    return to_host(results)


def assert_close(got, expected):
    assert differing(got, expected) == 0
    assert 0 < sum(m.sum() for m in jax.tree.leaves(expected["mask"]))
    for name in ("importances", "by batch", "losses", "weights", "tokens"):
        ones, manys = jax.tree.leaves(expected[name]), jax.tree.leaves(got[name])
        # Gradients that are only rounding (a key's bias) have no scale of their own.
        scale = max(np.abs(leaf).max() for leaf in ones)
        for x, y in zip(ones, manys, strict=True):
            np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-6 * scale, err_msg=name)


def differing(got, expected):
    """Counts mask entries that differ although the ratio is clearly off the threshold.

    Weights whose importances are only rounding (no gradient in exact arithmetic) do not count.
    """
    forget, preserve = expected["importances"]
    floor = 1e-9 * max(np.max(leaf) for leaf in jax.tree.leaves(forget))

    def count(f, p, one, many):
        clear = np.abs(f - THRESHOLD * p) > 1e-4 * p
        return np.sum((one != many) & clear & (np.maximum(f, p) > floor))

    trees = (forget, preserve, expected["mask"], got["mask"])
    return sum(jax.tree.leaves(jax.tree.map(count, *trees)))


def export(path: Path, count: int) -> None:
    """Writes a model that is split over `count` devices to several files."""
    io.SHARD_BYTES = 10_000
    mesh = make_mesh((1, count, 1), jax.devices()[:count])
    graphdef, _ = abstract_model(CONFIG, mesh)
    params = jax.device_put(initial(), param_shardings(initial(), mesh))
    io.save_pretrained(nnx.merge(graphdef, params), path)


def features(path: Path, count: int) -> list[np.ndarray]:
    """Returns the features of photographs from a model that is split over `count` devices."""
    graphdef, params, encoder, mesh = _split(count)
    store = Features(path, nnx.merge(graphdef, params), encoder, mesh)
    store.add(PHOTOS)
    return [store[photo] for photo in PHOTOS]


def short_answers(count: int) -> list[dict[str, Any]]:
    """Returns the answers about general ability from a model that is split over `count` devices.

    By heads, although the parameters come split by features.
    """
    graphdef, params, encoder, mesh = _split(count)
    config = nnx.merge(graphdef, params).config
    mesh = decoding_mesh(mesh, "heads", config.text.kv_heads)
    graphdef, there = abstract_model(config, mesh)
    asked = Question("x", "vqa", "short", PHOTOS[0], "Who?", "Kim", ("Kim", "Birch"), "A")
    asked = dataclasses.replace(asked, rule="letter", group="1")
    questions = [dataclasses.replace(asked, image=photo) for photo in PHOTOS]
    questions += [dataclasses.replace(asked, further=(PHOTOS[1],))]
    answerer = Answerer(
        graphdef,
        encoder,
        mesh,
        protocol("plain", MLLMU, encoder, "llava"),
        positions=256,
        batch_size=4,
        max_new_tokens=4,
        copied=there,
    )
    return answerer.answer(params, questions, split="general_x", label="before")


def _split(count: int) -> tuple[Any, Any, Encoder, jax.sharding.Mesh]:
    model, encoder = llava()
    mesh = make_mesh((1, count, 1), jax.devices()[:count])
    params = nnx.split(model)[1]
    params = jax.device_put(params, param_shardings(params, mesh))
    return abstract_model(model.config, mesh)[0], params, encoder, mesh
