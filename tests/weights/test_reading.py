import json
import shutil

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.llava import LLAVA
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.weights import io
from mmunlearner_jax.weights.io import from_hf_names, from_pretrained, save_pretrained, to_hf_names
from mmunlearner_jax.weights.tensors import Tensor


def arrays(model):
    return {path: leaf.get_value() for path, leaf in nnx.to_flat_state(nnx.split(model)[1])}


def rewrite(checkpoint, change):
    """Applies `change` to the tensors of a checkpoint."""
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})


def edit_json(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def refused(checkpoint, *words):
    """Reading fails with one line that holds all the words."""
    with pytest.raises(InputError) as error:
        from_pretrained(checkpoint)
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_what_was_saved_is_read(model, checkpoint):
    again = from_pretrained(checkpoint)
    assert again.source == str(checkpoint)
    assert LLAVA.to_hf(again.config) == LLAVA.to_hf(model.config)
    for path, array in arrays(again).items():
        np.testing.assert_array_equal(array, arrays(model)[path])


@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_arrays_are_born_sharded(model, checkpoint, sizes):
    read = arrays(from_pretrained(checkpoint, mesh=make_mesh(sizes)))
    for path, array in read.items():
        np.testing.assert_array_equal(array, arrays(model)[path])
        assert len(array.sharding.device_set) == 8
    kernel = read["language_model", "layers", "gate_proj", "kernel"]
    assert kernel.shape == (2, 32, 48)
    data, fsdp, tensor = sizes
    assert kernel.addressable_shards[0].data.shape == (2, 32 // fsdp, 48 // tensor)


def test_a_device_reads_only_its_part(checkpoint, monkeypatch):
    sizes = []
    cut = Tensor.__getitem__

    def counted(self, index):
        part = cut(self, index)
        sizes.append(part.size)
        return part

    monkeypatch.setattr(Tensor, "__getitem__", counted)
    read = arrays(from_pretrained(checkpoint, mesh=make_mesh((1, 8, 1))))
    largest = max(x[0].size for path, x in read.items() if "layers" in path)
    assert max(sizes) == largest // 8


def test_sharded_arrays_are_saved(model, checkpoint, tmp_path):
    sharded = from_pretrained(checkpoint, mesh=make_mesh((2, 2, 2)))
    save_pretrained(sharded, tmp_path / "again")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (checkpoint / file).read_bytes()


def test_compute_options_are_taken(checkpoint):
    model = from_pretrained(checkpoint, dtype="float16", compute_dtype="bfloat16", remat="full")
    assert (model.config.dtype, model.config.remat) == ("bfloat16", "full")
    assert {x.dtype.name for x in arrays(model).values()} == {"float16"}
    with pytest.raises(InputError, match="remat='some' is not supported; use one of none, full"):
        from_pretrained(checkpoint, remat="some")


def test_neither_folder_nor_name(tmp_path):
    refused(tmp_path / "absent", "absent", "neither a folder nor a Hugging Face name")
    refused("nobody/nothing", "nobody/nothing", "check the spelling")


def test_wrong_model_type(checkpoint):
    edit_json(checkpoint / "config.json", model_type="blip-2")
    refused(checkpoint, "config.json", "model_type='blip-2'", "llava")


def test_unsupported_option_names_the_file(checkpoint):
    edit_json(checkpoint / "config.json", vision_feature_layer=[-2, -4])
    refused(checkpoint, "config.json", "vision_feature_layer=[-2, -4]")


def test_config_is_no_json(checkpoint):
    (checkpoint / "config.json").write_text('{"model_type":')
    refused(checkpoint, "config.json", "cannot be read as JSON")
    (checkpoint / "config.json").unlink()
    refused(checkpoint, "config.json")


def test_missing_extra_misshapen_and_duplicate_are_all_named(checkpoint):
    def change(tensors):
        del tensors["language_model.model.norm.weight"]
        tensors["language_model.model.layers.2.mlp.up_proj.weight"] = np.zeros((48, 32), "f4")
        tensors["language_model.lm_head.weight"] = np.zeros((32, 40), "f4")
        tensors["multi_modal_projector.linear_1.bias"] = np.zeros(32, "f4")
        tensors["model.multi_modal_projector.linear_1.bias"] = np.zeros(32, "f4")

    rewrite(checkpoint, change)
    refused(
        checkpoint,
        str(checkpoint),
        "missing model.language_model.norm.weight",
        "extra language_model.model.layers.2.mlp.up_proj.weight",
        "misshapen language_model.lm_head.weight [32, 40], should be [40, 32]",
        "duplicate m",
    )


def test_unused_bias_is_extra(checkpoint):
    name = "language_model.model.layers.0.self_attn.q_proj.bias"
    rewrite(checkpoint, lambda tensors: tensors.update({name: np.zeros(32, "f4")}))
    refused(checkpoint, f"extra {name}")


def test_layers_of_several_dtypes(checkpoint):
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    rewrite(checkpoint, lambda tensors: tensors.update({name: tensors[name].astype("f2")}))
    refused(checkpoint, "model.language_model.layers.0.mlp.up_proj.weight", "F16 and F32", "dtype")
    assert from_pretrained(checkpoint, dtype="float32")


@pytest.mark.parametrize("size", [4, 100, -1])
def test_truncated_file(checkpoint, size):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    refused(checkpoint, "model.safetensors", "is damaged", "download it again")


def test_index_of_a_missing_file(model, tmp_path, monkeypatch):
    monkeypatch.setattr(io, "SHARD_BYTES", 20_000)
    save_pretrained(model, tmp_path / "shards")
    first, *_ = sorted((tmp_path / "shards").glob("*.safetensors"))
    first.unlink()
    refused(tmp_path / "shards", "model.safetensors.index.json", first.name, "missing")


def test_no_safetensors(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").touch()
    refused(checkpoint, str(checkpoint), "neither model.safetensors nor")


def test_names_of_another_model(model):
    named = to_hf_names(model, nnx.split(model)[1])
    named["lm_head.weight"] = named.pop("lm_head.weight")[:, 1:]
    with pytest.raises(InputError, match="misshapen lm_head.weight"):
        from_hf_names(model, named)


def test_saving_is_all_or_nothing(model, tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(io.json, "dumps", full_disk)  # after the weights, before the config
    with pytest.raises(OSError, match="No space"):
        save_pretrained(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_save_are_cleared(model, tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial/model-00001-of-00009.safetensors").touch()
    save_pretrained(model, tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors"}


def test_nothing_is_overwritten(model, checkpoint):
    with pytest.raises(InputError, match="not an empty folder"):
        save_pretrained(model, checkpoint)
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()
    save_pretrained(model, checkpoint)
    assert from_pretrained(checkpoint)


def test_companions_and_unknown_config_fields_travel(checkpoint, tmp_path):
    config_file = checkpoint / "config.json"
    text = json.loads(config_file.read_text())["text_config"]
    edit_json(config_file, ignore_index=-100, text_config=text | {"bos_token_id": 7, "new": 1})
    for name in ("tokenizer.json", "chat_template.jinja", "preprocessor_config.json", "notes.md"):
        (checkpoint / name).write_text(name)
    model = from_pretrained(checkpoint, dtype="bfloat16")
    save_pretrained(model, tmp_path / "again")
    saved = json.loads((tmp_path / "again/config.json").read_text())
    assert (saved["ignore_index"], saved["dtype"]) == (-100, "bfloat16")
    assert (saved["text_config"]["bos_token_id"], saved["text_config"]["new"]) == (7, 1)
    names = {p.name for p in (tmp_path / "again").iterdir()}
    assert "notes.md" not in names
    assert {"tokenizer.json", "chat_template.jinja", "preprocessor_config.json"} < names


def test_models_read_twice_share_compilations(checkpoint):
    first, second = (nnx.split(from_pretrained(checkpoint))[0] for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
