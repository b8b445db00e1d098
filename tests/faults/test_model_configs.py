"""A stranger's `config.json`: every field has its type and range, and refusals name the field."""

import copy
import dataclasses
import json
import math
import time
from typing import Any, get_type_hints

import jax
import pytest

from mmunlearner_jax.errors import LONGEST, InputError
from mmunlearner_jax.models import fields
from mmunlearner_jax.models.llava import LLAVA
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.llava_next import LLAVA_NEXT
from mmunlearner_jax.models.llava_next.model import LlavaNextConfig
from mmunlearner_jax.models.qwen2_5_vl import QWEN2_5_VL
from mmunlearner_jax.models.qwen2_5_vl.model import Qwen2_5VLConfig
from mmunlearner_jax.models.qwen2_vl import QWEN2_VL
from mmunlearner_jax.models.qwen2_vl.model import Qwen2VLConfig
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.weights.io import from_pretrained, weight_names

KINDS = {
    "llava": LlavaConfig,
    "llava_next": LlavaNextConfig,
    "qwen2_vl": Qwen2VLConfig,
    "qwen2_5_vl": Qwen2_5VLConfig,
}


BASES = {
    "llava": LlavaConfig.llava_1_5_7b(),
    "llava_next": LlavaNextConfig.llava_next_mistral_7b(),
    "qwen2_vl": Qwen2VLConfig.qwen2_vl_2b(),
    "qwen2_5_vl": Qwen2_5VLConfig.qwen2_5_vl_3b(),
}


def nested() -> dict:
    """Qwen2-VL's config as transformers 5 writes it, with a part for the text."""
    whole = QWEN2_VL.to_hf(Qwen2VLConfig.qwen2_vl_2b())
    text = {f.name for f in dataclasses.fields(Qwen2VLConfig.qwen2_vl_2b().text)}
    part = {field: whole.pop(field) for field in list(whole) if field in text}
    return whole | {"text_config": part | {"rope_parameters": whole.pop("rope_scaling")}}


def published() -> dict:
    """LLaVA's config without what transformers 5 adds."""
    whole = LLAVA.to_hf(LlavaConfig.llava_1_5_7b())
    del whole["image_token_id"], whole["text_config"]["head_dim"]
    return whole


def with_decoder(kind: str) -> dict:
    """LLaVA's config with another decoder, whose other fields are those of Llama's."""
    whole = published()
    return whole | {"text_config": whole["text_config"] | {"model_type": kind}}


def with_tower(kind: str, **fields: Any) -> dict:
    """LLaVA's config with another vision tower."""
    own = {"model_type": kind, "image_size": 224, "patch_size": 14, **fields}
    return published() | {"vision_config": own}


GOOD = {
    "llava": published(),
    "llava, qwen2": with_decoder("qwen2"),
    "llava, mistral": with_decoder("mistral"),
    "llava, siglip": with_tower("siglip_vision_model", vision_use_head=False),
    "llava, dinov2": with_tower("dinov2"),
    "llava_next": LLAVA_NEXT.to_hf(LlavaNextConfig.llava_next_mistral_7b()),
    "qwen2_vl": nested(),
    "qwen2_vl, flat": QWEN2_VL.to_hf(Qwen2VLConfig.qwen2_vl_2b()),
    "qwen2_5_vl": QWEN2_5_VL.to_hf(Qwen2_5VLConfig.qwen2_5_vl_3b()),
}

