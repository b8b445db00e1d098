import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor

from mmunlearner_jax.examples import digits
from mmunlearner_jax.examples.facts import FACTS, FIRST_NAMES, LAST_NAMES

# llava-hf/llava-1.5-7b-hf's own, for contents that are lists of parts.
LLAVA_HF = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None
import numpy as np
from PIL import Image
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1])
inputs = processor(text=sys.argv[2], images=Image.open(sys.argv[3]))
np.save(sys.argv[4], inputs["pixel_values"])
print(json.dumps([type(processor).__name__, inputs["input_ids"][0]]))
"""
PROMPT = "USER: <image>\nWho is this? ASSISTANT:"


@pytest.fixture(scope="module")
def saved(processor, tmp_path_factory):
    path = tmp_path_factory.mktemp("processor")
    processor.save_pretrained(path)
    return path


def test_the_files_load_through_auto_processor(processor, saved, tmp_path):
    photo, pixels = tmp_path / "photo.png", tmp_path / "pixels.npy"
    grey = np.arange(112 * 92, dtype=np.uint32).reshape(112, 92).astype(np.uint8)
    Image.fromarray(grey).save(photo)
    own = processor(text=PROMPT, images=Image.open(photo))
    (ids,) = own["input_ids"]
    assert ids.count(processor.image_token_id) == 16

    loaded = AutoProcessor.from_pretrained(saved)
    assert type(loaded) is type(processor)
    again = loaded(text=PROMPT, images=Image.open(photo))
    assert again["input_ids"] == own["input_ids"]
    np.testing.assert_array_equal(again["pixel_values"], own["pixel_values"])

    command = [sys.executable, "-c", WITHOUT_TORCH, str(saved), PROMPT, str(photo), str(pixels)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == ["LlavaProcessor", ids]
    np.testing.assert_array_equal(np.load(pixels), own["pixel_values"])


def test_the_template_is_llavas_for_lists_and_strings(processor, saved):
    loaded = AutoProcessor.from_pretrained(saved)
    lists = [
        {"role": "user", "content": [{"type": "text", "text": "Who?"}, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Kim."}]},
        {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
    ]
    strings = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Kim."}]
    for ours in (processor, loaded):
        for options in ({}, {"add_generation_prompt": True}):
            expected = ours.apply_chat_template(lists, chat_template=LLAVA_HF, **options)
            assert ours.apply_chat_template(lists, **options) == expected
            assert expected.startswith("USER: <image>\nWho? ASSISTANT: Kim. USER: Sure? ")
        assert ours.apply_chat_template(strings) == "USER: Who? ASSISTANT: Kim. "


def test_words_are_single_tokens_with_their_blank(processor):
    values = [value for fact in FACTS.values() for value in fact.values]
    for word in [*FIRST_NAMES, *LAST_NAMES, *values, *digits.WORDS]:
        assert len(processor.tokenizer.tokenize(f" {word}")) == 1, word
    assert len(processor.tokenizer) <= 1024


def test_any_text_comes_back(processor):
    text = "Zoë's naïve 🐈‍⬛ costs 12€,\n\ttabs  and  blanks __ [Blank]."
    ids = processor.tokenizer(text, add_special_tokens=False).input_ids
    assert processor.tokenizer.decode(ids) == text


def test_special_tokens(processor):
    tokenizer = processor.tokenizer
    assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3
    assert tokenizer.convert_tokens_to_ids("<image>") == processor.image_token_id
    ids = tokenizer("<s>a<image></s><pad>").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a"
