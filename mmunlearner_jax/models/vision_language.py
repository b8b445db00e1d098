"""What a vision-language model offers to everything else, whichever it is.

Axes: B examples, T tokens, D text features, F features of all pictures of an example, S cache
slots, V vocabulary.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding

from mmunlearner_jax.models import attention, layers
from mmunlearner_jax.models.cache import Cache, cache_shardings
from mmunlearner_jax.models.fields import Token
from mmunlearner_jax.models.llama import Llama, LlamaConfig, Score
from mmunlearner_jax.models.packing import ranks
from mmunlearner_jax.sharding import param_shardings


@dataclass(frozen=True, kw_only=True)
class VisionLanguageConfig:
    """What shapes any of the models and its computation.

    Attributes:
        text: the language model.
        image_token_id: the token whose embeddings are replaced by picture features.
        dtype: dtype of the computation; None: that of the parameters.
        remat: what the backward pass recomputes: `none`, `full`, or all but matrix products
            with parameters: `dots`.
        attention: what computes the decoder's attention over whole sequences: `xla`, `splash` (TPU)
            or `cudnn` (GPU). Decoding with a cache and the vision tower are always XLA's.
    """

    model_type: ClassVar[str]

    text: LlamaConfig
    image_token_id: Token
    dtype: str | None = None
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self):
        layers.choose(layers.REMAT, "remat", self.remat)
        layers.choose(attention.KERNELS, "attention", self.attention)

    def picture_arrays(self, patches: int) -> dict[str, jax.ShapeDtypeStruct]:
        """What an example with one picture gives the model of it, without the axis of examples.

        Args:
            patches: of the picture, where the model takes any size.

        Raises:
            InputError: it takes any size, and there are none.
        """
        raise NotImplementedError

    def image_tokens(self, patches: int) -> int:
        """How many tokens of a row stand for the picture of `picture_arrays`."""
        raise NotImplementedError

    def make(self, *, mesh: Mesh | None = None, rngs: nnx.Rngs) -> "VisionLanguageModel":
        """A fresh model of this config."""
        raise NotImplementedError


class VisionLanguageModel(nnx.Module):
    """A model; `nnx.split` gives a graph definition and a state of `nnx.Param` only.

    It is called like the model of transformers of the same name: with `input_ids`,
    `attention_mask` and whatever its processor makes of pictures.

    Args:
        config: sizes and options.
        mesh: what the examples of a batch are split over; None: one device.
        rngs: where the initial parameters come from.

    Attributes:
        config: what it was made from.
        source: folder that its weights were read from, None for a fresh model.
        language_model: the decoder.
    """

    def __init__(self, config: VisionLanguageConfig, *, mesh: Mesh | None, rngs: nnx.Rngs):
        self.config: Any = config
        self.source: str | None = None
        self.language_model = Llama(
            config.text,
            dtype=config.dtype,
            remat=config.remat,
            kernel=config.attention,
            mesh=mesh,
            rngs=rngs,
        )

    def group_pictures(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Gives every example its own pictures, as `jit` and squares need them.

        Args:
            batch: host arrays, what the model's processor gives or what this gave.

        Returns:
            The batch with arrays [B, ...] only.

        Raises:
            InputError: image tokens and pictures do not match.
        """
        raise NotImplementedError

    def vision_features(self, **pictures: jax.Array) -> jax.Array:
        """What the vision tower gives, and the rest of the model starts from.

        `score` and `decode` take it as `vision_features` in place of `pixel_values`.

        Args:
            **pictures: of `group_pictures`, named as in `__call__`.
        """
        raise NotImplementedError

    def init_cache(self, batch: int, length: int, before: Cache | None = None) -> Cache:
        """An empty cache.

        Args:
            batch: examples, B.
            length: tokens of each at most, padding included, those before not counted.
            before: of P beginnings, filled by `decode`, where P divides B: B / P examples in a row
                begin with each. None: the examples share nothing.
        """
        text = self.config.text
        shape = (text.num_hidden_layers, batch, text.kv_heads)
        dtype = self.config.dtype or self.language_model.embed_tokens.embedding.dtype
        if before is None:
            position = jnp.zeros(batch, jnp.int32)
        else:
            position = jnp.repeat(before.position, batch // len(before.position))
        cache = Cache(
            keys=jnp.zeros((*shape, text.head_size, length), dtype),
            values=jnp.zeros((*shape, length, text.head_size), dtype),
            valid=jnp.zeros((batch, length), bool),
            position=position,
            used=jnp.zeros((), jnp.int32),
            before=before,
        )
        mesh = self.language_model.mesh
        if mesh is None:
            return cache
        return jax.lax.with_sharding_constraint(cache, cache_shardings(cache, mesh))

    def decode(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None,
        cache: Cache,
        *,
        last: bool = False,
        **pictures: jax.Array | None,
    ) -> tuple[jax.Array, Cache]:
        """Appends T tokens to what the cache holds: first a prompt, then one token at a time.

        Args:
            input_ids: int [B, T]; the cache must have T slots left (`dynamic_update_slice` would
                silently overwrite the last ones).
            attention_mask: int or bool [B, T] of these tokens; None: no padding.
            cache: of `init_cache` or of the call before.
            last: whether the logits of the last token alone are wanted.
            **pictures: of these tokens, named as in `__call__`.

        Returns:
            float32 logits [B, T, V] of these tokens, or [B, 1, V] of the last, and the longer
            cache.

        Raises:
            InputError: as in `__call__`; only with pictures, for a model may say an image token.
        """
        given = {name: x for name, x in pictures.items() if x is not None}
        if given:
            given = self._checked(input_ids, **given)
        return self._decode(input_ids, attention_mask, cache, given, last=last)

    def score(
        self,
        score: Score,
        targets: jax.Array,
        places: jax.Array | None,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        segments: jax.Array | None = None,
        beside: tuple[jax.Array, ...] = (),
        **pictures: jax.Array,
    ) -> Any:
        """What a function of the next-token logits says of some tokens; no others are computed.

        Args:
            score: of float32 logits [B, C, V], targets [B, C] and what is `beside` of C tokens: a
                tree of [B, C, ...]; it is called with few tokens at a time where the vocabulary is
                large.
            targets: int [B, S].
            places: int [B, S], the tokens, of `packing.answer_places`; None: all T.
            input_ids: int [B, T].
            attention_mask: int or bool [B, T], 0 at padding; None: no padding.
            segments: int [B, T] of packed rows (see `packing`); None: they are not packed.
            beside: arrays [B, S, ...] that `score` gets behind the targets.
            **pictures: named as in `__call__`; of the rows' prefixes, if packed.

        Returns:
            A tree of [B, S, ...].

        Raises:
            InputError: as in `__call__`.
        """
        given = self._checked(input_ids, **pictures)
        x, matrix = self._hidden(input_ids, attention_mask, segments, given)
        if places is not None:
            x = jnp.take_along_axis(x, places[:, :, None], axis=1)
        return self.language_model.score(x, (targets, *beside), matrix, score)

    @layers.compiled
    def _forward(self, input_ids, attention_mask, pictures):
        return self.language_model.logits(*self._hidden(input_ids, attention_mask, None, pictures))

    def _hidden(self, input_ids, attention_mask, segments, pictures):
        """What the last layer gives [B, T, D]; tied matrix."""
        valid = _valid(input_ids, attention_mask)
        x, matrix = self._embed(input_ids, **pictures)
        prefix = valid if segments is None else valid & (segments == 0)
        positions, following = self._positions(input_ids, prefix, **pictures)
        if segments is not None:
            own = following[:, None] + ranks(valid, segments)
            axes = range(2, positions.ndim)
            positions = jnp.where(
                jnp.expand_dims(prefix, axes), positions, jnp.expand_dims(own, axes)
            )
        return self.language_model.run_layers(x, positions, valid, segments), matrix

    @layers.compiled
    def _decode(self, input_ids, attention_mask, cache, pictures, *, last):
        new = _valid(input_ids, attention_mask)
        length, slots = input_ids.shape[1], jnp.arange(cache.valid.shape[1])
        valid = jax.lax.dynamic_update_slice(cache.valid, new, (0, cache.used))
        mask = (slots <= cache.used + jnp.arange(length)[:, None]) & valid[:, None, :]
        x, matrix = self._embed(input_ids, **pictures)
        positions, passed = self._positions(input_ids, new, **pictures)
        positions += jnp.expand_dims(cache.position, range(1, positions.ndim))
        cache = dataclasses.replace(cache, valid=valid, position=cache.position + passed)
        x, cache = self.language_model.extend(x, positions, mask, cache)
        return self.language_model.logits(x[:, -1:] if last else x, matrix), cache

    def _checked(self, input_ids, **pictures):
        """The pictures by name, those not given left out, as `_embed` and `_positions` want them.

        Those that do not belong to the image tokens are refused, wherever values are at hand.
        """
        raise NotImplementedError

    def _embed(self, input_ids, **pictures):
        """Token embeddings [B, T, D] with features in the image tokens' places; tied matrix."""
        raise NotImplementedError

    def _positions(self, input_ids, valid, **pictures):
        """Rotary positions (see `rope.rope`) counted from 0, and where the next token is [B]."""
        return jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0), jnp.sum(valid, axis=1)


