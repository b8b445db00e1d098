"""What must hold between sections of a config, and between a config and the devices."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from mmunlearner_jax.config.compare import CompareConfig
from mmunlearner_jax.config.fitting import LEARNED
from mmunlearner_jax.config.run import READS, SHARED, Config
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.attention import check_kernel
from mmunlearner_jax.models.groups import GROUPS
from mmunlearner_jax.options import flatten
from mmunlearner_jax.sharding import batch_parts, mesh_shape
from mmunlearner_jax.unlearn.controls import CONTROLS, control_of
from mmunlearner_jax.unlearn.methods import METHODS
from mmunlearner_jax.unlearn.scoring import image_tokens


def check_config(config: Config, devices: Sequence[Any]) -> None:
    """Refuses sections that do not go together, or not with the devices.

    Args:
        config: Config of the run.
        devices: Those of all processes, or of a slice that is planned for.

    Raises:
        InputError: The first of them, by its key, with what would do.
    """
    parts = batch_parts(mesh_shape(config.mesh, len(devices)))
    read = {name for stage in config.stages for name in READS[stage]}
    for section, batch, packs in LEARNED:
        if section in read or section not in ("align", "finetune"):
            _check_batch(getattr(config, section), batch, (*packs, "")[0], parts)
    if "align" in read and {*config.model.frozen} >= {"vision", "projector"}:
        config.model.refuse("frozen", "neither vision nor projector: the stage align moves them")
    if "finetune" in config.stages:
        _check_frozen(config)
    decode = config.evaluate.decode
    if decode.batch_size % parts:
        decode.refuse("batch_size", _multiple(parts))
    if config.importance.batch_size % (parts * config.importance.text_pack):
        config.importance.refuse(
            "text_pack", f"a divisor of config.importance.batch_size / {parts}"
        )
    _check_packing(config)
    _check_rounding(config)
    _check_words(config)
    _check_unlearning(config, config.controls)
    if config.unlearn.looks_ahead:
        _check_batch(config.unlearn.ahead, "batch", "", parts)
    if config.unlearn.stop_by == "relearned":
        _check_batch(config.unlearn.probe, "batch", "", parts)
    if "compare" in config.stages and config.compare.relearn_steps:
        _check_batch(config.compare, "relearn_batch", "", parts)
    if not {"audit", "audits"}.isdisjoint(config.stages):
        for name in config.audit.attacks:
            own = config.audit.own.get(name)
            if own and hasattr(own, "batch"):
                _check_batch(own, "batch", "", parts)
    check_kernel(config.model.attention, devices[0].platform)
    method = METHODS[config.unlearn.method]
    changed = [CONTROLS[name] for name in config.controls]
    if not method.masked and any(c.of_masks and not c.method for c in changed):
        masked = ", ".join(name for name, method in METHODS.items() if method.masked)
        config.refuse("controls", f"none that changes the mask, or the method {masked}")
    if not {"tune", "compare"}.isdisjoint(config.stages):
        check_compared(config)
        splits = config.evaluate.splits
        if splits and "forget" not in splits:
            config.evaluate.refuse(
                "splits", "'forget' among others: the stages tune and compare ask about it"
            )


def _check_batch(section: Any, batch: str, pack: str, parts: int) -> None:
    """Refuses a batch that the devices, or rows of several questions, do not divide."""
    questions = getattr(section, pack) if pack else 1
    if getattr(section, batch) % (parts * questions):
        shared = f", another config.{section.full(pack)}" if questions > 1 else ""
        section.refuse(batch, _multiple(parts * questions, shared))


def _multiple(number: int, instead: str = "") -> str:
    return (
        f"a multiple of {number}{instead}, config.round_batches=True, or another config.mesh (axes"
        " data x fsdp)"
    )


def _check_words(config: Config) -> None:
    """Refuses words that are to be forgotten where no step could forget them."""
    options = config.unlearn
    if config.data.forget_words:
        if "language" in (*options.held, *config.model.frozen):
            config.data.refuse(
                "forget_words",
                "False, or config.unlearn.moves with 'language' and config.model.frozen without",
            )
        if not options.text_batch:
            options.refuse("text_batch", "1 or more: config.data.forget_words needs it")


def _check_frozen(config: Config) -> None:
    """Refuses fine-tuning that would move nothing."""
    options, frozen = config.finetune, config.model.frozen
    if {*options.frozen, *frozen} == {*GROUPS}:
        options.refuse("frozen", "fewer groups: nothing would move")
    if options.text_first and "language" in frozen:
        options.refuse("text_first", "0, or config.model.frozen without 'language'")


def _check_unlearning(config: Config, variants: Iterable[str]) -> None:
    """Refuses unlearning whose parts do not go together, by itself or as a variant.

    Args:
        config: Config of the run.
        variants: Names of methods and controls.
    """
    for name in ("", *variants):
        changed = config.with_values(control_of(name).values if name else {})
        because = f" (for {name!r}; or leave that out)" if name else ""
        for wrong, option, wanted in _misfits(changed):
            if wrong:
                changed.unlearn.refuse(option, f"{wanted}{because}")


def _misfits(config: Config) -> Iterator[tuple[bool, str, str]]:
    """Yields what may not go together: whether it is so, the option, and what to give instead."""
    options = config.unlearn
    still, retains = {*options.held, *config.model.frozen}, options.chosen.retain is not None
    anchor, adapters, loss = options.chosen_anchor, options.lora.rank > 0, options.forgetting.forget
    yield still == {*GROUPS}, "moves", "a group that config.model.frozen lacks"
    divides = options.forget_optimizer == "preconditioned"
    yield divides and adapters, "forget_optimizer", "'adamw' with adapters"
    yield divides and not retains, "forget_optimizer", "'adamw': the method has no retain steps"
    unmasked = options.masked == "yes" and not options.forget_repeat
    yield unmasked, "masked", "'no': there are no forget steps"
    refreshes = options.refresh > 0
    yield refreshes and not options.is_masked, "refresh", "0: forget steps have no mask"
    yield refreshes and adapters, "refresh", "0 with adapters, which hold the mask"
    drawn = config.mask.by == "random"
    yield refreshes and drawn, "refresh", "0: a mask that is drawn is not measured"
    blind = loss.of is image_tokens and still >= {"vision", "projector"}
    yield blind, "target", "another: no step moves vision or projector"
    noised = loss.reference is not None and loss.reference.about == "noised"
    full = noised and config.data.labels == "full"
    yield full, "target", "another: config.data.labels='full' learns prompts, which differ here"
    if anchor:
        held = " or ".join(anchor.holds)
        yield not retains, "anchor", "'none': the method has no retain steps"
        nothing = still >= {*anchor.holds}
        yield nothing, "anchor", f"'none': no step moves {held}, which it holds"


def _check_packing(config: Config) -> None:
    """Refuses rows of several questions where a row must be one example."""
    for section in (config.finetune, config.importance, config.unlearn):
        for pack in ("pack", "text_pack"):
            if getattr(section, pack) == 1:
                continue
            if config.data.labels == "full":
                section.refuse(
                    pack, "1: rows would share the prompts that config.data.labels='full' learns"
                )


def _check_rounding(config: Config) -> None:
    """Refuses stochastic rounding where nothing is bfloat16 that steps move."""
    read = {section for stage in config.stages for section in READS[stage]}
    for section in (config.align, config.finetune, config.unlearn):
        if section.rounding == "nearest" or section.key not in read:
            continue
        if config.model.param_dtype != "bfloat16":
            section.refuse("rounding", "'nearest', or config.model.param_dtype='bfloat16'")
        if section is config.unlearn and config.unlearn.lora.rank:
            section.refuse("rounding", "'nearest': adapters are float32")


def check_compared(config: Config) -> None:
    """Refuses methods and controls that cannot be compared.

    Raises:
        InputError: There are none, one stands twice, or a control changes nothing.
    """
    options: CompareConfig = config.compare
    own = config.unlearn.method
    for key in ("methods", "controls"):
        names = getattr(options, key)
        if len({*names}) < len(names) or not (names or key == "controls"):
            options.refuse(key, "each once")
    if both := {*options.methods} & {*options.controls}:
        raise InputError(f"config.compare.controls: {both} are among the methods; give each once")
    rows = (*options.methods, *options.controls)
    controls = [name for name in rows if name not in METHODS]
    changing = [name for name in controls if not CONTROLS[name].method]
    if changing and not (own in options.methods and METHODS[own].masked):
        raise InputError(
            f"config.compare: the controls {', '.join(changing)} change {own!r},"
            " config.unlearn.method: give none, or a method with a mask that is among"
            " config.compare.methods"
        )
    for name in controls:
        if CONTROLS[name].method not in ("", *options.methods):
            raise InputError(
                f"config.compare: the control {name!r} changes {CONTROLS[name].method!r}: add that"
                " to config.compare.methods, or leave the control out"
            )
    if config.unlearn.target:
        config.unlearn.refuse("target", "'' where methods are compared: each has its own")
    audited = {*options.audit} - {"vanilla", "gold", *rows}
    if audited:
        raise InputError(
            f"config.compare.audit: {min(audited)!r} is not among config.compare.methods and"
            " controls: add it there, or leave it out"
        )
    _check_unlearning(config, rows)
    for name in controls:
        if CONTROLS[name].changes and config.with_values(CONTROLS[name].changes) == config:
            raise InputError(
                f"config.compare: {name!r} changes nothing of this config; leave it out"
            )
    for contrast in options.contrasts:
        if absent := [name for name in contrast[:2] if name not in rows]:
            raise InputError(
                f"config.compare: the contrast {','.join(contrast)} needs {', '.join(absent)}: add"
                " it to config.compare.controls or methods, or leave the contrast out of"
                " config.compare.primary or secondary"
            )


def check_read(config: Config, overrides: Collection[str], earlier: Collection[str] = ()) -> None:
    """Refuses options that no stage reads: those given on the command line, and `controls`.

    An option that has its default is let pass. So are `controls` of a config file where the command
    line chooses the stages.

    Args:
        config: Config of the run.
        overrides: Dotted keys of the options given on the command line.
        earlier: Stages that earlier commands have run on the workdir.

    Raises:
        InputError: The first option that none of the stages reads, with the stages that do.
    """
    stages = {*config.stages, *earlier}
    read = {*SHARED, *(section for stage in stages for section in READS[stage])}
    values, default = flatten(config.to_dict()), flatten(Config().to_dict())
    keys = [*overrides] if "stages" in overrides else [*overrides, "controls"]
    for key in keys:
        section = key.partition(".")[0]
        if section in read or values.get(key) == default.get(key):
            continue
        readers = [repr(stage) for stage, sections in READS.items() if section in sections]
        mend = f"add {' or '.join(readers)} to config.stages, or " if readers else ""
        raise InputError(f"config.{key}: no stage of this run reads it; {mend}leave it out")
