"""Qwen2-VL and Qwen2.5-VL: transformers -> ours -> transformers, bit by bit, in both spellings."""

import json

import jax
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.qwen2_vl import QWEN2_VL
from mmunlearner_jax.weights import io
from mmunlearner_jax.weights.io import from_pretrained, leaf_labels, save_pretrained
from tests.helpers.compare import assert_same_model, reload
from tests.helpers.torch_qwen2_vl import Qwen2VLForConditionalGeneration, make_torch_model


def as_written(path, change):
    """Rewrites the tensors of a checkpoint."""
    tensors = change(load_file(path / "model.safetensors"))
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def test_every_case_returns(qwen, tmp_path):
    assert_same_model(qwen.ours, qwen.theirs)
    save_pretrained(qwen.ours, tmp_path / "saved")
    again = reload(type(qwen.theirs), tmp_path / "saved")
    assert_same_model(qwen.ours, again)
    theirs, saved = qwen.theirs.config.to_dict(), again.config.to_dict()
    kind = saved["text_config"]["rope_parameters"].pop("type")  # the hub's word, for transformers 4
    assert kind == "mrope"
    for config in (theirs, saved):
        for part in (config, config["text_config"], config["vision_config"]):
            part.pop("_name_or_path", None)
            part.pop("dtype")  # reading fills it in
    assert saved == theirs
    assert from_pretrained(tmp_path / "saved").config == qwen.ours.config


@pytest.mark.parametrize("qwen", ["tied", "windows of nine, tied"], indirect=True)
def test_auto_classes_load_what_was_saved(qwen, tmp_path):
    """A fresh model's config says all that transformers must know."""
    qwen.ours.source, source = None, qwen.ours.source
    save_pretrained(qwen.ours, tmp_path / "saved")
    qwen.ours.source = source
    again = reload(transformers.AutoModelForImageTextToText, tmp_path / "saved")
    assert type(again) is type(qwen.theirs)
    assert_same_model(qwen.ours, again)
    assert again.lm_head.weight is again.model.language_model.embed_tokens.weight


def test_half_precision_is_kept(tmp_path):
    theirs = make_torch_model("seven heads share").to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = from_pretrained(tmp_path / "theirs")
    save_pretrained(ours, tmp_path / "ours")
    again = reload(Qwen2VLForConditionalGeneration, tmp_path / "ours")
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert_same_model(ours, again)


@pytest.mark.parametrize("qwen", ["every head its own", "windows of four"], indirect=True)
def test_names_in_memory_are_read(qwen, tmp_path):
    """Those since transformers 4.52, whose files have been seen with either spelling."""
    save_pretrained(qwen.ours, tmp_path / "saved")
    as_written(tmp_path / "saved", lambda _: dict(qwen.theirs.state_dict()))
    assert_same_model(from_pretrained(tmp_path / "saved"), qwen.theirs)


def test_written_names_are_the_hub_s(qwen, tmp_path):
    save_pretrained(qwen.ours, tmp_path / "saved")
    with safe_open(tmp_path / "saved/model.safetensors", framework="numpy") as file:
        prefixes = {".".join(name.split(".")[:2]) for name in file.keys()}
    head = set() if qwen.ours.config.text.tie_word_embeddings else {"lm_head.weight"}
    assert prefixes == head | {
        "model.embed_tokens",
        "model.layers",
        "model.norm",
        "visual.patch_embed",
        "visual.blocks",
        "visual.merger",
    }


@pytest.mark.parametrize("qwen", ["every head its own"], indirect=True)
def test_shards_and_their_index(qwen, tmp_path, monkeypatch):
    monkeypatch.setattr(io, "SHARD_BYTES", 40_000)
    save_pretrained(qwen.ours, tmp_path / "ours")
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 2
    assert_same_model(qwen.ours, reload(Qwen2VLForConditionalGeneration, tmp_path / "ours"))
    assert_same_model(from_pretrained(tmp_path / "ours"), qwen.theirs)


@pytest.mark.parametrize("qwen", ["every head its own"], indirect=True)
def test_what_is_not_the_model_s_is_named(qwen, tmp_path):
    save_pretrained(qwen.ours, tmp_path / "saved")

    def change(tensors):
        del tensors["model.layers.1.self_attn.k_proj.bias"]
        tensors["visual.blocks.0.attn.qkv.weight"] = torch.zeros(32, 96)
        tensors["model.layers.0.self_attn.o_proj.bias"] = torch.zeros(32)
        tensors["model.visual.merger.ln_q.bias"] = torch.zeros(32)
        return tensors

    as_written(tmp_path / "saved", change)
    with pytest.raises(InputError) as error:
        from_pretrained(tmp_path / "saved")
    message = str(error.value)
    assert "\n" not in message
    for part in (
        "missing model.language_model.layers.1.self_attn.k_proj.bias",
        "misshapen visual.blocks.0.attn.qkv.weight [32, 96], should be [96, 32]",
        "extra model.layers.0.self_attn.o_proj.bias",
        "duplicate ",
    ):
        assert part in message


@pytest.mark.parametrize("qwen", ["tied", "windows of nine, tied"], indirect=True)
def test_module_groups(qwen):
    names, groups = map(jax.tree.leaves, leaf_labels(qwen.ours))
    of = dict(zip(names, groups, strict=True))
    for name, group in of.items():
        merged = name.startswith("model.visual.merger.")
        vision = "projector" if merged else "vision"
        assert group == (vision if name.startswith("model.visual.") else "language"), name
    assert set(of.values()) == {"vision", "projector", "language"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "qwen3_vl"}, ("'qwen3_vl'", "several layers", "llava, qwen2_vl")),
        ({"model_type": "internvl"}, ("'internvl'", "InternViT", "qwen2_5_vl")),
        ({"use_sliding_window": True}, ("use_sliding_window",)),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, ("rope_type='yarn'",)),
        ({"vision_config": {"model_type": "qwen2_5_vl"}}, ("vision_config.model_type",)),
        (
            {"vision_config": {"rope_parameters": {"rope_theta": 5e5}}},
            ("vision_config.rope_parameters", "500000.0"),
        ),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [4, 4]}}, ("mrope_section=[4, 4]",)),
        ({"hidden_size": 64, "num_attention_heads": 8}, ("vision_config.hidden_size=32", "64")),
    ],
)
@pytest.mark.parametrize("qwen", ["every head its own"], indirect=True)
def test_other_models_are_refused(qwen, tmp_path, fields, words):
    config = QWEN2_VL.to_hf(qwen.ours.config) | fields
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as error:
        from_pretrained(tmp_path)
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in ("config.json", *words) if word not in message] == []
