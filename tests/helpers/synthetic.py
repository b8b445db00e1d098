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
    "retain_only": (0.25, 0.98),
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


def score(value, n=20):
    return {"value": value, "n": n, "ci95": [value, value]}


def variant(name, rng):
    """Returns an entry of `results.json` with two learning rates of three looks each."""
    if name in ("vanilla", "retain_only"):
        return {
            "method": None,
            "control": False,
            "learning_rate": None,
            "points": [],
            "seconds": 1.0,
        }
    control = name not in METHODS
    points = []
    for rate in (1e-4,) if control else (1e-4, 2e-4):
        for look in (1, 2, 3):
            left, keep = 1 - 0.2 * look - 500 * rate * rng.random(), 1 - 0.03 * look * rng.random()
            qa = {"qa": score(keep)}
            ends = {"retain": {"vqa": score(keep), **qa}} if look == 3 else {}
            points.append(
                {
                    "learning_rate": rate,
                    "iteration": 6 * look,
                    "forget_steps": 2 * look,
                    "chosen": (rate, look) == (1e-4, 3),
                    "selection": {
                        "forget": {"vqa": score(max(left, 0.2)), **(qa if ends else {})},
                        **ends,
                    },
                }
            )
    return {
        "method": "mmunlearner" if control else name,
        "control": control,
        "learning_rate": 1e-4,
        "points": points,
        "unlearn": {"forget_steps": 4, "retain_steps": 12, "remembered": 0.2},
        "seconds": 10.0,
        "density": None if name in ("ga", "npo", "idk_nll", "no_mask") else 0.31,
        "perplexity": 1.5,
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
            for name in there:
                for split, scored in questions.items():
                    kept = scored[1::2] if split in ("forget", "test") else scored[1::9]
                    forgets = split in ("forget", "test")
                    lines = [
                        answered(q, split, bool(rng.random() < knows[name][not faces]))
                        for q in kept
                        for faces in [forgets and q.modality == "vqa"]
                    ]
                    path = folder / f"compare/predictions/{name}-{split}.jsonl"
                    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            results = {
                "seed": seed,
                "mask": {"density": 0.3, "by_module": {"vision": 0.4}, "by_block": BLOCKS},
                "variants": {name: variant(name, rng) for name in there},
            }
            (folder / "results.json").write_text(json.dumps(results))
