"""What most stages begin with: the mesh, the vanilla model, its processor and the benchmark."""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from mmunlearner_jax import artefacts
from mmunlearner_jax.check import flatten
from mmunlearner_jax.data.benchmarks import folders, open_benchmark, sources
from mmunlearner_jax.data.benchmarks.base import Benchmark
from mmunlearner_jax.data.features import Features
from mmunlearner_jax.data.pipeline import Batches, Jitter
from mmunlearner_jax.data.processors import load_processor
from mmunlearner_jax.data.prompts import Encoder
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.data.sources import fetched
from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.evaluation.protocols import protocol
from mmunlearner_jax.evaluation.tasks import Answerer
from mmunlearner_jax.files import read_json, write_whole
from mmunlearner_jax.models.vision_language import VisionLanguageConfig, VisionLanguageModel
from mmunlearner_jax.processes import is_first
from mmunlearner_jax.sharding import device_bytes, make_mesh, process_rows, sharding_table
from mmunlearner_jax.stages.planned import optimizers, planned_for
from mmunlearner_jax.unlearn import lora
from mmunlearner_jax.unlearn.methods import METHODS
from mmunlearner_jax.weights.io import from_pretrained, in_groups, read_config, weight_names


@dataclasses.dataclass(frozen=True)
class Setup:
    """A loaded model beside its data.

    Attributes:
        mesh: of all devices.
        model: as `from_pretrained` gave it; `graphdef` and `params` are its two halves.
        encoder: turns samples into token ids.
        bench: the benchmark's reader.
        forget: name of the forget split, e.g. `forget_10`.
        retain: name of its complement, e.g. `retain_90`.
        seed: of everything drawn.
        frozen_groups: module groups of `config.model.frozen`.
        targets: paths of the layers that unlearning gives adapters; none: it moves full weights.
        workdir: of the run.
    """

    mesh: jax.sharding.Mesh
    model: VisionLanguageModel
    graphdef: nnx.GraphDef
    params: Any
    encoder: Encoder
    bench: Benchmark
    forget: str
    retain: str
    seed: int
    frozen_groups: tuple[str, ...]
    targets: tuple[lora.Path, ...]
    workdir: Path

    def apart(self, tree: nnx.State) -> tuple[nnx.State, nnx.State]:
        """What a tree like the parameters says of the frozen ones, and of those that move."""
        still = in_groups(self.model.config.model_type, self.frozen_groups)
        frozen, moving = nnx.split_state(tree, still, ...)
        return frozen, moving

    @functools.cached_property
    def frozen(self) -> nnx.State:
        """The parameters that no step moves, and that are not measured."""
        return self.apart(self.params)[0]

    @functools.cached_property
    def moving(self) -> nnx.State:
        """The parameters that steps move and importances measure."""
        return self.apart(self.params)[1]

    @functools.cached_property
    def pictures(self) -> Callable[[str], list[Sample]]:
        """What is taught with pictures about the people of a config; read once."""
        return functools.cache(self.bench.training)

    @functools.cached_property
    def words(self) -> Callable[[str], list[Sample]]:
        """What is taught in words about the people of a config; read once."""
        return functools.cache(self.bench.text_training)

    @functools.cached_property
    def answers(self) -> Encoder:
        """Supervises answers alone, whatever steps learn: what is asked for is never a prompt."""
        if self.encoder.labels == "answer":
            return self.encoder
        return Encoder(
            self.encoder.processor,
            self.encoder.pictures,
            supervise_end=self.encoder.supervise_end,
        )

    @functools.cached_property
    def features(self) -> Features | None:
        """Of pictures, where vision is frozen."""
        if "vision" not in self.frozen_groups:
            return None
        return Features(self.workdir / "features", self.model, self.encoder, self.mesh)

    def batches(
        self,
        samples: list[Sample],
        *,
        batch_size: int,
        pack: int,
        stream: int = 0,
        augment: Jitter | None = None,
        encoder: Encoder | None = None,
        **options: Any,
    ) -> Batches:
        """Batches of this process's share; `stream` tells apart what is shuffled separately.

        They are encoded as steps learn them, or by another encoder.

        Where vision is frozen they hold features of the pictures, unless these are augmented: what
        is changed each time must be seen each time.
        """
        features = self.features if augment is None else None
        batches = Batches(
            samples,
            encoder or self.encoder,
            batch_size=batch_size,
            pack=pack,
            seed=self.seed + stream,
            rows=process_rows(self.mesh, batch_size // pack),
            augment=augment,
            features=features,
            **options,
        )
        if features is not None:
            features.add(sample.image for sample in samples if sample.image is not None)
        return batches

    def drawn(self, samples: list[Sample], at_most: int) -> list[Sample]:
        """So many of the samples, drawn by the seed; 0: all of them."""
        order = np.random.default_rng(self.seed).permutation(len(samples))
        return [samples[i] for i in order[: at_most or None]]


def benchmark_dir(config: ConfigDict, workdir: Path) -> Path:
    """`config.data.benchmark`, fetched where it is on the hub, or the one that `prepare` wrote."""
    path = fetched(config.data.benchmark or str(workdir / "benchmark"))
    if not path.is_dir():
        raise InputError(
            f"{path} is missing: set config.data.benchmark to a folder of parquet files (one folder"
            f" per config, e.g. {folders()}), or to {sources()}"
        )
    if not artefacts.is_sealed(path):
        return path
    with artefacts.reading(path):  # what `prepare` wrote
        return path


def vanilla_checkpoint(config: ConfigDict, workdir: Path) -> str:
    """The model that knows what is to be forgotten: `vanilla/`, or `config.model.checkpoint`."""
    if "finetune" in config.stages or (workdir / "vanilla").exists():
        return str(workdir / "vanilla")
    if not config.model.checkpoint:
        raise InputError(
            "config.model.checkpoint is empty: give the folder (or Hugging Face name) of the"
            " fine-tuned checkpoint that knows the people to forget"
        )
    return config.model.checkpoint


def load(config: ConfigDict, workdir: Path, checkpoint: str) -> Setup:
    """Opens the benchmark and loads a checkpoint, sharded: what is small first."""
    mesh = make_mesh(config.mesh)
    bench = open_benchmark(benchmark_dir(config, workdir), config.data, config.seed)
    forget, retain = bench.split(config.data.forget_ratio)
    folder, model_config = read_config(checkpoint)
    encoder = _encoder(
        model_config,
        str(folder),
        tuple(picture_sizes(config).items()),
        config.data.labels,
        config.data.supervise_end,
    )
    bench.check = encoder.pictures.check
    told = workdir / "benchmark.txt"
    counts = counted(config, bench, forget, retain) if is_first() and not told.exists() else ""
    model = load_model(config, str(folder), mesh)
    graphdef, params = nnx.split(model)
    if counts:
        write_whole(told, counts)
    tell_shardings(params, mesh, workdir)
    return Setup(
        mesh,
        model,
        graphdef,
        params,
        encoder,
        bench,
        forget,
        retain,
        config.seed,
        tuple(config.model.frozen),
        lora_targets(config, model.config.model_type, graphdef, params),
        workdir,
    )


@functools.lru_cache(1)  # stages share what was encoded
def _encoder(
    model: VisionLanguageConfig,
    folder: str,
    sizes: tuple[tuple[str, Any], ...],
    labels: Literal["answer", "full"],
    supervise_end: bool,
) -> Encoder:
    processor, pictures = load_processor(model, folder, **dict(sizes))
    return Encoder(processor, pictures, labels=labels, supervise_end=supervise_end)


def load_model(config: ConfigDict, checkpoint: str, mesh: jax.sharding.Mesh) -> VisionLanguageModel:
    """Loads a checkpoint as `config.model` says, sharded over the mesh."""
    options = config.model
    return from_pretrained(
        checkpoint,
        mesh=mesh,
        dtype=options.param_dtype,
        compute_dtype=options.compute_dtype,
        remat=options.remat,
        attention=options.attention,
    )


def lora_targets(
    config: ConfigDict, model_type: str, graphdef: nnx.GraphDef, params: Any
) -> tuple[lora.Path, ...]:
    """The layers that `config.unlearn.lora` gives adapters; () where its rank is 0.

    Args:
        config: of the run.
        model_type: of the model.
        graphdef: of the model.
        params: of the model, real or abstract.

    Raises:
        InputError: the patterns do not fit the model.
    """
    options = config.unlearn.lora
    if not options.rank:
        return ()
    _, moving = nnx.split_state(params, in_groups(model_type, config.model.frozen), ...)
    names = weight_names(model_type, moving)
    kernels = {path: (*path, "kernel") for path in lora.linears(graphdef, params)}
    return lora.choose(
        options.targets, {path: names[k] for path, k in kernels.items() if k in names}
    )


def picture_sizes(config: ConfigDict) -> dict[str, Any]:
    """What a config says about pictures of any size: arguments of `load_processor`."""
    names = ("min_pixels", "max_pixels", "patch_budgets")
    return {name: config.model[name] for name in names if name in config.model}


def answerer(config: ConfigDict, at: Setup) -> Answerer:
    """What asks a model questions, by the config's protocol."""
    return Answerer(
        at.graphdef,
        at.encoder,
        at.mesh,
        protocol(config.evaluate.protocol, at.bench, at.encoder, at.model.config.model_type),
        positions=at.model.config.text.max_position_embeddings,
        features=at.features,
        **config.evaluate.decode,
    )


def asked(
    config: ConfigDict, bench: Benchmark, forget: str, retain: str
) -> dict[str, list[Question]]:
    """The scored questions of `config.evaluate.splits`, with their demonstrations if any.

    Args:
        config: of the run.
        bench: the benchmark's reader.
        forget: name of the forget split, as `bench.split` gives it.
        retain: name of its complement.

    Raises:
        InputError: the benchmark has no such split, or is never asked with demonstrations.
    """
    options = config.evaluate
    found = bench.scored(forget, retain, photos_per_person=options.photos_per_person or None)
    if unknown := [split for split in options.splits if split not in found]:
        raise InputError(
            f"config.evaluate.splits: {', '.join(unknown)}; this benchmark has {', '.join(found)}"
        )
    found = {split: found[split] for split in options.splits or found}
    if not options.shots:
        return found
    if bench.record.with_shots is None:
        title = bench.record.title
        raise InputError(f"config.evaluate.shots: {title} is asked without demonstrations; give 0")
    return bench.record.with_shots(bench, found, retain=retain, protocol=options.protocol)


# What a reference must share with a run: else it was asked about others, or in other words.
SHARED = ("seed", "data.forget_ratio", "evaluate.protocol", "evaluate.photos_per_person")


def find_reference(config: ConfigDict) -> Path | None:
    """The forget set's predictions of `config.evaluate.reference`, a retain-only run's workdir.

    Raises:
        InputError: there are none, or they are of a model that was taught the people to forget, or
            that was asked something else.
    """
    if not config.evaluate.reference:
        return None
    folder = Path(config.evaluate.reference).expanduser()
    path = folder / "predictions/before-forget.jsonl"
    mend = "give the workdir of an evaluated run with config.finetune.retain_only=True"
    if not path.exists() or not (folder / "config.json").exists():
        raise InputError(f"config.evaluate.reference: {path} or config.json is missing; {mend}")
    theirs = flatten(read_json(folder / "config.json", mend=mend))
    if theirs.get("finetune.retain_only") is False:
        raise InputError(f"config.evaluate.reference: {folder} was taught everybody; {mend}")
    ours = flatten(json.loads(config.to_json()))
    for key in SHARED:
        if theirs.get(key) != ours[key]:
            raise InputError(
                f"config.evaluate.reference: {folder} has {key}={theirs.get(key)!r}, this run"
                f" {ours[key]!r}; {mend}, the same in {', '.join(SHARED)}"
            )
    return path


def counted(config: ConfigDict, bench: Benchmark, forget: str, retain: str) -> str:
    """How much there is of everything, a line each, for `benchmark.txt`.

    All that any stage will read is read here, so that a mistake in it shows before hours of work.
    """
    find_reference(config)
    if "unlearn" in config.stages:
        method = METHODS[config.unlearn.method]
        schedule = planned_for(config.unlearn, method, bench.training, forget, retain)
        optimizers(config.unlearn, method, schedule)
    counts = {"named people": len(bench.names())}
    for part in (bench.taught, forget, retain):
        counts |= {
            f"people of {part}": len(bench.people(part)),
            f"{part}: taught with pictures": len(bench.training(part)),
            f"{part}: taught in words": len(bench.text_training(part)),
        }
    for split, questions in asked(config, bench, forget, retain).items():
        counts[f"scored: {split}"] = len(questions)
    return "".join(f"{count:>8,} {what}\n" for what, count in counts.items())


def tell_shardings(params: Any, mesh: jax.sharding.Mesh, workdir: Path) -> None:
    """Writes `sharding.txt`, how every parameter is split, and says so, once a workdir."""
    path = workdir / "sharding.txt"
    if path.exists() or not is_first():
        return
    write_whole(path, sharding_table(params))
    count = sum(x.size for x in jax.tree.leaves(params))
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    print(
        f"mesh {axes}: {count:,} parameters, {device_bytes(params) / 2**20:,.1f} MiB a device"
        f" ({shown(path, 4096)} lists them)",
        file=sys.stderr,
    )
