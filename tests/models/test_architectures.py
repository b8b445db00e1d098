"""A record says all that the package knows of an architecture, and no other module knows more."""

import ast
import dataclasses
import re
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import mmunlearner_jax
from configs import llava as llava_config
from mmunlearner_jax.config import typed
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.processors import load_processor
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.placement import to_answer
from mmunlearner_jax.models.llava import LLAVA
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.qwen2_5_vl import QWEN2_5_VL
from mmunlearner_jax.models.qwen2_vl import QWEN2_VL
from mmunlearner_jax.models.registry import ARCHITECTURES, RECORDS
from mmunlearner_jax.planning.programs import model_config
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.weights.io import from_pretrained, save_pretrained, to_hf_names
from tests.helpers.questions import PHOTOS

PACKAGE = Path(mmunlearner_jax.__file__).parent
LESSONS = [Sample("s1", None, "Who is this person?", "Kim Birch.")]
TEXT = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
SIZES = {
    "llava": dict(
        vision=dict(
            hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
            image_size=28, patch_size=14,
        ),
        text=TEXT,
    ),
    "llava_next": dict(
        vision=dict(
            hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
            image_size=28, patch_size=14,
        ),
        text=TEXT,
    ),
    "qwen2_vl": dict(
        vision=dict(depth=1, embed_dim=8, num_heads=2, patch_size=14),
        text=TEXT | dict(num_key_value_heads=1, mrope_section=(2, 1, 1)),
    ),
    "qwen2_5_vl": dict(
        vision=dict(
            depth=2, hidden_size=8, intermediate_size=8, num_heads=2, patch_size=14,
            window_size=56, fullatt_block_indexes=(1,),
        ),
        text=TEXT | dict(num_key_value_heads=1, mrope_section=(2, 1, 1)),
    ),
}  # fmt: skip


def imported(path):
    """The modules of the package that a file imports, names imported from them included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("mmunlearner_jax.")}


def made(record, tmp_path, **vision):
    """A tiny model, and the folder of its checkpoint; `vision` replaces the tower's sizes."""
    sizes = SIZES[record.folder.rpartition(".")[2]]
    sizes = sizes | {"vision": vision or sizes["vision"]}
    config, processor = record.tiny.make(LESSONS, pixels=(56 * 56, 84 * 112), **sizes)
    model = as_own(record.config, config).make(rngs=nnx.Rngs(0))
    save_pretrained(model, tmp_path / "tiny", processor=processor)
    return model, tmp_path / "tiny"


def as_own(kind, config):
    """A config of another class with the same fields."""
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})


@pytest.mark.parametrize("record", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_only_the_registry_and_other_architectures_import_a_folder(record):
    folders = [PACKAGE / "models" / each.folder.rpartition(".")[2] for each in RECORDS]
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if not {*folders} & {*path.parents}
        and any(f"{name}.".startswith(f"{record.folder}.") for name in imported(path))
    }
    assert users == {"models/registry.py"}


@pytest.mark.parametrize("layer", ["models", "unlearn", "processing", "weights"])
def test_lower_layers_import_no_higher_ones(layer):
    above = re.compile(r"mmunlearner_jax\.(stages|data|evaluation|examples|comparison|planning)\b")
    for path in (PACKAGE / layer).rglob("*.py"):
        assert not [name for name in imported(path) if above.match(name)], path
        assert not re.search(r"absl.* flags|absl\.flags", path.read_text()), path