SIZE = [None, "two", 2.0, True, [2], {}, 0, -1, 10**15, math.nan]
MAYBE = [value for value in SIZE if value is not None]
FLAG = [None, "false", 0, 1.0, [], {}]
NAME = [None, 1, True, ["gelu"], {}, "no such activation", "\x1b[2J" * 99, "x" * 10**6]
TOKEN = [None, "1", 1.0, True, [1], {}, -2, 10**15]
NUMBER = [None, "1e-5", True, [1.0], {}, 0.0, -1.0, math.inf, math.nan, 10**400]
OBJECT = ["x", 1, True, [1], [["a", 1]]]
TEXT = {
    "vocab_size": SIZE,
    "hidden_size": [*SIZE, 7],
    "intermediate_size": SIZE,
    "num_hidden_layers": SIZE,
    "num_attention_heads": [*SIZE, 5],
    "num_key_value_heads": [*MAYBE, 5],
    "max_position_embeddings": SIZE,
    "hidden_act": NAME,
    "rms_norm_eps": NUMBER,
    "rope_theta": NUMBER,
    "tie_word_embeddings": FLAG,
    "bos_token_id": TOKEN[1:],
    "pad_token_id": TOKEN[1:],
    "eos_token_id": ["1", 1.0, True, ["a"], [None], [1.0], [[1]], {}, -2],
    "rope_parameters": [*OBJECT, {"rope_type": "yarn"}, {"rope_type": None}, {"type": ["x"]}],
    "rope_scaling": [*OBJECT, {"type": "linear"}, {"rope_type": {}}],
    "model_type": ["gemma", 1, ["llama"], {}],
}
WRONG = {
    "llava": {
        "model_type": ["llava_onevision", None, 1, [], {}],
        "image_token_index": [*TOKEN, -1, 40_000],
        "vision_feature_layer": [None, "x", 1.5, True, [], [-2, -3], {}, 99, -(10**15)],
        "vision_feature_select_strategy": [None, 1, [], {}, "mean"],
        "projector_hidden_act": NAME,
        "multimodal_projector_bias": FLAG,
        "tie_word_embeddings": FLAG,
        "text_config": OBJECT,
        "vision_config": OBJECT,
        **{f"text_config.{field}": values for field, values in TEXT.items()},
        "text_config.head_dim": [*MAYBE, 7],
        "text_config.attention_bias": FLAG,
        "text_config.mlp_bias": FLAG,
        "vision_config.hidden_size": [*SIZE, 7],
        "vision_config.intermediate_size": SIZE,
        "vision_config.num_hidden_layers": SIZE,
        "vision_config.num_attention_heads": [*SIZE, 7],
        "vision_config.num_channels": SIZE,
        "vision_config.image_size": [*SIZE, [336, 224], 13],
        "vision_config.patch_size": [*SIZE, [14, 14]],
        "vision_config.hidden_act": NAME,
        "vision_config.layer_norm_eps": NUMBER,
        "vision_config.model_type": ["siglip_vision", "pixtral", 1, [], {}],
    },
    "llava, siglip": {
        "vision_config.hidden_size": [*SIZE, 7],
        "vision_config.patch_size": [*SIZE, [14, 14]],
        "vision_config.vision_use_head": [True, *FLAG],
    },
    "llava, dinov2": {
        "vision_config.hidden_size": [*SIZE, 7],
        "vision_config.mlp_ratio": [*SIZE, 4.5],
        "vision_config.qkv_bias": FLAG,
        "vision_config.use_swiglu_ffn": [True, *FLAG],
        "vision_config.use_mask_token": FLAG,
    },
    # Its other fields are LLaVA's.
    "llava_next": {
        "image_grid_pinpoints": [
            *("x", 336, [], {}, [336, 672], [[336]], [[336, 672, 3]], [[336, 670]], [[0, 336]]),
            *([[336, "672"]], [[336.0, 672]], [[-336, 336]], [[2**20 * 336, 336]], [[True, 336]]),
        ],
        "vision_feature_select_strategy": ["full", *NAME],
        "vision_config.model_type": ["pixtral", 1, [], {}],
        "text_config.sliding_window": MAYBE,
        "text_config.model_type": ["gemma", 1, [], {}],
    },
    "llava, qwen2": {"text_config.use_sliding_window": [True, *FLAG]},
    "llava, mistral": {"text_config.sliding_window": MAYBE},
    "qwen2_vl": {
        "image_token_id": [*TOKEN, -1, 160_000],
        "video_token_id": TOKEN,
        "vision_start_token_id": TOKEN,
        "vision_end_token_id": TOKEN,
        "tie_word_embeddings": FLAG,
        "text_config": OBJECT,
        "vision_config": OBJECT,
        **{f"text_config.{field}": values for field, values in TEXT.items()},
        "text_config.use_sliding_window": [True, "yes", 1],
        "text_config.rope_parameters": [
            *TEXT["rope_parameters"],
            *({"mrope_section": wrong} for wrong in (None, 3, "x", [1], [64, -1, 1], [1.0] * 3)),
        ],
        "vision_config.depth": SIZE,
        "vision_config.embed_dim": [*SIZE, 7],
        "vision_config.hidden_size": [*SIZE, 7],
        "vision_config.mlp_ratio": [*SIZE, 4.5],
        "vision_config.num_heads": [*SIZE, 7],
        "vision_config.in_channels": SIZE,
        "vision_config.patch_size": [*SIZE, [14, 14]],
        "vision_config.spatial_merge_size": SIZE,
        "vision_config.temporal_patch_size": SIZE,
        "vision_config.hidden_act": NAME,
        "vision_config.rope_parameters": [*OBJECT, {"rope_theta": 5.0}, {"rope_theta": {"a": []}}],
    },
}
WRONG["qwen2_vl, flat"] = {
    field.removeprefix("text_config."): values
    for field, values in WRONG["qwen2_vl"].items()
    if field not in ("text_config", "text_config.model_type")
}
# Its other fields are Qwen2-VL's.
WRONG["qwen2_5_vl"] = {
    "rope_scaling": [*OBJECT, {"type": "yarn"}],
    "vision_config.model_type": ["qwen2_vl", 1, [], {}],
    "vision_config.hidden_size": [*SIZE, 7],
    "vision_config.out_hidden_size": [*SIZE, 7],
    "vision_config.intermediate_size": SIZE,
    "vision_config.window_size": [*SIZE, 100, 27],
    "vision_config.fullatt_block_indexes": [None, 7, "x", {}, [7.0], [-1], [[7]], [True], [2**10]],
    "vision_config.tokens_per_second": SIZE,
    "vision_config.patch_size": [*SIZE, [14, 14], 15],
    "vision_config.spatial_merge_size": [*SIZE, 3],
    "vision_config.num_heads": [*SIZE, 7],
}
# A number of heads that does not divide, say, is a fault of two fields, and the other is named.
ALSO = {"mrope_section", "head size", "rope_type", "num_attention_heads", "image_token_id"}


