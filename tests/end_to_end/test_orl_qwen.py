"""The examples with a tiny Qwen2-VL and Qwen2.5-VL: some steps of everything, and the export."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from transformers import AutoModelForImageTextToText

import mmunlearner_jax as mmu
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.processors import load_processor
from tests.helpers.commands import FOREIGN, loaded, run

# Without evaluation and report: they are Qwen2-VL's (tests/evaluation/test_whole.py asks both).
STAGES = {"orl_qwen2_5": ("prepare", "finetune", "importance", "mask", "unlearn", "export")}


@pytest.fixture(scope="module", params=["orl_qwen", *STAGES])
def finished(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp(request.param) / "run"
    stages = {"stages": STAGES[request.param]} if request.param in STAGES else {}
    done = run(workdir, request.param, controls="()", **stages)
    imported = loaded(done)
    assert "transformers" in imported and not FOREIGN & imported
    return workdir


@pytest.mark.parametrize("finished", ["orl_qwen"], indirect=True)
def test_every_stage_leaves_its_results(finished):
    results = json.loads((finished / "results.json").read_text())
    for label in ("before", "after"):
        assert {"forget", "test", "retain", "test_retain", "realworld"} <= results[label].keys()
        assert results[label]["forget"]["vqa"]["classification"]["n"] == 8 * 7
    assert results["unlearn"]["forget_steps"] == 3
    assert results["mask"]["by_module"].keys() == {"vision", "projector", "language"}
    assert all(0 < density < 1 for density in results["mask"]["by_module"].values())
    assert (finished / "report.html").exists() and not list(finished.rglob("*partial*"))


def test_the_mask_covers_what_the_config_says_by_transformers_names(finished):
    mask = load_file(finished / "mask.safetensors")
    weights = AutoModelForImageTextToText.from_pretrained(finished / "vanilla")
    named = dict(weights.named_parameters())
    assert {k: v.shape for k, v in mask.items()} == {k: tuple(v.shape) for k, v in named.items()}
    chosen = {name.rsplit(".", 2)[1] for name, values in mask.items() if values.any()}
    vision = {"proj", "qkv", "0", "2"}
    if finished.parent.name.startswith("orl_qwen2_5"):  # its tower is gated like the decoder
        assert any(".visual." in name and "gate_proj" in name for name in mask)
    else:
        vision |= {"fc1", "fc2"}
    assert chosen == vision | {f"{x}_proj" for x in ("q", "k", "v", "o", "gate", "up", "down")}


def test_the_export_answers_the_same_in_transformers(finished):
    theirs: torch.nn.Module = AutoModelForImageTextToText.from_pretrained(finished / "export")
    ours = mmu.from_pretrained(finished / "export")
    processor, pictures = load_processor(ours.config, str(finished / "export"))
    encoder = Encoder(processor, pictures)
    photos = []
    for width, height in ((92, 112), (64, 64)):
        noise = np.random.default_rng(width).integers(0, 255, (height, width), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "png")
        photos.append(buffer.getvalue())
    ids = np.array([encoder.prompt_ids(encoder.prompt("Who is this person?", 2), photos)])
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    shown = [Image.open(io.BytesIO(photo)).convert("RGB") for photo in photos]
    given = inputs | dict(processor.image_processor(images=shown, return_tensors="np"))
    with torch.no_grad():
        batch = {k: torch.from_numpy(v) for k, v in given.items()}
        kinds = torch.from_numpy((ids == processor.image_token_id).astype(int))
        logits = theirs.eval()(**batch, mm_token_type_ids=kinds).logits.numpy()
    np.testing.assert_allclose(ours(**given), logits, rtol=1e-4, atol=1e-4)
    pixels = [encoder.pixels(photos)]
    packed = pictures.pack(pixels, 16)
    np.testing.assert_allclose(ours(**inputs, **packed), logits, rtol=1e-4, atol=1e-4)
