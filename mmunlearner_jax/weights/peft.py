"""Writes low-rank adapters in PEFT's format; `peft.PeftModel` loads them into the vanilla model.

PEFT's name of a factor is the transformers name of its module, after `base_model.model.`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from mmunlearner_jax import artefacts
from mmunlearner_jax.processes import is_first, to_host

_FACTORS = {"lora_a": "lora_A", "lora_b": "lora_B"}


def save_adapters(
    adapters: nnx.State,
    names: Mapping[tuple[Any, ...], Sequence[str]],
    path: Path,
    *,
    rank: int,
    alpha: float,
    base: str,
) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors`: both, or nothing.

    With several processes, all of them must call this; the first one writes.

    Args:
        adapters: Adapters from `unlearn.lora.attach`, without a mask: a masked update has no low
            rank.
        names: Hugging Face names of the model's weights, one for each layer, by path.
        path: Folder to write; an old one is replaced.
        rank: Rank of the adapters.
        alpha: LoRA's alpha; the update is scaled by alpha / rank.
        base: Folder or name of the model that the adapters were trained on.
    """
    modules, tensors = [], {}
    for leaf_path, leaf in nnx.to_flat_state(to_host(adapters)):
        *layer, _, factor = leaf_path
        value = leaf.get_value()
        stacked = value if value.ndim == 3 else value[None]
        for name, array in zip(names[*layer, "kernel"], stacked, strict=True):
            module = name.removesuffix(".weight")
            modules.append(module)
            key = f"base_model.model.{module}.{_FACTORS[str(factor)]}.weight"
            tensors[key] = np.ascontiguousarray(array)
    if not is_first():
        return
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": _pattern(modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": "gaussian",
        "inference_mode": True,
    }
    with artefacts.writing(path, alone=True) as partial:
        save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})
        (partial / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _pattern(modules: Sequence[str]) -> str:
    """Returns a regular expression for the modules' names; it matches all layers of a stack."""
    return "|".join(sorted({re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(m)) for m in modules}))
