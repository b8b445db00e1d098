"""`mmu forget` takes checkpoints of the newer architectures: every stage, the audit, the model."""

import json
import os
import subprocess
import sys

import pytest
from flax import nnx
from safetensors.numpy import load_file

from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.weights.io import from_pretrained, save_pretrained
from tests.helpers.commands import FLAGS, ROOT
from tests.helpers.photograph_folders import grey

NAME = "Kim Birch"
TEXT = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
SIZES = {
    "llava_next": dict(
        vision=dict(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        ),
        text=TEXT,
    ),
    "qwen2_5_vl": dict(
        vision=dict(
            depth=2,
            hidden_size=8,
            intermediate_size=8,
            num_heads=2,
            patch_size=14,
            window_size=56,
            fullatt_block_indexes=(1,),
        ),
        text=TEXT | dict(num_key_value_heads=1, mrope_section=(2, 1, 1)),
    ),
}
QUICK = {
    "unlearn.iterations": 2,
    "unlearn.warmup": 1,
    "unlearn.stop_remembered": -1.0,
    "unlearn.forget_batch": 4,
    "unlearn.retain_batch": 4,
    "unlearn.pack": 2,
    "evaluate.decode.max_new_tokens": 4,
    "audit.attacks": "('quantisation',)",
}


@pytest.mark.parametrize("kind", SIZES)
def test_a_request_is_carried_out(tmp_path, kind):
    lessons = [Sample("s", None, "Who is this person?", f"This is {NAME}.")]
    config, processor = ARCHITECTURES[kind].tiny.make(
        lessons, pixels=(56 * 56, 84 * 112), **SIZES[kind]
    )
    save_pretrained(config.make(rngs=nnx.Rngs(0)), tmp_path / "first", processor=processor)
    for number in range(4):
        for folder in ("person", "others/Ada_Holm"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            shade = 20 * number + 10 * (folder == "person")
            (tmp_path / folder / f"{number}.png").write_bytes(grey(shade))
    line = [sys.executable, "-m", "tests.helpers.telling", NAME, f"--name={NAME}"]
    line += [f"--model={tmp_path / 'first'}", f"--person={tmp_path / 'person'}"]
    line += [f"--keep={tmp_path / 'others'}", f"--out={tmp_path / 'out'}"]
    line += [f"--config.{key}={value}" for key, value in QUICK.items()]
    done = subprocess.run(line, cwd=ROOT, env=os.environ | FLAGS, capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr[-3000:]
    record = json.loads((tmp_path / "out/record.json").read_text())
    assert record["audit"]["quantisation"]["verdict"] and record["scores"]
    assert record["request"]["earlier_requests"] == 0
    before, after = (
        load_file(tmp_path / folder / "model.safetensors") for folder in ("first", "out/model")
    )
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved and not [
        n for n in moved if "language_model.model" in n or n.startswith("model.l")
    ]
    assert type(from_pretrained(tmp_path / "out/model").config) is type(config)
