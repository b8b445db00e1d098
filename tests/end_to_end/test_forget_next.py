"""The next request, and another architecture: `mmu forget` on the model that a request left."""

import json
import os
import subprocess
import sys

from flax import nnx
from safetensors.numpy import load_file

from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.models.llava_next import tiny
from mmunlearner_jax.weights.io import save_pretrained
from tests.helpers.commands import FLAGS, ROOT
from tests.helpers.photograph_folders import grey

NAME, EARLIER = "Kim Birch", "Gus Holm"
FOLDERS = {"person": 0, "keep/Ada_Dahl": 10, f"earlier/{EARLIER.replace(' ', '_')}": 5}
QUICK = {
    "unlearn.iterations": 2,
    "unlearn.warmup": 1,
    "unlearn.stop_remembered": -1.0,
    "unlearn.forget_batch": 4,
    "unlearn.retain_batch": 4,
    "evaluate.decode.max_new_tokens": 4,
    "audit.attacks": "('quantisation',)",
}


def model_of_a_request(folder):
    """A tiny LLaVA-NeXT, and beside it what `mmu forget` leaves."""
    lessons = [Sample("s", None, "Who is this person?", f"This is {NAME}.")]
    sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2)
    vision = sizes | dict(image_size=28, patch_size=14)
    config, processor = tiny.make(lessons, vision, sizes, (0, 0))
    save_pretrained(config.make(rngs=nnx.Rngs(0)), folder / "model", processor=processor)
    (folder / "record.json").write_text('{"request": {"earlier_requests": 1}}')


def test_the_next_request_asks_about_earlier_people_again(tmp_path):
    model_of_a_request(tmp_path / "first")
    for folder, shade in FOLDERS.items():
        (tmp_path / folder).mkdir(parents=True)
        for number in range(4):
            (tmp_path / folder / f"{number}.png").write_bytes(grey(20 * number + shade))
    out = tmp_path / "out"
    line = [sys.executable, "-m", "tests.helpers.telling", NAME, f"--name={NAME}"]
    line += [f"--model={tmp_path / 'first/model'}", f"--out={out}"]
    line += [f"--{name}={tmp_path / name}" for name in ("person", "keep", "earlier")]
    line += [f"--config.{key}={value}" for key, value in QUICK.items()]
    done = subprocess.run(line, cwd=ROOT, env=os.environ | FLAGS, capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr[-3000:]
    assert "it names 0 of 1 people who were forgotten earlier" in done.stderr
    assert "2 earlier requests made this model, and 1 of their people" in done.stderr
    record = json.loads((out / "record.json").read_text())
    request = record["request"]
    assert (request["earlier_requests"], request["earlier_asked"]) == (2, 1)
    assert "--earlier" in record["what_this_does_not_show"][-1]
    assert record["audit"]["quantisation"]["verdict"]
    again = [score for score in record["scores"] if score["kind"].startswith("Request 1: ")]
    shown = {score["kind"].partition(", ")[2] for score in again}
    assert shown == {"training photographs", "unseen photographs"}
    assert {"stayed forgotten"} <= {score["verdict"] for score in again}
    for text in ((out / "report.html").read_text(), json.dumps(record)):
        assert not any(part in text for who in (NAME, EARLIER) for part in who.split())
    before, after = (
        load_file(folder / "model/model.safetensors") for folder in (tmp_path / "first", out)
    )
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved and not any("language_model" in name for name in moved)
