"""The programs that a config runs, with abstract arguments: the stages' own jitted functions."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.decoding import Decoder
from mmunlearner_jax.models.llama import cache_shardings
from mmunlearner_jax.models.llava import LlavaConfig
from mmunlearner_jax.models.qwen2_vl import Qwen2VLConfig
from mmunlearner_jax.models.vision_language import VisionLanguageConfig, abstract_model
from mmunlearner_jax.sharding import batch_sharding, replicated
from mmunlearner_jax.stages.unlearn import optimizers
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.schedule import Schedule, published_schedule
from mmunlearner_jax.unlearn.steps import TrainState, ascent_step, descent_step

STAGES = ("importance", "unlearn", "evaluate")
CANDIDATES = 4  # options of a multiple-choice question
# Published sizes, by name: classmethods that are called after the model.
SIZES = {
    name: kind
    for kind in (LlavaConfig, Qwen2VLConfig)
    for name in vars(kind)
    if name.startswith(f"{kind.model_type}_")
}


@dataclasses.dataclass(frozen=True)
class Program:
    """One jitted function with what it would be given.

    Attributes:
        stage: that runs it.
        name: of the step.
        function: jitted.
        arguments: abstract arrays with shardings.
        times: how often a run of the config calls it.
        parameters: those of the model among the arguments.
        reads: how often one call reads the parameters (once a token when decoding).
    """

    stage: str
    name: str
    function: Callable
    arguments: tuple[Any, ...]
    times: int
    parameters: Any
    reads: int = 1


def model_config(config: ConfigDict, **replaced: str) -> VisionLanguageConfig:
    """The published size that `config.model.size` names, computed as `config.model` says.

    Args:
        config: the config.
        **replaced: fields in place of the config's.

    Raises:
        InputError: the config names none.
    """
    size = config.model.get("size", "")
    if size not in SIZES:
        raise InputError(f"config.model.size is {size!r}: give one of {', '.join(SIZES)}")
    computed = {
        "dtype": config.model.compute_dtype,
        "remat": config.model.remat,
        "attention": config.model.attention,
    }
    return dataclasses.replace(getattr(SIZES[size], size)(), **computed | replaced)


def programs(config: ConfigDict, mesh: Mesh, stage: str, **replaced: str) -> Iterator[Program]:
    """Yields the programs of one stage.

    Args:
        config: with `model.size` and `plan`, besides what the stage reads.
        mesh: of devices that may be descriptions only.
        stage: one of `STAGES`.
        **replaced: fields of `VisionLanguageConfig` in place of the config's.
    """
    sizes = model_config(config, **replaced)
    graphdef, params = abstract_model(sizes, mesh, config.model.param_dtype)
    pictures = sizes.picture_arrays(max(config.model.get("patch_budgets", ()), default=0))
    batch = functools.partial(_batch, pictures, mesh, config.plan)
    if stage == "importance":
        yield from _importance(config, graphdef, params, batch)
    elif stage == "unlearn":
        yield from _unlearn(config, graphdef, params, batch)
    else:
        yield from _evaluate(config, mesh, graphdef, params, batch)


def _importance(config, graphdef, params, batch):
    options, plan = config.importance, config.plan
    add = accumulator(graphdef, fisher=options.fisher)
    sums = FisherSums.abstract(params)
    rows = options.batch_size
    for name, sets in (("picture batch", ("forget", "pictures")), ("text batch", ("text",))):
        inputs = batch(rows, pictured=name == "picture batch")
        times = sum(_ceil(min(plan[s], options.examples or plan[s]), rows) for s in sets)
        yield Program("importance", name, add, (sums, params, inputs), times, params)


def _unlearn(config, graphdef, params, batch):
    options, plan = config.unlearn, config.plan
    descend, ascend = optimizers(options)
    states = tuple(_optimizer_state(descend, params) for _ in range(options.optimizers))
    state = TrainState(params, states)
    forget_batches = _ceil(plan.forget, options.forget_batch)
    retain_batches = _ceil(plan.pictures, options.retain_batch)
    if options.epochs:
        schedule = published_schedule(forget_batches, retain_batches, options.epochs)
    else:
        schedule = Schedule(options.iterations, options.forget_every)
    forget = [batch(options.forget_batch, pictured=True)]
    retain = [batch(options.retain_batch, pictured=True), batch(options.text_batch, pictured=False)]
    yield Program(
        "unlearn",
        "forget step",
        ascent_step(graphdef, ascend),
        (state, forget, _like(params, "bool")),
        schedule.forget_steps(schedule.iterations),
        params,
    )
    yield Program(
        "unlearn",
        "retain step",
        descent_step(graphdef, descend),
        (state, retain),
        schedule.iterations,
        params,
    )


def _evaluate(config, mesh, graphdef, params, batch):
    options, plan = config.evaluate.decode, config.plan
    rows, new = options.batch_size, options.max_new_tokens
    decoder = Decoder(graphdef, max_new_tokens=new, end_id=0)
    # Every model is scored before and after; decoding reads the parameters once a token.
    times = 2 * _ceil(plan.questions, rows)
    inputs = {k: v for k, v in batch(rows, pictured=True).items() if k != "labels"}
    prefill = jax.jit(decoder.prefill)
    yield Program("evaluate", "prefill", prefill, (params, inputs), times, params)
    logits, cache = prefill.eval_shape(params, inputs)
    by_row, everywhere = batch_sharding(mesh), replicated(mesh)
    logits = _placed(logits, by_row)
    cache = jax.tree.map(_placed, cache, cache_shardings(cache, mesh))
    wanted = jax.ShapeDtypeStruct((rows, CANDIDATES), jnp.int32, sharding=by_row)
    given = (params, logits, cache, wanted)
    yield Program("evaluate", "greedy", jax.jit(decoder.greedy), given, times, params, reads=new)
    shape = (CANDIDATES, rows, new)
    tokens = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=everywhere)
    scored = jax.ShapeDtypeStruct(shape, jnp.bool_, sharding=everywhere)
    given = (params, logits, cache, tokens, scored)
    yield Program(
        "evaluate", "score", jax.jit(decoder.score), given, times, params, reads=CANDIDATES
    )


def _batch(
    pictures: Mapping[str, jax.ShapeDtypeStruct],
    mesh: Mesh,
    plan: ConfigDict,
    rows: int,
    *,
    pictured: bool,
) -> Mapping[str, jax.ShapeDtypeStruct]:
    by_row = batch_sharding(mesh)
    length = plan.picture_tokens if pictured else plan.text_tokens
    batch = {
        name: jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=by_row)
        for name in ("input_ids", "attention_mask", "labels")
    }
    if pictured:
        for name, x in pictures.items():
            batch[name] = jax.ShapeDtypeStruct((rows, *x.shape), x.dtype, sharding=by_row)
    return batch


def _optimizer_state(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """Abstract state: moments lie where their parameters do, counters everywhere."""
    return optax.tree.map_params(
        optimizer,
        lambda moment, param: _placed(moment, param.sharding),
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=lambda x: _scalar(params, x.dtype),
    )


def _placed(array: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def _like(params: Any, dtype: str) -> Any:
    return jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, jnp.dtype(dtype), sharding=p.sharding), params
    )


def _scalar(params: Any, dtype: Any) -> Any:
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    return jax.ShapeDtypeStruct((), jnp.dtype(dtype), sharding=replicated(mesh))


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