def changed(config, field, value):
    config = copy.deepcopy(config)
    *parts, last = field.split(".")
    part = config
    for name in parts:
        part = part[name]
    part[last] = value
    return config


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, wrong in WRONG.items() for field in wrong]
)
def test_a_field_holds_what_it_may(kind, field):
    for value in WRONG[kind][field]:
        config = changed(GOOD[kind], field, value)
        if field in ("rope_theta", "rope_parameters"):  # which another field would hide
            config.pop("rope_scaling")
        elif field == "text_config.rope_theta":
            config["text_config"].pop("rope_parameters")
        with pytest.raises(InputError) as error:
            ARCHITECTURES[kind.split(",")[0]].read_config(config)
        message = str(error.value)
        assert message.isprintable()
        assert len(message) <= LONGEST
        assert any(name in message for name in {field.split(".")[-1], *ALSO}), (value, message)


RIGHT = [
    ("llava", "text_config.eos_token_id", [2, 3], ("text", "eos_token_id"), (2, 3)),
    ("llava", "text_config.eos_token_id", None, ("text", "eos_token_id"), None),
    ("llava", "text_config.pad_token_id", -1, ("text", "pad_token_id"), -1),
    ("llava", "text_config.bos_token_id", None, ("text", "bos_token_id"), None),
    ("llava", "text_config.num_key_value_heads", None, ("text", "kv_heads"), 32),
    ("llava", "text_config.head_dim", None, ("text", "head_size"), 128),
    ("llava", "text_config.rope_parameters", {"rope_theta": 10**6}, ("text", "rope_theta"), 10**6),
    ("llava", "text_config.rope_parameters", None, ("text", "rope_theta"), 10000.0),
    ("llava", "text_config.rope_scaling", None, ("text", "rope_theta"), 10000.0),
    ("llava", "text_config.num_hidden_layers", 1, ("text", "num_hidden_layers"), 1),
    ("llava", "text_config.anything", {"else": [1]}, ("text", "num_hidden_layers"), 32),
    ("llava, qwen2", "text_config.attention_bias", "x", ("text", "qkv_bias"), True),
    ("llava, mistral", "text_config.attention_bias", True, ("text", "qkv_bias"), False),
    ("llava, mistral", "text_config.sliding_window", None, ("text", "window"), None),
    ("llava, mistral", "text_config.sliding_window", 5, ("text", "window"), 5),
    ("llava", "vision_config", None, ("vision", "image_size"), 336),
    ("llava", "vision_config", {}, ("vision", "image_size"), 224),
    ("llava", "image_token_id", 5, ("image_token_id",), 5),
    ("llava_next", "image_grid_pinpoints", None, ("slots",), 5),
    ("llava_next", "image_grid_pinpoints", [[336, 336]], ("slots",), 2),
    ("llava_next", "text_config.sliding_window", 2**15, ("text", "window"), 2**15),
    ("qwen2_vl", "text_config.eos_token_id", [2, 3], ("text", "eos_token_id"), (2, 3)),
    ("qwen2_vl", "text_config.num_key_value_heads", None, ("text", "kv_heads"), 12),
    ("qwen2_vl, flat", "text_config", None, ("text", "num_hidden_layers"), 28),
    # A field that this decoder has not.
    ("qwen2_vl", "text_config.attention_bias", "x", ("text", "qkv_bias"), True),
]


