"""What is damaged, half there or something else is refused in one line that names it."""

import random
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import orl
from mmunlearner_jax import artefacts
from mmunlearner_jax.artefacts import LIST, is_done, reading, writing
from mmunlearner_jax.checkpoint import Checkpoints, load_tree, save_tree
from mmunlearner_jax.config import typed
from mmunlearner_jax.data.store import Records
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import export, finetune, importance, mask, prepare, unlearn
from mmunlearner_jax.weights.io import from_pretrained, save_pretrained
from tests.helpers.questions import llava

TREE = {"a": jnp.arange(3000, dtype=jnp.float32), "b": jnp.arange(7, dtype=jnp.uint8)}


def refused(act: Any, *named: str) -> str:
    with pytest.raises(InputError) as error:
        act()
    line = str(error.value)
    assert len(line) <= 600
    for name in named:
        assert name in line
    return line


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != LIST)


def flip(file: Path, seed: int = 0) -> None:
    """Turns one bit over."""
    content = bytearray(file.read_bytes())
    draw = random.Random(seed)
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def load(folder: Path) -> Any:
    target = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = {k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=target) for k, x in TREE.items()}
    return load_tree(folder, like)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "tree"
    save_tree(folder, TREE)
    return folder


@pytest.fixture
def tree(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "tree"))


def test_a_flipped_bit_in_any_file_is_named(tree):
    for file in files(tree):
        before = file.read_bytes()
        if not before:
            continue
        flip(file)
        line = refused(lambda: load(tree), str(file.relative_to(tree)), "remove it and run the")
        assert "is damaged" in line
        file.write_bytes(before)
    np.testing.assert_array_equal(load(tree)["a"], TREE["a"])


@pytest.mark.parametrize("piece", [0, 2**20], ids=["beside", "before"])
def test_large_files_are_verified_while_they_are_read(tree, monkeypatch, piece):
    monkeypatch.setattr(artefacts, "_PIECE", piece or 1)
    (data,) = [file for file in files(tree) if file.parent.name == "d" and "process" in str(file)]
    flip(data)
    refused(lambda: load(tree), data.name)

    def fails():
        with reading(tree):
            raise RuntimeError("what a library makes of damage")

    refused(fails, data.name)


def test_a_missing_a_shorter_and_a_longer_file(tree):
    file = max(files(tree), key=lambda file: file.stat().st_size)
    content = file.read_bytes()
    for other in (content[:-1], content + b"0", b""):
        file.write_bytes(other)
        refused(lambda: load(tree), file.name)
        refused(lambda: is_done(tree), file.name)
    file.unlink()
    refused(lambda: is_done(tree), file.name)
    file.mkdir()
    refused(lambda: is_done(tree), file.name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"files": []}',
        '{"files": {"a": 1}}',
        '{"files": {"a": {"bytes": "x"}}}',
    ]
    + ['{"files": {"../secret": {"bytes": 1, "crc32": ""}}}']
    + ['{"files": {"/etc/passwd": {"bytes": 1, "crc32": ""}}}', "\x00\xff", "[" * 10**5],
)
def test_a_damaged_list(tree, text):
    (tree / LIST).write_text(text)
    refused(lambda: is_done(tree), LIST, "remove it")


def make_empty(path: Path) -> None:
    path.mkdir()


def make_file(path: Path) -> None:
    path.write_text("")


def make_partial(path: Path) -> None:
    with writing(path) as partial:
        (partial / "config.json").write_text("{}")
    (path / "config.json").unlink()


