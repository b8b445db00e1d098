"""Arrays come back as they were, from memory as from the file; a file is there whole or not."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmunlearner_jax.data import store as module
from mmunlearner_jax.data.store import Records

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.asarray(jnp.linspace(0, 1, 8, dtype=jnp.bfloat16)).reshape(2, 2, 2),
}
MORE = {"c": np.arange(400, dtype=np.int32)}


def assert_holds(store, arrays):
    for name, array in arrays.items():
        assert name in store
        assert store[name].dtype == array.dtype
        np.testing.assert_array_equal(store[name], array)


@pytest.mark.parametrize("room", [0, 1, 2**20])
def test_what_is_written_is_found_again(tmp_path, monkeypatch, room):
    store = Records(tmp_path / "new", in_memory=room)
    assert "a" not in store
    store.write(ARRAYS.items())
    assert_holds(store, ARRAYS)
    store.write(MORE.items())
    again = Records(tmp_path / "new", in_memory=room)
    assert_holds(again, ARRAYS | MORE)
    assert "d" not in again
    # Where there is room, nothing is read any more.
    monkeypatch.setattr(module, "_array", lambda *record: "read")
    assert isinstance(again["a"], str) == (room < 2**20)


def test_as_many_files_as_fit_are_held(tmp_path, monkeypatch):
    store = Records(tmp_path)
    store.write(ARRAYS.items())
    store.write(MORE.items())
    first, _ = sorted(tmp_path.glob("*.array_record"))
    size = first.stat().st_size
    again = Records(tmp_path, in_memory=size)
    monkeypatch.setattr(module, "_array", lambda *record: "read")
    assert not isinstance(again["a"], str)
    assert isinstance(again["c"], str)


def test_what_was_interrupted_is_not_there(tmp_path):
    def arrays():
        yield from ARRAYS.items()
        raise KeyboardInterrupt

    store = Records(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.write(arrays())
    again = Records(tmp_path)
    assert "a" not in again
    again.write(ARRAYS.items())
    assert_holds(Records(tmp_path), ARRAYS)
