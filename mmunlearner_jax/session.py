"""What the stages of a run share: the mesh, the model, its processor and the benchmark."""

import copy
import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from flax import nnx

from mmunlearner_jax import artefacts
from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks import folders, open_benchmark, sources
from mmunlearner_jax.data.benchmarks.base import Benchmark, about_nobody
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.features import Features
from mmunlearner_jax.data.pipeline import Batches, Jitter
from mmunlearner_jax.data.processors import load_processor
from mmunlearner_jax.data.rows import count_batches
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.data.sources import fetched
from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.evaluation.kinds import Kinds, all_kinds
from mmunlearner_jax.evaluation.placement import to_answer
from mmunlearner_jax.evaluation.protocols import ProtocolName, protocol
from mmunlearner_jax.evaluation.questions import counted, general_questions, scored_questions
from mmunlearner_jax.evaluation.reference import find_reference
from mmunlearner_jax.evaluation.tasks import Answerer
from mmunlearner_jax.files import write_whole
from mmunlearner_jax.loading import load_abstract, load_model
from mmunlearner_jax.models.vision_language import VisionLanguageModel
from mmunlearner_jax.processes import is_first
from mmunlearner_jax.progress import say
from mmunlearner_jax.sharding import (
    batch_parts,
    device_bytes,
    make_mesh,
    process_rows,
    sharding_table,
)
from mmunlearner_jax.unlearn.optimizers import optimizers
from mmunlearner_jax.unlearn.schedule import Schedule, plan_schedule
from mmunlearner_jax.weights.io import in_groups, read_config


