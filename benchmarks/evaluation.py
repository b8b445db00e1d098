"""Times our evaluation against transformers' `generate` with one question at a time.

    python -m benchmarks.evaluation --config=configs/orl.py --workdir=runs/orl

The workdir is that of a run (`make demo`). Its vanilla model answers the benchmark's scored
questions on both sides: same checkpoint, same prompts, greedy, float32. Our side answers all of
them, in batches, and also scores the options. Transformers answers a random part, one by one, as
the published scripts do, with the faster number of torch threads. The sides take turns. Both read
questions and pictures again in every round. Our first round, which compiles, is timed separately.
The answers must be equal. Measure on an idle machine: torch's threads suffer most from other load.
"""

import copy
import json
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import transformers
from absl import app, flags
from tqdm import tqdm

from benchmarks.vs_torch.generate import OneByOne, use_fastest_threads
from mmunlearner_jax.command_line import parse_flags, read_config
from mmunlearner_jax.config import Config
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.evaluation.protocols import protocol
from mmunlearner_jax.session import Session

_WORKDIR = flags.DEFINE_string("workdir", None, "Run with a vanilla model.", required=True)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed rounds of each side.", lower_bound=1)
_QUESTIONS = flags.DEFINE_integer(
    "questions", 150, "Questions of a round for transformers.", lower_bound=1
)
_OUT = flags.DEFINE_string("out", None, "File for all measurements.")

TRIED = 20  # questions to try each number of torch threads with


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Returns all measurements, ready for JSON."""
    transformers.logging.set_verbosity_error()
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    session = Session(config, workdir)
    checkpoint, params, questions = session.checkpoint, session.params, session.questions()
    everything = [question for of_split in questions.values() for question in of_split]
    model: Any = transformers.LlavaForConditionalGeneration.from_pretrained(checkpoint)
    render = protocol(
        config.evaluate.protocol,
        session.bench.record,
        session.encoder,
        session.model.config.model_type,
    )
    theirs = OneByOne(transformers.AutoProcessor.from_pretrained(checkpoint), model, render.prompt)
    new = config.evaluate.decode.max_new_tokens
    rng = np.random.default_rng(config.seed)

    def ours(label: str) -> tuple[float, list[str]]:
        begin = time.perf_counter()
        # Like the other side, this reads pictures and questions again; compiled programs are kept.
        fresh = copy.copy(session)
        fresh.encoder = Encoder(session.encoder.processor, session.encoder.pictures)
        answerer = fresh.answerer()
        lines = [
            line
            for split, of_split in questions.items()
            for line in answerer.answer(params, of_split, split=split, label=label)
        ]
        return time.perf_counter() - begin, [line["response"] for line in lines]

    first, _ = ours("compiles")
    tried = rng.choice(len(everything), TRIED)
    use_fastest_threads(cores, lambda: [theirs.answer(everything[n], new) for n in tried])
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    same = 0
    for number in range(_ROUNDS.value):
        took, answers = ours(f"round {number}")
        seconds["ours"].append(took)
        drawn = rng.choice(len(everything), min(_QUESTIONS.value, len(everything)), replace=False)
        begin = time.perf_counter()
        responses = [
            theirs.answer(everything[n], new) for n in tqdm(drawn, "transformers", unit="question")
        ]
        seconds["theirs"].append(time.perf_counter() - begin)
        same += sum(answers[n] == words for n, words in zip(drawn, responses, strict=True))
    return {
        "config": config.to_dict()["evaluate"],
        "torch_threads": torch.get_num_threads(),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "questions": {"ours": len(everything), "theirs": len(drawn)},
        "pictures": len({q.image for q in everything if q.image}),
        "rounds": _ROUNDS.value,
        "seconds": seconds,
        "first": first,
        "same_answers": [same, _ROUNDS.value * len(drawn)],
        "device": f"{jax.devices()[0].device_kind}, {cores} cores, {platform.machine()}",
        "load_average": load,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("jax", "torch", "transformers")},
    }


def show(report: dict[str, Any]) -> None:
    """Prints the measurements of `run`."""
    count = report["questions"]
    rates = {side: [count[side] / s for s in took] for side, took in report["seconds"].items()}
    ratios = [a / b for a, b in zip(rates["ours"], rates["theirs"], strict=True)]
    for side, name in (("ours", "mmunlearner_jax"), ("theirs", "transformers, one by one")):
        middle = statistics.median(rates[side])
        print(
            f"{name:<26}{middle:8.1f} questions/s  [{min(rates[side]):.1f}, {max(rates[side]):.1f}]"
            f"  {count[side]:,} questions a round"
        )
    same, total = report["same_answers"]
    print(
        f"ratio {statistics.median(ratios):.1f} [{min(ratios):.1f}, {max(ratios):.1f}] over"
        f" {report['rounds']} rounds; our first round, with compilation,"
        f" {report['first']:.1f} s; same answers: {same} of {total}"
    )
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    print(
        f"{report['device']}; torch with {report['torch_threads']} threads; {versions};"
        f" load average at the start {report['load_average']:.1f};"
        f" {report['parameters']:,} parameters, {report['pictures']:,} pictures"
    )


def main(argv: list[str]) -> None:
    """Entry point of absl."""
    report = run(read_config(argv), Path(_WORKDIR.value))
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps(report, indent=2) + "\n")
    show(report)
    same, total = report["same_answers"]
    sys.exit(same != total)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
