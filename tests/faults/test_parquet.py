"""Parquet files as other writers make them, damaged ones, and records that cannot be used."""

import io
import json
import os
import random
import re
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmunlearner_jax.data.benchmarks import parquet
from mmunlearner_jax.data.benchmarks.clear import ClearBench
from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.data.benchmarks.mllmu.schema import TRAINING_SCHEMA
from mmunlearner_jax.data.benchmarks.parquet import ParquetRow, configs, read_rows
from mmunlearner_jax.data.builders import Clear as ClearBuilder
from mmunlearner_jax.data.builders import builders
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.qwen2_vl.inputs import AnySize
from tests.helpers.benchmarks import Clear, Published

FILE = "train-00000-of-00001.parquet"


@pytest.fixture
def published(tmp_path) -> Published:
    return Published(tmp_path / "published")


@pytest.fixture
def clear(tmp_path) -> Clear:
    return Clear(tmp_path / "clear")


def read_mllmu(root, **options):
    bench = MLLMUBench(root, **options)
    forget, retain = bench.split(25)
    return bench.names(), bench.training(bench.taught), bench.scored(forget, retain)


def read_clear(root, **options):
    bench = ClearBench(root, **options)
    forget, retain = bench.split(10)
    text = bench.text_training("full")
    return bench.names(), bench.training("full"), text, bench.scored(forget, retain)


# --- Spellings


def spelled(kind: pa.DataType, texts: pa.DataType, contents: pa.DataType, lists) -> pa.DataType:
    """A type with other strings, bytes and lists in it, however deep."""
    if isinstance(kind, pa.StructType):
        return pa.struct([(f.name, spelled(f.type, texts, contents, lists)) for f in kind])
    if isinstance(kind, pa.ListType):
        return lists(spelled(kind.value_type, texts, contents, lists))
    return texts if pa.types.is_string(kind) else contents


SPELLINGS = {
    "large": (pa.large_string(), pa.large_binary(), pa.large_list),
    "list views": (pa.string(), pa.binary(), pa.list_view),
    "large list views": (pa.string(), pa.large_binary(), pa.large_list_view),
}


def respell(tables, spelling) -> None:
    for config, schema in tables.schemas.items():
        tables.schemas[config] = pa.schema([(f.name, spelled(f.type, *spelling)) for f in schema])


@pytest.mark.parametrize("name", SPELLINGS)
def test_other_spellings_of_the_types_are_read_the_same(name, published, clear):
    for tables, read in ((published, read_mllmu), (clear, read_clear)):
        expected = read(tables.write())
        tables.root = tables.root.with_name(f"{tables.root.name} again")
        respell(tables, SPELLINGS[name])
        assert read(tables.write(shards=2)) == expected


def rewrite(file, change, **options) -> None:
    pq.write_table(change(pq.read_table(file, partitioning=None)), file, **options)


def replaced(table: pa.Table, column: str, change) -> pa.Table:
    changed = change(table[column].combine_chunks())
    return table.set_column(table.schema.get_field_index(column), column, changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda texts: texts.cast(pa.string_view()),
        lambda texts: texts.dictionary_encode(),
        lambda texts: pa.ExtensionArray.from_storage(pa.json_(), texts),
    ],
    ids=["view", "dictionary", "extension"],
)
@pytest.mark.parametrize("column", ["ID", "metadata"])
def test_flat_columns_have_more_spellings(change, column, published):
    expected = read_mllmu(published.write())
    file = published.root / "ft_Data" / FILE
    rewrite(file, lambda table: replaced(table, column, change))
    assert read_mllmu(published.root) == expected


def test_pictures_in_lists_of_one_length(published):
    expected = read_mllmu(published.write())
    images = pa.list_(TRAINING_SCHEMA.field("image").type, 5)
    rewrite(
        published.root / "Test_Set" / FILE,
        lambda table: pa.Table.from_pylist(
            table.to_pylist(),
            table.schema.set(table.schema.get_field_index("images"), pa.field("images", images)),
        ),
    )
    assert read_mllmu(published.root) == expected


def test_shards_spell_types_each_in_its_way(published):
    expected = read_mllmu(published.write(shards=2))
    first, second = sorted((published.root / "ft_Data").glob("*.parquet"))
    large = pa.schema(
        [(f.name, spelled(f.type, *SPELLINGS["large"])) for f in pq.read_schema(second)]
    )
    rewrite(second, lambda table: table.cast(large))
    rewrite(first, lambda table: replaced(table, "ID", lambda texts: texts.dictionary_encode()))
    assert read_mllmu(published.root) == expected


