import subprocess
import sys

import grain
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from mmunlearner_jax.data import builders as package
from mmunlearner_jax.data.builders import Clear, MllmuBench, builders
from mmunlearner_jax.errors import InputError


def released(root, config):
    """The rows of a config's files, by pyarrow alone."""
    files = sorted((root / config).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


def written(builder):
    builder.download_and_prepare()
    return builder.as_data_source("train")


def program(*arguments):
    command = [sys.executable, "-m", "mmunlearner_jax.data.builders", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("name", ["mllmu", "clear"])
def test_every_row_comes_back_as_it_was(name, shards, request, tmp_path):
    tables = request.getfixturevalue({"mllmu": "published", "clear": "clear"}[name])
    root = tables.write(shards=shards)
    of_all = builders(root, tmp_path / "out")
    assert {builder.builder_config.name for builder in of_all} == set(tables.tables)
    for builder in of_all:
        rows = written(builder)
        expected = released(root, builder.builder_config.name)
        assert list(rows) == expected and len(rows) == len(expected)
        assert rows[len(rows) - 1] == expected[-1]
        assert set(builder.info.splits) == {"train"}
        assert builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD


def test_clear_and_mllmu_are_named_and_have_the_released_configs():
    assert (MllmuBench.name, Clear.name) == ("mllmu_bench", "clear")
    assert len(MllmuBench.builder_configs) == 10 and "Test_Set" in MllmuBench.builder_configs
    assert len(Clear.builder_configs) == 21 and "retain95+tofu" in Clear.builder_configs


def test_mllmu_nulls_and_zero_bytes_are_kept_wherever_they_are(published, tmp_path):
    rows = published.tables["Test_Set"]
    rows[0] |= {"images": [None, {"bytes": b"\0\xff\0\0", "path": None}], "biography": "zoë\0\0"}
    rows[1] |= {"Classification_Task": None, "images": None, "ID": None}
    task = rows[2]["Classification_Task"]["Image_Textual_Questions"][0]
    task["Options"] = dict(task["Options"], C=None)
    rows[2] |= {"Mask_Task": [], "Generation_Task": [None], "answer": ""}
    rows[3] |= {
        "Classification_Task": {
            "Image_Textual_Questions": None,
            "Pure_Text_Questions": [{"Question": None, "Options": None, "Correct_Answer": "A"}],
        }
    }
    root = published.write()
    expected = released(root, "Test_Set")
    assert expected[0]["images"] == rows[0]["images"] and expected[1]["images"] is None
    assert expected[2]["Generation_Task"] == [None] and expected[2]["Mask_Task"] == []
    (builder,) = (b for b in builders(root, tmp_path) if b.builder_config.name == "Test_Set")
    assert list(written(builder)) == expected


def test_mllmu_members_that_a_file_lacks_are_null_and_others_are_left_out(published, tmp_path):
    kind = pa.list_(pa.struct([("Question", pa.string()), ("Ground_Truth", pa.string())]))
    schema = published.schemas["Full_Set"]
    for column, more in (("Mask_Task", []), ("Generation_Task", [("Hint", pa.string())])):
        struct = pa.struct([*kind.value_type, *more])
        index = schema.get_field_index(column)
        schema = schema.set(index, pa.field(column, pa.list_(struct)))
    published.schemas["Full_Set"] = schema
    root = published.write()
    row = written(MllmuBench(config="Full_Set", root=root, data_dir=tmp_path))[0]
    assert row["Mask_Task"][0] == {"Question": "Job: __.", "Ground_Truth": "judge", "Type": None}
    assert row["Generation_Task"][0].keys() == {"Question", "Ground_Truth", "Type"}


def test_clear_keeps_its_order_over_many_shards(clear, tmp_path, monkeypatch):
    monkeypatch.setattr(package, "ROWS_PER_SHARD", 5)
    root = clear.write(shards=2)
    builder = Clear(config="full+tofu", root=root, data_dir=tmp_path / "out")
    rows = written(builder)
    assert builder.info.splits["train"].shard_lengths == [5, 5, 2]
    assert list(rows) == released(root, "full+tofu")


def test_clear_is_read_by_tfds_and_grain_without_its_files(clear, tmp_path):
    root = clear.write()
    expected = released(root, "full+tofu")
    written(Clear(config="full+tofu", root=root, data_dir=tmp_path / "out"))
    again = Clear(config="full+tofu", data_dir=tmp_path / "out")
    assert again.is_prepared() and list(again.as_data_source("train")) == expected
    folder = tmp_path / "out" / "clear" / "full+tofu" / "1.0.0"
    rows = tfds.builder_from_directory(folder).as_data_source("train")
    assert list(rows) == expected
    assert list(grain.MapDataset.source(rows)[3:5]) == expected[3:5]


def test_mllmu_errors_are_those_of_the_reader(published, tmp_path):
    published.schemas["ft_Data"] = published.schemas["ft_Data"].remove(2)
    published.tables["Retain_Set"] = []
    root = published.write()

    def wrong(config, root=root):
        with pytest.raises(InputError) as error:
            written(MllmuBench(config=config, root=root, data_dir=tmp_path / "out"))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "ft_Data/train-00000-of-00001.parquet: no column metadata; it has" in wrong("ft_Data")
    assert "Retain_Set: holds no row" in wrong("Retain_Set")
    assert "forget_5: no such config; there are Full_Set" in wrong("forget_5")
    assert "mllmu_bench: no root; give the folder" in wrong("Full_Set", root=None)
    assert not list((tmp_path / "out").rglob("*1.0.0"))


def test_a_folder_of_neither_mllmu_nor_clear_or_of_both(published, clear, tmp_path):
    with pytest.raises(InputError, match="holds configs of none of MLLMU-Bench or CLEAR"):
        builders(tmp_path, tmp_path)
    clear.root = published.root
    published.write()
    clear.write()
    with pytest.raises(InputError, match="holds configs of MLLMU-Bench and of CLEAR"):
        builders(published.root, tmp_path)


def test_clear_and_mllmu_need_neither_tensorflow_nor_torch(clear, published, tmp_path):
    # Above MAX_MEM_BUFFER_SIZE bytes tfds's generators would need TensorFlow.
    code = """
import sys
from pathlib import Path
from tensorflow_datasets.core import shuffle
shuffle.MAX_MEM_BUFFER_SIZE = 0
from mmunlearner_jax.data.builders import builders
for root in sys.argv[2:]:
    for builder in builders(Path(root), sys.argv[1]):
        builder.download_and_prepare()
        assert len(list(builder.as_data_source("train")))
assert not {"tensorflow", "torch"} & sys.modules.keys()
"""
    arguments = [tmp_path / "out", clear.write(), published.write()]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_program_writes_every_config_of_mllmu_once(published, tmp_path):
    root, out = published.write(), tmp_path / "out"
    done = program(f"--root={root}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    folders = [str(out / "mllmu_bench" / config / "1.0.0") for config in sorted(published.tables)]
    assert done.stdout.splitlines() == folders
    assert "\r" not in done.stderr  # without a terminal there is no bar
    rows = MllmuBench(config="forget_25", data_dir=out).as_data_source("train")
    assert list(rows) == released(root, "forget_25")
    again = program(f"--root={root}", f"--out={out}")
    assert again.stdout.splitlines() == [
        f"{folder} exists already; remove it to write it again" for folder in folders
    ]


def test_the_program_tells_mistakes_in_one_line_and_itself_with_help(clear, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for arguments, message in (
        (
            [f"--root={tmp_path / 'absent'}", f"--out={tmp_path}"],
            "absent: is no folder; give the one",
        ),
        ([f"--root={clear.write()}", f"--out={file}"], "give another --out"),
        ([f"--root={tmp_path}"], "--out"),
        ([f"--root={tmp_path}", f"--out={tmp_path}", "more"], "unexpected argument 'more'"),
    ):
        done = program(*arguments)
        assert done.returncode == 1 and message in done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    told = program("--help").stdout
    assert "--root=FOLDER --out=DIR" in told and "--root:" in told and "--out:" in told
