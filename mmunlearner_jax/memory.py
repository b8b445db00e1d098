"""The memory that stages need at least, by arithmetic, against that of the devices.

What is counted: weights, gradients, moments, sums of squares and masks, by dtype and sharding.
What is not: activations, temporary arrays, batches, caches and programs. So the figure is a lower
bound: what it refuses cannot run, and what it lets pass may still be too large
(`python -m mmunlearner_jax.plan` compiles the programs, and knows).
"""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mmunlearner_jax.config import Config
from mmunlearner_jax.config.fitting import LEARNED, OTHERS
from mmunlearner_jax.config.run import READS
from mmunlearner_jax.errors import InputError, in_words, out_of_memory
from mmunlearner_jax.evaluation.placement import to_answer
from mmunlearner_jax.models.vision_language import VisionLanguageModel, abstract_model
from mmunlearner_jax.movable import lora_targets
from mmunlearner_jax.planning.programs import like, optimizer_state
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import (
    device_bytes,
    make_mesh,
)
from mmunlearner_jax.stages.finetune import untrained_session
from mmunlearner_jax.training import optimizer_of
from mmunlearner_jax.unlearn.bits import DEVICES, packed_shapes
from mmunlearner_jax.unlearn.importance import FisherSums
from mmunlearner_jax.unlearn.lora import attach
from mmunlearner_jax.unlearn.optimizers import state_optimizers
from mmunlearner_jax.unlearn.schedule import Schedule
from mmunlearner_jax.weights.io import in_groups

TRAINS = ("align", "finetune")
UNLEARNS = ("unlearn", "controls", "tune", "compare")  # all but the first keep the vanilla model
STAGES = (*TRAINS, "importance", *UNLEARNS, "evaluate")
# What makes a run smaller, the least change first.
_SMALLER: tuple[Mapping[str, Any], ...] = (
    {"evaluate.decode.weights": "mesh"},
    {"mesh": (1, -1, 1)},
    {"model.param_dtype": "bfloat16", "unlearn.rounding": "stochastic"},
    {"unlearn.lora.rank": 16},
    {"model.param_dtype": "bfloat16", "unlearn.lora.rank": 16},
)


def least(config: Config, stage: str, model: VisionLanguageModel) -> dict[str, int]:
    """Returns the bytes on one device that a stage needs at least, by kind.

    Args:
        config: Config of the run.
        stage: One of `STAGES`.
        model: The model, with arrays or `jax.ShapeDtypeStruct` that have shardings.
    """
    weights = {"weights": device_bytes(nnx.split(model)[1])}
    if stage == "evaluate":
        return weights | _to_answer(config, model)
    if stage == "importance":
        moving = _moving(model, config.model.frozen)
        return weights | {"sums of squares": device_bytes(FisherSums.abstract(moving))}
    if stage in TRAINS:
        options = config.align if stage == "align" else config.finetune
        still = ("language",) if stage == "align" else config.finetune.frozen
        moving = _moving(model, {*config.model.frozen, *still})
        optimizer = optimizer_of(options, options.steps, config.seed)
        return weights | _of_steps(moving, [optimizer])
    return weights | (_of_unlearning(config, stage, model) if stage in UNLEARNS else {})


def _to_answer(config: Config, model: VisionLanguageModel) -> dict[str, int]:
    """Returns the bytes of the weights that answers are decoded with, where these are copies."""
    params = nnx.split(model)[1]
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    apart, _, copies = to_answer(config, model.config, mesh)
    dtypes = [{p.dtype for p in jax.tree.leaves(tree)} for tree in (params, copies)]
    if apart == mesh and dtypes[0] == dtypes[1]:
        return {}
    return {"weights to answer with": device_bytes(copies)}


def _moving(model: VisionLanguageModel, frozen: Collection[str]) -> nnx.State:
    still = in_groups(model.config.model_type, frozen)
    return nnx.split_state(nnx.split(model)[1], still, ...)[1]


def _of_steps(
    moving: nnx.State, optimizers: Sequence[optax.GradientTransformation]
) -> dict[str, int]:
    states = [optimizer_state(optimizer, moving) for optimizer in optimizers]
    return {"moments": device_bytes(states), "gradients": device_bytes(moving)}


def _of_unlearning(config: Config, stage: str, model: VisionLanguageModel) -> dict[str, int]:
    # The shape of the learning rate is no matter of memory, and needs the length of the run.
    options = dataclasses.replace(config.unlearn, decay="constant", warmup=0)
    graphdef, params = nnx.split(model)
    moving = _moving(model, {*config.model.frozen, *options.held})
    beside, mask = {}, packed_shapes(moving, DEVICES)
    targets = lora_targets(config, model.config.model_type, graphdef, params)
    if targets:
        rank, alpha = options.lora.rank, options.lora.alpha
        _, moving, _ = attach(graphdef, params, targets, rank=rank, alpha=alpha)
        # Adapters have the mask within the model.
        beside, mask = {"adapters": device_bytes(moving)}, like(params, "bool")
    elif (options.chosen_anchor and not options.chosen_anchor.samples) or stage != "unlearn":
        beside = {"weights before": device_bytes(moving)}
    if options.forget_optimizer == "preconditioned":
        beside["importances"] = device_bytes(like(moving, "float32"))
    if options.looks_ahead:  # a copy with its moments
        beside["fine-tuned copy"] = 3 * device_bytes(like(moving, "float32"))
    steps = _of_steps(moving, state_optimizers(options, Schedule(1)))
    return beside | steps | {"mask": device_bytes(mask)}


