"""Meshes of eight fake devices, and the shardings that follow from logical names."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.model import Llava, LlavaConfig
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.qwen2_5_vl.model import Qwen2_5VLConfig
from mmunlearner_jax.models.qwen2_vl.model import Qwen2VLConfig
from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.sharding import (
    MESH_AXES,
    decoding_mesh,
    fitting,
    make_mesh,
    param_shardings,
    put_batch,
    sharding_table,
)

# Stacked layers begin with the axis of layers. The feed-forward width of the vision tower, 27, is
# divided by no axis.
SPECS = {
    "vision_tower/embeddings/class_embedding": ("fsdp",),
    "vision_tower/embeddings/position_embedding": (None, "fsdp"),
    "vision_tower/embeddings/patch_embedding/kernel": (None, None, None, "fsdp"),
    "language_model/embed_tokens/embedding": ("tensor", "fsdp"),
    "language_model/layers/q_proj/kernel": (None, "fsdp", "tensor"),
    "language_model/layers/k_proj/kernel": (None, "fsdp", "tensor"),
    "language_model/layers/o_proj/kernel": (None, "tensor", "fsdp"),
    "language_model/layers/gate_proj/kernel": (None, "fsdp", "tensor"),
    "language_model/layers/down_proj/kernel": (None, "tensor", "fsdp"),
    "language_model/lm_head/kernel": ("fsdp", "tensor"),
    "multi_modal_projector/linear_1/kernel": ("fsdp", "tensor"),
    "multi_modal_projector/linear_1/bias": ("tensor",),
    "multi_modal_projector/linear_2/kernel": ("tensor", "fsdp"),
    "multi_modal_projector/linear_2/bias": ("fsdp",),
    "vision_tower/layers/q_proj/kernel": (None, "fsdp", "tensor"),
    "vision_tower/layers/fc1/kernel": (None, "fsdp", None),
    "vision_tower/layers/fc1/bias": (None, None),
    "vision_tower/layers/fc2/kernel": (None, None, "fsdp"),
}


@pytest.fixture(scope="module")
def params() -> nnx.State:
    config = LlavaConfig(
        vision=ClipConfig(
            hidden_size=16,
            intermediate_size=27,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=4,
            patch_size=2,
        ),
        text=LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        ),
        image_token_id=39,
    )
    return nnx.split(nnx.eval_shape(lambda: Llava(config, rngs=nnx.Rngs(0))))[1]


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((1, -1, 2), (1, 4, 2)),
        ((2, 2, 2), (2, 2, 2)),
        ([8, 1, -1], (8, 1, 1)),
    ],
)
def test_mesh_sizes(sizes, shape):
    mesh = make_mesh(sizes)
    assert mesh.axis_names == MESH_AXES
    assert mesh.devices.shape == shape
    assert set(mesh.devices.flat) == set(jax.devices())


def test_mesh_of_some_devices():
    mesh = make_mesh(devices=jax.devices()[2:5])
    assert mesh.shape == {"data": 3, "fsdp": 1, "tensor": 1}
    assert set(mesh.devices.flat) == set(jax.devices()[2:5])


@pytest.mark.parametrize(
    "sizes", [(3, 1, 1), (8, 1), (2, 2, 2, 1), (-1, -1, 1), (0, 1, 1), (-1, 3, 1), (4, 1, 1), (16,)]
)
def test_sizes_that_do_not_multiply_to_the_devices(sizes):
    with pytest.raises(InputError, match=r"config\.mesh .* 8 devices") as error:
        make_mesh(sizes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("heads", "sizes"), [(32, (1, 1, 8)), (4, (2, 1, 4)), (3, (8, 1, 1))])
def test_answers_are_decoded_by_heads_as_far_as_devices_divide_them(heads, sizes):
    mesh = make_mesh((1, 8, 1))
    assert decoding_mesh(mesh, "mesh", heads) is mesh
    apart = decoding_mesh(mesh, "heads", heads)
    assert apart.axis_sizes == sizes and apart.axis_names == mesh.axis_names
    assert [*apart.devices.flat] == [*mesh.devices.flat]


def test_fitting_replicates_what_does_not_divide():
    mesh = make_mesh((1, 4, 2))

    def fit(spec, shape):
        return fitting(NamedSharding(mesh, PartitionSpec(*spec)), shape).spec

    assert fit(("fsdp", "tensor"), (8, 6)) == PartitionSpec("fsdp", "tensor")
    assert fit(("fsdp", "tensor"), (6, 6)) == PartitionSpec(None, "tensor")
    assert fit(("fsdp", "tensor"), (8, 5)) == PartitionSpec("fsdp", None)
    assert fit(("fsdp",), (8, 5, 3)) == PartitionSpec("fsdp", None, None)
    assert fit((), ()) == PartitionSpec()


def test_shardings_of_the_parameters(params):
    shardings = param_shardings(params, make_mesh((1, 4, 2)))
    flat = {"/".join(map(str, k)): v for k, v in nnx.to_flat_state(shardings)}
    specs = {name: tuple(flat[name].get_value().spec) for name in SPECS}
    assert specs == SPECS


def test_every_parameter_has_a_sharding_that_divides_it(params):
    shardings = param_shardings(params, make_mesh((1, 4, 2)))
    assert jax.tree.structure(shardings) == jax.tree.structure(params)
    for p, s in zip(jax.tree.leaves(params), jax.tree.leaves(shardings), strict=True):
        assert len(s.spec) == len(p.shape)
        s.shard_shape(p.shape)  # raises if it does not divide
    # All but biases, norms and what 4 and 2 don't divide is split.
    whole = sum(
        p.size
        for p, s in zip(jax.tree.leaves(params), jax.tree.leaves(shardings), strict=True)
        if s.is_fully_replicated
    )
    assert whole < 0.03 * sum(p.size for p in jax.tree.leaves(params))


def test_a_batch_is_split_over_data_and_fsdp():
    mesh = make_mesh((2, 2, 2))
    batch = dict(ids=np.arange(24, dtype=np.int32).reshape(8, 3), pixels=np.ones((8, 1, 3, 2, 2)))
    put = put_batch(batch, mesh)
    assert put["ids"].sharding.shard_shape((8, 3)) == (2, 3)
    assert put["pixels"].sharding.shard_shape((8, 1, 3, 2, 2)) == (2, 1, 3, 2, 2)
    np.testing.assert_array_equal(put["ids"], batch["ids"])


def test_a_batch_that_does_not_divide():
    with pytest.raises(InputError, match="6 examples does not divide among 4 devices"):
        put_batch(dict(ids=np.zeros((6, 3), np.int32)), make_mesh((2, 2, 2)))


# A change of these files is a change of what a slice must hold. To write them anew:
# XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.test_sharding
GOLDEN = {
    (name, sizes): Path(__file__).parent / "golden" / f"{name}-{'x'.join(map(str, sizes))}.txt"
    for name in ("llava-1.5-7b", "qwen2-vl-7b", "qwen2.5-vl-7b")
    for sizes in [(1, 8, 1), (2, 2, 2)]
}
CONFIGS = {
    "llava-1.5-7b": LlavaConfig.llava_1_5_7b(),
    "qwen2-vl-7b": Qwen2VLConfig.qwen2_vl_7b(),
    "qwen2.5-vl-7b": Qwen2_5VLConfig.qwen2_5_vl_7b(),
}


def split(name, sizes) -> str:
    _, params = abstract_model(CONFIGS[name], make_mesh(sizes), "float32")
    return sharding_table(params)


@pytest.mark.parametrize(("name", "sizes"), GOLDEN, ids=str)
def test_how_7b_is_split(name, sizes):
    assert split(name, sizes) == GOLDEN[name, sizes].read_text()


if __name__ == "__main__":
    for key, path in GOLDEN.items():
        path.write_text(split(*key))
