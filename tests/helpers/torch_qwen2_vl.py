"""Tiny random Qwen2-VL and Qwen2.5-VL of transformers, and the same models in this package."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration
from transformers.vision_utils import get_vision_window_index

from mmunlearner_jax.models.qwen2_vl.model import QwenVL
from tests.helpers import compare

PAD, IMAGE, VIDEO, START, END = 0, 50, 51, 52, 53
GRIDS = np.array([[1, 4, 6], [1, 2, 2], [1, 6, 2]])  # of two pictures and one

VISION: dict[str, Any] = dict(
    depth=2, embed_dim=32, hidden_size=32, num_heads=2, mlp_ratio=2, patch_size=4
)
TEXT: dict[str, Any] = dict(
    vocab_size=54,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=PAD,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
)
# Fields that differ from the above: of the whole config, the text part, the vision part.
CASES: dict[str, tuple[dict, dict, dict]] = {
    "every head its own": ({}, {}, {}),
    "two heads share": (
        {},
        dict(
            num_key_value_heads=2,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        ),
        dict(hidden_act="gelu", mlp_ratio=3, num_heads=4),
    ),
    "tied": (dict(tie_word_embeddings=True), dict(num_key_value_heads=2), {}),
    "seven heads share": (
        {},
        dict(hidden_size=56, num_attention_heads=7, num_key_value_heads=1),
        dict(hidden_size=56, embed_dim=16, patch_size=2),
    ),
}
WINDOWED_VISION: dict[str, Any] = dict(
    depth=2, hidden_size=32, intermediate_size=24, out_hidden_size=32, num_heads=2, patch_size=4
)
# The same of Qwen2.5-VL. A token has 8 x 8 pixels, of patches of 2 x 2: 4 x 4.
WINDOWED: dict[str, tuple[dict, dict, dict]] = {
    "windows of four": ({}, {}, dict(window_size=16, fullatt_block_indexes=[1])),
    "windows of nine, tied": (
        dict(tie_word_embeddings=True),
        dict(num_key_value_heads=2),
        dict(window_size=24, fullatt_block_indexes=[0, 2], depth=3),
    ),
    "windows of one, seven heads share": (
        {},
        dict(hidden_size=56, num_attention_heads=7, num_key_value_heads=1),
        dict(
            hidden_size=16,
            out_hidden_size=56,
            patch_size=2,
            window_size=4,
            fullatt_block_indexes=[],
        ),
    ),
    "whole pictures, two heads share": (
        {},
        dict(
            num_key_value_heads=2,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        ),
        dict(fullatt_block_indexes=[0, 1], num_heads=4, hidden_act="gelu"),
    ),
}


@dataclass
class Case(compare.Case):
    theirs: Qwen2VLForConditionalGeneration | Qwen2_5_VLForConditionalGeneration
    ours: QwenVL
    path: Path

    def batch(self, padding: str) -> compare.Batch:
        one, two, three = ([START, *[IMAGE] * (n // 4), END] for n in GRIDS.prod(axis=1))
        rows = [
            [3, *one, 5, *two, 7, 9],
            [4, 8, 15, *three, 16, 23, 42],
            [1, 2, 3, 5, 8, 13, 21],
        ]
        pictures = dict(pixel_values=self.patches(GRIDS), image_grid_thw=GRIDS)
        return compare.padded(rows, padding, PAD) | pictures

    def patches(self, grids: np.ndarray, seed: int = 0) -> np.ndarray:
        """Returns random patches [N, K] of pictures with these grids."""
        size = int(np.prod(self.ours.config.vision.patch_shape))
        rng = np.random.default_rng(seed)
        return rng.normal(size=(grids.prod(axis=1).sum(), size)).astype(np.float32)

    def torch_inputs(self, batch: compare.Batch) -> dict[str, Any]:
        kinds = (batch["input_ids"] == IMAGE).astype(int)
        return {k: torch.from_numpy(v) for k, v in (batch | {"mm_token_type_ids": kinds}).items()}


@dataclass
class Clips(Case):
    """A case whose rows have a clip and a picture, two clips, and neither.

    With `long`, a clip is longer than high and wide, and transformers gets its positions by
    `positions` below.
    """

    long: bool = False

    def batch(self, padding: str) -> compare.Batch:
        moments = 5 if self.long else 1
        clips = np.array([[2, 4, 6], [moments, 2, 2], [1, 4, 4]])
        one, two, three = ([START, *[VIDEO] * (n // 4), END] for n in clips.prod(axis=1))
        thw = GRIDS[1:2]
        picture = [START, *[IMAGE] * (thw.prod() // 4), END]
        rows = [
            [3, *one, 5, *picture, 7, 9],
            [4, 8, *two, 16, *three, 23, 42],
            [1, 2, 3, 5, 8, 13, 21],
        ]
        shown = dict(pixel_values=self.patches(thw), image_grid_thw=thw)
        shown |= dict(pixel_values_videos=self.patches(clips, seed=1), video_grid_thw=clips)
        if self.ours.config.timed:
            shown["second_per_grid_ts"] = np.array([0.5, 0.7, 2.0], np.float32)
        return compare.padded(rows, padding, PAD) | shown

    def torch_inputs(self, batch: compare.Batch) -> dict[str, Any]:
        ids = batch["input_ids"]
        inputs = super().torch_inputs(batch)
        inputs["mm_token_type_ids"] += 2 * torch.from_numpy((ids == VIDEO).astype(int))
        if self.long:
            inputs["position_ids"] = positions(self, inputs)[0]
        return inputs


def positions(case: Case, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns M-RoPE positions [3, B, T] of transformers, and that of the next token [B].

    Transformers 5 goes on after a clip from its height and width alone; here what follows is moved
    beyond its time, too, as in the paper and in transformers 4.
    """
    names = ("input_ids", "attention_mask", "mm_token_type_ids")
    names += ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    given = {name: inputs[name] for name in names if name in inputs}
    found, _ = case.theirs.model.get_rope_index(**given)
    following = []
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        places, shift, end = torch.nonzero(mask)[:, 0], 0, 0
        kinds = inputs["mm_token_type_ids"][row, places].tolist()
        for kind, run in itertools.groupby(range(len(kinds)), kinds.__getitem__):
            own = places[list(run)]
            found[:, row, own] += shift
            end = int(found[:, row, own].max()) + 1
            if kind:
                shift += end - 1 - int(found[1:, row, own].max())
        following.append(end)
    return found, torch.tensor(following)


def make_torch_model(name: str) -> Any:
    """Returns a random model in which every parameter changes the output."""
    kind, vision = ("Qwen2_5_VL", WINDOWED_VISION) if name in WINDOWED else ("Qwen2VL", VISION)
    whole, text, own = (CASES | WINDOWED)[name]
    config = getattr(transformers, f"{kind}Config")(
        vision_config=vision | own,
        text_config=TEXT | text,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        **whole,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    compare.make_noisy(model)
    return model


def torch_windows(case: Case, grids: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the window index of transformers, and the ends of the windows in patches."""
    vision = case.theirs.config.vision_config
    return get_vision_window_index(
        torch.from_numpy(grids),
        spatial_merge_size=vision.spatial_merge_size,
        window_size=vision.window_size,
        patch_size=vision.patch_size,
    )
