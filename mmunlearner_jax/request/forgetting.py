"""From a request to a model and a record: asks, writes the benchmark, runs, and sums up."""

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mmunlearner_jax.artefacts import writing
from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.evaluation.questions import scored_questions
from mmunlearner_jax.files import read_json, write_json, write_whole
from mmunlearner_jax.loading import load_abstract
from mmunlearner_jax.main import PLACES, run
from mmunlearner_jax.memory import fitting
from mmunlearner_jax.progress import say
from mmunlearner_jax.reporting.cases import Predictions
from mmunlearner_jax.reporting.run_page import render
from mmunlearner_jax.request import MODEL, NOTE, RECORD, WORK, sets
from mmunlearner_jax.request.interview import ask, refuse_unknown
from mmunlearner_jax.request.needs import check_disk, needs
from mmunlearner_jax.request.record import MISSED, earlier_requests, missed, record
from mmunlearner_jax.request.redaction import Redaction
from mmunlearner_jax.results import read_results
from mmunlearner_jax.session import Session

REPORT = "report.html"
_BENCHMARK = "benchmark"  # in `work/`


def prepare(config: Config, request: sets.Request, out: Path, *, check_only: bool) -> Config:
    """Asks the model, tells what the run takes, and writes the benchmark.

    Where an earlier command has done so, it does nothing.

    Args:
        config: Config of the run.
        request: What is to be forgotten and kept.
        out: Folder of the request.
        check_only: Whether to write nothing.

    Returns:
        The config with the options that fit the devices.

    Raises:
        InputError: `out` holds something else, the model does not know the face, or the devices or
            the disk are too small.
    """
    note, told = out / WORK / NOTE, _identity(config, request)
    if not check_only and _is_begun(out, told):
        return Config.of(read_json(note)["config"])
    session = Session(config, out / WORK, config.model.checkpoint)
    config, model = fitting(config, load_abstract(config, config.model.checkpoint, session.mesh))
    pairs = sets.pairs(request)
    said = ask(config, pairs)
    named = sets.named(request.person, said.answers)
    found = sets.known(request, said.answers)
    refuse_unknown(found.person, named)
    say(f"the model names the person on {named} of {len(request.person.pictures)} photographs")
    about = _about(config, found, named)
    about |= _about_earlier(config, request, said.answers)
    say(
        f"it knows {about['facts_pictured']} of the given facts beside a photograph,"
        f" {about['facts_in_words']} in words, and names {about['others_named']} of"
        f" {about['others']} others"
    )
    if request.earlier:
        say(
            f"it names {about['earlier_named']} of {about['earlier_asked']} people who were"
            " forgotten earlier"
        )
    if about["earlier_requests"] > about["earlier_asked"]:
        say(
            f"{about['earlier_requests']} earlier requests made this model, and"
            f" {about['earlier_asked']} of their people are asked about again: give photographs of"
            " all of them (--earlier), because no record keeps them"
        )
    took = needs(config, model, said.seconds, len(pairs))
    say(str(took))
    check_disk(out, took.disk)
    if not check_only:
        with writing(out / WORK / _BENCHMARK, alone=True) as partial:
            sets.write(partial, found, said.answers)
        whole = {"identity": told, "about": about, "config": config.to_dict()}
        write_json(note, json.loads(json.dumps(whole)))
    return config


def _is_begun(out: Path, identity: str) -> bool:
    """Returns whether an earlier command has prepared the same request in a folder."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    note = out / WORK / NOTE
    if not note.is_file() and (out / RECORD).is_file():
        raise InputError(
            f"--out={shown(out, 200)}: holds a finished request whose {WORK}/ was removed; name a"
            " new folder"
        )
    if not note.is_file() and {p.name for p in out.iterdir()} - {WORK}:
        raise InputError(f"--out={shown(out, 200)}: holds other files; name a new folder")
    if not note.is_file():  # the benchmark was being written
        return False
    if read_json(note).get("identity") != identity:
        raise InputError(
            f"--out={shown(out, 200)}: holds another request (other photographs, names, model or"
            " options); name a new folder, or remove this one"
        )
    return True


def _identity(config: Config, request: sets.Request) -> str:
    """Returns a checksum of a request and of how it is carried out."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for picture, question in sets.pairs(request):
        digest.update(picture or b"")
        digest.update(question.encode())
    return digest.hexdigest()


