"""A made-up comparison, without runs: real questions with invented answers."""

import json
import zlib
from pathlib import Path

import numpy as np

from configs import orl
from mmunlearner_jax.config import typed
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.evaluation.questions import scored_questions

EVIL = '<script>alert("no")</script>'
SEEDS, RATIOS = (0, 1, 2), (5, 10)
# By variant: the probabilities of a right answer about forgotten faces, and about all else.
KNOWS = {
    "vanilla": (0.98, 0.98),
    "gold": (0.25, 0.98),
    "never_taught": (0.25, 0.9),
    "mmunlearner": (0.3, 0.95),
    "ga": (0.25, 0.4),
    "npo": (0.6, 0.97),
    "idk_nll": (0.9, 0.98),
    "no_mask": (0.3, 0.95),
    "random_mask": (0.3, 0.95),
    "threshold_0.5": (0.35, 0.93),
    "no_forget_text": (0.3, 0.9),
}
METHODS = ("mmunlearner", "ga", "npo", "idk_nll")
BLOCKS = {
    f"model.{part}.layers.{layer}.{matrix}.weight": 0.1 + 0.2 * layer
    for part in ("vision_tower.encoder", "language_model")
    for layer in range(3)
    for matrix in ("self_attn.q_proj", "mlp.fc1")
} | {"model.multi_modal_projector.linear_1.weight": 0.7}


REFERENCES = ("vanilla", "gold", "never_taught")
LEVELS = {"halfway": 0.6, "forgotten": 0.25}


def accuracies(lines):
    """By kind and person, as a stage writes them."""
    kinds = {}
    for line in lines:
        if line["task"] == "classification":
            people = kinds.setdefault(f"{line['split']}/{line['modality']}", {})
            people.setdefault(line["person"], []).append(line["correct"])
    return {
        kind: {person: [float(np.mean(x)), len(x)] for person, x in people.items()}
        for kind, people in kinds.items()
    }


def looks(name, knows):
    """Three looks on the way to what a variant knows in the end."""
    faces, rest = knows
    return [
        {
            "iteration": step,
            "forget_steps": step,
            "accuracies": {
                "forget/vqa": 1 - (1 - faces) * step / 3,
                "retain/vqa": 1 - (1 - rest) * step / 3,
                "test_retain/vqa": 0.9 - (1 - rest) * step / 3,
            },
            **({"shares": {"own": 0.8 - 0.1 * step, "random_mask": 0.3}} if own else {}),
        }
        for own in [name == "mmunlearner"]
        for step in range(4)
    ]


def variant(name, knows, end):
    """An entry of `results.json`; what still knows most faces did not reach gold's level."""
    falling = {kind: end[kind] for kind in ("forget/vqa", "test/vqa") if kind in end}
    relearned = {"relearned": {"10": falling, "40": falling}}
    if name in REFERENCES:
        return relearned | {
            **{"method": None, "learning_rate": None, "seconds": 1.0, "end": end},
            "path": [{"forget_steps": 0, "accuracies": {"forget/vqa": knows[0]}}],
        }
    reached = knows[0] < 0.5
    level = {"forget_steps": 2.5, "accuracies": end}
    return relearned | {
        "method": name if name in METHODS else "mmunlearner",
        "control": name not in METHODS,
        "learning_rate": 1e-4,
        "edge": name == "npo",
        "path": looks(name, knows),
        "unlearn": {"forget_steps": 4, "retain_steps": 12, "remembered": 0.2},
        "reached": reached,
        "left": knows[0],
        "kept": knows[1] if reached else None,
        "matched": dict.fromkeys(LEVELS, level) if reached else {},
        "end": end,
        "seconds": 10.0,
        "density": None if name in ("ga", "npo", "idk_nll", "no_mask") else 0.31,
        "perplexity": 1.5,
        "plain_perplexity": 20.0,
    }


def answered(question, split, right):
    line = {
        "split": split,
        "modality": question.modality,
        "task": question.task,
        "person": question.person,
        "image": question.image and f"{zlib.crc32(question.image):08x}",
        "question": question.question,
        "answer": question.answer,
        "options": list(question.options),
        "response": question.answer if right else EVIL,
        "correct": right,
    }
    if question.task == "classification":
        return line | {"choice": question.answer if right else "another"}
    return line | {"rouge1": float(right), "rougeL": float(right)}


def write(workdir: Path, benchmark: Path, *, seeds=SEEDS, ratios=RATIOS, knows=KNOWS, lacks=()):
    """Writes a comparison without the (seed, ratio, variant) in `lacks`."""
    config = orl.get_config()
    config.data.benchmark = str(benchmark)
    config.compare.relearn_steps = (10, 40)
    config.compare.primary = "mmunlearner,random_mask,test_retain/vqa"
    kinds = ("no_mask,test_retain/vqa", "ga_diff,retain/qa", "ga,test/vqa")
    config.compare.secondary = tuple(f"mmunlearner,{kind}" for kind in kinds)
    bench = open_benchmark(benchmark, config.data, 0)
    for ratio in ratios:
        config.data.forget_ratio = ratio
        questions = scored_questions(typed(config).evaluate, bench, *bench.split(ratio))
        for seed in seeds:
            config.seed = seed
            folder = workdir / f"seed-{seed}/forget-{ratio}"
            (folder / "compare/predictions").mkdir(parents=True)
            (folder / "config.json").write_text(config.to_json_best_effort())
            rng = np.random.default_rng(seed)
            there = [name for name in knows if (seed, ratio, name) not in lacks]
            variants = {}
            for name in there:
                lines = []
                for split, of_split in questions.items():
                    kept = of_split[1::2] if split in ("forget", "test") else of_split[1::9]
                    forgets = split in ("forget", "test")
                    lines += [
                        answered(q, split, bool(rng.random() < knows[name][not faces]))
                        for q in kept
                        for faces in [forgets and q.modality == "vqa"]
                    ]
                for split in questions:
                    path = folder / f"compare/predictions/{name}-{split}.jsonl"
                    mine = [x for x in lines if x["split"] == split and not x["options"]]
                    path.write_text("".join(json.dumps(line) + "\n" for line in mine))
                variants[name] = variant(name, knows[name], accuracies(lines))
            results = {
                "seed": seed,
                "mask": {"density": 0.3, "by_module": {"vision": 0.4}, "by_block": BLOCKS},
                "chance": {"forget/vqa": {"uniform": 0.25, "prior": 0.16}},
                "levels": LEVELS,
                "variants": variants,
            }
            (folder / "results.json").write_text(json.dumps(results))
