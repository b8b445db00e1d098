"""Stage `prepare`: the ORL benchmark and an untrained tiny LLaVA, both complete on disk."""

from pathlib import Path

from flax import nnx
from ml_collections import ConfigDict

from mmunlearner_jax.data.benchmark import open_benchmark
from mmunlearner_jax.data.orl import WRITERS
from mmunlearner_jax.data.tokenizer import build_processor
from mmunlearner_jax.models.clip import ClipConfig
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava import Llava, LlavaConfig
from mmunlearner_jax.weights.io import save_pretrained


def run(config: ConfigDict, workdir: Path) -> bool:
    """Writes `benchmark/` and `initial/`."""
    benchmark, initial = workdir / "benchmark", workdir / "initial"
    if not benchmark.exists():
        WRITERS[config.prepare.benchmark](benchmark, seed=config.seed)
    if initial.exists():
        return False
    sizes = config.prepare
    bench = open_benchmark(benchmark, config.data, config.seed)
    lessons = bench.training(bench.taught) + bench.text_training(bench.taught)
    processor = build_processor(
        lessons,
        image_size=sizes.vision.image_size,
        patch_size=sizes.vision.patch_size,
    )
    tokenizer = processor.tokenizer
    model_config = LlavaConfig(
        vision=ClipConfig(**sizes.vision),
        text=LlamaConfig(
            **sizes.text,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(processor.image_token),
    )
    model = nnx.jit(lambda: Llava(model_config, rngs=nnx.Rngs(config.seed)))()
    save_pretrained(model, initial, processor=processor)
    return True
