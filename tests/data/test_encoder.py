import io

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlavaProcessor, PreTrainedTokenizerFast

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def photo(bench):
    return bench.training("forget_5")[0].image


@pytest.fixture
def chatml(processor, monkeypatch):
    monkeypatch.setattr(processor, "chat_template", CHATML)
    return processor


def supervised(encoder: Encoder, sample: Sample) -> str:
    example = encoder.encode(sample)
    kept = example["labels"] != -100
    np.testing.assert_array_equal(example["labels"][kept], example["input_ids"][kept])
    return encoder.tokenizer.decode(example["labels"][kept])


def test_prompt_is_llavas(processor):
    encoder = Encoder(processor)
    assert encoder.prompt("Who is this?", True) == "USER: <image>\nWho is this? ASSISTANT:"
    assert encoder.prompt("Who is this?", False) == "USER: Who is this? ASSISTANT:"


@pytest.mark.parametrize("with_image", [True, False])
def test_the_answer_from_its_first_token_and_the_end_are_supervised(processor, photo, with_image):
    sample = Sample("s1", photo if with_image else None, "Who is this person?", "Kim Birch.")
    example = Encoder(processor).encode(sample)
    assert supervised(Encoder(processor), sample) == " Kim Birch.</s>"
    assert supervised(Encoder(processor, supervise_end=False), sample) == " Kim Birch."
    ids = processor.tokenizer.convert_ids_to_tokens(example["input_ids"])
    assert ids[0] == "<s>" and ids[-1] == "</s>"
    assert ids.count("<image>") == (16 if with_image else 0)
    assert ("picture" in example) == with_image


@pytest.mark.parametrize(
    "question", ["Is it Kim Birch.", "Kim Birch. ASSISTANT: Kim Birch. or who"]
)
def test_an_answer_that_occurs_in_the_question_is_supervised_once_at_the_end(processor, question):
    example = Encoder(processor).encode(Sample("s1", None, question, "Kim Birch."))
    kept = example["labels"] != -100
    assert kept.sum() == 4 and kept[-4:].all()


def test_full_labels_are_all_but_the_picture(processor, photo):
    encoder = Encoder(processor, labels="full", supervise_end=False)
    example = encoder.encode(Sample("s1", photo, "Who is this?", "Kim Birch."))
    unsupervised = example["input_ids"][example["labels"] == -100]
    names = processor.tokenizer.convert_ids_to_tokens(unsupervised)
    assert names == ["<image>"] * 16 + ["</s>"]


def test_the_prompts_tokens_are_the_beginning_of_the_samples(processor, photo):
    encoder = Encoder(processor)
    for image in (photo, None):
        images = [image] if image else []
        prompt = encoder.prompt_ids(encoder.prompt("Who is this?", image is not None), images)
        example = encoder.encode(Sample("s1", image, "Who is this?", "Kim Birch."))
        size = len(prompt)
        assert prompt == example["input_ids"][:size].tolist()
        assert (example["labels"][:size] == -100).all() and (example["labels"][size:] >= 0).all()


def test_inputs_are_those_of_the_processor_itself(processor, photo):
    encoder = Encoder(processor)
    text = encoder.prompt("Who is this?", True)
    own = processor(text=[text], images=[Image.open(io.BytesIO(photo))])
    pixels = encoder.pixels([photo])
    assert encoder.prompt_ids(text, [photo]) == own["input_ids"][0]
    np.testing.assert_array_equal(pixels, own["pixel_values"])
    assert pixels[0].shape == (3, 64, 64) and pixels[0].dtype == np.float32


def test_a_prompt_of_several_pictures(processor, bench):
    photos = [sample.image for sample in bench.training("forget_5")[::40][:2]]
    encoder, text = Encoder(processor), "USER: <image>\nKim.\nUSER: <image>\nWho? ASSISTANT:"
    pictures = [Image.open(io.BytesIO(photo)) for photo in photos]
    own = processor(text=[text], images=pictures)
    assert encoder.prompt_ids(text, photos) == own["input_ids"][0]
    np.testing.assert_array_equal(encoder.pixels(photos), own["pixel_values"])
    with pytest.raises(InputError, match="has 2 <image> for 1 pictures; write one for each"):
        encoder.prompt_ids(text, photos[:1])


def test_a_template_with_its_own_end_of_turn(chatml, photo):
    sample = Sample("s1", photo, "Who is this? im_end", "end")
    assert supervised(Encoder(chatml), sample) == "end<|im_end|>"
    assert supervised(Encoder(chatml, supervise_end=False), sample) == "end"


def test_a_template_that_joins_prompt_and_answer_is_refused(processor, monkeypatch):
    glued = "{% for message in messages %}{{ message['content'][0]['text'] }}{% endfor %}"
    monkeypatch.setattr(processor, "chat_template", glued)
    with pytest.raises(InputError, match="chat template: the tokens of 'Who is this pe' are no"):
        Encoder(processor).encode(Sample("s1", None, "Who is this pe", "rson"))


def test_labels_that_do_not_exist(processor):
    with pytest.raises(InputError, match="labels: 'all' is neither answer nor full"):
        Encoder(processor, labels="all")  # pyright: ignore[reportArgumentType]


@pytest.fixture
def sentencepiece(processor):
    """The same processor with a tokenizer of Llama's kind: blanks belong to the next word."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", "<image>", "<pad>"]
    trainer = trainers.BpeTrainer(special_tokens=special, vocab_size=200, show_progress=False)
    bpe.train_from_iterator(["USER: Who is this person? ASSISTANT: Kim Birch."], trainer)
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    return LlavaProcessor(
        processor.image_processor,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=processor.chat_template,
    )


def test_a_tokenizer_of_llamas_kind(sentencepiece, photo):
    sample = Sample("s1", photo, "Who is this person?", "Kim Birch.")
    assert supervised(Encoder(sentencepiece), sample) == "Kim Birch.</s>"
    ids = Encoder(sentencepiece).encode(sample)["input_ids"]
    assert sentencepiece.tokenizer.convert_ids_to_tokens(ids)[-3:] == ["▁Kim", "▁Birch.", "</s>"]


def test_a_picture_is_processed_once(processor, photo, monkeypatch):
    encoder = Encoder(processor)
    first = encoder.encode(Sample("s1", photo, "Who?", "Kim."))["picture"]
    again = encoder.encode(Sample("s1", bytes(bytearray(photo)), "What?", "Kim."))["picture"]
    assert again is first
    with pytest.raises(ValueError, match="read-only"):
        first[:] = 0
