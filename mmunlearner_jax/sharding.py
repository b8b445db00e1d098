"""One table maps logical axis names to mesh axes; every sharding is derived from it.

Parameters have `logical` metadata: one name per dimension. Stacked layers have one more leading
dimension, `layers`, which is never split. Examples are split over `data` and `fsdp`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmunlearner_jax.errors import InputError

MESH_AXES = ("data", "fsdp", "tensor")

# A logical name that is not listed here is replicated.
RULES: Mapping[str, str] = {
    "embed": "fsdp",
    "mlp": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "vocab": "tensor",
    "vision_embed": "fsdp",
    "vision_mlp": "tensor",
    "vision_heads": "tensor",
}


def make_mesh(sizes: Sequence[int] = (-1, 1, 1), devices: Sequence[Any] | None = None) -> Mesh:
    """Makes the (data, fsdp, tensor) mesh.

    Args:
        sizes: One size per axis of `MESH_AXES`; one of them may be -1, for all remaining devices.
        devices: The devices to use; all devices by default.

    Raises:
        InputError: The sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(sizes, len(devices))
    axis_types = (AxisType.Auto,) * len(MESH_AXES)
    try:
        return jax.make_mesh(shape, MESH_AXES, axis_types=axis_types, devices=devices)
    except NotImplementedError:  # an axis of the mesh is part of an axis of the slice
        split = create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(split, MESH_AXES, axis_types=axis_types)


def mesh_shape(sizes: Sequence[int], devices: int) -> tuple[int, ...]:
    """Returns the sizes of the mesh axes, with -1 replaced.

    Raises:
        InputError: The sizes do not multiply to the number of devices.
    """
    try:
        shape = np.empty(devices).reshape(tuple(sizes)).shape
    except ValueError:
        shape = ()
    if len(shape) != len(MESH_AXES) or 0 in shape:
        raise InputError(
            f"config.mesh {tuple(sizes)}: the sizes of {MESH_AXES} must multiply to the"
            f" {devices} devices present; one of them may be -1"
        )
    return shape


def batch_parts(shape: Sequence[int]) -> int:
    """Returns the number of parts into which a (data, fsdp, tensor) mesh splits a batch."""
    return shape[0] * shape[1]


def decoding_mesh(mesh: Mesh, split: Literal["mesh", "heads"], heads: int) -> Mesh:
    """Returns the mesh on which answers are decoded.

    A token needs all weights. Where they are split by features (`fsdp`), each token gathers them;
    where they are split by heads, activations are exchanged instead.

    Args:
        mesh: The mesh of the run.
        split: "mesh": the same. "heads": weights are split over as many of its devices as divide
            the heads, and copied over the others, which answer other questions.
        heads: Number of key/value heads.
    """
    if split == "mesh":
        return mesh
    devices = mesh.devices.reshape(-1, 1, math.gcd(heads, mesh.size))
    return Mesh(devices, MESH_AXES, axis_types=mesh.axis_types)


def param_shardings(params: Any, mesh: Mesh) -> Any:
    """Returns the shardings of a parameter state, from the `logical` metadata of its variables.

    A dimension that its mesh axis does not divide is replicated.

    Args:
        params: `nnx.State` of `nnx.Param` (arrays or abstract values).
        mesh: Mesh from `make_mesh`.

    Returns:
        The same state with a `NamedSharding` in place of every array.
    """

    def sharding(variable: nnx.Variable) -> nnx.Variable:
        shape = variable.get_value().shape
        names = variable.get_metadata().get("logical", ())
        names = (None,) * (len(shape) - len(names)) + tuple(names)
        spec = PartitionSpec(*(RULES.get(name) if name else None for name in names))
        return variable.replace(fitting(NamedSharding(mesh, spec), shape))

    return jax.tree.map(sharding, params, is_leaf=lambda x: isinstance(x, nnx.Variable))


