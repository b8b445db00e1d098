"""Runs the stages that a config names, in order.

    python -m mmunlearner_jax.main --config=configs/orl.py --workdir=runs/orl

Any value of the config can be overridden, e.g. `--config.unlearn.learning_rate=1e-4`. To resume,
run the same command again: a stage whose result is in the workdir is not run again, and an
interrupted stage goes on from its last checkpoint.
"""

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from jax.errors import JaxRuntimeError
from ml_collections import config_flags

from mmunlearner_jax import compilations, preemption, processes, progress, provenance
from mmunlearner_jax.command_line import (
    hide_torch,
    parse_flags,
    quiet_libraries,
    read_config,
    steady_streams,
)
from mmunlearner_jax.config import Config
from mmunlearner_jax.config.checks import check_config, check_read
from mmunlearner_jax.config.fitting import chosen, fitted
from mmunlearner_jax.config.run import READS, SHARED
from mmunlearner_jax.errors import Diverged, InputError, in_words, refusing
from mmunlearner_jax.files import expanded, plain, read_json, system_fault, write_whole
from mmunlearner_jax.lock import LOCK, locked
from mmunlearner_jax.machine import compile_quickly
from mmunlearner_jax.options import flatten
from mmunlearner_jax.processes import is_first, wait
from mmunlearner_jax.results import read_results, update_results

_DISTRIBUTED = flags.DEFINE_enum(
    "distributed", "auto", ["auto", "on", "off"], "Whether to join other processes (pods, nodes)."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for everything that the run writes.")


# What a session writes before any stage has done anything.
RECORDS = ("benchmark.txt", "sharding.txt")

# Options that may differ between commands on the same workdir.
FREE = (
    *("stages", "profile.", "controls", "audit.", "report."),
    *(f"compare.{key}" for key in ("seeds", "development_seeds", "ratios", "methods", "audit")),
    "compare.learning_rates",  # more of them
    "evaluate.general",  # more sets
    *(
        f"compare.{key}"
        for key in ("controls", "control_seeds", "never_taught", "primary", "secondary", "margin")
    ),
)

# Options that name folders; relative and absolute paths of a folder are equal.
PLACES = (
    "model.checkpoint",
    "data.benchmark",
    "finetune.taught_text",
    "compare.gold",
    "compare.never_taught",
    "evaluate.reference",
    "evaluate.general_files",
)


def check_workdir(config: Config, workdir: Path, overrides: Collection[str] = ()) -> bool:
    """Compares the config with the workdir's `config.json`, and writes it there.

    Options that are `FREE`, or that no stage of an earlier command reads, may differ.

    Args:
        config: Config of this command.
        workdir: Folder of the run.
        overrides: Dotted keys of the options on the command line.

    Returns:
        Whether the workdir had no `config.json` before.

    Raises:
        InputError: The workdir belongs to another config or cannot be written, or no stage reads an
            option on the command line.
    """
    old, new = compared(config, workdir, overrides)
    path = workdir / "config.json"
    if new != old:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(new, indent=2) + "\n")
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: {in_words(error)}; give another --workdir") from error
    return old is None


