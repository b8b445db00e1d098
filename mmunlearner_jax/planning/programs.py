"""The programs of a config: the jitted functions of its stages, with abstract arguments."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.config import Config
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.batching import Prompt, batches, rounded
from mmunlearner_jax.evaluation.decoding import Decoder
from mmunlearner_jax.evaluation.placement import to_answer
from mmunlearner_jax.models.cache import cache_shardings
from mmunlearner_jax.models.groups import GROUPS
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.models.vision_language import VisionLanguageConfig, abstract_model
from mmunlearner_jax.movable import lora_targets
from mmunlearner_jax.planning.batches import Layout, layout
from mmunlearner_jax.sharding import batch_parts, batch_sharding, replicated
from mmunlearner_jax.unlearn.bits import DEVICES, packed_shapes
from mmunlearner_jax.unlearn.compiled_steps import compiled_steps
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.lora import attach
from mmunlearner_jax.unlearn.losses import Reference
from mmunlearner_jax.unlearn.optimizers import state_optimizers
from mmunlearner_jax.unlearn.schedule import plan_schedule
from mmunlearner_jax.unlearn.scoring import NOTHING
from mmunlearner_jax.unlearn.steps import TrainState, path_step
from mmunlearner_jax.weights.io import in_groups, read_config

STAGES = ("importance", "unlearn", "evaluate")
CANDIDATES = 4  # number of choices of a multiple-choice question
IN_WORDS = ", in words"  # ends the names of programs that answer questions without a picture


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function with abstract arguments.

    Attributes:
        stage: The stage that runs it.
        name: Name of the program, e.g. `forget step`.
        function: The jitted function.
        arguments: Its arguments, abstract arrays with shardings.
        times: Number of calls in a run of the config.
        questions: Mean number of questions of one call.
        parameters: The model's parameters among the arguments.
        passes: Number of passes over the language model in one call (one a token when decoding).
        read: Arguments that every pass reads, the first one included.
    """

    stage: str
    name: str
    function: Callable
    arguments: tuple[Any, ...]
    times: int
    questions: float
    parameters: Any
    passes: int = 1
    read: Any = ()


def model_config(config: Config, **replaced: Any) -> VisionLanguageConfig:
    """Returns the config of the model that is planned for.

    It is the published one that `config.model.size` names, or else that of the checkpoint.

    Args:
        config: Config whose `model` gives the model and the options of the computation.
        **replaced: Fields of `VisionLanguageConfig` that replace those of `config.model`.

    Raises:
        InputError: `config.model.size` names no published model, or there is no such checkpoint.
    """
    size, checkpoint = config.model.size, config.model.checkpoint
    sizes = {name: make for each in ARCHITECTURES.values() for name, make in each.sizes.items()}
    if size not in sizes and (size or not checkpoint):
        raise InputError(
            f"config.model.size is {size!r}: give one of {', '.join(sizes)}, or none and"
            " config.model.checkpoint"
        )
    model = sizes[size]() if size else read_config(checkpoint)[1]
    computed = {
        "dtype": config.model.compute_dtype,
        "remat": config.model.remat,
        "attention": config.model.attention,
    }
    return dataclasses.replace(model, **computed | replaced)