def device_bytes(tree: Any) -> int:
    """Returns the bytes on one device of a tree of arrays (or `jax.ShapeDtypeStruct`).

    An array that occurs twice counts once.
    """
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in {id(x): x for x in jax.tree.leaves(tree)}.values()
    )


def sharding_table(params: Any) -> str:
    """Returns a line per parameter: path, dtype, shape, logical axes, mesh axes, bytes on a device.

    Args:
        params: `nnx.State` of arrays, or of `jax.ShapeDtypeStruct`, with shardings.
    """
    rows = []
    for path, variable in nnx.to_flat_state(params):
        x = variable.get_value()
        logical = variable.get_metadata().get("logical", ())
        axes = ", ".join(axis or "-" for axis in fitting(x.sharding, x.shape).spec)
        shape = "x".join(map(str, x.shape))
        name = ".".join(map(str, path))
        rows.append(
            f"{name}  {x.dtype}[{shape}]  ({', '.join(logical)})  [{axes}]  {device_bytes(x)}"
        )
    return "".join(f"{row}\n" for row in sorted(rows))


def fitting(sharding: Any, shape: Sequence[int]) -> NamedSharding:
    """Returns the sharding, but replicated along the axes of `shape` that it does not divide."""
    spec = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    sizes = [
        math.prod(sharding.mesh.shape[a] for a in ([axis] if isinstance(axis, str) else axis or ()))
        for axis in spec
    ]
    kept = [a if n % size == 0 else None for a, n, size in zip(spec, shape, sizes, strict=True)]
    return NamedSharding(sharding.mesh, PartitionSpec(*kept))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays whose first axis is examples."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def by_example(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Keeps the examples of x [B, ...] split over the mesh.

    Parameters are split over the same devices (FSDP). Without this constraint, XLA would gather the
    activations of all examples on every device, rather than the parameters of one layer.
    """
    if mesh is None or len(x) % batch_parts(mesh.axis_sizes):
        return x
    return jax.lax.with_sharding_constraint(x, batch_sharding(mesh))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of scalars and of arrays that every device needs whole."""
    return NamedSharding(mesh, PartitionSpec())


def settled(tree: Any, params: Any) -> Any:
    """Puts arrays that are not yet committed to a device (counters) on all parameters' devices.

    Otherwise the first step would commit them, and the second step would be compiled again.
    """
    home = jax.tree.leaves(params)[0].sharding
    if isinstance(home, NamedSharding):
        home = NamedSharding(home.mesh, PartitionSpec())
    return jax.tree.map(lambda x: x if x.committed else jax.device_put(x, home), tree)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays from this process's rows of a batch.

    Args:
        batch: Arrays [examples of this process, ...].
        mesh: The mesh whose `data` and `fsdp` axes split the examples.

    Raises:
        InputError: The number of examples is not divisible by the number of parts.
    """
    target = batch_sharding(mesh)
    parts = batch_parts(mesh.axis_sizes)
    own = process_rows(mesh, parts)
    rows = len(next(iter(batch.values()))) * parts // len(own)
    if rows % parts:
        raise InputError(
            f"a batch of {rows} examples does not divide among {parts} devices (mesh axes data x"
            f" fsdp); make the batch sizes in the config multiples of {parts}"
        )
    return {
        k: jax.make_array_from_process_local_data(target, v, (rows, *v.shape[1:]))
        for k, v in batch.items()
    }


def process_rows(mesh: Mesh, rows: int) -> np.ndarray:
    """Returns which rows of a batch are on this process's devices.

    They need not be adjacent, because a ring over a slice of TPUs may return to a host.

    Args:
        mesh: The mesh whose `data` and `fsdp` axes split the rows.
        rows: Number of rows of the batch.

    Returns:
        The rows' numbers, ascending, int64 [rows of this process].
    """
    indices = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    spans = [range(rows)[index[0]] for index in indices if index is not None]
    return np.unique(np.concatenate(spans))