def make_older(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text("{}")


def make_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


STAGES = {
    "importance": importance,
    "mask": mask,
    "unlearned": unlearn,
    "vanilla": finetune,
    "export": export,
    "benchmark": prepare,
}


@pytest.mark.parametrize("make", [make_empty, make_file, make_partial, make_older, make_link])
@pytest.mark.parametrize("name", STAGES)
def test_what_is_there_is_not_thereby_complete(tmp_path, name, make):
    make(tmp_path / name)
    session = Session(typed(orl.get_config()), tmp_path)
    refused(lambda: STAGES[name].run(session), name, "remove it and run the same command")


def test_a_missing_artefact_is_yet_to_be_made(tmp_path):
    assert not is_done(tmp_path / "mask")


def test_an_artefact_is_there_whole_or_not_at_all(tmp_path):
    def cut_off():
        with writing(tmp_path / "made") as partial:
            (partial / "a").write_text("half")
            (partial.parent / "beside").write_text("a library's")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cut_off()
    assert list(tmp_path.iterdir()) == []
    with writing(tmp_path / "made") as partial:
        (partial / "a").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert is_done(tmp_path / "made")


def test_a_folder_of_an_artefact_is_verified_by_itself(tmp_path):
    with writing(tmp_path / "importance") as partial:
        for name in ("forget", "text"):
            (partial / name).mkdir()
            (partial / name / "sums").write_text(name)
    flip(tmp_path / "importance/text/sums")
    with reading(tmp_path / "importance/forget"):
        pass
    refused(lambda: reading(tmp_path / "importance/text").__enter__(), "text/sums")
    assert is_done(tmp_path / "importance")  # the bytes are looked at when they are read


def train(folder: Path, steps: int) -> tuple[float, int]:
    state = {"w": jnp.zeros(400)}
    with Checkpoints(folder, every=1) as saved:
        state, start = saved.restore(state, {})
        for step in range(start + 1, steps + 1):
            state = {"w": state["w"] + step}
            saved.save(step, state, {})
    return float(state["w"][0]), start


def test_a_damaged_checkpoint_is_named_and_the_one_before_ends_with_the_same_bits(tmp_path):
    assert train(tmp_path, 3) == (6.0, 0)
    for file in files(tmp_path / "3"):
        if before := file.read_bytes():
            flip(file)
            line = refused(
                lambda: train(tmp_path, 4), str(file), f"remove {tmp_path / '3'} and run"
            )
            assert "continues from the previous checkpoint" in line
            file.write_bytes(before)
    shutil.rmtree(tmp_path / "3")
    assert train(tmp_path, 3) == (6.0, 2)


def test_a_checkpoint_that_was_being_written_is_removed(tmp_path, capsys):
    train(tmp_path, 3)
    (tmp_path / "3" / LIST).unlink()
    assert train(tmp_path, 4) == (10.0, 2)
    assert f"{tmp_path / '3'}: is not complete and is removed" in capsys.readouterr().err
    assert train(tmp_path, 4) == (10.0, 4)


def test_a_checkpoint_of_a_stage_is_verified_and_a_strangers_is_not(tmp_path):
    model, encoder = llava()
    with writing(tmp_path / "vanilla") as partial:
        save_pretrained(model, partial, processor=encoder.processor)
    from_pretrained(tmp_path / "vanilla")
    for file in files(tmp_path / "vanilla"):
        before = file.read_bytes()
        flip(file)
        if file.name != "config.json":  # it is read first, and may be no JSON any more
            refused(lambda: from_pretrained(tmp_path / "vanilla"), file.name, f"remove {LIST}")
        file.write_bytes(before)
    flip(tmp_path / "vanilla/tokenizer.json")
    (tmp_path / "vanilla" / LIST).unlink()
    from_pretrained(tmp_path / "vanilla")


@pytest.mark.parametrize("room", [0, 2**20], ids=["on disk", "in memory"])
def test_damaged_records(tmp_path, room):
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.arange(300, dtype=np.int32)}
    Records(tmp_path).write(arrays.items())
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    refusals = 0
    used = [n for n, byte in enumerate(whole) if byte]
    for place in random.Random(0).sample(used, 60):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            found = Records(tmp_path, in_memory=room)
            for name, array in arrays.items():
                np.testing.assert_array_equal(found[name], array)
        except InputError as error:
            assert str(file) in str(error)
            refusals += 1
    assert refusals > 50
    for end in (0, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:end])
        refused(lambda: Records(tmp_path, in_memory=room), file.name, "remove it")
