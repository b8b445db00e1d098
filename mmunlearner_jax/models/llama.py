"""The Llama decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Qwen2's decoder differs only in its biases, Qwen2-VL's also in positions along three axes (M-RoPE).

Axes: B examples, T query tokens, S key tokens, D features, N query heads, K key/value heads,
H head size, L layers, V vocabulary.
Source: Touvron et al. 2023, Wang et al. 2024 (Qwen2-VL); parity with
`transformers.LlavaForConditionalGeneration` and `transformers.Qwen2VLForConditionalGeneration`.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import attention, layers, prefixes, squares
from mmunlearner_jax.models.cache import Cache, visible_slots
from mmunlearner_jax.models.fields import Count, Length, Token, Width
from mmunlearner_jax.models.logits import Score, in_pieces, tied
from mmunlearner_jax.models.rope import Rope, rope, rotate
from mmunlearner_jax.sharding import by_example


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of the language model; names and defaults of `transformers.LlamaConfig`.

    Attributes:
        model_type: Name of the decoder in transformers.
        absent: Fields that the decoder's config in transformers lacks.
    """

    model_type: ClassVar[str] = "llama"
    absent: ClassVar[tuple[str, ...]] = ()

    vocab_size: Width = 32000
    hidden_size: Width = 4096
    intermediate_size: Width = 11008
    num_hidden_layers: Count = 32
    num_attention_heads: Count = 32
    num_key_value_heads: Count | None = None
    head_dim: Width | None = None
    hidden_act: str = "silu"
    max_position_embeddings: Length = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    bos_token_id: Token | None = 1
    eos_token_id: Token | tuple[Token, ...] | None = 2
    pad_token_id: Token | None = None

    def __post_init__(self):
        layers.choose(layers.ACTIVATIONS, "text_config.hidden_act", self.hidden_act)
        if self.heads % self.kv_heads or (not self.head_dim and self.hidden_size % self.heads):
            raise InputError(
                f"text_config.num_attention_heads={self.heads} must be a multiple of"
                f" num_key_value_heads={self.kv_heads} and divide hidden_size={self.hidden_size}"
            )
        if self.head_size % 2:
            raise InputError(
                f"text_config: the head size {self.head_size} must be even, because rotary"
                " positions rotate pairs of features"
            )

    @property
    def qkv_bias(self) -> bool:
        """Whether the projections to queries, keys and values have a bias."""
        return self.attention_bias

    @property
    def window(self) -> int | None:
        """How many tokens a token attends to, itself included; None: all before it."""
        return None

    @property
    def sections(self) -> tuple[int, ...]:
        """Number of rotary frequencies for each axis of a position; (): there is one axis."""
        return ()

    @property
    def heads(self) -> int:
        """Number of query heads N."""
        return self.num_attention_heads

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads K."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Number of features of one head H."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


