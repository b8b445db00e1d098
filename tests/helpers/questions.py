"""Questions about a few photographs, and tiny models of all architectures that read them."""

import dataclasses

import jax
import numpy as np

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.pipeline import Batches
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.decoders import MistralConfig
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.llava.tiny import build_processor
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.llava_next import tiny as llava_next_tiny
from mmunlearner_jax.models.llava_next.inputs import InTiles
from mmunlearner_jax.models.qwen2_5_vl.model import Qwen2_5VLConfig
from mmunlearner_jax.models.qwen2_5_vl.vision import WindowedConfig
from mmunlearner_jax.models.qwen2_vl.inputs import AnySize
from mmunlearner_jax.models.qwen2_vl.model import Qwen2VLConfig
from mmunlearner_jax.models.qwen2_vl.tiny import build_chatml_processor
from mmunlearner_jax.models.qwen2_vl.vision import Qwen2VisionConfig
from tests.helpers.models import filled
from tests.helpers.photographs import photo

PHOTOS = [photo(*size) for size in ((92, 112), (64, 64), (130, 60))]
QUESTIONS = ("Who is this?", "Where does this person live, and since when?", "What is the name?")
ANSWERS = ("Kim Birch.", "Kim Birch lives in Oslo.", "Oslo.", "Kim.")
PICTURES = [
    Sample("s", image, question, ANSWERS[(n + m) % 4])
    for n, image in enumerate(PHOTOS)
    for m, question in enumerate(QUESTIONS[: 3 - n // 2])
]
TEXTS = [Sample("s", None, question, answer) for question in QUESTIONS for answer in ANSWERS[:2]]


def llava(**fields):
    processor = build_processor(PICTURES)
    config = LlavaConfig(
        vision=ClipConfig(8, 8, 2, 2, image_size=64, patch_size=16),
        text=LlamaConfig(len(processor.tokenizer), 8, 12, 2, 4, 2),
        image_token_id=processor.image_token_id,
        **fields,
    )
    return filled(config), Encoder(processor)


def llava_next(**fields):
    config, processor = llava_next_tiny.make(
        PICTURES,
        vision=dict(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
        ),
        text=dict(
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        ),
        pixels=(0, 0),
    )
    config = dataclasses.replace(config, **fields)
    return filled(config), Encoder(processor, InTiles(processor, config))


def windowed():
    """LLaVA-NeXT with a Mistral decoder, whose window ends within a picture's tokens."""
    text = llava_next()[0].config.text
    text = MistralConfig(**dataclasses.asdict(text), sliding_window=9)
    return llava_next(text=text)


def qwen2_vl(**fields):
    vision = Qwen2VisionConfig(depth=1, embed_dim=16, hidden_size=16, num_heads=2, mlp_ratio=1)
    return _chatml(Qwen2VLConfig, vision, **fields)


def qwen2_5_vl(**fields):
    """Windows of 2 x 2 tokens in the first layer, whole pictures in the second."""
    vision = WindowedConfig(
        depth=2,
        hidden_size=16,
        out_hidden_size=16,
        intermediate_size=12,
        num_heads=2,
        window_size=56,
        fullatt_block_indexes=(1,),
    )
    return _chatml(Qwen2_5VLConfig, vision, **fields)


def _chatml(kind, vision, **fields):
    processor = build_chatml_processor(PICTURES, max_pixels=84 * 112)
    tokens = processor.tokenizer.get_vocab()
    text = kind.parts[1](len(tokens), 16, 12, 2, 2, 1, mrope_section=(2, 1, 1))
    config = kind(
        vision=vision,
        text=text,
        image_token_id=processor.image_token_id,
        video_token_id=tokens["<|video_pad|>"],
        **fields,
    )
    return filled(config), Encoder(processor, AnySize(processor.image_processor))


def together(samples, encoder, pack, **options):
    """Returns `Batches` of one batch with all samples; some of its rows may be padding."""
    size = pack * len({s.image for s in samples}) * -(-len(samples) // pack)
    return Batches(samples, encoder, batch_size=size, seed=0, pack=pack, repeat=False, **options)


def whole(samples, encoder, pack):
    """Returns the batch of `together`."""
    (batch,) = together(samples, encoder, pack)
    return batch


def assert_close(got, wanted, tolerance=1e-5):
    """Compares arrays relative to their largest number; some gradients are only rounding."""
    most = max(np.abs(b).max() for b in jax.tree.leaves(wanted))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        scale = np.maximum(np.abs(b).max(), 1e-4 * most)
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance, rtol=0)
