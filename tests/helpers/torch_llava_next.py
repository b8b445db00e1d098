"""Tiny random models of LLaVA-NeXT from transformers, and the same models in this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

from mmunlearner_jax.models.llava_next import tiles
from mmunlearner_jax.models.llava_next.model import LlavaNext
from tests.helpers import compare
from tests.helpers.torch_llava import IMAGE, PAD, TEXT, VISION

EDGE = VISION["image_size"]
GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
# Heights and widths of pictures, for every grid: wide ones, tall ones, and ones without padding.
SIZES = (
    (12, 24),
    (24, 12),
    (10, 40),
    (40, 10),
    (13, 14),
    (7, 12),
    (30, 11),
    (11, 30),
    (5, 90),
    (24, 24),
)
# Fields that differ from those of LLaVA's tests: of the whole config, the text part, the vision
# part; and the grids of tiles.
CASES: dict[str, tuple[dict, dict, dict, tuple]] = {
    "vicuna": ({}, {}, {}, GRIDS),
    "mistral": (
        {},
        dict(model_type="mistral", num_key_value_heads=2, head_dim=12, sliding_window=None),
        {},
        ((2, 2), (1, 4)),
    ),
    "a short window": (
        dict(multimodal_projector_bias=False, vision_feature_layer=-1),
        dict(
            model_type="mistral",
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=256,
            sliding_window=7,  # shorter than every row with a picture
        ),
        {},
        ((1, 1), (3, 2)),
    ),
    "siglip, tied": (
        dict(vision_feature_select_strategy="full", tie_word_embeddings=True),
        dict(tie_word_embeddings=True, num_key_value_heads=2),
        dict(model_type="siglip_vision_model", vision_use_head=False, image_size=EDGE + 2),
        GRIDS,
    ),
}


@dataclass
class Case(compare.Case):
    theirs: LlavaNextForConditionalGeneration
    ours: LlavaNext
    path: Path

    def pixels(self, sizes: tuple[tuple[int, int], ...]) -> dict[str, np.ndarray]:
        """Returns random tiles of pictures, as many as the processor would make."""
        vision = self.ours.config.vision
        most = max(np.prod(self.ours.config.layout(size)[:2]) for size in sizes)
        shape = (len(sizes), 1 + most, 3, vision.image_size, vision.image_size)
        pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        return dict(pixel_values=pixels, image_sizes=np.array(sizes))

    def tokens(self, size: tuple[int, int]) -> list[int]:
        """Returns the image tokens of a picture."""
        config = self.ours.config
        return [IMAGE] * int(tiles.tokens(np.array(config.layout(size)), config.side))

    def batch(self, padding: str) -> dict[str, np.ndarray]:
        wide, tall, square = (10, 40), (38, 10), (23, 26)
        rows = [
            [3, *self.tokens(wide), 5, *self.tokens(tall), 7, 9],
            [4, 8, 15, *self.tokens(square), 16, 23, 42],
            [1, 2, 3, 5, 8, 13, 21],
        ]
        return compare.padded(rows, padding, PAD) | self.pixels((wide, tall, square))

    def torch_inputs(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Returns the batch for torch, with the positions that `generate` would use."""
        inputs: dict[str, Any] = {k: torch.from_numpy(v) for k, v in batch.items()}
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return inputs


def make_torch_model(name: str) -> LlavaNextForConditionalGeneration:
    """Returns a random model in which every parameter changes the output."""
    whole, text, vision, grids = CASES[name]
    tower = {"model_type": "clip_vision_model"} | VISION | vision
    edge = tower["image_size"]
    config = LlavaNextConfig(
        vision_config=AutoConfig.for_model(**tower),
        text_config=AutoConfig.for_model(**{"model_type": "llama"} | TEXT | text),
        image_token_index=IMAGE,
        image_grid_pinpoints=[[rows * edge, columns * edge] for rows, columns in grids],
        **whole,
    )
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(config).eval()
    compare.make_noisy(model)
    return model