def _about(config: Config, found: sets.Request, named: int) -> dict[str, Any]:
    """Returns what the record says of a request; it names nobody."""
    person = found.person
    named_others = [subject for subject in found.others if subject.is_named]
    return {
        "method": config.unlearn.method,
        "words_forgotten": config.data.forget_words,
        "photographs_learned_from": len(person.learned),
        "photographs_set_apart": len(person.unseen),
        "photographs_named_before": named,
        "facts_pictured": sum(bool(t.accepted) for t in person.pictured) - 1,
        "facts_in_words": sum(bool(t.accepted) for t in person.words),
        "others": len(found.others),
        "others_named": len(named_others),
    }


def _about_earlier(config: Config, request: sets.Request, answers: sets.Answers) -> dict[str, int]:
    """Returns what the record says of requests that were carried out on the model before."""
    return {
        "earlier_requests": earlier_requests(config.model.checkpoint),
        "earlier_asked": len(request.earlier),
        "earlier_named": sum(bool(sets.named(it, answers)) for it in request.earlier),
    }


def carry_out(
    config: Config, out: Path, redaction: Redaction, overrides: Collection[str] = ()
) -> int:
    """Runs what `prepare` has prepared, and writes `model/`, `report.html` and `record.json`.

    Args:
        config: Config that `prepare` returned.
        out: Folder of the request.
        redaction: Leaves out names and facts.
        overrides: Dotted keys of the options on the command line.

    Returns:
        The exit status: 0, or 3 where a bar is missed.

    Raises:
        InputError: As `main.run`.
    """
    work = out / WORK
    if not (out / RECORD).exists():
        config = config.with_values({"data.benchmark": str(work / _BENCHMARK)})
        run(config, work, overrides)
        _write(config, out, redaction)
    written = read_json(out / RECORD)
    lines = missed(written)
    for name, aim in written["aims"].items():
        say(f"{name}: {aim['verdict']} ({aim['bars_met']} of {aim['bars']} bars met)")
    for line in lines:
        say(f"missed: {line}")
    say(f"{shown(out, 200)}: model/, report.html, record.json; mmu purge removes work/")
    return MISSED if lines else 0


def _write(config: Config, out: Path, redaction: Redaction) -> None:
    """Writes what is passed on; the record last, so that it stands for all."""
    work, results = out / WORK, read_results(out / WORK)
    about = read_json(work / NOTE)["about"]
    bench = open_benchmark(work / _BENCHMARK, config.data, config.seed)
    split = bench.split(config.data.forget_ratio)
    questions = scored_questions(config.evaluate, bench, *split)
    shown_results = redaction.all_texts(results)
    hidden = config.with_values(_hidden(config, redaction))
    predictions = redaction.predictions(Predictions(work, bench, questions))
    write_whole(out / REPORT, render(hidden, work, shown_results, predictions))
    if (work / "export").exists():
        shutil.rmtree(out / MODEL, ignore_errors=True)  # of a command that was killed here
        (work / "export").rename(out / MODEL)
    write_json(out / RECORD, redaction.all_texts(record(config, work, results, about)))


def _hidden(config: Config, redaction: Redaction) -> Mapping[str, Any]:
    """Returns the options that name folders, redacted."""
    values = {}
    for place in PLACES:
        section, _, name = place.rpartition(".")
        value = getattr(getattr(config, section), name)
        values[place] = redaction.text(value)
    return values
