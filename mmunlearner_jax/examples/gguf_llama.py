"""Reads a Llama decoder out of a GGUF file, in transformers' terms.

GGUF is the format of llama.cpp. Its Llama differs from that of transformers in the rotation of
queries and keys: llama.cpp rotates the pairs of features (2i, 2i + 1) of a head, and transformers
the pairs (i, i + H / 2). So the rows of two matrices of each layer stand in another order.

Axes: N heads, H head size, V vocabulary, D features.
Source: `LlamaModel.permute` of llama.cpp's `conversion/llama.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmunlearner_jax.errors import InputError, listed, refusing

# Types of tensors that are read; they are those that the tests compare with llama.cpp's arithmetic.
TYPES = ("F32", "Q4_1", "Q8_0")

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_REST = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}


class GgufLlama:
    """An open GGUF file of a Llama decoder with a tied head; tensors are read on demand.

    Args:
        path: The file.

    Raises:
        InputError: The package gguf is missing; or the file is no GGUF, is of another architecture
            or another quantisation, or has other tensors than such a decoder.
    """

    def __init__(self, path: Path):
        try:
            import gguf
        except ImportError as error:
            raise InputError(
                "gguf, which reads SmolLM2's weights, is not installed: "
                "pip install 'mmunlearner_jax[flags]'"
            ) from error
        self.path, self._dequantize = path, gguf.dequantize
        with refusing(path, "give a GGUF file"):
            self._fields = (reader := gguf.GGUFReader(path)).fields
            self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._check()

    def value(self, key: str) -> Any:
        """Returns a value of the file's metadata, for example `llama.block_count`.

        Raises:
            InputError: The file lacks it.
        """
        if key not in self._fields:
            raise InputError(f"{self.path}: has no {key}; use a GGUF file of a Llama decoder")
        return self._fields[key].contents()

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.value("llama.block_count")

    def text_config(self) -> dict[str, Any]:
        """Returns the sizes of the decoder, as fields of `LlamaConfig` without the tokens'."""
        heads, width = self.value("llama.attention.head_count"), self._size
        return {
            "hidden_size": width,
            "intermediate_size": self.value("llama.feed_forward_length"),
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": self.value("llama.attention.head_count_kv"),
            "head_dim": width // heads,
            "max_position_embeddings": self.value("llama.context_length"),
            # The file has it in float32: 9.9999997e-06.
            "rms_norm_eps": round(self.value("llama.attention.layer_norm_rms_epsilon"), 12),
            "rope_theta": self.value("llama.rope.freq_base"),
            "tie_word_embeddings": True,
        }

    def tensors(self, layers: int) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the dequantised tensors of a decoder with so many of the first layers.

        Yields:
            Names as in `named_parameters()` of transformers, below `model.language_model.`, and
            arrays float32, matrices [out, in], embeddings [V, D].
        """
        heads = {
            "attn_q": self.value("llama.attention.head_count"),
            "attn_k": self.value("llama.attention.head_count_kv"),
        }
        for name, renamed in _REST.items():
            yield f"model.language_model.{renamed}", self.tensor(name)
        for layer in range(layers):
            for name, renamed in _LAYER.items():
                tensor = self.tensor(f"blk.{layer}.{name}.weight")
                if name in heads:
                    tensor = halves(tensor, heads[name])
                yield f"model.language_model.layers.{layer}.{renamed}.weight", tensor

    def tensor(self, name: str) -> np.ndarray:
        """Returns a dequantised tensor, float32, in llama.cpp's order of rows."""
        tensor = self._tensors[name]
        return np.array(self._dequantize(tensor.data, tensor.tensor_type), np.float32)

    @property
    def _size(self) -> int:
        return self.value("llama.embedding_length")

    def _check(self) -> None:
        """Refuses a file of another kind; see the class."""
        if (kind := self.value("general.architecture")) != "llama":
            raise InputError(f"{self.path}: general.architecture={kind!r}: give 'llama'")
        types = {tensor.tensor_type.name for tensor in self._tensors.values()}
        if other := sorted(types - set(TYPES)):
            raise InputError(
                f"{self.path}: is quantised as {listed(other)}; give a file whose tensors are of"
                f" the types {', '.join(TYPES)}"
            )
        names = {f"blk.{i}.{name}.weight" for i in range(self.layers) for name in _LAYER}
        if odd := sorted(self._tensors.keys() ^ (names | _REST.keys())):
            raise InputError(
                f"{self.path}: has or lacks {listed(odd)}; give a Llama decoder with a tied head,"
                " without biases and factors of frequencies"
            )
        size = self._size // self.value("llama.attention.head_count")
        if (turned := self.value("llama.rope.dimension_count")) != size:
            raise InputError(
                f"{self.path}: llama.rope.dimension_count={turned} is not the head size {size};"
                " give a decoder that rotates whole heads"
            )


def halves(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Reorders rows [N * H, D] of a projection from llama.cpp's rotation to transformers'.

    Row 2i of a head becomes row i, and row 2i + 1 becomes row i + H / 2.
    """
    pairs = matrix.reshape(heads, -1, 2, *matrix.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(matrix.shape))