def programs(config: Config, mesh: Mesh, stage: str, **replaced: Any) -> Iterator[Program]:
    """Yields the programs of one stage.

    Args:
        config: Config; `model.size` and `plan` are read besides the fields of the stage.
        mesh: Mesh of devices, which may be mere descriptions.
        stage: One of `STAGES`.
        **replaced: Fields of `VisionLanguageConfig` that replace those of `config.model`.
    """
    sizes = model_config(config, **replaced)
    if stage == "evaluate":
        mesh, graphdef, params = to_answer(config, sizes, mesh)
    else:
        graphdef, params = abstract_model(sizes, mesh, config.model.param_dtype)
    pictures = sizes.picture_arrays(max(config.model.patch_budgets, default=0))
    if "vision" in config.model.frozen:
        pictures = _seen(graphdef, params, pictures)
    batch = functools.partial(_batch, config, sizes, pictures, mesh)
    held = config.unlearn.held if stage == "unlearn" else ()
    still = in_groups(sizes.model_type, {*config.model.frozen, *held})
    frozen, moving = nnx.split_state(params, still, ...)
    # The vanilla model's frozen parameters are those of the model, its moving ones are not.
    before = jax.tree.map(lambda p: _placed(p, p.sharding), moving)
    unlearn = functools.partial(_unlearn, vanilla=(graphdef, nnx.merge_state(before, frozen)))
    make = {"importance": _importance, "unlearn": unlearn, "evaluate": _evaluate}[stage]
    if stage == "unlearn" and (targets := lora_targets(config, sizes.model_type, graphdef, params)):
        graphdef, moving, frozen = attach(
            graphdef,
            params,
            targets,
            rank=config.unlearn.lora.rank,
            alpha=config.unlearn.lora.alpha,
            mask=like(params, "bool") if config.unlearn.is_masked else None,
        )
    yield from make(config, graphdef, frozen, moving, batch)


def _importance(config, graphdef, frozen, params, batch):
    options, plan = config.importance, config.plan
    whole = nnx.merge_state(params, frozen)
    sums = FisherSums.abstract(params)
    used = {"forget", *options.preserve.used}
    for name, of_kind in (("picture batch", ("forget", "pictures")), ("text batch", ("text",))):
        sets, pictured = [s for s in of_kind if s in used], name == "picture batch"
        if not sets:
            continue
        pack = options.pack if pictured else options.text_pack
        made = batch(options.batch_size, pack, pictured=pictured)
        counts = (min(getattr(plan, s), options.examples or getattr(plan, s)) for s in sets)
        times = sum(map(made.calls, counts)) * max(options.path.points, 1)
        arguments = (sums, params, made.arrays, frozen)
        add = accumulator(
            graphdef, fisher=options.fisher, sizes=made.layout.sizes, weights=options.weights
        )
        yield Program("importance", name, add, arguments, times, made.questions, whole)
        if pictured and options.path.points:
            yield _path_step(config, graphdef, frozen, params, made)


def _path_step(config, graphdef, frozen, params, made):
    """Returns the ascent along which importances are measured, once for each set."""
    path, model_type = config.importance.path, nnx.merge(graphdef, params, frozen).config.model_type
    held, moving = nnx.split_state(params, in_groups(model_type, {*GROUPS} - {*path.moves}), ...)
    step, adam = path_step(graphdef, path.learning_rate)
    state = TrainState(moving, (optimizer_state(adam, moving),))
    arguments = (state, [made.arrays], nnx.merge_state(frozen, held))
    count = 1 + len(config.importance.preserve.used)
    times, whole = count * path.points * path.every, nnx.merge_state(params, frozen)
    return Program("importance", "path step", step, arguments, times, made.questions, whole)


def _unlearn(config, graphdef, frozen, params, batch, *, vanilla):
    options, plan = config.unlearn, config.plan
    method, forget_loss = options.chosen, options.forgetting.forget
    forget = batch(options.forget_batch, options.pack, pictured=True)
    retain = [batch(options.retain_batch, options.pack, pictured=True)]
    if options.learns_text:
        retain.append(batch(options.text_batch, options.text_pack, pictured=False))
    shown = [batch(options.ahead.batch, 1, pictured=True).arrays] if options.looks_ahead else []
    schedule = plan_schedule(options, forget.calls(plan.forget), retain[0].calls(plan.pictures))
    steps = compiled_steps(graphdef, vanilla[0], options, schedule)
    whole = nnx.merge_state(params, frozen)
    each = state_optimizers(options, schedule)
    states = tuple(optimizer_state(optimizer, params) for optimizer in each)
    state = TrainState(params, states)
    forgets, retains = (n * options.accumulate for n in schedule.counts(schedule.iterations))
    referred = functools.partial(_referred, graphdef, whole)
    mask = like(params, "bool") if options.lora.rank else packed_shapes(params, DEVICES)
    divides = options.forget_optimizer == "preconditioned"
    preserve = (like(params, "float32"),) if divides else ()
    yield Program(
        "unlearn",
        "forget step",
        steps.forget,
        (state, referred(forget_loss.reference, [forget]) + shown, mask, frozen, *preserve),
        forgets,
        forget.questions,
        whole,
    )
    if method.retain is None:
        return
    anchor, reference = options.chosen_anchor, ()
    batches = referred(method.retain.reference, retain)
    if anchor:
        reference = (NOTHING,) if anchor.samples else vanilla[1:]
    if anchor and anchor.samples:
        own = batch(options.retain_batch, 1, pictured=anchor.samples == "pictures")
        batches += referred(anchor.reference, [own])
    yield Program(
        "unlearn",
        "retain step",
        steps.retain,
        (state, batches, frozen, *reference),
        retains,
        sum(made.questions for made in retain),
        whole,
    )


