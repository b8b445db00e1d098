"""Stage `prepare`: writes the benchmark of an example and an untrained tiny model."""

from flax import nnx

from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.errors import refusing
from mmunlearner_jax.examples.catalogue import EXAMPLES
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.session import Session
from mmunlearner_jax.weights.io import save_pretrained


def run(session: Session) -> bool:
    """Writes `benchmark/` and `initial/`."""
    config, workdir = session.config, session.workdir
    sizes = config.prepare
    for part in ("vision", "text"):
        if not getattr(sizes, part):
            sizes.refuse(part, "the sizes of the model, as configs/orl.py does")
    benchmark, initial = workdir / "benchmark", workdir / "initial"
    if not is_done(benchmark):
        with writing(benchmark, alone=True) as partial:
            example = EXAMPLES[sizes.benchmark]
            options = {name: getattr(sizes, name) for name in example.options}
            example.write(partial, seed=config.seed, **options)
    if is_done(initial):
        return False
    bench = open_benchmark(benchmark, config.data, config.seed)
    lessons = bench.training(bench.taught) + bench.text_training(bench.taught)
    make = ARCHITECTURES[sizes.architecture].tiny.make
    pixels = sizes.min_pixels, sizes.max_pixels
    with refusing("config.prepare: vision or text", "give the sizes that configs/orl.py gives"):
        model_config, processor = make(lessons, sizes.vision, sizes.text, pixels)
    model = nnx.jit(lambda: model_config.make(rngs=nnx.Rngs(config.seed)))()
    with writing(initial, alone=True) as partial:
        save_pretrained(model, partial, processor=processor)
    return True