@pytest.mark.parametrize("record", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_published_sizes_are_read_as_they_are_written(record):
    for make in record.sizes.values():
        written = record.to_hf(make())
        assert record.to_hf(record.read_config(written)) == written


@pytest.mark.parametrize("record", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_a_tiny_checkpoint_is_whole(record, tmp_path):
    model, folder = made(record, tmp_path)
    again = from_pretrained(folder)
    for a, b in zip(*(jax.tree.leaves(nnx.split(m)[1]) for m in (model, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    processor, _ = load_processor(again.config, str(folder))
    assert processor.image_token_id == again.config.image_token_id
    names = to_hf_names(again, nnx.split(again)[1])
    covered = {name for name in names if re.search(record.maskable, name)}
    assert covered and all(name.endswith(".weight") for name in covered)
    assert not [name for name in covered if "norm" in name or "embed_tokens" in name]


@pytest.mark.parametrize("record", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_weights_in_the_dtype_of_the_computation_give_the_same_bits(record, tmp_path):
    """Those of `evaluation.placement`; a module that used float32 weights would differ."""
    _, folder = made(record, tmp_path)
    model = from_pretrained(folder, compute_dtype="bfloat16")
    encoder = Encoder(*load_processor(model.config, str(folder)))
    photo = [PHOTOS[0]]
    ids = encoder.prompt_ids(encoder.prompt("Who is this person?", 1), photo)
    count = sum(map(ids.count, encoder.picture_ids))
    batch = {"input_ids": np.array([ids])} | encoder.pack([photo], count)
    graphdef, params = nnx.split(model)
    # Norms have scales of 1, and some layers biases of 0, which bfloat16 would not round.
    keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), params)
    _, _, like = to_answer(typed(llava_config.get_config()), model.config, make_mesh((1, 8, 1)))
    half = jax.tree.map(lambda p, other: p.astype(other.dtype), params, like)
    assert {p.dtype for p in jax.tree.leaves(half)} == {np.dtype("bfloat16")}
    answer = jax.jit(lambda params: nnx.merge(graphdef, params)(**batch))
    np.testing.assert_array_equal(answer(params), answer(half))


TOWERS = {
    "siglip_vision_model": dict(intermediate_size=8, vision_use_head=False),
    "dinov2": dict(mlp_ratio=1),
}


@pytest.mark.parametrize("kind", TOWERS)
def test_a_tiny_llava_may_have_another_tower(kind, tmp_path):
    sizes = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, patch_size=14)
    vision = TOWERS[kind] | sizes | dict(image_size=28, model_type=kind)
    model, folder = made(LLAVA, tmp_path, **vision)
    again = from_pretrained(folder)
    assert again.config.vision == model.config.vision
    processor, pictures = load_processor(again.config, str(folder))
    pixels, tokens = pictures.read(Image.new("RGB", (40, 60)))
    assert tokens == again.config.tokens_per_image == 4
    ids = np.array([[1, *[processor.image_token_id] * tokens, 2]])
    assert np.isfinite(again(ids, pixel_values=pixels[None])).all()
    names = to_hf_names(again, nnx.split(again)[1])
    covered = {name for name in names if re.search(LLAVA.maskable, name) and "vision" in name}
    assert len(covered) == 2 * 6  # four projections and two layers forward


# Weights and biases of Qwen2-VL and Qwen2.5-VL, and whether a mask may cover them.
COVERED = {
    "model.visual.patch_embed.proj.weight": True,
    "model.visual.blocks.3.attn.qkv.weight": True,
    "model.visual.blocks.3.attn.proj.weight": True,
    "model.visual.blocks.3.attn.proj.bias": False,
    "model.visual.blocks.3.mlp.fc1.weight": True,
    "model.visual.blocks.3.mlp.gate_proj.weight": True,
    "model.visual.blocks.3.mlp.down_proj.bias": False,
    "model.visual.blocks.3.norm1.weight": False,
    "model.visual.merger.mlp.0.weight": True,
    "model.visual.merger.mlp.2.weight": True,
    "model.visual.merger.ln_q.weight": False,
    "model.language_model.layers.0.self_attn.k_proj.weight": True,
    "model.language_model.layers.0.self_attn.k_proj.bias": False,
    "model.language_model.layers.0.mlp.down_proj.weight": True,
    "model.language_model.embed_tokens.weight": False,
    "lm_head.weight": False,
}


def test_what_a_mask_may_cover():
    for record in (QWEN2_VL, QWEN2_5_VL):
        own = {name: held for name, held in COVERED.items() if "fc1" not in name}
        own |= COVERED if record is QWEN2_VL else {}
        assert {name: bool(re.search(record.maskable, name)) for name in own} == own


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherConfig(LlavaConfig):
    """LLaVA's, by another name."""

    model_type: ClassVar[str] = "other"


def test_a_new_record_is_all_that_a_new_architecture_needs(tmp_path, monkeypatch):
    def from_hf(hf):
        return as_own(OtherConfig, LLAVA.from_hf(hf))

    record = dataclasses.replace(
        LLAVA,
        config=OtherConfig,
        from_hf=from_hf,
        sizes={"other_1b": lambda: as_own(OtherConfig, LlavaConfig.llava_1_5_7b())},
        lookalikes={},
    )
    monkeypatch.setitem(ARCHITECTURES, "other", record)
    model, folder = made(record, tmp_path)
    assert '"model_type": "other"' in (folder / "config.json").read_text()
    again = from_pretrained(folder)
    assert type(again.config) is OtherConfig
    processor, _ = load_processor(again.config, str(folder))
    assert processor.image_token_id == again.config.image_token_id
    planned = llava_config.get_config()
    planned.model.size = "other_1b"
    assert type(model_config(typed(planned))) is OtherConfig
    planned.model.size = "other_2b"
    with pytest.raises(InputError, match="other_2b.*llava_1_5_7b.*qwen2_vl_7b.*other_1b"):
        model_config(typed(planned))