def _evaluate(config, graphdef, frozen, moving, batch):
    plan = config.plan
    params = nnx.merge_state(moving, frozen)
    model_type = nnx.merge(graphdef, params).config.model_type
    language, _ = nnx.split_state(params, in_groups(model_type, {"language"}), ...)
    new = config.evaluate.decode.max_new_tokens
    decoder = Decoder(graphdef, max_new_tokens=new, end_id=0)
    for kind, asked in (("", plan.questions - plan.asked_words), (IN_WORDS, plan.asked_words)):
        if not asked:
            continue
        prompts, rows, calls = _prompts(config, batch, asked, pictured=not kind)
        # All questions are scored before and after unlearning.
        times, each = 2 * calls, asked / calls
        mesh: Any = prompts[0]["input_ids"].sharding.mesh
        by_row, everywhere = batch_sharding(mesh), replicated(mesh)
        arguments, prefill = (params, *prompts), jax.jit(decoder.prefill)
        yield Program("evaluate", f"prefill{kind}", prefill, arguments, times, each, params)
        logits, cache = prefill.eval_shape(params, *prompts)
        logits = _placed(logits, by_row)
        cache = jax.tree.map(_placed, cache, cache_shardings(cache, mesh))
        wanted = jax.ShapeDtypeStruct((rows, CANDIDATES), jnp.int32, sharding=by_row)
        arguments, greedy = (params, logits, cache, wanted), jax.jit(decoder.greedy)
        read = params, new, (language, cache)
        yield Program("evaluate", f"greedy{kind}", greedy, arguments, times, each, *read)
        # Letters are scored while the answer is decoded; other options and whole answers are not.
        if config.evaluate.protocol != "plain":
            times = 0 if kind else math.ceil(times * plan.weighed / asked)
        if times:
            shape = (CANDIDATES, rows, new)
            tokens = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=everywhere)
            scored = jax.ShapeDtypeStruct(shape, jnp.bool_, sharding=everywhere)
            arguments, score = (params, logits, cache, tokens, scored), jax.jit(decoder.score)
            read = params, CANDIDATES, (language, cache)
            yield Program("evaluate", f"score{kind}", score, arguments, times, each, *read)


def _prompts(config, batch, asked, *, pictured):
    """Returns the batches' prompts as `Decoder.prefill` takes them, their rows and their number.

    They are grouped as in the evaluation: a picture is computed once for all its questions of a
    batch.
    """
    alone = batch(1, 1, pictured=pictured, answered=False)
    mesh: Any = alone.arrays["input_ids"].sharding.mesh
    row = alone.layout
    count = _ceil(asked, config.plan.asked_per_picture)
    beginning, rest = (0,) * row.prefix, (0,) * row.question
    images = [(b"%d" % (n % count),) if pictured else () for n in range(asked)]
    options, parts = config.evaluate.decode, batch_parts(mesh.axis_sizes)
    made = batches(
        [Prompt(beginning, rest, of_prompt) for of_prompt in images],
        _ceil(options.batch_size, parts) * parts,
        parts,
        options.max_new_tokens,
    )
    rows, pictures = len(made[0].rows), len(made[0].beginnings)

    def tokens(count, length):
        shape = (count, rounded(length))
        ids = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=batch_sharding(mesh))
        return {"input_ids": ids, "attention_mask": ids}

    prompts = (tokens(rows, row.question),)
    if pictured:
        whole = batch(pictures, 1, pictured=True, answered=False).arrays
        prompts += (whole | tokens(pictures, row.prefix),)
    return prompts, rows, len(made)


