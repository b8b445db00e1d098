"""A mask that is made a few parameters at a time is the mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmunlearner_jax.artefacts import writing
from mmunlearner_jax.checkpoint import begin_to_save
from mmunlearner_jax.config import typed
from mmunlearner_jax.stages import mask
from mmunlearner_jax.stages.importance import load_sums, open_sums
from mmunlearner_jax.unlearn.importance import FisherSums
from tests.helpers import tiny

COUNTS = {"forget": 3, "pictures": 4, "text": 12}


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    """A session whose workdir holds random importances."""
    made = tiny.session(tmp_path_factory.mktemp("run"))
    rng = np.random.default_rng(0)
    with writing(made.workdir / "importance") as partial:
        for name, count in COUNTS.items():
            squares = jax.tree.map(
                lambda p: jax.device_put(jnp.float32(rng.exponential(size=p.shape)), p.sharding),
                made.params,
            )
            begin_to_save(partial / name, FisherSums(squares, jnp.float32(count)))()
    return made


@pytest.mark.parametrize("normalise", ["none", "group"])
def test_pieces_give_the_same_mask(at, monkeypatch, normalise):
    config = tiny.config()
    config.importance.normalise = normalise
    at.config = typed(config)
    whole = mask.make_mask(at)
    monkeypatch.setattr(mask, "_AT_ONCE", 2000)
    leaves = jax.tree.leaves(at.params)
    pieces = mask._pieces(leaves, leaves, leaves)
    assert 5 < len(pieces) < len(leaves)
    assert sorted(n for piece in pieces for n in piece.numbers) == [*range(len(leaves))]
    jax.tree.map(np.testing.assert_array_equal, mask.make_mask(at), whole)
    assert 0 < sum(int(m.sum()) for m in jax.tree.leaves(whole)) < sum(m.size for m in leaves)


def test_a_set_that_no_group_uses_is_not_read(at, monkeypatch):
    read, masks, plain = [], [], typed(tiny.config())
    monkeypatch.setattr(mask, "open_sums", lambda *args: read.append(args[1]) or open_sums(*args))
    for at.config in (plain, plain.with_values({"importance.preserve.language": ("pictures",)})):
        masks.append(nnx.to_flat_state(mask.make_mask(at)))
    assert read == ["forget", "pictures", "text", "forget", "pictures"]
    changed = {path for (path, a), (_, b) in zip(*masks, strict=True) if (a[...] != b[...]).any()}
    assert changed and {path[0] for path in changed} == {"language_model"}


def test_sums_are_read_in_parts(at):
    with open_sums(at.workdir, "text", at.params) as stored:
        parts = stored.mean([4, 1])
    assert stored.count == 12
    leaves = jax.tree.leaves(load_sums(at.workdir, "text", at.params).mean())
    for part, n in zip(parts, (4, 1), strict=True):
        np.testing.assert_array_equal(part, leaves[n])
