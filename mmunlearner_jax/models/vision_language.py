"""The interface that all vision-language models share.

Axes: B examples, T tokens, D text features, F features of all pictures of an example, S cache
slots, V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding

from mmunlearner_jax.models import attention, layers
from mmunlearner_jax.models.cache import Cache, cache_shardings
from mmunlearner_jax.models.fields import Token
from mmunlearner_jax.models.llama import Llama, LlamaConfig, Rows
from mmunlearner_jax.models.logits import Score
from mmunlearner_jax.models.packing import ranks
from mmunlearner_jax.sharding import param_shardings


class Asked(NamedTuple):
    """A batch, and the tokens whose next-token logits are wanted.

    Attributes:
        inputs: `input_ids`, int [B, T]; `attention_mask`, int or bool [B, T], 0 at padding; of
            packed rows `segments`, int [B, T] (see `packing`); and pictures, named as in
            `VisionLanguageModel.__call__`, in packed rows those of the prefix.
        targets: Token ids, int [B, S].
        places: Indices of tokens, int [B, S], which `packing.answer_places` returned; only logits
            there are computed. None: all T tokens.
        beside: Arrays [B, S, ...] that the function of the logits takes after the targets.
    """

    inputs: Mapping[str, jax.Array]
    targets: jax.Array
    places: jax.Array | None = None
    beside: tuple[jax.Array, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VisionLanguageConfig:
    """Sizes and options of a model and of its computation.

    Attributes:
        text: Sizes of the language model.
        image_token_id: The token whose embeddings are replaced by picture features.
        dtype: Dtype of the computation; None: that of the parameters.
        remat: What the backward pass recomputes: `none` nothing, `full` everything, `dots`
            everything except matrix products with parameters.
        attention: The kernel of the decoder's attention over whole sequences: `xla`, `splash` (TPU)
            or `cudnn` (GPU). Decoding with a cache and the vision tower always use XLA.
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
        """Returns the model's input arrays for one picture, without the axis of examples.

        Args:
            patches: Number of patches of the picture; not used where all pictures have one size.

        Raises:
            InputError: The model takes pictures of any size, and `patches` is 0.
        """
        raise NotImplementedError

    def image_tokens(self, patches: int) -> int:
        """Returns the number of image tokens of a picture with this number of patches."""
        raise NotImplementedError

    def pictured(self, ids: Any) -> Any:
        """Returns which token ids, an array or one, stand for a picture or clip, bool."""
        return ids == self.image_token_id

    def make(self, *, mesh: Mesh | None = None, rngs: nnx.Rngs) -> "VisionLanguageModel":
        """Makes a model of this config with random parameters."""
        raise NotImplementedError