@dataclasses.dataclass(frozen=True)
class _Batch:
    arrays: Mapping[str, jax.ShapeDtypeStruct]
    layout: Layout

    @property
    def questions(self) -> float:
        return len(self.arrays["input_ids"]) * self.layout.average

    def calls(self, questions: int) -> int:
        """Returns the number of batches for a number of questions."""
        return _ceil(self.layout.rows(questions), len(self.arrays["input_ids"]))


def _batch(
    config: Config,
    sizes: VisionLanguageConfig,
    pictures: Mapping[str, jax.ShapeDtypeStruct],
    mesh: Mesh,
    questions: int,
    pack: int,
    *,
    pictured: bool,
    answered: bool = True,
) -> _Batch:
    by_row, row = batch_sharding(mesh), layout(config, sizes, pack=pack, pictured=pictured)
    rows = questions // pack
    if not answered:
        row = dataclasses.replace(row, answer=0)
    arrays = row.arrays(rows, sizes)
    if not answered:
        del arrays["labels"], arrays["answer_places"]
    if pictured:
        arrays |= {k: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype) for k, x in pictures.items()}
    return _Batch({name: _placed(x, by_row) for name, x in arrays.items()}, row)


def _seen(graphdef: nnx.GraphDef, params: Any, pictures: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arrays of an example with `vision_features` in place of `pixel_values`."""
    rows = {k: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for k, x in pictures.items()}
    seen = jax.eval_shape(
        lambda params, rows: nnx.merge(graphdef, params).vision_features(**rows), params, rows
    )
    kept = {name: x for name, x in pictures.items() if name != "pixel_values"}
    return kept | {"vision_features": jax.ShapeDtypeStruct(seen.shape[1:], seen.dtype)}


def _referred(
    graphdef: nnx.GraphDef, params: Any, reference: Reference | None, batches: Sequence[_Batch]
) -> list[Mapping[str, jax.ShapeDtypeStruct]]:
    """Returns the arrays of batches, with the reference model's scores that are asked."""
    if reference is None:
        return [made.arrays for made in batches]
    referred = []
    ask = functools.partial(reference.ask, graphdef)
    for made in batches:
        scores = jax.eval_shape(ask, params, made.arrays)
        rows, slots, *rest = scores.shape
        if reference.slots == "questions":
            slots = made.layout.questions
        array = jax.ShapeDtypeStruct((rows, slots, *rest), scores.dtype)
        home = made.arrays["input_ids"].sharding
        referred.append({**made.arrays, reference.name: _placed(array, home)})
    return referred


def optimizer_state(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """Returns an abstract state: moments are sharded like parameters, counters replicated."""

    def masked(moment: Any) -> bool:
        return isinstance(moment, optax.MaskedNode)  # Muon leaves some parameters to Adam

    return optax.tree.map_params(
        optimizer,
        lambda moment, param: moment if masked(moment) else _placed(moment, param.sharding),
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=lambda x: _scalar(params, x.dtype),
        is_leaf=masked,
    )


def _placed(array: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def like(params: Any, dtype: str) -> Any:
    """Returns the shapes and shardings of some parameters with another dtype."""
    return jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, jnp.dtype(dtype), sharding=p.sharding), params
    )


def _scalar(params: Any, dtype: Any) -> Any:
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    return jax.ShapeDtypeStruct((), jnp.dtype(dtype), sharding=replicated(mesh))


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
