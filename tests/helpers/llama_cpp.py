"""The arithmetic of llama.cpp's Llama in NumPy, on the tensors of a GGUF file as they are."""

import gguf
import numpy as np


def logits(path, tokens: list[int]) -> np.ndarray:
    """Returns the logits [T, V] of tokens [T] with llama.cpp's interleaved rotation.

    Neighbouring features of a head, (0, 1), (2, 3) and so on, are turned together.
    """
    reader = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items() if key[:6] == "llama."}
    stored = {tensor.name: tensor for tensor in reader.tensors}

    def get(name):
        return gguf.dequantize(stored[f"{name}.weight"].data, stored[f"{name}.weight"].tensor_type)

    def norm(x, name):
        epsilon = fields["llama.attention.layer_norm_rms_epsilon"]
        scale = np.sqrt(np.mean(x**2, -1, keepdims=True) + np.float32(epsilon))
        return x / scale * get(name)

    heads, kept = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    size, steps = fields["llama.rope.dimension_count"], np.arange(len(tokens))
    pace = fields["llama.rope.freq_base"] ** (-np.arange(0, size, 2) / size)
    turn = np.exp(1j * steps[:, None, None] * pace).astype(np.complex64)

    def rotated(x):
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
        return np.stack([turned.real, turned.imag], -1).reshape(x.shape)

    embeddings = get("token_embd")
    x = embeddings[tokens]
    for layer in range(fields["llama.block_count"]):
        at = f"blk.{layer}."
        y = norm(x, at + "attn_norm")
        q = rotated((y @ get(at + "attn_q").T).reshape(len(x), heads, size))
        k = rotated((y @ get(at + "attn_k").T).reshape(len(x), kept, size))
        v = (y @ get(at + "attn_v").T).reshape(len(x), kept, size)
        k, v = (z.repeat(heads // kept, axis=1) for z in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.float32(np.sqrt(size))
        scores = np.where(steps[:, None] >= steps, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + np.einsum("hqk,khd->qhd", weights, v).reshape(len(x), -1) @ (
            get(at + "attn_output").T
        )
        y = norm(x, at + "ffn_norm")
        gate = y @ get(at + "ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ get(at + "ffn_up").T)) @ get(at + "ffn_down").T
    return norm(x, "output_norm") @ embeddings.T
