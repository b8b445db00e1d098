"""LLaVA-NeXT in transformers' terms: LLaVA's `config.json` and tensors, pinpoints and new line."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmunlearner_jax.models import fields
from mmunlearner_jax.models.llava import hf as llava
from mmunlearner_jax.models.llava_next.model import LlavaNextConfig
from mmunlearner_jax.weights.table import Row

_PINPOINTS, _NEW_LINE = "image_grid_pinpoints", "model.image_newline"

TABLE = dataclasses.replace(
    llava.TABLE,
    rows=(*llava.TABLE.rows, Row(_NEW_LINE, "image_newline.embedding")),
    read=(*llava.TABLE.read, (r"^image_newline$", _NEW_LINE)),
    written=(*llava.TABLE.written, (r"^model\.image_newline$", "image_newline")),
    groups=(*llava.TABLE.groups, ("image_newline.", "projector")),
)


def from_hf(hf: Mapping[str, Any]) -> LlavaNextConfig:
    """Reads the contents of a `config.json`; see `Architecture.read_config`."""
    own = {_PINPOINTS: hf[_PINPOINTS]} if hf.get(_PINPOINTS) is not None else {}
    return llava.read(LlavaNextConfig, hf, **fields.read(LlavaNextConfig, own))


def to_hf(config: LlavaNextConfig) -> dict[str, Any]:
    """Returns the contents of a `config.json` that transformers 4 and 5 read."""
    return llava.to_hf(config) | {_PINPOINTS: [*map(list, config.image_grid_pinpoints)]}