def compared(
    config: Config, workdir: Path, overrides: Collection[str] = ()
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Compares the config with the workdir's `config.json`; writes nothing.

    Args:
        config: Config of this command.
        workdir: Folder of the run.
        overrides: Dotted keys of the options on the command line.

    Returns:
        What `config.json` holds (None: there is none), and what it is to hold.

    Raises:
        InputError: The workdir belongs to another config, or no stage reads an option on the
            command line.
    """
    new = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    path = workdir / "config.json"
    try:
        fresh = not path.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {in_words(error)}; give another --workdir") from error
    mend = "restore it, or give another --workdir"
    old = new if fresh else read_json(path, mend=mend)
    with refusing(f"{path}: stages", mend):
        earlier = [stage for stage in READS if stage in old["stages"]]
    check_read(config, overrides, earlier)
    if not fresh:
        _check_same(path, old, new, earlier)
    stages = [*old["stages"], *(stage for stage in new["stages"] if stage not in old["stages"])]
    new["stages"] = stages
    return (None if fresh else old), new


def _check_same(
    path: Path, old: Mapping[str, Any], new: Mapping[str, Any], earlier: Collection[str]
) -> None:
    """Refuses options that differ from those that earlier stages have read."""
    read = {*SHARED, *(section for stage in earlier for section in READS[stage])}
    default = flatten(json.loads(json.dumps(Config().to_dict())))
    before, now = default | flatten(old), flatten(new)
    different = [
        key
        for key in sorted({*before, *now})
        if _place(key, before.get(key)) != _place(key, now.get(key))
        and key.partition(".")[0] in read
        and not key.startswith(FREE)
    ]
    if different:
        key = different[0]
        raise InputError(
            f"{path}: {key} was {before.get(key)!r} and is now {now.get(key)!r}"
            f" ({len(different)} fields differ); give another --workdir or remove this one"
        )


def _place(key: str, value: Any) -> Any:
    return os.path.abspath(value) if key in PLACES and value else value


def run(config: Config, workdir: Path, overrides: Collection[str] = ()) -> None:
    """Runs `config.stages` on `workdir`.

    Args:
        config: Config of the run.
        workdir: Folder for everything that the run writes.
        overrides: Dotted keys of the options on the command line.

    Raises:
        InputError: An option or a file is wrong; this is found before any long work.
    """
    given, devices = config, jax.devices()
    config = fitted(given, len(devices))
    check_config(config, devices)
    if not is_first():
        progress.set_quiet(True)
    if line := chosen(given, config, devices):
        progress.say(line)
    plain(workdir)
    with locked(workdir) if is_first() else contextlib.nullcontext(), progress.recorded(workdir):
        _run_stages(config, workdir, overrides)


def _run_stages(config: Config, workdir: Path, overrides: Collection[str]) -> None:
    # These imports must come after `hide_torch`.
    from mmunlearner_jax import stages
    from mmunlearner_jax.memory import check_memory, refusing_misfit
    from mmunlearner_jax.session import Session

    file = workdir / "config.json"
    earlier = file.read_bytes() if is_first() and file.is_file() else None
    if is_first():
        check_workdir(config, workdir, overrides)
    wait("workdir")
    if not is_first():
        check_workdir(config, workdir)
    idle = True  # whether no stage of this command has written anything yet
    session = Session(config, workdir)
    # Stages, and a run before and after an interruption, share compiled programs. Different runs
    # share them only if JAX_COMPILATION_CACHE_DIR is set.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str((workdir / "compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    for number, name in enumerate(config.stages):
        preemption.heed()
        begin, compiled = time.monotonic(), compilations.count()
        progress.enter(name)
        progress.say(f"stage {name}")
        try:
            # Only the first process runs stages that use no mesh.
            alone = name in stages.OF_ONE_PROCESS
            with refusing_misfit(name):
                check_memory(session, config.stages[number:])
                worked = (is_first() or not alone) and stages.find_stage(name)(session)
        except preemption.Preempted:
            tell_time(workdir, name, time.monotonic() - begin, compiled())
            provenance.record(session, name, overrides)
            raise
        except Diverged:
            raise
        except InputError:
            if is_first() and idle:
                _restore(file, earlier)
            raise
        wait(name)
        if worked:
            idle = False
            seconds = time.monotonic() - begin
            tell_time(workdir, name, seconds, compiled())
            provenance.record(session, name, overrides)
            progress.say(f"stage {name}: done in {progress.duration(seconds)}")
        elif is_first() or not alone:
            progress.say(f"stage {name}: skipped, what it writes is there")


def _restore(file: Path, earlier: bytes | None) -> None:
    """Restores the `config.json` from before this command, so that an option can be corrected."""
    made = {p.name for p in file.parent.iterdir() if not p.name.startswith((LOCK, progress.FOLDER))}
    if earlier is not None:
        write_whole(file, earlier.decode())
    elif made <= {file.name, *RECORDS}:  # of the options that are to be corrected
        for name in made:
            (file.parent / name).unlink()


def tell_time(workdir: Path, stage: str, seconds: float, compiled: Mapping[str, float]) -> None:
    """Adds to a stage's seconds and compilations in `results.json`.

    Args:
        workdir: Folder of the run.
        stage: Name of the stage.
        seconds: Seconds that the stage ran in this command.
        compiled: Counts of `compilations.count`.
    """
    results = read_results(workdir)
    before = results.get("seconds", {}).get(stage, 0.0)
    update_results(workdir, "seconds", {stage: round(before + seconds, 1)})
    earlier = results.get("compilations", {}).get(stage, {})
    counts = {name: round(earlier.get(name, 0) + n, 1) for name, n in compiled.items()}
    update_results(workdir, "compilations", {stage: counts})


def main(argv: list[str]) -> None:
    """Runs the command; absl calls it."""
    program(argv, run)


def program(argv: list[str], work: Callable[[Config, Path, Collection[str]], None]) -> None:
    """Runs a command on a config and a workdir, as all processes of it or alone.

    An error that the user can mend gives one line, status 1.

    Args:
        argv: The command line, without its flags.
        work: What the command does; takes what `run` takes.
    """
    config = read_config(argv)
    quiet_libraries()
    compile_quickly()
    if not _WORKDIR.value:
        sys.exit("error: --workdir is empty: name a folder for the run's files")
    try:
        try:
            processes.start(_DISTRIBUTED.value)
            preemption.watch()
            overrides = config_flags.get_override_values(flags.FLAGS["config"])
            work(config, expanded(_WORKDIR.value), overrides)
        finally:
            preemption.over()
    except InputError as error:
        processes.leave(str(error))
    except preemption.Preempted:
        preemption.leave()
    except KeyboardInterrupt:
        processes.leave(preemption.STOPPED, status=128 + signal.SIGINT)
    except Exception as error:
        if refused := system_fault(error, Path(_WORKDIR.value)):
            processes.leave(str(refused))
        if jax.process_count() == 1:
            raise
        name = f"process {jax.process_index()} of {jax.process_count()}"
        if isinstance(error, JaxRuntimeError):
            processes.leave(
                f"{name} cannot go on ({str(error).splitlines()[0]}): start all processes again;"
                " they go on from the last checkpoint"
            )
        traceback.print_exc()
        processes.leave(f"{name} failed; see the traceback above")


if __name__ == "__main__":
    hide_torch()
    steady_streams()
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
