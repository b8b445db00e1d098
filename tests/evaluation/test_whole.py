"""Every model's answers, whole: in batches, one by one, over two devices, by transformers."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from PIL import Image

from mmunlearner_jax.data.benchmarks.mllmu import MLLMU
from mmunlearner_jax.data.benchmarks.mllmu.prompts import whole_prompt
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.features import Features
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation.protocols import Protocol, protocol
from mmunlearner_jax.evaluation.tasks import Answerer
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.decoders import MistralConfig
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.llava_next import tiny as llava_next_tiny
from mmunlearner_jax.models.llava_next.inputs import InTiles
from mmunlearner_jax.models.qwen2_5_vl.model import Qwen2_5VLConfig
from mmunlearner_jax.models.qwen2_5_vl.vision import WindowedConfig
from mmunlearner_jax.models.qwen2_vl.inputs import AnySize
from mmunlearner_jax.models.qwen2_vl.model import Qwen2VLConfig
from mmunlearner_jax.models.qwen2_vl.vision import Qwen2VisionConfig
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.weights.io import from_pretrained, save_pretrained

STEPS = 8
JOBS = ("baker", "barber", "carpenter", "pilot")


def picture(grey: int) -> bytes:
    noise = np.random.default_rng(grey).integers(0, 255, (32, 24 * grey), np.uint8)
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


TEXT = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


@dataclasses.dataclass
class Case:
    """A tiny random checkpoint, and how both sides are asked."""

    folder: Path
    encoder: Encoder
    prompt: Callable[[Question], str]
    theirs: Any
    torch_inputs: Callable[[Question], dict[str, Any]]
    opening: str  # between a prompt and an answer


def pictures(question):
    shown = [*(shot.image for shot in question.shots), question.image]
    return [Image.open(io.BytesIO(image)).convert("RGB") for image in shown if image]


def vocabulary(tokenizer):
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {"vocab_size": len(tokenizer)} | {name: getattr(tokenizer, name) for name in names}


TOWER = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=32,
    patch_size=16,
)


def llava(processor):
    config = LlavaConfig(
        vision=ClipConfig(**TOWER),
        text=LlamaConfig(**TEXT, **vocabulary(processor.tokenizer)),
        image_token_id=processor.image_token_id,
    )

    def torch_inputs(question):
        shown = pictures(question) or None
        return processor(text=[whole_prompt(question)], images=shown, return_tensors="pt")

    theirs = transformers.LlavaForConditionalGeneration
    return config, 8, (Encoder(processor), whole_prompt, theirs, torch_inputs, " ")


def llava_next(processor):
    """Its window ends within the beginning that questions share, or after it."""
    template = processor.chat_template
    config, processor = llava_next_tiny.around(processor.tokenizer, template, TOWER, TEXT)
    text = MistralConfig(**dataclasses.asdict(config.text), sliding_window=40)
    config = dataclasses.replace(config, text=text)
    encoder = Encoder(processor, InTiles(processor, config))
    prompt = protocol("strict", MLLMU, encoder, config.model_type).prompt

    def torch_inputs(question):
        shown = pictures(question) or None
        return processor(text=[prompt(question)], images=shown, return_tensors="pt")

    theirs = transformers.LlavaNextForConditionalGeneration
    return config, 8, (encoder, prompt, theirs, torch_inputs, " ")


def qwen2_vl(processor):
    vision = Qwen2VisionConfig(
        depth=2, embed_dim=32, hidden_size=32, num_heads=4, mlp_ratio=2, patch_size=8
    )
    return chatml(Qwen2VLConfig, vision, processor)


def qwen2_5_vl(processor):
    vision = WindowedConfig(
        depth=2,
        hidden_size=32,
        out_hidden_size=32,
        intermediate_size=48,
        num_heads=4,
        patch_size=8,
        window_size=32,
        fullatt_block_indexes=(0,),
    )
    return chatml(Qwen2_5VLConfig, vision, processor)


def chatml(kind, vision, processor):
    tokens = processor.tokenizer.get_vocab()
    own = vocabulary(processor.tokenizer)
    config = kind(
        vision=vision,
        text=kind.parts[1](**TEXT, **own, mrope_section=(2, 1, 1)),
        image_token_id=processor.image_token_id,
        video_token_id=tokens["<|video_pad|>"],
        vision_start_token_id=tokens["<|vision_start|>"],
        vision_end_token_id=tokens["<|vision_end|>"],
    )
    encoder = Encoder(processor, AnySize(processor.image_processor))

    prompt = protocol("strict", MLLMU, encoder, config.model_type).prompt

    def torch_inputs(question):
        images = [x.image for x in (*question.shots, question) if x.image]
        ids = torch.tensor([encoder.prompt_ids(prompt(question), images)])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if images:
            given |= processor.image_processor(images=pictures(question), return_tensors="pt")
        return given | {"mm_token_type_ids": (ids == processor.image_token_id).int()}

    theirs = getattr(transformers, config.architecture)
    return config, 6, (encoder, prompt, theirs, torch_inputs, "")


@pytest.fixture(
    scope="module",
    params=[
        *((make, "processor") for make in (llava, llava_next)),
        *((make, "chat_processor") for make in (qwen2_vl, qwen2_5_vl)),
    ],
)
def case(request, tmp_path_factory):
    make, name = request.param
    processor = request.getfixturevalue(name)
    config, scale, asking = make(processor)
    graphdef, params = nnx.split(config.make(rngs=nnx.Rngs(0)))
    # Large enough weights that answers differ from question to question.
    params = jax.tree.map(lambda p: scale * p if p.ndim > 1 else p, params)
    path = tmp_path_factory.mktemp("tiny") / "model"
    save_pretrained(nnx.merge(graphdef, params), path, processor=processor)
    return Case(path, *asking)


@pytest.fixture(scope="module")
def answer(case):
    def answer(batch_size, parts=1, wording=None, questions=None, kept=None):
        mesh = make_mesh((parts, 1, 1), jax.devices()[:parts])
        model = from_pretrained(case.folder, mesh=mesh)
        graphdef, params = nnx.split(model)
        wording = wording or Protocol(case.prompt, letters=True, likelihood=True)
        answerer = Answerer(
            graphdef,
            case.encoder,
            mesh,
            wording,
            positions=256,
            batch_size=batch_size,
            max_new_tokens=STEPS,
            features=kept and Features(kept, model, case.encoder, mesh),
        )
        return answerer.answer(params, questions or asked(), split="forget", label="before")

    return answer


@pytest.fixture(scope="module")
def together(answer):
    return answer(6)


@pytest.mark.parametrize(
    ("batch_size", "parts", "features"), [(1, 1, False), (4, 2, False), (4, 2, True)]
)
def test_batches_and_features_change_nothing(
    answer, together, batch_size, parts, features, tmp_path
):
    others = answer(batch_size, parts, kept=tmp_path if features else None)
    assert any(tmp_path.iterdir()) == features
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
def test_transformers_says_the_same(case, together):
    model, tokenizer = case.theirs.from_pretrained(case.folder), case.encoder.tokenizer
    for question, line in zip(asked(), together, strict=True):
        inputs = case.torch_inputs(question)
        out = model.generate(**inputs, do_sample=False, max_new_tokens=STEPS)
        new = out[0, inputs["input_ids"].shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True).strip() == line["response"]
        logits = torch.log_softmax(model(**inputs).logits[0, -1], -1)
        said = [f"{case.opening}{letter}" for letter in "ABCD"]
        letters = tokenizer(said, add_special_tokens=False).input_ids
        if question.options:
            wanted = [float(logits[ids[0]]) for ids in letters]
            np.testing.assert_allclose(line["scores"], wanted, atol=2e-4)
            assert line["choice"] == question.options[int(np.argmax(wanted))]


def test_options_of_several_tokens_are_scored_whole(answer, case):
    def plain(question):
        return case.encoder.prompt(question.question, question.image is not None)

    wording = Protocol(plain, letters=False, likelihood=True)
    one, many = (answer(size, 1, wording, asked()[1:]) for size in (1, 4))
    for line, other in zip(one, many, strict=True):
        assert (line["response"], line.get("slot")) == (other["response"], other.get("slot"))
        np.testing.assert_allclose(line["scores"], other["scores"], atol=2e-4)
