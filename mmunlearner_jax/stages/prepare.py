"""Stage `prepare`: the ORL benchmark and a model to be trained, both complete on disk."""

from typing import Any

from flax import nnx

from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.errors import refusing
from mmunlearner_jax.examples import smollm2
from mmunlearner_jax.examples.orl import WRITERS
from mmunlearner_jax.models.architecture import Architecture
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.models.vision_language import VisionLanguageModel
from mmunlearner_jax.session import Session
from mmunlearner_jax.weights.io import save_pretrained


def run(session: Session) -> bool:
    """Writes `benchmark/` and `initial/`."""
    config, workdir = session.config, session.workdir
    sizes = config.prepare
    for part in ("vision",) if sizes.language else ("vision", "text"):
        if not getattr(sizes, part):
            sizes.refuse(part, "the sizes of the model, as configs/orl.py does")
    pretrained = smollm2.find_file() if sizes.language else None  # before anything is written
    benchmark, initial = workdir / "benchmark", workdir / "initial"
    if not is_done(benchmark):
        with writing(benchmark, alone=True) as partial:
            WRITERS[config.prepare.benchmark](partial, seed=config.seed)
    if is_done(initial):
        return False
    record = ARCHITECTURES[sizes.architecture]
    with refusing("config.prepare: vision or text", "give the sizes that configs/orl.py gives"):
        if pretrained:
            model, processor = smollm2.make(
                record, pretrained, sizes.vision, sizes.text, seed=config.seed
            )
        else:
            model, processor = _untrained(session, record)
    with writing(initial, alone=True) as partial:
        save_pretrained(model, partial, processor=processor)
    return True


def _untrained(session: Session, record: Architecture) -> tuple[VisionLanguageModel, Any]:
    """Makes a random model, whose tokenizer has learned the words of the benchmark's lessons."""
    config = session.config
    sizes = config.prepare
    bench = open_benchmark(session.workdir / "benchmark", config.data, config.seed)
    lessons = bench.training(bench.taught) + bench.text_training(bench.taught)
    pixels = sizes.min_pixels, sizes.max_pixels
    made, processor = record.tiny.make(lessons, sizes.vision, sizes.text, pixels)
    return nnx.jit(lambda: made.make(rngs=nnx.Rngs(config.seed)))(), processor
