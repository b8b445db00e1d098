"""Rows that share a picture give the losses and gradients of the same questions asked alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmunlearner_jax.data.pipeline import Batches
from mmunlearner_jax.models import logits
from mmunlearner_jax.models.vision_language import Asked, abstract_model
from mmunlearner_jax.sharding import make_mesh, param_shardings, put_batch
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.scoring import exact_answers
from mmunlearner_jax.unlearn.steps import mean_loss
from tests.helpers.models import filled
from tests.helpers.questions import (
    PICTURES,
    TEXTS,
    assert_close,
    llava,
    qwen2_5_vl,
    qwen2_vl,
    together,
    whole,
    windowed,
)


@pytest.fixture(params=[llava, qwen2_vl, qwen2_5_vl], ids=lambda make: make.__name__)
def make(request):
    return request.param


def value_and_grad(model, batches):
    graphdef, params = nnx.split(model)
    run = jax.jit(jax.value_and_grad(lambda p: mean_loss(graphdef, p, batches)))
    with jax.default_matmul_precision("highest"):
        return run(params)


@pytest.mark.parametrize(
    ("samples", "pack"),
    [(PICTURES, 2), (PICTURES, 3), (TEXTS, 3), (TEXTS, 8)],
    ids=["pictures-2", "pictures-3", "texts-3", "texts-8"],
)
def test_loss_and_gradient(make, samples, pack):
    model, encoder = make()
    alone, shared = (whole(samples, encoder, n) for n in (1, pack))
    assert shared["input_ids"].shape[0] < alone["input_ids"].shape[0]
    assert shared["segments"].max() <= pack
    assert_close(value_and_grad(model, [shared]), value_and_grad(model, [alone]))


def test_pictures_and_texts_together():
    model, encoder = llava()
    alone, shared = ([whole(samples, encoder, n) for samples in (PICTURES, TEXTS)] for n in (1, 3))
    assert_close(value_and_grad(model, shared), value_and_grad(model, alone))


def test_a_window_is_that_of_a_question_alone():
    model, encoder = windowed()
    alone, shared = (whole(PICTURES, encoder, n) for n in (1, 3))
    assert alone["attention_mask"].sum(axis=1).min() > model.config.text.sliding_window
    assert_close(value_and_grad(model, [shared]), value_and_grad(model, [alone]))


def test_splash(make):
    batches = [whole(PICTURES, make()[1], 3)]
    plain, splash = (make(attention=kernel)[0] for kernel in ("xla", "splash"))
    assert_close(value_and_grad(splash, batches), value_and_grad(plain, batches), 1e-4)


@pytest.mark.parametrize(
    ("make", "kernel"),
    [(llava, "xla"), (llava, "splash"), (qwen2_vl, "xla"), (qwen2_5_vl, "xla")],
)
def test_batch_squares(make, kernel):
    model, encoder = make(attention=kernel)
    graphdef, params = nnx.split(model)
    add = accumulator(graphdef, fisher="batch")
    with jax.default_matmul_precision("highest"):
        shared, alone = (
            add(FisherSums.zeros(params), params, whole(PICTURES, encoder, n)) for n in (3, 1)
        )
    assert_close(shared, alone)


def tied(model):
    text = dataclasses.replace(model.config.text, tie_word_embeddings=True)
    return filled(dataclasses.replace(model.config, text=text))


CASES = {
    "llava": (llava, PICTURES),
    "qwen2_vl": (qwen2_vl, PICTURES),
    "qwen2_5_vl": (qwen2_5_vl, PICTURES),
    "tied": (llava, PICTURES),
    "texts": (llava, TEXTS),
    "a window": (windowed, PICTURES),
}


@pytest.mark.parametrize("case", CASES)
def test_example_squares(case):
    """One picture has fewer questions than a row, so one of its examples is padding."""
    make, samples = CASES[case]
    model, encoder = make()
    graphdef, params = nnx.split(tied(model) if case == "tied" else model)

    def squares(pack):
        batches = together(samples, encoder, pack)
        add = accumulator(graphdef, fisher="example", sizes=batches.sizes)
        return add(FisherSums.zeros(params), params, *batches)

    with jax.default_matmul_precision("highest"):
        shared, alone = squares(3), squares(1)
    assert shared.count == alone.count == len(samples)
    assert_close(shared, alone)
    apart = jax.tree.map(jnp.subtract, shared.squares, alone.squares)
    assert optax.tree.norm(apart) <= 1e-6 * optax.tree.norm(alone.squares)


def test_example_squares_of_rows_that_are_split_over_devices():
    model, encoder = llava()
    batches = Batches(PICTURES, encoder, batch_size=12, seed=0, pack=3, repeat=False)
    (batch,), found = batches, []
    for sizes in ((1, 1, 1), (2, 2, 2)):
        mesh = make_mesh(sizes, jax.devices()[: int(np.prod(sizes))])
        graphdef, _ = abstract_model(model.config, mesh)
        params = nnx.split(model)[1]
        params = jax.device_put(params, param_shardings(params, mesh))
        add = accumulator(graphdef, sizes=batches.sizes)
        with jax.default_matmul_precision("highest"):
            sums = add(FisherSums.zeros(params), params, put_batch(batch, mesh))
        found.append(jax.device_get(sums))
    one, eight = found
    assert float(one.count) == float(eight.count) == len(PICTURES)
    assert_close(eight, one)


def test_example_squares_of_packed_rows_need_their_sizes():
    model, encoder = llava()
    graphdef, params = nnx.split(model)
    with pytest.raises(ValueError, match=r"give Batches\.sizes"):
        accumulator(graphdef)(FisherSums.zeros(params), params, whole(PICTURES, encoder, 3))


def answered(graphdef, params, batch):
    """The labels replaced by what the model itself would say."""

    @jax.jit
    def best(params):
        inputs = {k: v for k, v in batch.items() if k not in ("labels", "answer_places")}
        places = batch["answer_places"]
        score = lambda logits, _: jnp.argmax(logits, axis=-1)  # noqa: E731
        return nnx.merge(graphdef, params).score(score, Asked(inputs, places, places))[0]

    labels = batch["labels"].copy()
    rows, places = np.nonzero(labels[:, 1:] != -100)
    said = np.zeros_like(labels)
    np.put_along_axis(said, batch["answer_places"], np.asarray(best(params)), axis=1)
    labels[rows, places + 1] = said[rows, places]
    return batch | {"labels": labels}


@pytest.mark.parametrize(("make", "pack"), [(llava, 1), (llava, 3), (qwen2_vl, 3), (qwen2_5_vl, 3)])
def test_exact_answers_are_counted_by_question(make, pack):
    model, encoder = make()
    graphdef, params = nnx.split(model)
    batch = answered(graphdef, params, whole(PICTURES, encoder, pack))
    count = len(PICTURES)
    assert [int(n) for n in exact_answers(graphdef, params, batch)] == [count, count]
    first = np.flatnonzero(batch["labels"][0] != -100)[0]
    batch["labels"][0, first] += 1
    assert [int(n) for n in exact_answers(graphdef, params, batch)] == [count - 1, count]


def test_logits_of_few_tokens_at_a_time(make, monkeypatch):
    """A large vocabulary's logits never exist for all tokens, and nothing changes."""
    model, encoder = make()
    batch = whole(PICTURES, encoder, 3)
    wanted = value_and_grad(model, [batch])
    vocabulary = model.config.text.vocab_size
    monkeypatch.setattr(logits, "_LOGITS", 5 * vocabulary)
    graphdef, params = nnx.split(model)

    def loss(params):
        return mean_loss(graphdef, params, [batch])

    assert_close(value_and_grad(model, [batch]), wanted)
    rows, places = batch["answer_places"].shape
    assert places > 5
    text = str(jax.make_jaxpr(jax.grad(loss))(params))
    assert f"{rows},5,{vocabulary}]" in text or f"{rows},4,{vocabulary}]" in text
    for length in (places, batch["labels"].shape[1]):
        assert f"{rows},{length},{vocabulary}]" not in text


@pytest.mark.parametrize("fisher", ["example", "batch"])
@pytest.mark.parametrize("shares_matrix", [False, True])
def test_squares_of_few_tokens_at_a_time(shares_matrix, fisher, monkeypatch):
    model, encoder = llava()
    model = tied(model) if shares_matrix else model
    batch = whole(PICTURES[:4], encoder, 1)
    graphdef, params = nnx.split(model)
    with jax.default_matmul_precision("highest"):
        zeros = FisherSums.zeros
        wanted = accumulator(graphdef, fisher=fisher)(zeros(params), params, batch)
        monkeypatch.setattr(logits, "_LOGITS", 3 * model.config.text.vocab_size)
        got = accumulator(graphdef, fisher=fisher)(zeros(params), params, batch)
    assert_close(got, wanted)
