"""Features of pictures from a frozen vision tower: computed once for each picture, and stored.

Axes: B rows of a batch, one picture each.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmunlearner_jax.data.clips import is_clip
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.store import IN_MEMORY, Records
from mmunlearner_jax.models.vision_language import VisionLanguageModel
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.progress import Progress
from mmunlearner_jax.sharding import batch_parts, process_rows, put_batch
from mmunlearner_jax.weights.io import in_groups

BATCH = 16  # pictures of a batch, rounded up to a multiple that the mesh can split
FILE = 1024  # pictures of a file: at most this many are computed again after an interruption


class Features:
    """The vision tower's features of pictures, which replace their pixels in batches.

    The key of a picture's features is a hash of its bytes, its processing, the tower's weights and
    the model's config, so a later run with the same values reuses them. The features of a picture
    do not depend on the other pictures of its batch.

    Args:
        folder: Folder of the stored features.
        model: The model with the vision tower.
        encoder: Turns encoded pictures into pixels.
        mesh: The mesh whose devices share a batch; all processes must add the same pictures.
        in_memory: See `Records`.
    """

    def __init__(
        self,
        folder: Path,
        model: VisionLanguageModel,
        encoder: Encoder,
        mesh: jax.sharding.Mesh,
        *,
        in_memory: int = IN_MEMORY,
    ):
        graphdef, params = nnx.split(model)
        in_tower = in_groups(model.config.model_type, ("vision",))
        self._tower, others = nnx.split_state(params, in_tower, ...)
        # Shapes in place of arrays: a step may have donated the arrays before the tower runs.
        others = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), others)
        self._encoder, self._mesh = encoder, mesh
        self._records = Records(folder, in_memory=in_memory)
        self._names: dict[bytes, str] = {}
        self._salt = hashlib.sha256(repr(model.config).encode())
        self._salt.update(encoder.processor.image_processor.to_json_string().encode())
        for path, leaf in nnx.to_flat_state(self._tower):
            array = to_host(leaf.get_value())
            self._salt.update(f"{path} {array.dtype} {array.shape}".encode())
            self._salt.update(array.tobytes())
        parts = batch_parts(mesh.axis_sizes)
        self._rows = -(-BATCH // parts) * parts

        @jax.jit
        def see(tower: nnx.State, pictures: dict[str, jax.Array]) -> jax.Array:
            return nnx.merge(graphdef, tower, others).vision_features(**pictures)

        self._see = see

    def __getitem__(self, image: bytes) -> np.ndarray:
        """Returns the features [..., D] of an encoded picture that was added."""
        return self._records[self._names[image]]

    def pack(self, rows: Sequence[Sequence[bytes]], tokens: int) -> dict[str, np.ndarray]:
        """Returns the model's inputs for encoded pictures that were added; see `Pictures.pack`."""
        features = [[self[image] for image in row] for row in rows]
        pictures = [[self._encoder.outline(image)[0] for image in row] for row in rows]
        return self._encoder.pictures.pack_features(features, pictures, tokens)

    def add(self, images: Iterable[bytes]) -> None:
        """Computes and stores the features of encoded pictures that have none yet.

        Raises:
            InputError: A picture is too small or too large for the model.
        """
        new = [image for image in dict.fromkeys(images) if image not in self._names]
        for image in new:
            own = self._salt.copy()
            own.update(image)
            if is_clip(image):  # the sampled frames follow from their number
                own.update(repr(self._encoder.outline(image)).encode())
            self._names[image] = own.hexdigest()
        missing = [image for image in new if self._names[image] not in self._records]
        if not missing:
            return
        with Progress("vision features", len(missing), unit="picture") as progress:
            for start in range(0, len(missing), FILE):
                self._records.write(self._computed(missing[start:][:FILE], progress))

    def _computed(
        self, images: list[bytes], progress: Progress
    ) -> Iterator[tuple[str, np.ndarray]]:
        # A batch holds rows of one shape, so a picture has the same padding as if it were alone.
        waiting: dict[Any, list[tuple[bytes, dict[str, np.ndarray]]]] = defaultdict(list)
        for image in images:
            pixels, tokens = self._encoder.image(image)
            row = self._encoder.pictures.pack([[pixels]], tokens)
            shape = row["pixel_values"].shape
            waiting[shape].append((image, row))
            if len(waiting[shape]) == self._rows:
                yield from self._seen(waiting.pop(shape), progress)
        for rest in waiting.values():
            yield from self._seen(rest, progress)

    def _seen(
        self, together: list[tuple[bytes, dict[str, np.ndarray]]], progress: Progress
    ) -> Iterator[tuple[str, np.ndarray]]:
        images = [image for image, _ in together]
        rows = [row for _, row in together]
        rows += rows[:1] * (self._rows - len(rows))
        own_rows = [rows[n] for n in process_rows(self._mesh, self._rows)]
        batch = {name: np.concatenate([row[name] for row in own_rows]) for name in rows[0]}
        features = to_host(self._see(self._tower, put_batch(batch, self._mesh)))
        pictures = [self._encoder.outline(image)[0] for image in images]
        arrays = self._encoder.pictures.unpack_features(features, pictures)
        progress.update(len(images))
        for image, array in zip(images, arrays, strict=True):
            yield self._names[image], array
