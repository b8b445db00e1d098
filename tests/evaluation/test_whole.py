"""A model's answers, whole: in batches, one by one, over two devices, and by transformers."""

import dataclasses
import io

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from PIL import Image

from mmunlearner_jax.data.prompts import Encoder
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation import published
from mmunlearner_jax.evaluation.protocols import Protocol
from mmunlearner_jax.evaluation.tasks import Answerer
from mmunlearner_jax.models.clip import ClipConfig
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava import Llava, LlavaConfig
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.weights.io import from_pretrained, save_pretrained

STEPS = 8
JOBS = ("baker", "barber", "carpenter", "pilot")


def picture(grey: int) -> bytes:
    noise = np.random.default_rng(grey).integers(0, 255, (32, 32), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "png")
    return buffer.getvalue()


def asked() -> list[Question]:
    """Every task with and without a picture; three questions share each of two pictures."""
    questions = []
    for image in (picture(1), picture(2), None):
        modality = "qa" if image is None else "vqa"
        options = JOBS if image is None else JOBS[::-1]
        questions += [
            Question("a", modality, "classification", image, "What is the job?", "pilot", options),
            Question("b", modality, "cloze", image, "The job is __.", "baker"),
            Question("c", modality, "generation", image, "Which city is it?", "lives in Oslo."),
        ]
    questions[4] = dataclasses.replace(questions[4], perturbed=("Kim Stone", "Alba Birch", "Oslo"))
    # Few-shot: two solved questions about the other picture.
    shots = (questions[0], dataclasses.replace(questions[0], answer="baker"))
    questions.append(dataclasses.replace(questions[3], shots=shots))
    return questions[::-1]  # those that share a picture are found wherever they stand


@pytest.fixture(scope="module")
def folder(processor, tmp_path_factory):
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        vision=ClipConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            patch_size=16,
        ),
        text=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(processor.image_token),
    )
    model = Llava(config, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    # Large enough weights that answers differ from question to question.
    params = jax.tree.map(lambda p: 8 * p if p.ndim > 1 else p, params)
    path = tmp_path_factory.mktemp("tiny") / "model"
    save_pretrained(nnx.merge(graphdef, params), path, processor=processor)
    return path


@pytest.fixture(scope="module")
def answer(folder, processor):
    def answer(batch_size, parts=1, protocol=None, questions=None):
        mesh = make_mesh((parts, 1, 1), jax.devices()[:parts])
        graphdef, params = nnx.split(from_pretrained(folder, mesh=mesh))
        protocol = protocol or Protocol(published.mllmu, letters=True, likelihood=True)
        answerer = Answerer(
            graphdef,
            Encoder(processor),
            mesh,
            protocol,
            positions=256,
            batch_size=batch_size,
            max_new_tokens=STEPS,
        )
        return answerer.answer(params, questions or asked(), split="forget", label="before")

    return answer


@pytest.fixture(scope="module")
def together(answer):
    return answer(6)


@pytest.mark.parametrize(("batch_size", "parts"), [(1, 1), (4, 2)])
def test_batches_change_nothing(answer, together, batch_size, parts):
    others = answer(batch_size, parts)
    assert len({line["response"] for line in together}) > 3
    for line, other in zip(together, others, strict=True):
        assert line["response"] == other["response"]
        np.testing.assert_allclose(line["scores"], other["scores"], atol=2e-4)
        weighed, again = (
            [x["answer"], *x["perturbed"]] if x else []
            for x in (line.get("likelihoods"), other.get("likelihoods"))
        )
        np.testing.assert_allclose(weighed, again, atol=2e-4)
    assert [len(line["scores"]) for line in together] == [4, 0, 0, 4, 0, 0, 4, 0, 0, 4]


@torch.no_grad()
def test_transformers_says_the_same(folder, processor, together):
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder)
    for question, line in zip(asked(), together, strict=True):
        shown = [*(shot.image for shot in question.shots), question.image]
        pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in shown if image]
        inputs = processor(
            text=[published.mllmu(question)], images=pictures or None, return_tensors="pt"
        )
        out = model.generate(**inputs, do_sample=False, max_new_tokens=STEPS)
        new = out[0, inputs["input_ids"].shape[1] :]
        assert processor.tokenizer.decode(new, skip_special_tokens=True).strip() == line["response"]
        logits = torch.log_softmax(model(**inputs).logits[0, -1], -1)
        letters = [processor.tokenizer(f" {x}", add_special_tokens=False).input_ids for x in "ABCD"]
        if question.options:
            wanted = [float(logits[ids[0]]) for ids in letters]
            np.testing.assert_allclose(line["scores"], wanted, atol=2e-4)
            assert line["choice"] == question.options[int(np.argmax(wanted))]


def test_options_of_several_tokens_are_scored_whole(answer, processor):
    encoder = Encoder(processor)

    def plain(question):
        return encoder.prompt(question.question, question.image is not None)

    protocol = Protocol(plain, letters=False, likelihood=True)
    one, many = (answer(size, 1, protocol, asked()[1:]) for size in (1, 4))
    for line, other in zip(one, many, strict=True):
        assert (line["response"], line.get("slot")) == (other["response"], other.get("slot"))
        np.testing.assert_allclose(line["scores"], other["scores"], atol=2e-4)
