"""Stage `prepare`: the ORL benchmark and an untrained tiny model, both complete on disk."""

from collections.abc import Sequence
from typing import Any

from flax import nnx

from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.config.data import PrepareConfig
from mmunlearner_jax.data.benchmark import open_benchmark
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.examples.orl import WRITERS
from mmunlearner_jax.examples.tokenizer import build_chatml_processor, build_processor
from mmunlearner_jax.models.clip import ClipConfig
from mmunlearner_jax.models.llama import LlamaConfig, Qwen2Config
from mmunlearner_jax.models.llava import LlavaConfig
from mmunlearner_jax.models.qwen2_vision import Qwen2VisionConfig
from mmunlearner_jax.models.qwen2_vl import Qwen2VLConfig
from mmunlearner_jax.models.vision_language import VisionLanguageConfig
from mmunlearner_jax.session import Session
from mmunlearner_jax.weights.io import save_pretrained


def run(session: Session) -> bool:
    """Writes `benchmark/` and `initial/`."""
    config, workdir = session.config, session.workdir
    benchmark, initial = workdir / "benchmark", workdir / "initial"
    if not is_done(benchmark):
        with writing(benchmark, alone=True) as partial:
            WRITERS[config.prepare.benchmark](partial, seed=config.seed)
    if is_done(initial):
        return False
    sizes = config.prepare
    bench = open_benchmark(benchmark, config.data, config.seed)
    lessons = bench.training(bench.taught) + bench.text_training(bench.taught)
    model_config, processor = MAKERS[sizes.architecture](sizes, lessons)
    model = nnx.jit(lambda: model_config.make(rngs=nnx.Rngs(config.seed)))()
    with writing(initial, alone=True) as partial:
        save_pretrained(model, partial, processor=processor)
    return True


def _llava(sizes: PrepareConfig, lessons: Sequence[Sample]) -> tuple[VisionLanguageConfig, Any]:
    processor = build_processor(
        lessons,
        image_size=sizes.vision["image_size"],
        patch_size=sizes.vision["patch_size"],
    )
    config = LlavaConfig(
        vision=ClipConfig(**sizes.vision),
        text=LlamaConfig(**sizes.text, **_vocabulary(processor.tokenizer)),
        image_token_id=processor.image_token_id,
    )
    return config, processor


def _qwen2_vl(sizes: PrepareConfig, lessons: Sequence[Sample]) -> tuple[VisionLanguageConfig, Any]:
    processor = build_chatml_processor(
        lessons,
        patch_size=sizes.vision["patch_size"],
        min_pixels=sizes.min_pixels,
        max_pixels=sizes.max_pixels,
    )
    tokens = processor.tokenizer.get_vocab()
    config = Qwen2VLConfig(
        vision=Qwen2VisionConfig(**sizes.vision, hidden_size=sizes.text["hidden_size"]),
        text=Qwen2Config(**sizes.text, **_vocabulary(processor.tokenizer)),
        image_token_id=processor.image_token_id,
        video_token_id=tokens["<|video_pad|>"],
        vision_start_token_id=tokens["<|vision_start|>"],
        vision_end_token_id=tokens["<|vision_end|>"],
    )
    return config, processor


def _vocabulary(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


# By `config.prepare.architecture`: the sizes of an untrained model, and its processor.
MAKERS = {LlavaConfig.model_type: _llava, Qwen2VLConfig.model_type: _qwen2_vl}
