"""The planner's batches against those that the pipeline makes of real samples."""

import jax
import numpy as np
import pytest
from flax import nnx

from configs import llava, llava_clear
from mmunlearner_jax.config import typed
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.pipeline import Batches
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.evaluation import tasks
from mmunlearner_jax.evaluation.protocols import Protocol
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava import LLAVA
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.llava.tiny import build_processor
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.planning.batches import layout
from mmunlearner_jax.planning.programs import programs
from mmunlearner_jax.sharding import make_mesh
from tests.helpers.photographs import photo
from tests.helpers.questions import PHOTOS
from tests.helpers.questions import llava as tiny

QUESTIONS, PICTURES = 5, 3


def samples(pictured):
    return [
        Sample("s", photo(n + 20, 30) if pictured else None, "Who is it?", "It is Kim Birch.")
        for n in range(PICTURES)
        for _ in range(QUESTIONS)
    ]


def counted(encoder, pictured):
    """A config whose plan says how long these samples are."""
    example = encoder.encode(samples(pictured)[0])
    image = np.flatnonzero(example["input_ids"] == encoder.processor.image_token_id)
    answer = int(np.sum(example["labels"] != -100))
    prefix = int(image[-1]) + 1 if pictured else 0
    config = llava.get_config()
    config.plan.update(
        prompt_tokens=prefix - image.size,
        question_tokens=len(example["input_ids"]) - prefix - answer,
        answer_tokens=answer,
        questions_per_picture=QUESTIONS,
    )
    return config


@pytest.mark.parametrize("pictured", [True, False], ids=["pictures", "texts"])
@pytest.mark.parametrize("pack", [1, 2, 5])
def test_they_are_the_pipelines(pictured, pack):
    processor = build_processor(samples(True))
    encoder = Encoder(processor)
    config = counted(encoder, pictured)
    model = LlavaConfig(
        vision=ClipConfig(8, 8, 2, 2, image_size=64, patch_size=16),
        text=LlamaConfig(len(processor.tokenizer), 8, 12, 2, 4, 2),
        image_token_id=processor.image_token_id,
    )
    row = layout(typed(config), model, pack=pack, pictured=pictured)
    batches = Batches(samples(pictured), encoder, batch_size=2 * pack, seed=0, pack=pack)
    wanted = {k: v for k, v in next(iter(batches)).items() if k != "pixel_values"}
    got = row.arrays(2, model)
    assert {k: (v.shape, v.dtype) for k, v in got.items()} == {
        k: (v.shape, v.dtype) for k, v in wanted.items()
    }
    assert row.rows(QUESTIONS * PICTURES) == len(batches.rows)
    assert row.average == pytest.approx(QUESTIONS * PICTURES / len(batches.rows), rel=0.1)
    image = model.image_token_id
    if pack in (1, QUESTIONS):  # every row is full
        for name in ("attention_mask", "answer_places"):
            np.testing.assert_array_equal(got[name], wanted[name])
        np.testing.assert_array_equal(got.get("segments"), wanted.get("segments"))
        np.testing.assert_array_equal(got["input_ids"] == image, wanted["input_ids"] == image)
        np.testing.assert_array_equal(got["labels"] != -100, wanted["labels"] != -100)


def test_what_is_supervised_in_full():
    config = llava.get_config("released")
    model = LlavaConfig.llava_1_5_7b()
    batch = layout(typed(config), model, pack=1, pictured=True).arrays(1, model)
    assert batch["input_ids"].shape == (1, 16 + 576 + 128)
    # All but the picture's, of which the first is predicted by nothing.
    assert np.sum(batch["labels"] != -100) == 16 + 128
    assert batch["answer_places"].shape == (1, 144)


def test_one_question_of_a_picture_shares_nothing():
    model = LlavaConfig.llava_1_5_7b()
    row = layout(typed(llava_clear.get_config()), model, pack=10, pictured=True)
    assert (row.questions, row.average, row.rows(37)) == (1, 1, 37)


class _Asked(Exception):
    """Ends an evaluation at its first batch."""


@pytest.mark.parametrize("pictured", [True, False], ids=["pictures", "words"])
def test_scored_questions_are_grouped_as_in_the_evaluation(pictured, monkeypatch):
    model, encoder = tiny()
    mesh, graphdef = make_mesh((1, 1, 1), jax.devices()[:1]), nnx.split(model)[0]
    kind = "vqa" if pictured else "qa"
    questions = [
        Question("x", kind, "cloze", image if pictured else None, "Who is this?", "Kim")
        for image in PHOTOS
        for _ in range(QUESTIONS)
    ]
    wording = Protocol(lambda q: encoder.prompt(q.question, len(q.pictures)), False, False)
    answerer = tasks.Answerer(
        *(graphdef, encoder, mesh, wording), positions=256, batch_size=8, max_new_tokens=7
    )
    taken = []

    def prefill(params, *prompts, room):
        taken.extend(prompts)
        raise _Asked

    monkeypatch.setattr(answerer._decoder, "prefill", prefill)
    with pytest.raises(_Asked):
        answerer.answer(None, questions, split="test", label="before")

    ids = encoder.prompt_ids(wording.prompt(questions[0]), [PHOTOS[0]] if pictured else [])
    prompt = tasks.cut(ids, (), encoder.picture_ids)
    image = prompt.beginning.count(encoder.processor.image_token_id)
    monkeypatch.setitem(LLAVA.sizes, "llava_1_5_7b", lambda: model.config)
    config = llava.get_config()
    config.evaluate.decode.update(dict(batch_size=8, max_new_tokens=7))
    config.plan.update(
        prompt_tokens=len(prompt.beginning) - image,
        question_tokens=len(prompt.rest),
        questions=len(questions),
        asked_per_picture=QUESTIONS,
        asked_words=0 if pictured else len(questions),
    )
    planned = next(programs(typed(config), mesh, "evaluate")).arguments[1:]
    shapes = [[{k: v.shape for k, v in batch.items()} for batch in x] for x in (planned, taken)]
    assert shapes[0] == shapes[1]
