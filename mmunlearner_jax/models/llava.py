"""LLaVA-1.5: CLIP features through a two-layer projector into the places of the image tokens.

Axes: B examples, T tokens, I pictures per example, N pictures of a batch, C channels, F features of
one picture, D text features, S cache slots, V vocabulary.
Source: Liu et al. 2023; parity with `transformers.LlavaForConditionalGeneration`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.sharding import Mesh, SingleDeviceSharding

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import attention, layers, squares
from mmunlearner_jax.models.clip import Clip, ClipConfig
from mmunlearner_jax.models.llama import Cache, Llama, LlamaConfig, cache_shardings, repeated
from mmunlearner_jax.sharding import param_shardings

# Our field, transformers' field.
_FIELDS = {
    "image_token_id": "image_token_index",
    "feature_layer": "vision_feature_layer",
    "feature_select": "vision_feature_select_strategy",
    "projector_act": "projector_hidden_act",
    "projector_bias": "multimodal_projector_bias",
}


@dataclass(frozen=True)
class LlavaConfig:
    """Everything that shapes the model and its computation.

    Attributes:
        vision: the vision tower.
        text: the language model.
        image_token_id: the token whose embeddings are replaced by picture features.
        feature_layer: which hidden states of the vision tower to use: 0 are the embeddings, -1 the
            last layer's output.
        feature_select: `default` drops the class token, `full` keeps it.
        projector_act: activation between the projector's two layers.
        projector_bias: whether these layers have a bias.
        dtype: dtype of the computation; None: that of the parameters.
        remat: what the backward pass recomputes: `none`, `full`, or all but matrix products
            with parameters: `dots`.
        attention: what computes the decoder's attention over whole sequences: `xla`, `splash` (TPU)
            or `cudnn` (GPU). Decoding with a cache and the vision tower are always XLA's.
    """

    model_type: ClassVar[str] = "llava"

    vision: ClipConfig
    text: LlamaConfig
    image_token_id: int = 32000
    feature_layer: int = -2
    feature_select: str = "default"
    projector_act: str = "gelu"
    projector_bias: bool = True
    dtype: str | None = None
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self):
        depth = self.vision.num_hidden_layers
        if not isinstance(self.feature_layer, int) or not -depth - 1 <= self.feature_layer <= depth:
            raise InputError(
                f"vision_feature_layer={self.feature_layer!r} is not supported; use one number"
                f" from {-depth - 1} to {depth}"
            )
        if self.feature_select not in ("default", "full"):
            raise InputError(
                f"vision_feature_select_strategy={self.feature_select!r} is not supported; use"
                " 'default' or 'full'"
            )
        layers.choose(layers.ACTIVATIONS, "projector_hidden_act", self.projector_act)
        layers.choose(layers.REMAT, "remat", self.remat)
        layers.choose(attention.KERNELS, "attention", self.attention)

    @property
    def vision_depth(self) -> int:
        """How many vision layers lie before the features."""
        return self.feature_layer % (self.vision.num_hidden_layers + 1)

    @property
    def tokens_per_image(self) -> int:
        """Features F of one picture."""
        return self.vision.num_patches + (self.feature_select == "full")

    @classmethod
    def from_hf(cls, hf: Mapping[str, Any]) -> "LlavaConfig":
        """Reads the contents of a transformers `config.json`.

        Raises:
            InputError: it is another model, or uses an option that this one has not.
        """
        text, vision = dict(hf.get("text_config") or {}), dict(hf.get("vision_config") or {})
        for field, found, wanted in (
            ("model_type", hf.get("model_type"), cls.model_type),
            ("text_config.model_type", text.get("model_type", "llama"), "llama"),
            (
                "vision_config.model_type",
                vision.get("model_type", "clip_vision_model"),
                "clip_vision_model",
            ),
        ):
            if found != wanted:
                raise InputError(f"{field}={found!r} is not supported; it must be {wanted!r}")
        text["rope_theta"] = _rope_theta(text)
        # Either place ties the head: old files say it in the text part only.
        text["tie_word_embeddings"] = bool(
            hf.get("tie_word_embeddings") or text.get("tie_word_embeddings")
        )
        return cls(
            vision=ClipConfig(**_known(ClipConfig, vision or _VISION_7B)),
            text=LlamaConfig(**_known(LlamaConfig, text)),
            **{ours: hf[theirs] for ours, theirs in _FIELDS.items() if theirs in hf},
        )

    def to_hf(self) -> dict[str, Any]:
        """The contents of a `config.json` that old and new transformers read."""
        text = dataclasses.asdict(self.text)
        theta = text["rope_theta"]  # transformers 4 reads it here, 5 in rope_parameters
        return {
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": self.model_type,
            **{theirs: getattr(self, ours) for ours, theirs in _FIELDS.items()},
            "image_seq_length": self.tokens_per_image,
            "tie_word_embeddings": self.text.tie_word_embeddings,
            "text_config": {
                "model_type": "llama",
                **text,
                "rope_parameters": {"rope_type": "default", "rope_theta": theta},
                "num_key_value_heads": self.text.kv_heads,
                "head_dim": self.text.head_size,
            },
            "vision_config": {
                "model_type": "clip_vision_model",
                **dataclasses.asdict(self.vision),
            },
        }

    @classmethod
    def llava_1_5_7b(cls) -> "LlavaConfig":
        """`llava-hf/llava-1.5-7b-hf`."""
        text = LlamaConfig(
            vocab_size=32064, max_position_embeddings=4096, rms_norm_eps=1e-5, pad_token_id=32001
        )
        return cls(vision=ClipConfig(**_VISION_7B), text=text)

    @classmethod
    def llava_1_5_13b(cls) -> "LlavaConfig":
        """`llava-hf/llava-1.5-13b-hf`."""
        small = cls.llava_1_5_7b()
        text = dataclasses.replace(
            small.text,
            hidden_size=5120,
            intermediate_size=13824,
            num_hidden_layers=40,
            num_attention_heads=40,
        )
        return dataclasses.replace(small, text=text)


# CLIP ViT-L/14 at 336 pixels: also what transformers assumes when `vision_config` is missing.
_VISION_7B: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


def _known(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a config dataclass has a field for; lists become hashable."""
    names = {field.name for field in dataclasses.fields(config)}
    values = {k: v for k, v in values.items() if k in names}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _rope_theta(text: Mapping[str, Any]) -> float:
    """Reads the rotary base as transformers 4 and 5 write it; refuses scaled variants."""
    rope = {**(text.get("rope_scaling") or {}), **(text.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise InputError(f"text_config rope_type={kind!r} is not supported; only 'default' is")
    return float(rope.get("rope_theta", text.get("rope_theta", LlamaConfig.rope_theta)))


class Projector(nnx.Module):
    """From vision features to text features."""

    def __init__(self, config: LlavaConfig, *, rngs: nnx.Rngs):
        d, self.act = config.text.hidden_size, config.projector_act

        def make(features_in, logical):
            return layers.linear(
                features_in,
                d,
                logical,
                bias=config.projector_bias,
                dtype=config.dtype,
                rngs=rngs,
            )

        self.linear_1 = make(config.vision.hidden_size, ("vision_embed", "mlp"))
        self.linear_2 = make(d, ("mlp", "embed"))

    def __call__(self, features: jax.Array) -> jax.Array:
        """[B, I, F, vision features] to [B, I, F, D]."""
        return self.linear_2(layers.ACTIVATIONS[self.act](self.linear_1(features)))


class Llava(nnx.Module):
    """The model; `nnx.split` gives a graph definition and a state of `nnx.Param` only.

    Args:
        config: sizes and options.
        mesh: what the examples of a batch are split over; None: one device.
        rngs: where the initial parameters come from.

    Attributes:
        config: what it was made from.
        source: folder that its weights were read from, None for a fresh model.
    """

    def __init__(self, config: LlavaConfig, *, mesh: Mesh | None = None, rngs: nnx.Rngs):
        self.config = config
        self.source: str | None = None
        self.vision_tower = Clip(
            config.vision,
            depth=config.vision_depth,
            dtype=config.dtype,
            remat=config.remat,
            mesh=mesh,
            rngs=rngs,
        )
        self.multi_modal_projector = Projector(config, rngs=rngs)
        self.language_model = Llama(
            config.text,
            dtype=config.dtype,
            remat=config.remat,
            kernel=config.attention,
            mesh=mesh,
            rngs=rngs,
        )

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        pixel_values: jax.Array | None = None,
    ) -> jax.Array:
        """Next-token logits.

        Args:
            input_ids: int [B, T].
            attention_mask: int or bool [B, T], 0 at padding (left or right); None: no padding.
            pixel_values: float [N, C, height, width], pictures in the order of their image tokens;
                or [B, I, C, height, width], those of an example in its own order, unused ones zero.

        Returns:
            float32 [B, T, V].

        Raises:
            InputError: image tokens and pictures do not match. Under `jit` the tokens have no
                values yet, and only shapes are checked.
        """
        self._check_pictures(input_ids, pixel_values)
        return self._forward(input_ids, attention_mask, pixel_values)

    @layers.compiled
    def _forward(self, input_ids, attention_mask, pixel_values):
        valid = _valid(input_ids, attention_mask)
        x, matrix = self._embed(input_ids, pixel_values)
        x = self.language_model.run_layers(x, _positions(valid), valid)
        return self.language_model.logits(x, matrix)

    def init_cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` examples of at most `length` tokens, padding included."""
        text = self.config.text
        shape = (text.num_hidden_layers, batch, length, text.kv_heads, text.head_size)
        dtype = self.config.dtype or self.language_model.embed_tokens.embedding.dtype
        cache = Cache(
            keys=jnp.zeros(shape, dtype),
            values=jnp.zeros(shape, dtype),
            valid=jnp.zeros((batch, length), bool),
            used=jnp.zeros((), jnp.int32),
        )
        mesh = self.language_model.mesh
        if mesh is None:
            return cache
        return jax.lax.with_sharding_constraint(cache, cache_shardings(cache, mesh))

    def repeat_cache(self, cache: Cache, rows: jax.Array) -> Cache:
        """The cache with a row for every example.

        Args:
            cache: of P examples.
            rows: int32 [B], which of them, counted within a part of the mesh: both P and B are
                split over it alike, and no row moves between devices.
        """
        return repeated(cache, rows, self.language_model.mesh)

    def decode(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None,
        cache: Cache,
        pixel_values: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache]:
        """Appends T tokens to what the cache holds: first a prompt, then one token at a time.

        Args:
            input_ids: int [B, T]; the cache must have T slots left (`dynamic_update_slice` would
                silently overwrite the last ones).
            attention_mask: int or bool [B, T] of these tokens; None: no padding.
            cache: of `init_cache` or of the call before.
            pixel_values: as in `__call__`, the pictures of these tokens.

        Returns:
            float32 logits [B, T, V] of these tokens, and the longer cache.

        Raises:
            InputError: as in `__call__`; only with pictures, for a model may say an image token.
        """
        if pixel_values is not None:
            self._check_pictures(input_ids, pixel_values)
        return self._decode(input_ids, attention_mask, cache, pixel_values)

    @layers.compiled
    def _decode(self, input_ids, attention_mask, cache, pixel_values):
        new = _valid(input_ids, attention_mask)
        length, slots = input_ids.shape[1], jnp.arange(cache.valid.shape[1])
        valid = jax.lax.dynamic_update_slice(cache.valid, new, (0, cache.used))
        positions = jax.lax.dynamic_slice_in_dim(_positions(valid), cache.used, length, axis=1)
        mask = (slots <= cache.used + jnp.arange(length)[:, None]) & valid[:, None, :]
        x, matrix = self._embed(input_ids, pixel_values)
        cache = dataclasses.replace(cache, valid=valid)
        x, cache = self.language_model.extend(x, positions, mask, cache)
        return self.language_model.logits(x, matrix), cache

    def image_features(self, pixel_values: jax.Array) -> jax.Array:
        """Projected features [B, I, F, D] of pictures [B, I, C, height, width]."""
        features = self.vision_tower(pixel_values)
        if self.config.feature_select == "default":
            features = features[..., 1:, :]
        return squares.run(self.multi_modal_projector, features)

    def group_pictures(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Gives every example its own pictures, as per-example gradients need them.

        Args:
            batch: host arrays; `pixel_values`, if there, [N, C, height, width] or grouped already.

        Returns:
            The batch with `pixel_values` [B, I, C, height, width], I the most of any example.

        Raises:
            InputError: image tokens and pictures do not match.
        """
        pictures = batch.get("pixel_values")
        if pictures is None or pictures.ndim == 5:
            return dict(batch)
        self._check_pictures(batch["input_ids"], pictures)
        tokens = np.sum(np.asarray(batch["input_ids"]) == self.config.image_token_id, axis=1)
        counts = tokens // self.config.tokens_per_image
        if np.any(tokens % self.config.tokens_per_image):
            raise InputError("pixel_values: a picture's image tokens are split between two rows")
        grouped = np.zeros((len(counts), counts.max(), *pictures.shape[1:]), pictures.dtype)
        grouped[np.arange(counts.max()) < counts[:, None]] = pictures
        return {**batch, "pixel_values": grouped}

    def _embed(self, input_ids, pixel_values):
        """Token embeddings [B, T, D] with features in the image tokens' places; tied matrix."""
        x, matrix = self.language_model.embed(input_ids)
        if pixel_values is None:
            return x, matrix
        if pixel_values.ndim == 5:
            features = self.image_features(pixel_values)
            return self._merge(input_ids, x, features), matrix
        # Pictures in batch order know no rows: the batch is merged as if it were one long row.
        if squares.is_probed(self.multi_modal_projector.linear_1.kernel.get_value()):
            raise InputError("pixel_values: per-example squares need group_pictures(batch)")
        features = self.image_features(pixel_values[None])
        merged = self._merge(input_ids.reshape(1, -1), x.reshape(1, -1, x.shape[-1]), features)
        return merged.reshape(x.shape), matrix

    def _merge(self, input_ids, x, features):
        """Puts features [R, I, F, D] into the image tokens of rows [R, T], in order."""
        here = input_ids == self.config.image_token_id
        features = features.reshape(len(features), -1, features.shape[-1]).astype(x.dtype)
        order = jnp.clip(jnp.cumsum(here, axis=1) - 1, 0, features.shape[1] - 1)
        picked = jnp.take_along_axis(features, order[..., None], axis=1)
        return jnp.where(here[..., None], picked, x)

    def _check_pictures(self, input_ids, pixel_values):
        """Refuses pictures that do not belong to the image tokens, wherever values are at hand."""
        vision, each = self.config.vision, self.config.tokens_per_image
        if pixel_values is not None:
            wanted = (vision.num_channels, vision.image_size, vision.image_size)
            if pixel_values.ndim not in (4, 5) or pixel_values.shape[-3:] != wanted:
                raise InputError(
                    f"pixel_values: shape {pixel_values.shape} must be [pictures, *{wanted}] or"
                    f" [examples, pictures, *{wanted}]"
                )
        if isinstance(input_ids, Tracer):
            return
        tokens = np.sum(np.asarray(input_ids) == self.config.image_token_id, axis=1)
        if pixel_values is None or pixel_values.ndim == 4:
            pictures = 0 if pixel_values is None else len(pixel_values)
            if tokens.sum() != pictures * each:
                raise InputError(
                    f"input_ids hold {tokens.sum()} image tokens, but {pictures} pictures need"
                    f" {pictures * each} ({each} each)"
                )
        elif np.any(tokens % each) or tokens.max() > pixel_values.shape[1] * each:
            raise InputError(
                f"input_ids hold {tokens.tolist()} image tokens per row; each must be a multiple"
                f" of {each}, at most {pixel_values.shape[1] * each}"
            )


def abstract_model(
    config: LlavaConfig, mesh: Mesh | None, dtype: Any = None
) -> tuple[nnx.GraphDef, nnx.State]:
    """The model without its arrays: the one tree that all others are like.

    Args:
        config: sizes and options.
        mesh: that its parameters are sharded over; None: the first device.
        dtype: of the parameters; None: float32.

    Returns:
        The graph definition, and a state of `jax.ShapeDtypeStruct` with shardings.
    """
    model = nnx.eval_shape(lambda: Llava(config, mesh=mesh, rngs=nnx.Rngs(0)))
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


def _positions(valid):
    """Int [B, T]: how many valid tokens came before; 0 on left padding."""
    return jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0)