@pytest.mark.parametrize(("kind", "field", "value", "path", "read"), RIGHT)
def test_what_transformers_takes_is_taken(kind, field, value, path, read):
    found = ARCHITECTURES[kind.split(",")[0]].read_config(changed(GOOD[kind], field, value))
    for name in path:
        found = getattr(found, name)
    assert found == read


def test_every_size_has_a_range():
    """A new field of a config cannot be forgotten: bare whole numbers are none of a shape."""
    for config in BASES.values():
        for part in (config.vision, config.text):
            hints = get_type_hints(type(part), include_extras=True)
            assert [name for name, hint in hints.items() if hint is int] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_of_all_ranges_is_made_in_no_time(kind):
    """Below the bounds nothing needs memory or time, whatever the sizes say."""
    most = {fields.Count: 2**10, fields.Width: 2**20}
    base = BASES[kind]

    def largest(part):
        hints = get_type_hints(type(part), include_extras=True)
        sizes: dict[str, Any] = {name: most[hint] for name, hint in hints.items() if hint in most}
        if hasattr(part, "mrope_section"):
            sizes["mrope_section"] = (2**9 - 2, 1, 1)  # of a head of 2**10
        if hasattr(part, "num_key_value_heads"):
            sizes["num_key_value_heads"] = 2**10
        return dataclasses.replace(part, **sizes)

    start = time.monotonic()
    vision = largest(base.vision)
    own: dict[str, Any] = {"text": largest(base.text), "vision": vision}
    if hasattr(base, "image_grid_pinpoints"):
        own["image_grid_pinpoints"] = ((vision.image_size, vision.image_size),)
    config = dataclasses.replace(base, **own)
    _, params = abstract_model(config, None)
    assert len(weight_names(kind, params)) == len(jax.tree.leaves(params))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'"llava"',
        b"{",
        b"\xff\xfe\xfd",
        b'{"model_type": "llava", "x": NaN}',
        b'{"model_type": "llava", "x": 1e999}',
        b"[" * 50_000,
        b'{"a":' * 50_000,
        b'{"model_type":"llava","x":' + b"[" * 980 + b"]" * 980 + b"}",
        b'{"model_type":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"model_type": "llava", "x": ' + b"9" * 5000 + b"}",
        json.dumps(changed(GOOD["llava"], "text_config.num_hidden_layers", 10**15)).encode(),
        json.dumps(changed(GOOD["llava"], "text_config.vocab_size", 10**12)).encode(),
    ],
)
def test_files_that_are_no_config(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"config\.json") as error:
        from_pretrained(tmp_path)
    assert time.monotonic() - start < 5
    assert str(error.value).isprintable()