class Session:
    """One run of a config on a workdir; every part is made when it is first asked for.

    Before weights are read, what is small is checked: the benchmark, the checkpoint's small files,
    and every record that a stage will read. A stage that needs no weights reads none.

    Args:
        config: Config of the run.
        workdir: Workdir of the run.
        checkpoint: Folder or Hugging Face name of the model; None: the vanilla model.
    """

    def __init__(self, config: Config, workdir: Path, checkpoint: str | None = None):
        self.config, self.workdir = config, workdir
        self._checkpoint = checkpoint

    def with_values(self, changes: Mapping[str, Any]) -> Self:
        """Returns a session of other options that shares all that is made.

        Args:
            changes: Values by dotted key. Those of `model`, `data`, `mesh` and `seed` may not
                change.
        """
        for part in ("bench", "encoder", "params", "moving", "frozen", "features"):
            getattr(self, part)  # made now, so that the copies share it
        other = copy.copy(self)
        other.config = self.config.with_values(changes)
        return other

    @functools.cached_property
    def checkpoint(self) -> str:
        """Folder or Hugging Face name of the model."""
        return self._checkpoint or vanilla_checkpoint(self.config, self.workdir)

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The mesh of all devices."""
        return make_mesh(self.config.mesh)

    @functools.cached_property
    def _opened(self) -> tuple[Benchmark, str, str]:
        """The benchmark and the names of its forget and retain split."""
        _ = self.checkpoint  # where none is given, that is said first
        folder = benchmark_folder(self.config, self.workdir)
        bench = open_benchmark(folder, self.config.data, self.config.seed)
        return bench, *bench.split(self.config.data.forget_ratio)

    @functools.cached_property
    def bench(self) -> Benchmark:
        """The benchmark's reader, which refuses pictures that the model cannot see."""
        bench, _, _ = self._opened
        bench.check = self.encoder.pictures.check
        return bench

    @functools.cached_property
    def kinds(self) -> Kinds:
        """The kinds of scored questions, and what this run should do to their score."""
        return all_kinds(self.bench.record, self.config)

    @functools.cached_property
    def forget(self) -> str:
        """Name of the forget split, e.g. `forget_10`."""
        return self._opened[1]

    @functools.cached_property
    def retain(self) -> str:
        """Name of the retain split, e.g. `retain_90`."""
        return self._opened[2]

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Turns samples into token ids, labels and pixels."""
        model, data = self.config.model, self.config.data
        folder, config = read_config(self.checkpoint)
        processor, pictures = load_processor(
            config,
            str(folder),
            min_pixels=model.min_pixels,
            max_pixels=model.max_pixels,
            patch_budgets=model.patch_budgets,
            clip_fps=model.clip_fps,
            clip_frames=model.clip_frames,
        )
        return Encoder(processor, pictures, labels=data.labels, supervise_end=data.supervise_end)

    @functools.cached_property
    def answers(self) -> Encoder:
        """An encoder that supervises answers alone, whatever the steps learn."""
        if self.encoder.labels == "answer":
            return self.encoder
        return Encoder(
            self.encoder.processor,
            self.encoder.pictures,
            supervise_end=self.encoder.supervise_end,
        )

    @functools.cached_property
    def model(self) -> VisionLanguageModel:
        """The model without its weights: shapes, dtypes and shardings in their place."""
        counts = self._check_records()
        model = load_abstract(self.config, self.checkpoint, self.mesh)
        self._record(counts, nnx.split(model)[1])
        return model

    @functools.cached_property
    def graphdef(self) -> nnx.GraphDef:
        """The model's graph definition."""
        return nnx.split(self.model)[0]

    @functools.cached_property
    def abstract(self) -> nnx.State:
        """The parameters' shapes, dtypes and shardings."""
        return nnx.split(self.model)[1]

    @functools.cached_property
    def params(self) -> nnx.State:
        """The parameters, read from the checkpoint."""
        counts = self._check_records()
        model = load_model(self.config, self.checkpoint, self.mesh)
        self.graphdef, params = nnx.split(model)
        self.model = nnx.merge(self.graphdef, jax.tree.map(_shape, params))
        self._record(counts, params)
        return params

    def split_frozen(
        self, tree: nnx.State, besides: Collection[str] = ()
    ) -> tuple[nnx.State, nnx.State]:
        """Splits a tree like the parameters into its frozen and its moving part.

        Args:
            tree: To split.
            besides: Module groups that are frozen besides those of `config.model.frozen`.
        """
        groups, model_type = {*self.config.model.frozen, *besides}, self.model.config.model_type
        frozen, moving = nnx.split_state(tree, in_groups(model_type, groups), ...)
        return frozen, moving

    @functools.cached_property
    def frozen(self) -> nnx.State:
        """The parameters that no step moves, and that are not measured."""
        return self.split_frozen(self.params)[0]

    @functools.cached_property
    def moving(self) -> nnx.State:
        """The parameters that steps move and importances measure."""
        return self.split_frozen(self.params)[1]

    def forget_params(self) -> None:
        """Frees the parameters as far as nobody else holds them; asked for again, they are read."""
        for part in ("params", "moving", "frozen"):
            vars(self).pop(part, None)

    @functools.cached_property
    def pictures(self) -> Callable[[str], list[Sample]]:
        """Returns what is taught with pictures about the people of a split; read once."""
        return functools.cache(self.bench.training)

    @functools.cached_property
    def words(self) -> Callable[[str], list[Sample]]:
        """Returns what is taught in words about the people of a split; read once."""
        return functools.cache(self.bench.text_training)

    def retained_pictures(self) -> list[Sample]:
        """Returns what retain steps and preserve sets hold with pictures."""
        return self.pictures(self.retain) + self._others(self.pictures)

    def retained_words(self, *, forgotten: bool) -> list[Sample]:
        """Returns what retain steps and preserve sets hold in words.

        Args:
            forgotten: Whether the text about the people to forget is among it.
        """
        people = self.bench.everyone if forgotten else self.retain
        return self.words(people) + self._others(self.words)

    def _others(self, read: Callable[[str], list[Sample]]) -> list[Sample]:
        """Returns what is taught about nobody; none without `config.data.retain_others`."""
        if not self.config.data.retain_others:
            return []
        return about_nobody(self.bench, read(self.bench.taught))

    @functools.cached_property
    def features(self) -> Features | None:
        """What the vision tower gives of pictures, where it is frozen; None where it moves."""
        if "vision" not in self.config.model.frozen:
            return None
        model = nnx.merge(self.graphdef, self.params)
        return Features(self.workdir / "features", model, self.encoder, self.mesh)

    def schedule(self) -> Schedule:
        """Returns the schedule of `config.unlearn`.

        Raises:
            InputError: There is no such schedule.
        """
        options = self.config.unlearn
        count = functools.partial(count_batches, pack=options.pack)
        return plan_schedule(
            options,
            count(self.pictures(self.forget), options.forget_batch),
            count(self.retained_pictures(), options.retain_batch),
        )

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
        """Returns batches of this process's share.

        Where vision is frozen they hold features of the pictures, unless these are augmented: a
        picture that changes each time must be seen each time.

        Args:
            samples: What the batches hold.
            batch_size: Questions of a batch, over all processes.
            pack: Questions about one picture that share a row.
            stream: Number that tells apart what is shuffled separately.
            augment: Random changes to the pictures.
            encoder: Encodes the samples; None: as steps learn them.
            **options: Of `Batches`.
        """
        features = self.features if augment is None else None
        batches = Batches(
            samples,
            encoder or self.encoder,
            batch_size=batch_size,
            pack=pack,
            seed=self.config.seed + stream,
            rows=process_rows(self.mesh, batch_size // pack),
            augment=augment,
            features=features,
            **options,
        )
        if features is not None:
            features.add(sample.image for sample in samples if sample.image is not None)
        return batches

    def drawn(self, samples: list[Sample], most: int) -> list[Sample]:
        """Returns at most so many of the samples, drawn by the seed; 0: all of them."""
        order = np.random.default_rng(self.config.seed).permutation(len(samples))
        return [samples[i] for i in order[: most or None]]

    def questions(self) -> dict[str, list[Question]]:
        """Returns the scored questions by split, see `scored_questions`."""
        return scored_questions(self.config.evaluate, self.bench, self.forget, self.retain)

    def answerer(self, name: ProtocolName | None = None) -> Answerer:
        """Returns what asks a model questions, by the protocol of that name or the config's."""
        options, model = self.config.evaluate, self.model.config
        mesh, graphdef, params = to_answer(self.config, model, self.mesh)
        parts = batch_parts(mesh.axis_sizes)
        return Answerer(
            graphdef,
            self.encoder,
            mesh,
            protocol(name or options.protocol, self.bench.record, self.encoder, model.model_type),
            positions=model.text.max_position_embeddings,
            features=self.features,
            copied=params,
            batch_size=-(-options.decode.batch_size // parts) * parts,
            max_new_tokens=options.decode.max_new_tokens,
        )

    def _check_records(self) -> str:
        """Checks the records once a workdir; returns "" where they were checked before."""
        if not is_first() or (self.workdir / "benchmark.txt").exists():
            _ = self.bench
            return ""
        return self.check_records()

    def check_records(self) -> str:
        """Reads every record that any stage will read; returns how many, for `benchmark.txt`."""
        bench = self.bench
        find_reference(self.config)
        if "unlearn" in self.config.stages:
            optimizers(self.config.unlearn, self.schedule())
        general = general_questions(self.config, bench.check)
        parts = (bench.taught, self.forget, self.retain)
        return counted(bench, parts, {**self.questions(), **general})

    def _record(self, counts: str, params: nnx.State) -> None:
        """Writes `benchmark.txt` and `sharding.txt`, once a workdir."""
        if counts:
            write_whole(self.workdir / "benchmark.txt", counts)
        path = self.workdir / "sharding.txt"
        if path.exists() or not is_first():
            return
        write_whole(path, sharding_table(params))
        count = sum(x.size for x in jax.tree.leaves(params))
        axes = " x ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items())
        say(
            f"mesh {axes}: {count:,} parameters, {device_bytes(params) / 2**20:,.1f} MiB a device"
            f" ({shown(path, 4096)} lists them)"
        )


def _shape(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def benchmark_folder(config: Config, workdir: Path) -> Path:
    """Returns the folder of `config.data.benchmark`, or of the benchmark that `prepare` wrote.

    A benchmark on the hub is fetched.

    Raises:
        InputError: There is no such folder, or `prepare`'s is damaged.
    """
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


def vanilla_checkpoint(config: Config, workdir: Path) -> str:
    """Returns the model that knows the people: `vanilla/`, or `config.model.checkpoint`.

    Raises:
        InputError: There is none.
    """
    if "finetune" in config.stages or (workdir / "vanilla").exists():
        return str(workdir / "vanilla")
    if not config.model.checkpoint:
        raise InputError(
            "config.model.checkpoint is empty: give the folder (or Hugging Face name) of the"
            " fine-tuned checkpoint that knows the people to forget"
        )
    return config.model.checkpoint