def merge(x: jax.Array, features: jax.Array, here: jax.Array) -> jax.Array:
    """Puts features [B, F, D] into x [B, T, D] in the places `here` (bool [B, T]), in order."""
    order = jnp.clip(jnp.cumsum(here, axis=1) - 1, 0, features.shape[1] - 1)
    picked = jnp.take_along_axis(features.astype(x.dtype), order[..., None], axis=1)
    return jnp.where(here[..., None], picked, x)


def abstract_model(
    config: VisionLanguageConfig, mesh: Mesh | None, dtype: Any = None
) -> tuple[nnx.GraphDef, nnx.State]:
    """The model without its arrays: the one tree that all others are like.

    Args:
        config: sizes and options.
        mesh: that its parameters are sharded over; None: the first device.
        dtype: of the parameters; None: float32.

    Returns:
        The graph definition, and a state of `jax.ShapeDtypeStruct` with shardings.
    """
    model = nnx.eval_shape(lambda: config.make(mesh=mesh, rngs=nnx.Rngs(0)))
    graphdef, params = nnx.split(model)
    if mesh is None:
        target = SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: target, params)
    else:
        shardings = param_shardings(params, mesh)
    params = jax.tree.map(
        lambda p, s: jax.ShapeDtypeStruct(p.shape, dtype or p.dtype, sharding=s), params, shardings
    )
    return graphdef, params


def _valid(input_ids, attention_mask):
    """Bool [B, T]: which tokens are no padding."""
    if attention_mask is None:
        return jnp.ones(input_ids.shape, bool)
    return attention_mask.astype(bool)
