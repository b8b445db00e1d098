"""Checkpoints of strangers: right, or refused in one line that says what to do."""

import json
import os
import shutil
import time
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file, save_file

from mmunlearner_jax.errors import LONGEST, InputError
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.qwen2_vl import QWEN2_VL
from mmunlearner_jax.models.qwen2_vl.model import Qwen2Config, Qwen2VLConfig
from mmunlearner_jax.models.qwen2_vl.vision import Qwen2VisionConfig
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.models.rope import frequencies
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.weights import io
from mmunlearner_jax.weights.io import from_hf_names, from_pretrained, save_pretrained, to_hf_names
from mmunlearner_jax.weights.reading import Reader, finite
from mmunlearner_jax.weights.table import Entry
from tests.helpers.compare import assert_same_model, reload

SIZES: dict[str, Any] = dict(
    hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, vocab_size=40
)
CONFIGS = {
    "llava": LlavaConfig(
        vision=ClipConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=4,
            patch_size=2,
        ),
        text=LlamaConfig(**SIZES),
        image_token_id=39,
    ),
    "qwen2_vl": Qwen2VLConfig(
        vision=Qwen2VisionConfig(
            depth=2, embed_dim=16, hidden_size=16, num_heads=2, mlp_ratio=2, patch_size=2
        ),
        text=Qwen2Config(**SIZES, num_key_value_heads=1, mrope_section=(2, 1, 1)),
        image_token_id=36,
        video_token_id=37,
        vision_start_token_id=38,
        vision_end_token_id=39,
    ),
}
HEADS = {"llava": "language_model.lm_head.weight", "qwen2_vl": "lm_head.weight"}
EMBEDDINGS = {
    "llava": "language_model.model.embed_tokens.weight",
    "qwen2_vl": "model.embed_tokens.weight",
}
THEIRS = {
    "llava": transformers.LlavaForConditionalGeneration,
    "qwen2_vl": transformers.Qwen2VLForConditionalGeneration,
}
FILE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint of either kind."""
    folder = tmp_path_factory.mktemp("made")
    for kind, config in CONFIGS.items():
        save_pretrained(config.make(rngs=nnx.Rngs(0)), folder / kind)
    return folder


@pytest.fixture
def llava(made, tmp_path):
    return shutil.copytree(made / "llava", tmp_path / "run[1]")


@pytest.fixture
def shards(llava):
    """The same in two shards."""
    tensors = load_file(llava / FILE)
    (llava / FILE).unlink()
    files = {"one.safetensors": list(tensors)[::2], "two.safetensors": list(tensors)[1::2]}
    for file, names in files.items():
        save_file({name: tensors[name] for name in names}, llava / file)
    write_index(llava, {name: file for file, names in files.items() for name in names})
    return llava


def write_index(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def weight_map(folder):
    return json.loads((folder / INDEX).read_text())["weight_map"]


def edit_tensors(folder, change, file=FILE):
    tensors = load_file(folder / file)
    save_file(change(tensors) or tensors, folder / file, metadata={"format": "pt"})


def edit_config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def refused(folder, *words, **options):
    """Reading fails with one printable line that holds all the words; in time."""
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        from_pretrained(folder, **options)
    message = str(error.value)
    assert time.monotonic() - start < 20
    assert message.isprintable()
    assert len(message) <= LONGEST
    assert [word for word in words if word not in message] == []
    return message


# --- The files that an index names ---


@pytest.mark.parametrize(
    "file",
    [
        "../one.safetensors",
        "sub/../one.safetensors",
        "/etc/passwd",
        "/dev/zero",
        "..",
        ".",
        "",
        "./one.safetensors",
        "one\0.safetensors",
        "..\\one.safetensors",
        None,
        7,
        ["one.safetensors"],
        {"one": 1},
    ],
)
def test_a_shard_is_a_file_beside_its_index(shards, file):
    write_index(shards, weight_map(shards) | {"lm_head.weight": file})
    refused(shards, INDEX, "lm_head.weight", "name of a file in the same folder")


@pytest.mark.parametrize("shards_of", [[], {}, "one.safetensors", None, 3])
def test_weight_map_is_an_object(shards, shards_of):
    write_index(shards, shards_of)
    refused(shards, INDEX, "weight_map must be an object")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"weight_map": {"a": NaN}}', "[" * 50_000])
def test_index_is_json(shards, text):
    (shards / INDEX).write_text(text)
    refused(shards, INDEX)


@pytest.mark.parametrize("name", ["absent.safetensors", "\ud800.safetensors", "x" * 300])
def test_a_missing_shard(shards, name):
    write_index(shards, weight_map(shards) | {"lm_head.weight": name})
    refused(shards, "download it again")


def make_pipe(path):
    os.mkfifo(path)


def link_to_device(path):
    path.symlink_to("/dev/zero")


def broken_link(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_pipe, link_to_device, broken_link, os.mkdir])
@pytest.mark.parametrize("name", ["config.json", INDEX, "one.safetensors", FILE])
def test_only_regular_files_are_opened(shards, make, name):
    (shards / name).unlink(missing_ok=True)
    make(shards / name)
    refused(shards, name)


def test_links_as_in_the_hub_s_cache(shards, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(shards.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(f"../blobs/{number}")
    assert from_pretrained(shards)


def test_a_tensor_is_read_from_where_the_index_says(shards):
    first = next(name for name, file in weight_map(shards).items() if file == "one.safetensors")
    value = load_file(shards / "one.safetensors")[first]
    edit_tensors(shards, lambda t: t | {first: value + 1}, "two.safetensors")  # in both
    refused(shards, "two.safetensors", INDEX, f"extra: {first}")
    write_index(shards, weight_map(shards) | {first: "two.safetensors"})
    refused(shards, "one.safetensors", INDEX, f"extra: {first}")


def test_a_shard_without_what_the_index_says(shards):
    write_index(shards, weight_map(shards) | {f"more.{i}": "two.safetensors" for i in range(9)})
    refused(shards, "two.safetensors", INDEX, "missing: more.0, more.1, more.2 and 6 more")


def test_one_file_wins_over_an_index(shards, made):
    """As in transformers."""
    shutil.copy(made / "llava" / FILE, shards)
    write_index(shards, {"lm_head.weight": "absent.safetensors"})
    assert from_pretrained(shards)


# --- What is no checkpoint ---


def leave_only(folder, *names):
    for file in folder.iterdir():
        if file.name not in names:
            file.unlink()


def pytorch_only(folder):
    (folder / FILE).rename(folder / "pytorch_model.bin")


def adapters(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")
    (folder / FILE).rename(folder / "adapter_model.safetensors")


def pointer(folder):
    (folder / FILE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def renamed(change):
    return lambda folder: edit_tensors(folder, lambda t: {change(n): x for n, x in t.items()})


def with_adapter(name):
    return name.replace("q_proj.", "q_proj.base_layer.")


def quantized(name):
    return name.replace("q_proj.weight", "q_proj.qweight")


def configured(**fields):
    def change(folder):
        (folder / "config.json").write_text(json.dumps({"model_type": "llava", **fields}))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (pytorch_only, ("neither model.safetensors nor", "as safetensors")),
        (adapters, ("config.json", "merge them into their model")),
        (pointer, (FILE, "git lfs pull")),
        (renamed("module.{}".format), ("and", "more", "the model that the wrapper holds")),
        (renamed("_orig_mod.{}".format), ("the model that the wrapper holds",)),
        (renamed(with_adapter), ("base_layer", "merge the adapters first")),
        (renamed(quantized), ("qweight", "not quantized")),
        (configured(model_type="llava_llama"), ("'llava_llama'", "original layout")),
        (configured(mm_vision_tower="openai/clip"), ("'llava'", "original layout")),
        (configured(model_type="\x1b[2J" * 9), ("config.json", "llava, llava_next, qwen2_vl")),
        (configured(model_type=["llava"]), ("model_type=['llava']",)),
        (configured(model_type={}), ("model_type={}",)),
        (configured(), ("config.json", "image_token_id=32000")),
        (lambda folder: (folder / FILE).write_bytes(b""), (FILE, "damaged")),
        (lambda folder: (folder / FILE).write_bytes(b"\xff" * 99), (FILE, "damaged")),
        (lambda folder: (folder / FILE).unlink(), ("neither", "download it again")),
        (leave_only, ("config.json",)),
    ],
)
def test_what_is_no_checkpoint_of_ours(llava, change, words):
    change(llava)
    refused(llava, *words)


@pytest.mark.parametrize("name", ["~nobody/x", "a\0b", "no/such/folder", "x" * 5000, "\ud800"])
def test_names_that_nothing_has(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(name, "neither a folder nor a Hugging Face name")


def test_ten_thousand_names_are_one_short_line(llava):
    zero = np.zeros(1, "f4")
    edit_tensors(llava, lambda t: t | {f"\x1b[31m{i}\n\u202e[b]": zero for i in range(10_000)})
    refused(llava, r"extra \x1b[31m0\n\u202e[b]", "and 9,997 more")


def test_ten_thousand_layers_are_missed_in_one_short_line(llava):
    edit_config(llava, lambda config: config["text_config"].update(num_hidden_layers=1024))
    message = refused(llava, "missing model.language_model.layers.2.", "and 9,")
    assert message.count("missing") == 1


# --- Values ---


@pytest.mark.parametrize(
    "dtype", ["int8", "int64", "uint8", "bool", "complex64", "float8_e4m3fn", "float64"]
)
@pytest.mark.parametrize("asked", [None, "float32"])
def test_weights_are_floating_point_numbers(llava, dtype, asked):
    name = "language_model.model.norm.weight"
    edit_tensors(llava, lambda t: t | {name: t[name].astype(dtype)})
    if dtype == "float64" and asked:
        assert from_pretrained(llava, dtype=asked)
    else:
        refused(llava, "model.language_model.norm.weight", "F32, F16, BF16", dtype=asked)


LAYER = "language_model.model.layers.1.mlp.up_proj.weight"
TOWER = "vision_tower.vision_model.embeddings.patch_embedding.weight"


def spoilt(folder, value, *names):
    def change(tensors):
        for name in names:
            tensors[name] = tensors[name].copy()
            tensors[name].flat[-1] = value

    edit_tensors(folder, change)


@pytest.mark.parametrize("sizes", [None, (1, 8, 1), (2, 2, 2)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(llava, value, sizes):
    spoilt(llava, value, LAYER, TOWER)
    mesh = None if sizes is None else make_mesh(sizes)
    message = refused(llava, f"{LAYER}, {TOWER}: NaN or Inf", mesh=mesh)
    assert "layers.0" not in message


@pytest.mark.parametrize(
    ("value", "dtype", "fits"),
    [(1e6, "float16", False), (1e6, "bfloat16", True), (3.4e38, "bfloat16", False)],
)
def test_weights_beyond_a_dtype(llava, value, dtype, fits):
    spoilt(llava, value, LAYER)
    if fits:
        assert from_pretrained(llava, dtype=dtype)
    else:
        refused(llava, LAYER, f"too large for {dtype}", "use dtype", dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_finite_is_numpy_s(dtype):
    dtype = np.dtype(dtype)
    largest = ml_dtypes.finfo(dtype).max
    for value in (0.0, -0.0, largest, -largest, np.nan, -np.nan, np.inf, -np.inf):
        array = np.zeros((300, 400), dtype)
        array[-1, -1] = value
        for seen in (array, array.T, array[:, 7:], array[::2].T):
            assert finite(seen) == np.isfinite(seen.astype("f8")).all()


def test_processes_tell_each_other_what_they_found(monkeypatch):
    other = np.array([False, True, False])
    monkeypatch.setattr(
        "jax.experimental.multihost_utils.process_allgather", lambda here: np.stack([here, other])
    )
    entry = Entry(("c",), ("c",), (0,), stacked=False, shape=(3,))

    class Stored:
        dtype = "F32"

        def __getitem__(self, index):
            return np.full(3, np.nan, "f4")[index]

    home = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with Reader(None) as reader:
        reader.read(entry, {"c": Stored()}, jax.ShapeDtypeStruct((3,), "f4", sharding=home))
        assert reader.not_finite("abc", together=True) == ["b", "c"]
        assert reader.not_finite("abc", together=False) == ["c"]


ROTARY = {
    "llava": "language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
    "qwen2_vl": "model.rotary_emb.inv_freq",
}


def turns(kind):
    config = CONFIGS[kind].text
    return frequencies(config.head_size, config.rope_theta)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("llava", "vision_tower.vision_model.embeddings.position_ids", np.arange(5)[None]),
        ("llava", "vision_tower.embeddings.position_ids", np.arange(5)),
        ("llava", ROTARY["llava"], turns("llava")),
        ("qwen2_vl", ROTARY["qwen2_vl"], turns("qwen2_vl")),
        ("qwen2_vl", "visual.rotary_pos_emb.inv_freq", frequencies(4, 10000.0)),
    ],
)
def test_buffers_are_compared(made, tmp_path, kind, name, value):
    folder = shutil.copytree(made / kind, tmp_path / kind)

    def read(value):
        edit_tensors(folder, lambda tensors: tensors | {name: value})
        return from_pretrained(folder)

    assert read(value)
    floats = value.dtype.kind == "f"
    if floats:
        assert read(value.astype("f2"))
        assert read(value.astype(ml_dtypes.bfloat16))
    others = [value[..., ::-1], value * 2, value[..., :-1], value.astype("f4") * np.nan]
    for other in others:
        with pytest.raises(InputError, match="the values do not follow from config") as error:
            read(np.ascontiguousarray(other))
        assert name in str(error.value)


# --- Tied heads, as transformers has them ---

TIES = {
    "both": (True, True),
    "at the top": (True, False),
    "text part": (False, True),
    "text part alone": (None, True),
    "top alone": (True, None),
    "no": (False, False),
}


@pytest.mark.parametrize("head", ["absent", "same", "other", "alone"])
@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("kind", CONFIGS)
def test_tied_heads(made, tmp_path, kind, tie, head):
    folder = shutil.copytree(made / kind, tmp_path / "given")
    top, inner = TIES[tie]

    def say(config):
        text = config.setdefault("text_config", {})
        if kind == "qwen2_vl":  # as transformers 5 writes it
            fields = QWEN2_VL.to_hf(CONFIGS[kind])
            moved = {f: config.pop(f) for f in fields if f in KEPT_IN_TEXT}
            text |= moved | {"model_type": "qwen2_vl_text"}
        for part, value in ((config, top), (text, inner)):
            part.pop("tie_word_embeddings", None)
            if value is not None:
                part["tie_word_embeddings"] = value

    def change(tensors):
        tensors = dict(tensors)
        if head in ("absent", "alone"):
            del tensors[HEADS[kind] if head == "absent" else EMBEDDINGS[kind]]
        elif head == "same":
            tensors[HEADS[kind]] = tensors[EMBEDDINGS[kind]].copy()
        return tensors

    edit_config(folder, say)
    edit_tensors(folder, change)
    if tie == "no" and head in ("absent", "alone"):  # transformers would make random numbers
        refused(folder, "missing")
        return
    theirs = THEIRS[kind].from_pretrained(folder, dtype=torch.float32)
    ours = from_pretrained(folder)
    assert_same_model(ours, theirs)
    assert ours.config.text.tie_word_embeddings == (tie != "no" and head != "other")
    if head == "other":  # what is written says so
        save_pretrained(ours, tmp_path / "again")
        assert_same_model(ours, reload(THEIRS[kind], tmp_path / "again"))
        assert from_pretrained(tmp_path / "again").config == ours.config


KEPT_IN_TEXT = {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
}


def test_names_of_a_tied_model_may_hold_its_head(made, tmp_path):
    folder = shutil.copytree(made / "llava", tmp_path / "tied")
    edit_config(folder, lambda config: config.update(tie_word_embeddings=True))
    edit_tensors(folder, lambda t: {n: x for n, x in t.items() if n != HEADS["llava"]})
    model = from_pretrained(folder)
    named = to_hf_names(model, nnx.split(model)[1])
    same = named["model.language_model.embed_tokens.weight"]
    assert from_hf_names(model, named | {"lm_head.weight": same})
    with pytest.raises(InputError, match="extra lm_head.weight"):
        from_hf_names(model, named | {"lm_head.weight": same + 1})


# --- What travels with an export ---


def test_only_files_travel(llava, tmp_path, monkeypatch):
    monkeypatch.setattr(io, "MOST_BYTES", 1000)
    os.mkfifo(llava / "tokenizer.pipe")
    (llava / "tokenizer.folder").mkdir()
    (llava / "tokenizer.device").symlink_to("/dev/zero")
    (llava / "tokenizer.broken").symlink_to("nowhere")
    with (llava / "tokenizer.huge").open("wb") as file:
        file.truncate(1001)
    (tmp_path / "blob").write_text("{}")
    (llava / "tokenizer.json").symlink_to("../blob")
    save_pretrained(from_pretrained(llava), tmp_path / "again")
    written = {file.name for file in (tmp_path / "again").iterdir()}
    assert written == {"config.json", FILE, "tokenizer.json"}
    assert not (tmp_path / "again/tokenizer.json").is_symlink()


@pytest.mark.parametrize("field", ["image_token_index", "image_token_id"])
@pytest.mark.parametrize("other", [None, 7])
def test_image_token(llava, tmp_path, field, other):
    """Either name is read; `image_token_id` wins, as in transformers."""

    def change(config):
        del config["image_token_index"], config["image_token_id"]
        config["image_token_index"] = other
        config[field] = 11
        if config["image_token_index"] is None:
            del config["image_token_index"]

    edit_config(llava, change)
    ours = from_pretrained(llava)
    theirs = transformers.LlavaConfig.from_pretrained(llava)
    assert ours.config.image_token_id == theirs.image_token_id == 11
    save_pretrained(ours, tmp_path / "again")
    written = json.loads((tmp_path / "again/config.json").read_text())
    assert written["image_token_index"] == written["image_token_id"] == 11


def test_a_good_checkpoint_is_as_before(made):
    """What was written is read, bit by bit."""
    for kind, config in CONFIGS.items():
        model, read = config.make(rngs=nnx.Rngs(0)), from_pretrained(made / kind)
        to_hf = ARCHITECTURES[kind].to_hf
        assert read.config == config or to_hf(read.config) == to_hf(config)
        for a, b in zip(*(jax.tree.leaves(nnx.split(m)[1]) for m in (model, read)), strict=True):
            np.testing.assert_array_equal(a, b)
