"""A finished run without a model: a benchmark of three people, predictions and results."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.data.benchmarks.mllmu.schema import PERSON_SCHEMA, TEST_SCHEMA, TRAINING_SCHEMA
from mmunlearner_jax.evaluation.scores import summarise
from mmunlearner_jax.evaluation.tasks import fingerprint

NAMES = {"f1": "Alba Fake", "k1": "Boris Fake", "k2": "Cleo Fake"}
EVIL = '<script>alert("no")</script>'
CHOICES = [f"{split}/vqa" for split in ("forget", "test", "retain", "test_retain")]
CHOICES += ["forget/qa", "retain/qa"]
COLOURS = ("red", "green", "blue", "grey")


def picture(shade):
    buffer = io.BytesIO()
    Image.new("L", (23, 28), shade).save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": f"{shade}.png"}


def profile(person):
    name = NAMES[person]
    choice = {"Options": dict(zip("ABCD", COLOURS, strict=True)), "Correct_Answer": "A"}
    fact = {"Ground_Truth": f"{name} likes red."}
    return {
        "ID": person,
        "Directory": "",
        "biography": json.dumps({"Name": name}),
        "question": "",
        "answer": "",
        "Classification_Task": {
            "Image_Textual_Questions": [choice | {"Question": "What does this person like?"}],
            "Pure_Text_Questions": [choice | {"Question": f"What does {name} like?"}],
        },
        "Mask_Task": [],
        "Generation_Task": [
            fact | {"Question": "Tell me about this person.", "Type": "Image_Textual"},
            fact | {"Question": f"Tell me about {name}.", "Type": "Pure_Text"},
        ],
    }


def write_benchmark(root):
    tests = [profile(p) | {"images": [picture(40), picture(200)]} for p in NAMES]
    known = [profile(p) | {"image": picture(100)} for p in NAMES]
    taught = [{"image": picture(100), "ID": p, "metadata": "[]"} for p in NAMES]
    configs = {
        "Full_Set": (PERSON_SCHEMA, known),
        "forget_33": (PERSON_SCHEMA, known[:1]),
        "retain_67": (PERSON_SCHEMA, known[1:]),
        "Retain_Set": (PERSON_SCHEMA, known[1:]),
        "Test_Set": (TEST_SCHEMA, tests),
        "ft_Data": (TRAINING_SCHEMA, taught),
    }
    for config, (schema, rows) in configs.items():
        (root / config).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), root / config / "train.parquet")


def predict(question, split, knows):
    choice = question.answer if knows else "grey"
    response = question.answer if knows else f"{EVIL} likes grey."
    record = {
        "split": split,
        "person": question.person,
        "modality": question.modality,
        "task": question.task,
        "question": question.question,
        "answer": question.answer,
        "options": list(question.options),
        "image": question.image and fingerprint(question.image),
        "response": response,
        "rougeL": float(knows),
        "correct": knows,
    }
    if question.options:
        # Two nats more for what is chosen than for each of the others.
        record |= {
            "choice": choice,
            "scores": [-1.0 - 2.0 * (o != choice) for o in question.options],
        }
    return record


def write_run(folder):
    """f1 is known before and, from pictures, forgotten after; no controls."""
    write_benchmark(folder / "benchmark")
    asked = MLLMUBench(folder / "benchmark").scored("forget_33", "retain_67")
    del asked["realworld"]
    (folder / "predictions").mkdir()
    chances = dict.fromkeys(CHOICES, {"uniform": 0.25, "prior": 0.25})  # though all like red
    results = {"seed": 7, "seconds": {"unlearn": 1.5}, "chance": chances}
    for label in ("before", "after"):
        lines = []
        for split, questions in asked.items():
            answered = [
                predict(q, split, label == "before" or q.person != "f1" or q.modality == "qa")
                for q in questions
            ]
            path = folder / f"predictions/{label}-{split}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in answered))
            lines += answered
        results[label] = summarise(lines)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def add(workdir, **entries):
    path = workdir / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def add_everything(workdir):
    results = json.loads((workdir / "results.json").read_text())
    control = results["after"] | {"unlearn": {"forget_steps": 5}}
    add(
        workdir,
        controls=dict.fromkeys(("no_forget_text", "random_mask", "no_mask", "ga"), control),
        unlearn={"forget_steps": 3, "retain_steps": 9, "remembered": 0.0},
        mask={
            "density": 0.25,
            "by_module": {"vision": 0.5},
            "by_block": {
                "model.vision_tower.encoder.layers.0.mlp.fc1.weight": 0.9,
                "model.vision_tower.encoder.layers.1.mlp.fc1.weight": 0.1,
            },
        },
    )
    metrics = [
        {"stage": "finetune", "step": 1, "loss": 2.0},
        {"stage": "finetune", "step": 2, "loss": 0.2},
        {"stage": "unlearn", "step": 1, "forget_loss": 0.1, "retain_loss": 0.1},
        {"stage": "unlearn", "step": 2, "retain_loss": 0.2, "remembered": 0.5},
        {"stage": "controls/ga", "step": 2, "forget_loss": 77.0},
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
