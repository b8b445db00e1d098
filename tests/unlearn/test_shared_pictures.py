"""Rows that share a picture give the losses and gradients of the same questions asked alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmunlearner_jax.data.pictures import AnySize
from mmunlearner_jax.data.pipeline import Batches
from mmunlearner_jax.data.prompts import Encoder
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.examples.tokenizer import build_chatml_processor, build_processor
from mmunlearner_jax.models import llama
from mmunlearner_jax.models.clip import ClipConfig
from mmunlearner_jax.models.llama import LlamaConfig, Qwen2Config
from mmunlearner_jax.models.llava import LlavaConfig
from mmunlearner_jax.models.qwen2_vision import Qwen2VisionConfig
from mmunlearner_jax.models.qwen2_vl import Qwen2VLConfig
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.scoring import exact_answers
from mmunlearner_jax.unlearn.steps import mean_loss
from tests.data.test_processors import photo
from tests.models.conftest import filled

PHOTOS = [photo(*size) for size in ((92, 112), (64, 64), (130, 60))]
QUESTIONS = ("Who is this?", "Where does this person live, and since when?", "What is the name?")
ANSWERS = ("Kim Birch.", "Kim Birch lives in Oslo.", "Oslo.", "Kim.")
PICTURES = [
    Sample("s", image, question, ANSWERS[(n + m) % 4])
    for n, image in enumerate(PHOTOS)
    for m, question in enumerate(QUESTIONS[: 3 - n // 2])
]
TEXTS = [Sample("s", None, question, answer) for question in QUESTIONS for answer in ANSWERS[:2]]


def llava(**fields):
    processor = build_processor(PICTURES)
    config = LlavaConfig(
        vision=ClipConfig(8, 8, 2, 2, image_size=64, patch_size=16),
        text=LlamaConfig(len(processor.tokenizer), 8, 12, 2, 4, 2),
        image_token_id=processor.image_token_id,
        **fields,
    )
    return filled(config), Encoder(processor)


def qwen2_vl(**fields):
    processor = build_chatml_processor(PICTURES, max_pixels=84 * 112)
    tokens = processor.tokenizer.get_vocab()
    config = Qwen2VLConfig(
        vision=Qwen2VisionConfig(1, 16, 16, num_heads=2, mlp_ratio=1),
        text=Qwen2Config(len(tokens), 16, 12, 2, 2, 1, mrope_section=(2, 1, 1)),
        image_token_id=processor.image_token_id,
        video_token_id=tokens["<|video_pad|>"],
        **fields,
    )
    return filled(config), Encoder(processor, AnySize(processor.image_processor))


def whole(samples, encoder, pack):
    """One batch with all samples, some rows of which may be filling."""
    size = pack * len({s.image for s in samples}) * -(-len(samples) // pack)
    (batch,) = Batches(samples, encoder, batch_size=size, seed=0, pack=pack, repeat=False)
    return batch


@pytest.fixture(params=[llava, qwen2_vl], ids=["llava", "qwen2_vl"])
def make(request):
    return request.param


def assert_close(got, wanted, tolerance=1e-5):
    """Every array, relative to its largest number; some gradients are rounding and nothing else."""
    most = max(np.abs(b).max() for b in jax.tree.leaves(wanted))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        scale = np.maximum(np.abs(b).max(), 1e-4 * most)
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance, rtol=0)


def value_and_grad(model, batches):
    graphdef, params = nnx.split(model)
    run = jax.jit(jax.value_and_grad(lambda p: mean_loss(graphdef, p, batches)))
    with jax.default_matmul_precision("highest"):
        return run(params)


@pytest.mark.parametrize(
    ("samples", "pack"),
    [(PICTURES, 2), (PICTURES, 3), (TEXTS, 2), (TEXTS, 3), (TEXTS, 8)],
    ids=["pictures-2", "pictures-3", "texts-2", "texts-3", "texts-8"],
)
def test_loss_and_gradient(make, samples, pack):
    model, encoder = make()
    alone, shared = (whole(samples, encoder, n) for n in (1, pack))
    assert shared["input_ids"].shape[0] < alone["input_ids"].shape[0]
    assert shared["segments"].max() <= pack
    assert_close(value_and_grad(model, [shared]), value_and_grad(model, [alone]))


def test_pictures_and_texts_together(make):
    model, encoder = make()
    alone, shared = ([whole(samples, encoder, n) for samples in (PICTURES, TEXTS)] for n in (1, 3))
    assert_close(value_and_grad(model, shared), value_and_grad(model, alone))


def test_splash(make):
    batches = [whole(PICTURES, make()[1], 3)]
    plain, splash = (make(attention=kernel)[0] for kernel in ("xla", "splash"))
    assert_close(value_and_grad(splash, batches), value_and_grad(plain, batches), 1e-4)


@pytest.mark.parametrize("kernel", ["xla", "splash"])
def test_batch_squares(make, kernel):
    model, encoder = make(attention=kernel)
    graphdef, params = nnx.split(model)
    add = accumulator(graphdef, fisher="batch")
    with jax.default_matmul_precision("highest"):
        shared, alone = (
            add(FisherSums.zeros(params), params, whole(PICTURES, encoder, n)) for n in (3, 1)
        )
    assert_close(shared, alone)
    with pytest.raises(ValueError, match="row by row"):
        accumulator(graphdef)(FisherSums.zeros(params), params, whole(PICTURES, encoder, 3))


def answered(graphdef, params, batch):
    """The labels replaced by what the model itself would say."""

    @jax.jit
    def best(params):
        inputs = {k: v for k, v in batch.items() if k not in ("labels", "answer_places")}
        places = batch["answer_places"]
        score = lambda logits, _: jnp.argmax(logits, axis=-1)  # noqa: E731
        return nnx.merge(graphdef, params).score(score, places, places, **inputs)

    labels = batch["labels"].copy()
    rows, places = np.nonzero(labels[:, 1:] != -100)
    said = np.zeros_like(labels)
    np.put_along_axis(said, batch["answer_places"], np.asarray(best(params)), axis=1)
    labels[rows, places + 1] = said[rows, places]
    return batch | {"labels": labels}


@pytest.mark.parametrize("pack", [1, 3])
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
    monkeypatch.setattr(llama, "_LOGITS", 5 * vocabulary)
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
@pytest.mark.parametrize("tied", [False, True])
def test_squares_of_few_tokens_at_a_time(tied, fisher, monkeypatch):
    model, encoder = llava()
    if tied:
        text = dataclasses.replace(model.config.text, tie_word_embeddings=True)
        model = filled(dataclasses.replace(model.config, text=text))
    batch = whole(PICTURES[:4], encoder, 1)
    graphdef, params = nnx.split(model)
    with jax.default_matmul_precision("highest"):
        zeros = FisherSums.zeros
        wanted = accumulator(graphdef, fisher=fisher)(zeros(params), params, batch)
        monkeypatch.setattr(llama, "_LOGITS", 3 * model.config.text.vocab_size)
        got = accumulator(graphdef, fisher=fisher)(zeros(params), params, batch)
    assert_close(got, wanted)
