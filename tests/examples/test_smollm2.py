"""The checkpoint of a really pretrained decoder, as the stage `prepare` writes it."""

import functools
import hashlib
import json

import gguf
import jax
import numpy as np
import pytest
import torch
import transformers

from configs import orl
from mmunlearner_jax.config import typed
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.processors import load_processor
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.evaluation.choices import Continuations
from mmunlearner_jax.examples import smollm2
from mmunlearner_jax.examples.catalogue import Example
from mmunlearner_jax.examples.gguf_llama import GgufLlama, halves
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import prepare
from mmunlearner_jax.weights.io import from_pretrained
from tests.helpers import llama_cpp
from tests.helpers.photographs import photo

VISION = dict(image_size=60, patch_size=20, hidden_size=192, intermediate_size=768)
VISION |= dict(num_hidden_layers=6, num_attention_heads=6)
OPENING = "The capital of France is"
# The text and the fingerprint of its tokens by which llama.cpp knows SmolLM's tokenizer: `chktxt`
# and the entry "smollm" of its conversion/base.py.
TEXT = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis"
    " concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3"
    " កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български"
    " ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not"
    " sure I'll make it, 'D you like some tea? We'Ve a'lL"
)
FINGERPRINT = "855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249"


@pytest.fixture(scope="module", autouse=True)
def once():
    """Takes the file apart once, which takes seconds, and writes no benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "GGUFReader", functools.cache(gguf.GGUFReader))
        nothing = Example(lambda folder, seed: (folder / "none").touch())
        patch.setattr(prepare, "EXAMPLES", {"mllmu": nothing})
        yield


@pytest.fixture(scope="module")
def initial(tmp_path_factory):
    """The folder of the checkpoint with all 30 layers."""
    workdir = tmp_path_factory.mktemp("run")
    config = orl.get_config()
    config.prepare.update(dict(vision=VISION, language="smollm2"))
    config.prepare.text = {}
    assert prepare.run(Session(typed(config), workdir))
    assert not prepare.run(Session(typed(config), workdir))
    return workdir / "initial"


@pytest.fixture(scope="module")
def model(initial):
    return from_pretrained(initial)


@pytest.fixture(scope="module")
def encoder(initial, model):
    return Encoder(*load_processor(model.config, str(initial)))


def test_the_config_is_that_of_the_file(initial):
    config = json.loads((initial / "config.json").read_text())
    text = config["text_config"]
    assert (text["num_hidden_layers"], text["hidden_size"], text["rope_theta"]) == (30, 576, 1e5)
    assert (text["num_attention_heads"], text["num_key_value_heads"]) == (9, 3)
    assert text["rms_norm_eps"] == 1e-5 and text["tie_word_embeddings"]
    assert text["vocab_size"] == 49152 + 2 and config["vision_config"]["hidden_size"] == 192


def test_the_tokenizer_is_the_one_that_llama_cpp_knows(encoder):
    ids = encoder.tokenizer.encode(TEXT)
    assert hashlib.sha256(str(ids).encode()).hexdigest() == FINGERPRINT
    assert encoder.tokenizer.decode(ids) == TEXT
    assert encoder.tokenizer.encode("Hello<|im_end|>\n") == [19556, 2, 198]
    known = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert encoder.tokenizer.convert_tokens_to_ids(list(known)) == [0, 1, 2]


def test_logits_are_those_of_the_file_and_of_transformers(initial, model, encoder):
    tokens = encoder.tokenizer.encode(f"{OPENING} Paris. 1 + 1 = 2, and the sky is")
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(model(np.array([tokens])))[0]
    assert encoder.tokenizer.decode(ours[4].argmax()) == " Paris"
    theirs = llama_cpp.logits(smollm2.find_file(), tokens)
    np.testing.assert_allclose(ours[:, : theirs.shape[1]], theirs, rtol=0, atol=1e-3)
    assert ours[:, theirs.shape[1] :].max() < ours.max(axis=1).min()  # new tokens are not said
    oracle = transformers.LlavaForConditionalGeneration.from_pretrained(initial).eval()
    picture = encoder.encode(Sample("x", photo(80, 60), "Whose flag is this?", "It is Chad's."))
    pixels = picture["picture"][None]
    for ids, pictures in ((tokens, {}), (picture["input_ids"], {"pixel_values": pixels})):
        ids = np.array([ids])
        with jax.default_matmul_precision("highest"):
            ours = model(ids, **pictures)
        given = {key: torch.tensor(value) for key, value in pictures.items()}
        with torch.no_grad():
            theirs = oracle(input_ids=torch.from_numpy(ids).long(), **given).logits
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_turns_are_chatml_without_a_system_prompt(encoder):
    sample = Sample("x", photo(80, 60), "Whose flag is this?", "It is Chad's.")
    inputs = encoder.labelled(sample)
    assert encoder.tokenizer.decode(inputs.input_ids) == (
        f"<|im_start|>user\n{'<image>' * 9}Whose flag is this?<|im_end|>\n"
        "<|im_start|>assistant\nIt is Chad's.<|im_end|>"
    )
    answer = inputs.input_ids[inputs.labels >= 0]
    assert encoder.tokenizer.decode(answer) == "It is Chad's.<|im_end|>"


def test_digits_behind_other_words_of_an_answer(encoder):
    """The blank is a token of its own, but would merge with a line break before it."""
    words = Continuations(encoder.tokenizer, "assistant\n")
    pieces = encoder.tokenizer.convert_ids_to_tokens
    assert pieces(words.behind("1941")) == ["Ġ", "1", "9", "4", "1"]
    assert pieces(words.behind("Paris")) == ["ĠParis"] and pieces(words.ids("Paris")) == ["Paris"]


def test_a_decoder_of_a_few_layers():
    llava, few = ARCHITECTURES["llava"], {"num_hidden_layers": 2}
    model, _ = smollm2.make(llava, VISION, few, seed=0)
    kernels = model.language_model.layers.q_proj.kernel.get_value()
    stored = GgufLlama(smollm2.find_file()).tensor("blk.1.attn_q.weight")
    assert len(kernels) == model.config.text.num_hidden_layers == 2
    np.testing.assert_array_equal(kernels[1], halves(stored, 9).T)


def test_features_are_as_long_as_embeddings(model):
    pixels = np.random.default_rng(0).normal(size=(1, 1, 3, 60, 60)).astype(np.float32)
    table = model.language_model.embed_tokens.embedding.get_value()
    lengths = [float(np.sqrt(np.mean(np.square(x)))) for x in (model.image_features(pixels), table)]
    assert 1 / 2 < lengths[0] / lengths[1] < 2