class VisionLanguageModel(nnx.Module):
    """A model; `nnx.split` gives a graph definition and a state of `nnx.Param` only.

    It is called like the transformers model of the same name: with `input_ids`, `attention_mask`
    and the arrays that its processor makes of pictures.

    Args:
        config: Sizes and options.
        mesh: Devices that the examples of a batch are split over; None: one device.
        rngs: Random keys of the initial parameters.

    Attributes:
        config: Sizes and options.
        source: Folder that the weights were read from; None for a fresh model.
        language_model: The decoder.
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
        """Groups the pictures of a batch by example, as `jit` and squares need them.

        Args:
            batch: Host arrays, as the model's processor or this method returns them.

        Returns:
            The batch, in which every array is [B, ...].

        Raises:
            InputError: Image tokens and pictures do not match.
        """
        raise NotImplementedError

    def vision_features(self, **pictures: jax.Array) -> jax.Array:
        """Runs the vision tower.

        `score` and `decode` take the result as `vision_features` in place of `pixel_values`.

        Args:
            **pictures: Arrays that `group_pictures` returned, named as in `__call__`.
        """
        raise NotImplementedError

    def init_cache(self, batch: int, length: int, before: Cache | None = None) -> Cache:
        """Returns an empty cache.

        Args:
            batch: Number of examples B.
            length: Number of slots S: the most tokens of an example, with padding and without the
                tokens in `before`.
            before: A filled cache of P prefixes, where P divides B: B / P consecutive examples
                continue each prefix. None: the examples share nothing.
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
        """Appends T tokens to the cache: first a prompt, then one token at a time.

        Args:
            input_ids: Token ids, int [B, T]. The cache must have T slots left: with fewer,
                `dynamic_update_slice` would silently overwrite the last ones.
            attention_mask: Attention mask, int or bool [B, T], 0 at padding; None: no padding.
            cache: The cache, from `init_cache` or the previous call.
            last: Whether to return the logits of the last token only.
            **pictures: Pictures of these tokens, named as in `__call__`.

        Returns:
            Logits of the tokens, float32 [B, T, V] (or [B, 1, V] with `last`), and the updated
            cache.

        Raises:
            InputError: As in `__call__`, but only with pictures: without them, an image token may
                be one that the model itself generated.
        """
        inputs = {name: x for name, x in pictures.items() if x is not None}
        if inputs:
            inputs = self._checked(input_ids, **inputs)
        return self._decode(input_ids, attention_mask, cache, inputs, last=last)

    def score(self, score: Score, *batches: Asked) -> list[Any]:
        """Evaluates a function of the next-token logits.

        Each layer of the decoder runs on all batches before the next one (`Llama.run_layers`).

        Args:
            score: Function of logits float32 [B, C, V], targets [B, C] and arrays [B, C, ...] of
                `beside`; it returns a tree of arrays [B, C, ...]. Where the vocabulary is large, it
                is called for a few tokens at a time.
            *batches: Batches, whose shapes may differ.

        Returns:
            The tree of `score` for each batch, arrays [B, S, ...].

        Raises:
            InputError: As in `__call__`.
        """

        def rows(input_ids, attention_mask=None, segments=None, **pictures):
            pictures = self._checked(input_ids, **pictures)
            return self._rows(input_ids, attention_mask, segments, pictures)

        def of_one(x, matrix, asked):
            if asked.places is not None:
                x = jnp.take_along_axis(x, asked.places[:, :, None], axis=1)
            return self.language_model.score(x, (asked.targets, *asked.beside), matrix, score)

        given, matrices = zip(*(rows(**asked.inputs) for asked in batches), strict=True)
        return list(map(of_one, self.language_model.run_layers(*given), matrices, batches))

    def over_depth(
        self,
        look: Callable[[jax.Array, Callable[[jax.Array], jax.Array]], Any],
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        **pictures: jax.Array,
    ) -> Any:
        """Evaluates a function of the decoder's hidden state at every depth.

        Args:
            look: Function of a hidden state [B, T, D] and of the head, which maps [B, S, D] to
                logits [B, S, V] (the last norm included); it returns a tree of arrays.
            input_ids: Token ids, int [B, T].
            attention_mask: Attention mask, int or bool [B, T], 0 at padding; None: no padding.
            **pictures: Pictures, named as in `__call__`.

        Returns:
            The tree of `look` with a leading axis [L + 1, ...]: of the embeddings (features at
            image tokens), then of the output of each of the L layers.

        Raises:
            InputError: As in `__call__`.
        """
        inputs = self._checked(input_ids, **pictures)
        valid = _valid(input_ids, attention_mask)
        x, matrix = self._embed(input_ids, **inputs)
        positions, _ = self._positions(input_ids, valid, **inputs)
        decoder = self.language_model
        return decoder.over_depth(
            x, positions, valid, lambda x: look(x, lambda x: decoder.logits(x, matrix))
        )

    def decoder_inputs(self, input_ids: jax.Array, **pictures: jax.Array) -> jax.Array:
        """Returns what the decoder's layers take: embeddings, and features at image tokens.

        Args:
            input_ids: Token ids, int [B, T].
            **pictures: Pictures, named as in `__call__`; none for text.

        Returns:
            Array [B, T, D], in the dtype of the computation.

        Raises:
            InputError: As in `__call__`, but only with pictures.
        """
        inputs = self._checked(input_ids, **pictures) if pictures else {}
        return self._embed(input_ids, **inputs)[0]

    @layers.compiled
    def _forward(self, input_ids, attention_mask, pictures):
        rows, matrix = self._rows(input_ids, attention_mask, None, pictures)
        (x,) = self.language_model.run_layers(rows)
        return self.language_model.logits(x, matrix)

    def _rows(self, input_ids, attention_mask, segments, pictures):
        """Returns a batch as the decoder's layers take it, and the tied matrix of `Llama.embed`."""
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
        return Rows(x, positions, valid, segments), matrix

    @layers.compiled
    def _decode(self, input_ids, attention_mask, cache, pictures, *, last):
        new = _valid(input_ids, attention_mask)
        valid = jax.lax.dynamic_update_slice(cache.valid, new, (0, cache.used))
        x, matrix = self._embed(input_ids, **pictures)
        positions, passed = self._positions(input_ids, new, **pictures)
        positions += jnp.expand_dims(cache.position, range(1, positions.ndim))
        cache = dataclasses.replace(cache, valid=valid, position=cache.position + passed)
        x, cache = self.language_model.extend(x, positions, cache)
        return self.language_model.logits(x[:, -1:] if last else x, matrix), cache

    def _checked(self, input_ids, **pictures):
        """Returns the pictures that are not None, by name, as `_embed` and `_positions` take them.

        Raises:
            InputError: Pictures and image tokens do not match. Under `jit`, only shapes are
                checked.
        """
        raise NotImplementedError

    def _embed(self, input_ids, **pictures):
        """Returns embeddings [B, T, D], features at image tokens, and the tied matrix."""
        raise NotImplementedError

    def _positions(self, input_ids, valid, **pictures):
        """Returns rotary positions from 0 (see `rope.rope`) and the next token's position [B]."""
        return jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0), jnp.sum(valid, axis=1)


def merge(x: jax.Array, features: jax.Array, here: jax.Array) -> jax.Array:
    """Replaces x [B, T, D] where `here` (bool [B, T]) by the features [B, F, D], in order."""
    order = jnp.clip(jnp.cumsum(here, axis=1) - 1, 0, features.shape[1] - 1)
    picked = jnp.take_along_axis(features.astype(x.dtype), order[..., None], axis=1)
    return jnp.where(here[..., None], picked, x)


def abstract_model(
    config: VisionLanguageConfig, mesh: Mesh | None, dtype: Any = None
) -> tuple[nnx.GraphDef, nnx.State]:
    """Makes a model without arrays.

    Args:
        config: Sizes and options.
        mesh: Devices that the parameters are sharded over; None: the first local device.
        dtype: Dtype of the parameters; None: float32.

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
    """Returns which tokens are no padding, bool [B, T]."""
    if attention_mask is None:
        return jnp.ones(input_ids.shape, bool)
    return attention_mask.astype(bool)