@pytest.mark.parametrize("column", ["Directory", "question", "Generation_Task"])
def test_a_column_of_nulls_in_one_shard(column, published):
    for row in published.tables["Full_Set"][2:]:
        row.pop(column, None)
    expected = MLLMUBench(published.write(shards=2)).questions("Full_Set")
    second = sorted((published.root / "Full_Set").glob("*.parquet"))[1]
    rewrite(second, lambda table: replaced(table, column, lambda cells: pa.nulls(len(cells))))
    assert pq.read_schema(second).field(column).type == pa.null()
    assert MLLMUBench(published.root).questions("Full_Set") == expected


# --- Sizes


def test_a_row_group_is_read_in_parts(tmp_path):
    (tmp_path / "ft_Data").mkdir()
    content = random.Random(0).randbytes(2**20)
    rows = [{"ID": str(n), "image": {"bytes": bytes([n]) + content}} for n in range(64)]
    table = pa.Table.from_pylist(rows, TRAINING_SCHEMA)
    pages = {"use_dictionary": False, "data_page_size": 2**20, "write_batch_size": 1}
    pq.write_table(table, tmp_path / "ft_Data" / FILE, compression="none", **pages)
    assert pq.read_metadata(tmp_path / "ft_Data" / FILE).num_row_groups == 1
    del table, rows
    before = most = pa.total_allocated_bytes()
    found = []
    for row in read_rows(tmp_path / "ft_Data", TRAINING_SCHEMA):
        assert isinstance(row, ParquetRow)
        most = max(most, pa.total_allocated_bytes())
        found.append((row["ID"], row["image"]["bytes"][0], row.place.split()[-1]))
    assert found == [(str(n), n, str(n)) for n in range(64)]
    assert most - before < 16 * 2**20  # of 64


def test_rows_and_values_without_number_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "ft_Data"
    folder.mkdir()
    columns = dict.fromkeys(TRAINING_SCHEMA.names, pa.nulls(10**6 + 1))
    pq.write_table(pa.table(columns), folder / FILE)
    assert (folder / FILE).stat().st_size < 10**5
    with pytest.raises(InputError, match="has 1,000,001 rows, more than 1,000,000; split it"):
        next(read_rows(folder, TRAINING_SCHEMA))
    monkeypatch.setattr(parquet, "_ALWAYS_FINE", 2**24)
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), ["x" * 2**17])
    pq.write_table(pa.table({**dict.fromkeys(columns, texts.indices), "ID": texts}), folder / FILE)
    assert (folder / FILE).stat().st_size < 2**20
    with pytest.raises(
        InputError, match="rows expand to more than 1000 times the size of the file; wr"
    ):
        list(read_rows(folder, pa.schema([TRAINING_SCHEMA.field("ID")])))


# --- Files that are none


def test_hidden_files_and_folders_are_left_alone(published, tmp_path):
    expected = read_mllmu(published.write())
    (published.root / "ft_Data" / f"._{FILE}").write_bytes(b"\0\5\x16\7mac")
    for name in ("._ft_Data", ".cache"):
        (published.root / name).mkdir()
        (published.root / name / FILE).write_bytes(b"no parquet")
    (published.root / "notes").mkdir()
    assert read_mllmu(published.root) == expected
    assert configs(published.root) == sorted(published.tables)
    written = {builder.builder_config.name for builder in builders(published.root, tmp_path)}
    assert written == set(published.tables)
    (published.root / "Retain_Set" / FILE).rename(published.root / "Retain_Set" / f"._{FILE}")
    with pytest.raises(
        InputError, match="Retain_Set: no such config; there are Full_Set, Test_Set"
    ):
        read_mllmu(published.root)


