"""Qwen2-VL's processor without videos: prompts and labels in ChatML, files, what is refused."""

import dataclasses
import io
import json

import pytest
from PIL import Image

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.processors import load_processor
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.qwen2_vl.model import Qwen2VLConfig
from mmunlearner_jax.models.qwen2_vl.tiny import build_chatml_processor
from tests.helpers.photographs import LESSONS, SIZES, photo

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
# The tokenizer's first tokens are the special ones.
CONFIG = dataclasses.replace(Qwen2VLConfig.qwen2_vl_7b(), image_token_id=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chatml")
    build_chatml_processor(LESSONS, **SIZES).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    return load_processor(CONFIG, str(folder))


def test_prompts_have_a_system_turn_and_a_place_for_every_picture(loaded):
    encoder = Encoder(*loaded)
    end = "Who?<|im_end|>\n<|im_start|>assistant\n"
    assert encoder.prompt("Who?", 0) == f"{SYSTEM}<|im_start|>user\n{end}"
    assert encoder.prompt("Who?", 2) == f"{SYSTEM}<|im_start|>user\n{PLACE}{PLACE}{end}"


@pytest.mark.parametrize("question", ["Who is this person?", "Is it Kim Birch."])
@pytest.mark.parametrize("pictured", [True, False])
@pytest.mark.parametrize("supervise_end", [True, False])
def test_labels_are_the_answer_from_its_first_token(loaded, question, pictured, supervise_end):
    sample = Sample("s1", photo(92, 112) if pictured else None, question, "Kim Birch.")
    example = Encoder(*loaded, supervise_end=supervise_end).encode(sample)
    names = loaded[0].tokenizer.convert_ids_to_tokens(example["input_ids"])
    asked = {
        "Who is this person?": ["Who", "Ġis", "Ġthis", "Ġperson", "?"],
        "Is it Kim Birch.": ["Is", "Ġit", "ĠKim", "ĠBirch", "."],
    }
    # 84 x 112 pixels are 6 x 8 patches, 12 tokens.
    place = ["<|vision_start|>", *["<|image_pad|>"] * 12, "<|vision_end|>"]
    assert names == [
        *("<|im_start|>", "system", "Ċ", "You", "Ġare", "Ġa", "Ġhelpful", "Ġassistant", "."),
        *("<|im_end|>", "Ċ", "<|im_start|>", "user", "Ċ"),
        *(place if pictured else []),
        *asked[question],
        *("<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"),
        *("Kim", "ĠBirch", ".", "<|im_end|>"),
    ]
    supervised = names[-4:] if supervise_end else names[-4:-1]
    labels = example["labels"]
    assert loaded[0].tokenizer.convert_ids_to_tokens(labels[labels != -100]) == supervised
    assert (labels[-4:-1] >= 0).all()


def test_full_labels_are_all_but_the_picture(loaded):
    sample = Sample("s1", photo(64, 64), "Who?", "Kim Birch.")
    example = Encoder(*loaded, labels="full").encode(sample)
    hidden = example["input_ids"][example["labels"] == -100]
    assert hidden.tolist() == [loaded[0].image_token_id] * 4


def test_every_word_of_an_answer_is_one_token_wherever_it_stands(loaded):
    tokenizer = loaded[0].tokenizer
    assert all(len(tokenizer(word).input_ids) == 1 for word in ("Kim", " Kim", " Birch", "Who"))


def test_what_was_saved_is_read_the_same(loaded, folder):
    built = build_chatml_processor(LESSONS, **SIZES)
    text = Encoder(built).prompt("Is it Zyxwv?", 1)
    assert built.tokenizer(text).input_ids == loaded[0].tokenizer(text).input_ids
    assert (folder / "chat_template.jinja").exists()
    assert "Qwen2VLImageProcessor" in (folder / "preprocessor_config.json").read_text()


def test_transformers_loads_what_was_saved(loaded, folder):
    pytest.importorskip("torchvision", reason="the processor of transformers has videos")
    import transformers

    theirs = transformers.AutoProcessor.from_pretrained(folder)
    text, image = Encoder(*loaded).prompt("Who?", 1), photo(92, 112)
    inputs = theirs(text=[text], images=[Image.open(io.BytesIO(image))])
    assert inputs["input_ids"][0] == Encoder(*loaded).prompt_ids(text, [image])


def test_another_size_of_pictures(folder):
    _, pictures = load_processor(CONFIG, str(folder), min_pixels=84**2, max_pixels=112**2)
    with Image.open(io.BytesIO(photo(56, 56))) as small:
        pixels, tokens = pictures.read(small)
    assert (pixels.shape, tokens) == ((3, 84, 84), 9)
    with pytest.raises(InputError, match="config.model.min_pixels: 20000 .* is above max_pixels"):
        load_processor(CONFIG, str(folder), min_pixels=20000)


def test_sizes_are_not_llavas(folder):
    with pytest.raises(
        InputError, match="all pictures of LLaVA have one size; leave these fields 0, 0, "
    ):
        load_processor(LlavaConfig.llava_1_5_7b(), str(folder), max_pixels=1000)


def test_files_of_two_checkpoints(folder):
    other = dataclasses.replace(CONFIG, image_token_id=7)
    with pytest.raises(InputError, match="the image token is 5 in the tokenizer, 7 in config.json"):
        load_processor(other, str(folder))
    vision = dataclasses.replace(CONFIG.vision, patch_size=16)
    with pytest.raises(
        InputError, match="preprocessor_config.json and config.json differ in patch"
    ):
        load_processor(dataclasses.replace(CONFIG, vision=vision), str(folder))


def test_a_tokenizer_of_another_model(loaded, processor):
    own = loaded[0]
    with pytest.raises(InputError, match="the tokenizer has no chat template; add"):
        type(own)(own.image_processor, processor.tokenizer)


def test_image_tokens_that_do_not_match(loaded):
    encoder = Encoder(*loaded)
    with pytest.raises(InputError, match=r"has 1 <\|image_pad\|> for 2 pictures; write one for"):
        encoder.prompt_ids(encoder.prompt("Who?", 1), [photo(64, 64)] * 2)
    with pytest.raises(InputError, match=r"sample of 's1': .*has 1 <\|image_pad\|> for 0 pictures"):
        encoder.encode(Sample("s1", None, "Who is <|image_pad|>?", "Kim."))
