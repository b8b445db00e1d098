"""What a retain-only model is taught, and the optimizers."""

import io
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from mmunlearner_jax.data.benchmarks.clear import ClearBench
from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.examples.orl import WRITERS
from mmunlearner_jax.stages.finetune import lessons, muon
from tests.helpers.benchmarks import Clear


def encoded_anew(image: dict) -> dict:
    """The same pixels in other bytes."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(image["bytes"])).save(buffer, "bmp")
    return image | {"bytes": buffer.getvalue()}


def stands(bench, forget: str, retain: str) -> Any:
    """What `lessons` wants of a `Setup`."""
    read = {"pictures": bench.training, "words": bench.text_training}
    return SimpleNamespace(bench=bench, forget=forget, retain=retain, **read)


def test_clear_retain_only_is_told_by_people_not_by_bytes(tmp_path):
    clear = Clear(tmp_path / "clear")
    clear.tables["forget10"] = [
        row | {"image": encoded_anew(row["image"])} for row in clear.tables["forget10"]
    ]
    bench = ClearBench(clear.write())
    at = stands(bench, "forget10", "retain90")
    pictures, text = lessons(at, "never_taught")
    assert {sample.person for sample in pictures} == {"Cy Dee", "Eve Fay"}
    assert text == bench.text_training("retain90")
    pictures, text = lessons(at, "")
    assert len(pictures) == len(text) == 6


@pytest.mark.parametrize("kind", ["mllmu", "clear"])
def test_retain_only_keeps_the_world(tmp_path, kind):
    WRITERS[kind](tmp_path / kind, seed=0)
    bench = (MLLMUBench if kind == "mllmu" else ClearBench)(tmp_path / kind)
    forget, retain = bench.split(10)
    at = stands(bench, forget, retain)
    every, kept = lessons(at, ""), lessons(at, "never_taught")
    gone = bench.training(forget), bench.text_training(forget)
    for whole, rest, forgotten in zip(every, kept, gone, strict=True):
        assert len(rest) == len(whole) - len(forgotten)
        assert set(rest) == set(whole) - set(forgotten)
    assert lessons(at, "gold") == (kept[0], every[1])  # their faces are missing, their text is not


def test_muon_takes_every_layer_for_a_matrix_of_its_own_and_adam_the_rest():
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"layers": jnp.ones((3, 4, 6)), "embedding": jnp.ones((5, 4)), "scale": jnp.ones(4)}
    given = [{name: jax.random.normal(key, p.shape) for name, p in params.items()} for key in keys]

    def walked(tx, params, gradients):
        state = tx.init(params)
        for gradient in gradients:
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    found = walked(muon(optax.constant_schedule(0.1), weight_decay=0.05), params, given)
    alone = optax.contrib.muon(
        0.1, ns_steps=3, preconditioning="aol", consistent_rms=0.2, weight_decay=0.05
    )
    for layer in range(3):
        wanted = walked(alone, params["layers"][layer], [g["layers"][layer] for g in given])
        np.testing.assert_allclose(found["layers"][layer], wanted, rtol=1e-5)
    adam = optax.adamw(0.1, b2=0.95, weight_decay=0.05, nesterov=True)
    for name in ("embedding", "scale"):
        wanted = walked(adam, params[name], [g[name] for g in given])
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5)