NO_FILES = {
    "a pipe": (os.mkfifo, "is not a regular file"),
    "a folder": (os.mkdir, "is not a regular file"),
    "a link to nowhere": (lambda path: path.symlink_to("nowhere"), "is not a regular file"),
    "nothing": (lambda path: path.touch(), "not a readable parquet file; fetch it again"),
    "text": (lambda path: path.write_text("a,b\n1,2\n"), "not a readable parquet file; fetch it"),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_only_called_parquet(name, published):
    make, said = NO_FILES[name]
    make(published.write() / "ft_Data" / "train-1.parquet")
    with pytest.raises(InputError, match=f"ft_Data/train-1.parquet: .*{said}"):
        read_mllmu(published.root)


def test_damaged_files_are_right_or_one_line(published):
    file = published.write() / "ft_Data" / FILE
    whole = file.read_bytes()
    chance = random.Random(0)
    refused = 0
    for number in range(100):
        broken = bytearray(whole)
        for _ in range(number % 9):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        if number % 4 == 0:
            del broken[chance.randrange(len(broken)) :][: chance.randrange(1, 999)]
        file.write_bytes(broken)
        try:
            read_mllmu(published.root)
        except InputError as error:
            refused += 1
            assert str(file) in str(error) or "ID" in str(error)
            assert len(str(error)) <= 600 and str(error).isprintable()
    assert refused > 50


def test_columns_of_one_name(published):
    rewrite(
        published.write() / "ft_Data" / FILE, lambda table: table.append_column("ID", table["ID"])
    )
    with pytest.raises(InputError, match="no column ID; it has image, ID, metadata, ID"):
        read_mllmu(published.root)


# --- Records that cannot be used


def latin(texts: pa.Array) -> pa.Array:
    """The second text with a byte in it that is not UTF-8."""
    written = [text if text is None else text.encode() for text in texts.to_pylist()]
    written[1] = b"\xf6" + written[1]
    return pa.array(written, pa.binary()).view(pa.string())


def latin_task(tasks: pa.ListArray) -> pa.ListArray:
    items = tasks.flatten()
    changed = [
        latin(items.field(n)) if field.name == "Question" else items.field(n)
        for n, field in enumerate(items.type)
    ]
    return pa.ListArray.from_arrays(
        tasks.offsets, pa.StructArray.from_arrays(changed, fields=list(items.type))
    )


def latin_path(images: pa.StructArray) -> pa.StructArray:
    fields = [images.field("bytes"), latin(images.field("path"))]
    return pa.StructArray.from_arrays(fields, fields=list(images.type))


NOT_UTF8 = {
    "metadata": ("ft_Data", "metadata", latin, 1),
    "ID": ("ft_Data", "ID", latin, 1),
    "path": ("ft_Data", "image", latin_path, 1),
    "Question": ("Full_Set", "Generation_Task", latin_task, 1),
    "biography": ("Full_Set", "biography", latin, 1),
}


@pytest.mark.parametrize("name", NOT_UTF8)
def test_text_that_is_not_utf8_is_named(name, published):
    config, column, change, row = NOT_UTF8[name]
    rewrite(published.write() / config / FILE, lambda table: replaced(table, column, change))
    schema = published.schemas[config]
    found = list(read_rows(published.root / config, pa.schema([schema.field(column)])))
    assert [number for number, it in enumerate(found) if isinstance(it, str)] == [row]

    def read(bench):
        if config == "ft_Data":
            return bench.training(config)
        return bench.names() if column == "biography" else bench.questions(config)

    said = rf"{config}/{FILE}: row 1: {column} is not UTF-8: byte 0xf6; correct the file or raise "
    with pytest.raises(InputError, match=said):
        read(MLLMUBench(published.root))
    left = read(MLLMUBench(published.root, max_bad_fraction=0.25))
    assert left and "001" not in {getattr(record, "person", record) for record in left}


def test_clear_names_text_that_is_not_utf8(clear, tmp_path):
    root = clear.write()
    rewrite(root / "forget10" / FILE, lambda table: replaced(table, "caption", latin))
    with pytest.raises(InputError, match="forget10/.*: row 1: caption is not UTF-8: byte 0xf6"):
        ClearBench(root).training("forget10")
    assert len(ClearBench(root, max_bad_fraction=0.5).training("forget10")) == 1
    builder = ClearBuilder(config="forget10", root=root, data_dir=tmp_path / "out")
    with pytest.raises(InputError, match="forget10/.*: row 1: caption is not UTF-8: byte 0xf6"):
        builder.download_and_prepare()


def questions(*pairs: str) -> str:
    return f'[{", ".join(pairs)}, {{"Question": "Where?", "Answer": "Here."}}]'


METADATA = {
    "half of a pair": (questions(r'{"Question": "Who \ud83d?", "Answer": "A"}'), "half of a surro"),
    "the other half": (questions(r'{"Question": "Who?", "Answer": "\ude00"}'), "half of a surro"),
    "no answer": (questions('{"Question": "Who?", "Answer": null}'), "question 'Who.' with answer"),
    "an object": (
        questions('{"Question": "Who?", "Answer": {}}'),
        "question 'Who.' with answer ''",
    ),
    "a list": (questions('{"Question": ["Who?"], "Answer": "A"}'), "question '' with answer 'A'"),
    "nested": (questions(f'{{"Answer": {"[" * 50_000}{"]" * 50_000}}}'), "is no JSON list"),
    "nested as a whole": ("[" * 50_000 + "]" * 50_000, "is no JSON list"),
    "NaN": (questions('{"Question": NaN, "Answer": "A"}'), "is no JSON list"),
    "Infinity": (questions('{"Question": "Q", "Answer": -Infinity}'), "is no JSON list"),
    "a long number": (questions(f'{{"Question": "Q", "Answer": {"9" * 9999}}}'), "is no JSON list"),
    "Python": ("[{'Question': 'Q', 'Answer': 'A'}]", "is no JSON list"),
    "cut": ('[{"Question": "Q", "Ans', "is no JSON list"),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_cannot_be_used(name, published):
    text, said = METADATA[name]
    published.tables["ft_Data"][1]["metadata"] = text
    bench = MLLMUBench(published.write())
    with pytest.raises(
        InputError, match=f"ft_Data/{FILE}: row 1: ID 001: metadata.*{said}"
    ) as error:
        bench.training("ft_Data")
    assert len(str(error.value)) <= 600 and str(error.value).isprintable()
    left = MLLMUBench(published.root, max_bad_fraction=0.5).training("ft_Data")
    assert len(left) == (7 if "metadata:" in str(error.value) else 6)


def test_pairs_of_surrogates_and_escapes_are_text(published):
    published.tables["ft_Data"][1]["metadata"] = json.dumps([{"Question": "😀?", "Answer": "é."}])
    samples = MLLMUBench(published.write()).training("ft_Data")
    assert ("😀?", "é.") in {(sample.question, sample.answer) for sample in samples}


def test_a_biography_with_half_of_a_pair(published):
    published.tables["Full_Set"][1]["biography"] = r'{"Name": "Kim \ud83d"}'
    with pytest.raises(InputError, match="row 1: ID 001: biography is no JSON object with a Name"):
        MLLMUBench(published.write()).names()


def test_nulls_among_the_questions(published):
    published.tables["Full_Set"][1]["Generation_Task"] = [None]
    tasks = {"Image_Textual_Questions": [None], "Pure_Text_Questions": None}
    published.tables["Full_Set"][2]["Classification_Task"] = tasks
    with pytest.raises(InputError, match=r"row 1: ID 001: Generation_Task: Type None.*and 1 more"):
        MLLMUBench(published.write()).questions("Full_Set")


PATH = {"bytes": None, "path": "photos/0\x1b.png"}
SAID = r"image holds only the path photos/0\\x1b.png, not the bytes: store them in the file"


def test_a_picture_of_which_only_the_path_is_there(published, clear):
    published.tables["ft_Data"][1]["image"] = PATH
    with pytest.raises(
        InputError, match=f"ft_Data/.*: row 1: {SAID}; correct the file or raise max"
    ):
        MLLMUBench(published.write()).training("ft_Data")
    assert MLLMUBench(published.root, max_bad_fraction=0.5).training("ft_Data")
    published.root = published.root.with_name("seen again")
    published.tables["Test_Set"][1]["images"][2] = PATH
    with pytest.raises(InputError, match=r"Test_Set/.*: row 1: images\[2\] holds only the path"):
        MLLMUBench(published.write()).questions("Test_Set")
    for config in ("full", "full+tofu"):
        clear.tables[config][1] = clear.tables[config][1] | {"image": PATH}
    bench = ClearBench(clear.write())
    with pytest.raises(InputError, match=f"full/.*: row 1: {SAID}"):
        bench.training("full")
    assert len(bench.text_training("full")) == 6


def strip() -> dict:
    buffer = io.BytesIO()
    Image.new("L", (2001, 10)).save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": None}


def test_what_the_model_cannot_see_is_a_record_that_cannot_be_used(published, clear):
    check = AnySize(SimpleNamespace(merge_size=2)).check
    said = (
        ": row 1: image is a strip of 2001 x 10 pixels, .*; correct the file or raise max_bad_fract"
    )
    published.tables["ft_Data"][1]["image"] = strip()
    clear.tables["full"][1] = clear.tables["full"][1] | {"image": strip()}
    for kind, tables, config in ((MLLMUBench, published, "ft_Data"), (ClearBench, clear, "full")):
        whole = len(kind(tables.write()).training(config))
        with pytest.raises(InputError, match=re.escape(f"{config}/{FILE}") + said):
            kind(tables.root, check=check).training(config)
        left = kind(tables.root, check=check, max_bad_fraction=0.5).training(config)
        assert 0 < len(left) < whole


def test_what_is_left_out_is_named_in_one_printable_line(published, caplog):
    published.tables["ft_Data"][1] |= {"metadata": None, "ID": "1\x1b[2J" + "x" * 10**5}
    published.tables["Full_Set"][1]["ID"] = published.tables["ft_Data"][1]["ID"]
    MLLMUBench(published.write(), max_bad_fraction=0.5).training("ft_Data")
    (said,) = {record.getMessage() for record in caplog.records}
    assert said.startswith("left out: ") and len(said) < 650 and said.isprintable()