def check_memory(session: Session, stages: Sequence[str]) -> None:
    """Refuses stages that the devices are too small for, before weights are read.

    Devices that do not tell their memory (CPUs) are not asked.

    Args:
        session: Session of the run.
        stages: Stages that are still to run; the first one's checkpoint is there.

    Raises:
        InputError: The first stage that does not fit, with the nearest options that do.
    """
    limit = device_limit()
    if limit is None or stages[0] not in STAGES:
        return
    untrained = stages[0] in TRAINS
    model = (untrained_session(session) if untrained else session).model
    for stage in stages:
        if stage in STAGES:
            refuse_misfit(session.config, stage, model, limit)


@contextlib.contextmanager
def refusing_misfit(stage: str) -> Iterator[None]:
    """Turns a stage's lack of device memory into one line.

    Args:
        stage: Name of the stage.

    Raises:
        InputError: A device had no room, with the options that make it.
    """
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        smaller = [
            f"config.{section}.{batch}"
            for section, batch, _ in (*LEARNED, *OTHERS)
            if section.partition(".")[0] in READS[stage]
        ]
        raise InputError(
            f"the stage {stage} ran out of the memory of a device ({in_words(error)}); lower"
            f" {', '.join(smaller)}, or take more devices"
        ) from error


def device_limit() -> int | None:
    """Returns the bytes that this process may use of a device; None where devices do not tell."""
    stats = jax.local_devices()[0].memory_stats()
    return (stats or {}).get("bytes_limit")


def refuse_misfit(config: Config, stage: str, model: VisionLanguageModel, limit: int) -> None:
    """Refuses a stage that a device is too small for.

    Args:
        config: Config of the run.
        stage: One of `STAGES`.
        model: As in `least`.
        limit: Bytes of a device.

    Raises:
        InputError: It does not fit; with the nearest options that do.
    """
    needed = least(config, stage, model)
    total = sum(needed.values())
    if total <= limit:
        return
    kinds = ", ".join(f"{kind} {_gib(size)}" for kind, size in needed.items())
    raise InputError(
        f"config.model.param_dtype is {config.model.param_dtype!r}: the stage {stage} needs"
        f" {_gib(total)} GiB of a device at least ({kinds}), which has {_gib(limit)}; give"
        f" {_smaller(config, stage, model, limit)}"
    )


def _smaller(config: Config, stage: str, model: VisionLanguageModel, limit: int) -> str:
    """Returns the nearest options with which a stage fits."""
    for changes in _SMALLER:
        if stage not in UNLEARNS:
            changes = {k: v for k, v in changes.items() if not k.startswith("unlearn.")}
        try:
            other = config.with_values(changes)
            total = sum(least(other, stage, _varied(model, other)).values())
        except InputError:  # the model has no such layers, or the method no such option
            continue
        if total <= limit and other != config:
            values = " and ".join(f"config.{key}={value!r}" for key, value in changes.items())
            return f"{values} ({_gib(total)} GiB at least)"
    fewest = sum(least(config, stage, model).values()) * jax.device_count()
    return f"{-(-fewest // limit)} devices or more, with config.mesh=(1, -1, 1)"


def fitting(config: Config, model: VisionLanguageModel) -> tuple[Config, VisionLanguageModel]:
    """Returns a config with the first options with which all its stages fit the devices.

    Args:
        config: Config of the run.
        model: As in `least`.

    Returns:
        The config, and the model as it says, without arrays. Where devices do not tell their
        memory, or nothing fits, both are as given.
    """
    limit, stages = device_limit(), [stage for stage in config.stages if stage in STAGES]
    if limit is None:
        return config, model
    for changes in ({}, *_SMALLER):
        try:
            other = config.with_values(changes)
            varied = _varied(model, other)
            sizes = [least(other, stage, varied) for stage in stages]
        except InputError:  # the model has no such layers, or the method no such option
            continue
        if all(sum(size.values()) <= limit for size in sizes):
            return other, varied
    return config, model


def _varied(model: VisionLanguageModel, config: Config) -> VisionLanguageModel:
    """Returns the model with the dtype and the mesh of a config, without arrays."""
    mesh = make_mesh(config.mesh)
    return nnx.merge(*abstract_model(model.config, mesh, jnp.dtype(config.model.param_dtype)))


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