def _norm(config: LlamaConfig, dtype: str | None, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return layers.rms_norm(config.hidden_size, config.rms_norm_eps, "embed", dtype=dtype, rngs=rngs)


class Layer(nnx.Module):
    """A pre-norm decoder layer in two halves; when decoding, the cache stands between them."""

    def __init__(
        self,
        config: LlamaConfig,
        dtype: str | None,
        *,
        kernel: str,
        mesh: Mesh | None,
        rngs: nnx.Rngs,
    ):
        d, hidden, size = config.hidden_size, config.intermediate_size, config.head_size
        self.config, self.kernel, self.mesh = config, kernel, mesh

        def make(features_in, features_out, logical, bias):
            return layers.linear(
                features_in, features_out, logical, bias=bias, dtype=dtype, rngs=rngs
            )

        self.input_norm = _norm(config, dtype, rngs)
        self.q_proj = make(d, config.heads * size, ("embed", "heads"), config.qkv_bias)
        self.k_proj = make(d, config.kv_heads * size, ("embed", "kv_heads"), config.qkv_bias)
        self.v_proj = make(d, config.kv_heads * size, ("embed", "kv_heads"), config.qkv_bias)
        self.o_proj = make(config.heads * size, d, ("heads", "embed"), config.attention_bias)
        self.post_attention_norm = _norm(config, dtype, rngs)
        self.gate_proj = make(d, hidden, ("embed", "mlp"), config.mlp_bias)
        self.up_proj = make(d, hidden, ("embed", "mlp"), config.mlp_bias)
        self.down_proj = make(hidden, d, ("mlp", "embed"), config.mlp_bias)

    def project(self, x: jax.Array, rope: Rope) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Maps x [B, T, D] to queries [B, T, N, H], keys and values [B, T, K, H]."""
        x = self.input_norm(x)
        q, k, v = (
            f(x).reshape(*x.shape[:2], -1, self.config.head_size)
            for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        return rotate(q, rope), rotate(k, rope), v

    def finish(self, x: jax.Array, attended: jax.Array) -> jax.Array:
        """Adds the projected attention [B, T, N * H] and the feed-forward block to x [B, T, D]."""
        x = x + self.o_proj(attended)
        y = self.post_attention_norm(x)
        gate = layers.ACTIVATIONS[self.config.hidden_act](self.gate_proj(y))
        return x + self.down_proj(gate * self.up_proj(y))

    def __call__(
        self, x: jax.Array, rope: Rope, valid: jax.Array, segments: jax.Array | None = None
    ) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]; for the other arguments see `attention.causal`."""
        q, k, v = self.project(x, rope)
        attended = attention.causal(
            q, k, v, valid, segments, window=self.config.window, kernel=self.kernel, mesh=self.mesh
        )
        return self.finish(x, attended)


class Rows(NamedTuple):
    """A batch as the decoder's layers take it.

    Attributes:
        x: Embeddings [B, T, D].
        positions: Rotary positions, as in `rope`.
        valid: Whether a token is no padding, bool [B, T].
        segments: Segments of packed rows (see `packing`), int [B, T]; None: they are not packed.
    """

    x: jax.Array
    positions: jax.Array
    valid: jax.Array
    segments: jax.Array | None = None


class Llama(nnx.Module):
    """Token embedding, decoder layers and head.

    Args:
        config: Sizes of the decoder.
        dtype: Dtype of the computation; None: that of the parameters. Logits are float32.
        remat: What the backward pass recomputes, a key of `layers.REMAT`.
        kernel: Kernel of the attention over whole sequences, a key of `attention.KERNELS`.
        mesh: Devices that the examples are split over; None: one device.
        rngs: Random keys of the initial parameters.
    """

    def __init__(
        self,
        config: LlamaConfig,
        *,
        dtype: str | None,
        remat: str,
        kernel: str,
        mesh: Mesh | None,
        rngs: nnx.Rngs,
    ):
        self.config, self.remat, self.mesh = config, remat, mesh
        self.embed_tokens = nnx.Embed(
            config.vocab_size,
            config.hidden_size,
            dtype=dtype,
            embedding_init=layers.INIT,
            embedding_metadata={"logical": ("vocab", "embed")},
            rngs=rngs,
        )
        self.layers = layers.stack(
            lambda rngs: Layer(config, dtype, kernel=kernel, mesh=mesh, rngs=rngs),
            config.num_hidden_layers,
            rngs,
        )
        self.norm = _norm(config, dtype, rngs)
        if config.tie_word_embeddings:
            self.lm_head = None
        else:
            self.lm_head = layers.linear(
                config.hidden_size,
                config.vocab_size,
                ("embed", "vocab"),
                bias=False,
                dtype=dtype,
                rngs=rngs,
                preferred_element_type=jnp.float32,
            )

    def embed(self, input_ids: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Returns embeddings [B, T, D] of token ids [B, T], and the matrix that a tied head shares.

        The matrix is [V, D]. Where every example's gradient is squared, it is [B, V, D], one copy
        for each example (see `squares.spread`). Without a tied head it is None.
        """
        if self.lm_head is not None:
            return squares.run(self.embed_tokens, input_ids, alone=True), None
        matrix = self.embed_tokens.embedding.get_value()
        if squares.is_probed(matrix):
            matrix = squares.spread(matrix, len(input_ids))
            own = matrix.ndim == 3
            x = jax.vmap(lambda m, ids: m[ids])(matrix, input_ids) if own else matrix[input_ids]
            return x.astype(self.embed_tokens.dtype or x.dtype), matrix
        return self.embed_tokens(input_ids), matrix

    def run_layers(self, *batches: Rows) -> list[jax.Array]:
        """Runs all decoder layers on whole sequences.

        Each layer runs on all batches before the next one. So its weights are gathered once, and
        its gradient is one array.

        Args:
            *batches: Batches of embeddings; their shapes may differ.

        Returns:
            The output of the last layer for each batch, [B, T, D].
        """
        given = [(rows.x, self._rope(rows.positions), *rows[2:]) for rows in batches]
        if prefixes.shared(self.layers):
            return [prefixes.scan(self.layers, *rows[:3], mesh=self.mesh) for rows in given]
        return layers.scan(self.layers, *given, remat=self.remat, mesh=self.mesh)

    def over_depth(
        self,
        x: jax.Array,
        positions: jax.Array,
        valid: jax.Array,
        look: Callable[[jax.Array], Any],
    ) -> Any:
        """Evaluates a function of the hidden state at every depth.

        Args:
            x: As in `Rows`.
            positions: As in `Rows`.
            valid: As in `Rows`.
            look: Function of a hidden state [B, T, D]; it returns a tree of arrays.

        Returns:
            The tree of `look` with a leading axis [L + 1, ...]: of the embeddings, then of each
            layer's output.
        """
        rest = (self._rope(positions), valid)
        return layers.over_depth(self.layers, x, *rest, look=look, mesh=self.mesh)

    def extend(self, x: jax.Array, positions: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """Runs all decoder layers on T tokens that follow those in the cache.

        Args:
            x: Embeddings of the tokens [B, T, D].
            positions: Rotary positions, as in `rope`.
            cache: The cache of the tokens before, whose `valid` knows these tokens already.

        Returns:
            The output of the last layer [B, T, D], and the updated cache.
        """
        angles, before = self._rope(positions), cache.before
        mask, mask_before = visible_slots(cache, x.shape[1], self.config.window)
        graphdef, params = nnx.split(self.layers)

        # The cache is in the carry and not in the scanned inputs: so XLA updates it in place.
        def body(carry, layer):
            x, keys, values = carry
            x = by_example(x, self.mesh)
            index, params, shared = layer
            block = nnx.merge(graphdef, params)
            q, k, v = block.project(x, angles)
            k = k.transpose(0, 2, 3, 1).astype(keys.dtype)
            v = v.transpose(0, 2, 1, 3).astype(values.dtype)
            keys = jax.lax.dynamic_update_slice(keys, k[None], (index, 0, 0, 0, cache.used))
            values = jax.lax.dynamic_update_slice(values, v[None], (index, 0, 0, cache.used, 0))
            own = functools.partial(jax.lax.dynamic_index_in_dim, index=index, keepdims=False)
            seen = [attention.Store(own(keys), own(values), mask)]
            if mask_before is not None:
                seen.append(attention.Store(shared[0], shared[1], mask_before))
            return (block.finish(x, attention.stored(q, *seen)), keys, values), None

        shared = None if before is None else (before.keys, before.values)
        steps = (jnp.arange(self.config.num_hidden_layers), params, shared)
        (x, keys, values), _ = jax.lax.scan(body, (x, cache.keys, cache.values), steps)
        used = cache.used + x.shape[1]
        return x, dataclasses.replace(cache, keys=keys, values=values, used=used)

    def logits(self, x: jax.Array, matrix: jax.Array | None) -> jax.Array:
        """Returns float32 logits [B, T, V] of x [B, T, D]; `matrix` is the one of `embed`."""
        x = squares.run(self.norm, x, alone=True)
        return (
            squares.run(self.lm_head, x, alone=True)
            if self.lm_head is not None
            else tied(matrix, x)
        )

    def score(
        self,
        x: jax.Array,
        beside: tuple[jax.Array, ...],
        matrix: jax.Array | None,
        score: Score,
    ) -> Any:
        """Evaluates a function of the logits, for a few tokens at a time.

        Args:
            x: Output of the last layer [B, S, D].
            beside: Arrays [B, S, ...] that `score` takes after the logits.
            matrix: The matrix that `embed` returned.
            score: Function of logits [B, C, V] and arrays [B, C, ...] of `beside`; it returns a
                tree of arrays [B, C, ...].

        Returns:
            The tree of `score`, arrays [B, S, ...].
        """
        x = squares.run(self.norm, x, alone=True)
        words = self.config.vocab_size
        if self.lm_head is None:
            return in_pieces(lambda x: tied(matrix, x), x, beside, score, words)
        return squares.run(
            self.lm_head,
            x,
            beside,
            call=lambda head, x, beside: in_pieces(head, x, beside, score, words),
            alone=True,
            keep_all=self.remat == "none",
        )

    def _rope(self, positions: jax.Array) -> Rope:
        config = self.config
        return rope(positions, config.head_size, config.rope_theta, config.sections)
