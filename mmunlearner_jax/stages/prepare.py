"""Stage `prepare`: writes the benchmark of an example and a model to be trained."""

from typing import Any

from flax import nnx

from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.errors import refusing
from mmunlearner_jax.examples import smollm2
from mmunlearner_jax.examples.catalogue import EXAMPLES
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.models.vision_language import VisionLanguageModel
from mmunlearner_jax.session import Session
from mmunlearner_jax.weights.io import save_pretrained

# What the sizes of a model are refused with.
_SIZES = "config.prepare: vision or text", "give the sizes that configs/orl.py gives"


def run(session: Session) -> bool:
    """Writes `benchmark/` and `initial/`."""
    config, workdir = session.config, session.workdir
    sizes = config.prepare
    for part in ("vision",) if sizes.language else ("vision", "text"):
        if not getattr(sizes, part):
            sizes.refuse(part, "the sizes of the model, as configs/orl.py does")
    benchmark, initial = workdir / "benchmark", workdir / "initial"
    made = None
    if sizes.language and not is_done(initial):  # first, because a package may be missing
        made = _with_decoder(session)
    if not is_done(benchmark):
        with writing(benchmark, alone=True) as partial:
            example = EXAMPLES[sizes.benchmark]
            options = {name: getattr(sizes, name) for name in example.options}
            example.write(partial, seed=config.seed, **options)
    if is_done(initial):
        return False
    model, processor = made or _untrained(session)
    with writing(initial, alone=True) as partial:
        save_pretrained(model, partial, processor=processor)
    return True


def _with_decoder(session: Session) -> tuple[VisionLanguageModel, Any]:
    """Makes a model with a pretrained decoder, and its processor."""
    sizes = session.config.prepare
    record = ARCHITECTURES[sizes.architecture]
    with refusing(*_SIZES):
        return smollm2.make(record, sizes.vision, sizes.text, seed=session.config.seed)


def _untrained(session: Session) -> tuple[VisionLanguageModel, Any]:
    """Makes a random model, and a processor that has learned the words of the benchmark."""
    config, sizes = session.config, session.config.prepare
    bench = open_benchmark(session.workdir / "benchmark", config.data, config.seed)
    lessons = bench.training(bench.taught) + bench.text_training(bench.taught)
    tiny, pixels = ARCHITECTURES[sizes.architecture].tiny, (sizes.min_pixels, sizes.max_pixels)
    with refusing(*_SIZES):
        made, processor = tiny.make(lessons, sizes.vision, sizes.text, pixels)
    return nnx.jit(lambda: made.make(rngs=nnx.Rngs(config.seed)))(), processor
