"""transformers -> ours -> transformers, bit by bit, in every spelling and dtype."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from mmunlearner_jax.weights import io
from mmunlearner_jax.weights.io import (
    from_hf_names,
    from_pretrained,
    save_pretrained,
    to_hf_names,
)
from tests.helpers.compare import assert_same_model, reload


def test_every_case_returns(case, tmp_path):
    assert_same_model(case.ours, case.theirs)
    save_pretrained(case.ours, tmp_path / "saved")
    again = reload(LlavaForConditionalGeneration, tmp_path / "saved")
    assert_same_model(case.ours, again)
    theirs, saved = case.theirs.config.to_dict(), again.config.to_dict()
    for config in (theirs, saved):
        config.pop("image_seq_length")  # transformers' default is that of the 7B model
        for part in (config, config["text_config"], config["vision_config"]):
            part.pop("_name_or_path", None)
            part.pop("dtype")  # reading fills it in
    assert saved == theirs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept(torch_model, tmp_path, dtype):
    theirs = torch_model("grouped-rope").to(dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = from_pretrained(tmp_path / "theirs")
    assert_same_model(ours, theirs)
    save_pretrained(ours, tmp_path / "ours")
    again = reload(LlavaForConditionalGeneration, tmp_path / "ours")
    assert again.dtype == dtype
    assert_same_model(ours, again)


def test_dtype_is_converted_while_reading(case):
    half = from_pretrained(case.path, dtype="bfloat16")
    for ours, read in zip(
        *(jax.tree.leaves(nnx.split(m)[1]) for m in (case.ours, half)), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(ours).astype(ml_dtypes.bfloat16), read)


SPELLINGS = {
    "hub": {
        "lm_head.": "language_model.lm_head.",
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    },
    "named_parameters": {},
    "nested vision model": {"model.vision_tower.": "model.vision_tower.vision_model."},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", ["plain", "siglip"])
def test_spellings(torch_model, tmp_path, name, spelling):
    theirs = torch_model(name)
    theirs.save_pretrained(tmp_path)

    def respelt(name):
        for prefix, other in SPELLINGS[spelling].items():
            if name.startswith(prefix):
                return other + name.removeprefix(prefix)
        return name

    tensors = {respelt(name): p.detach() for name, p in theirs.named_parameters()}
    buffer = "vision_tower.vision_model.embeddings.position_ids"  # transformers < 4.31 wrote it
    positions = theirs.model.vision_tower.embeddings.position_embedding.num_embeddings
    tensors[buffer] = torch.arange(positions)[None]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same_model(from_pretrained(tmp_path), theirs)


def test_names_of_dinov2_in_memory(torch_model, tmp_path):
    theirs = torch_model("dinov2")
    theirs.save_pretrained(tmp_path)
    tensors = {name: p.detach() for name, p in theirs.named_parameters()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same_model(from_pretrained(tmp_path), theirs)


def test_written_names_are_the_hub_s(case, tmp_path):
    save_pretrained(case.ours, tmp_path / "saved")
    with safe_open(tmp_path / "saved/model.safetensors", framework="numpy") as file:
        prefixes = {".".join(name.split(".")[:2]) for name in file.keys()}
    head = set() if case.ours.config.text.tie_word_embeddings else {"language_model.lm_head"}
    own = {"vision_tower.embeddings", "vision_tower.encoder", "vision_tower.layernorm"}
    is_dinov2 = case.ours.config.vision.model_type == "dinov2"
    tower = own if is_dinov2 else {"vision_tower.vision_model"}
    assert prefixes == head | tower | {
        "language_model.model",
        "multi_modal_projector.linear_1",
        "multi_modal_projector.linear_2",
    }


def test_tied_head_stored_twice(torch_model, tmp_path):
    theirs = torch_model("tied-full")
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["language_model.lm_head.weight"] = theirs.lm_head.weight.detach().clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same_model(from_pretrained(tmp_path), theirs)


def test_shards(torch_model, tmp_path, monkeypatch):
    theirs = torch_model("plain")
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    ours = from_pretrained(tmp_path / "theirs")
    assert_same_model(ours, theirs)
    monkeypatch.setattr(io, "SHARD_BYTES", 40_000)
    save_pretrained(ours, tmp_path / "ours")
    files = sorted((tmp_path / "ours").glob("*.safetensors"))
    assert len(files) > 2
    assert all(sum(t.nbytes for t in load_file(f).values()) <= 40_000 for f in files)
    index = json.loads((tmp_path / "ours/model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {f.name for f in files}
    assert_same_model(ours, reload(LlavaForConditionalGeneration, tmp_path / "ours"))
    assert_same_model(from_pretrained(tmp_path / "ours"), theirs)


def test_names_return_for_any_dtype(case):
    params = nnx.split(case.ours)[1]
    mask = jax.tree.map(lambda p: p > 0, params)
    named = to_hf_names(case.ours, mask)
    for name, parameter in case.theirs.named_parameters():
        np.testing.assert_array_equal(named[name], parameter.detach().numpy() > 0)
    back = from_hf_names(case.ours, named)
    assert jax.tree.structure(back) == jax.tree.structure(mask)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(mask), strict=True):
        assert a.dtype == bool
        np.testing.assert_array_equal(a, b)
