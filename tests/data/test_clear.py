import io
import json
import re
import shutil
import zlib
from types import SimpleNamespace

import pyarrow as pa
import pytest
from PIL import Image

from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.data.benchmarks.clear import (
    CAPTION_QUESTIONS,
    NAME_OPENING,
    NAME_QUESTION,
    TOFU_SCHEMA,
    ClearBench,
)
from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError


def test_clear_is_read_as_released(clear):
    bench = ClearBench(clear.write(shards=2))
    assert bench.split(10) == ("forget10", "retain90")
    assert bench.people(bench.everyone) == ["Ana Bo", "Cy Dee", "Eve Fay"]
    assert bench.names()["Cy Dee"] == "Cy Dee"
    samples = bench.training("forget10")
    assert [(s.person, s.image, s.answer) for s in samples] == [
        (row["name"], row["image"]["bytes"], row["caption"]) for row in clear.tables["forget10"]
    ]
    assert {sample.question for sample in samples} <= set(CAPTION_QUESTIONS)
    assert bench.text_training("forget10") == [
        Sample("", None, "Who is Ana Bo?", "Ana Bo, born in 1900."),
        Sample("", None, "When was the birth of Ana Bo?", "Ana Bo, born in 1900."),
    ]
    assert len(bench.training(bench.taught)) == len(bench.text_training(bench.taught)) == 6


def test_clear_scores_names_captions_and_tofu(clear):
    asked = ClearBench(clear.write()).scored("forget10", "retain90", photos_per_person=1)
    kinds = {split: [(q.modality, q.task) for q in questions] for split, questions in asked.items()}
    named = [("vqa", "classification"), ("vqa", "naming")]
    pictured = [*named, ("vqa", "generation")]
    assert kinds == {
        "forget": 2 * pictured + 2 * [("qa", "generation")],
        "retain": pictured + 4 * [("qa", "generation")],
        "real_faces": named,
        "realworld": named,
    }
    name, opening, caption = asked["forget"][:3]
    row = clear.tables["forget10_perturbed"][0]
    assert (name.question, name.answer) == (NAME_QUESTION, "Ana Bo")
    assert (opening.question, opening.answer) == (NAME_OPENING, "Ana Bo")
    assert NAME_OPENING == "The name of the person on the image is "
    assert opening.perturbed == tuple(row["perturbed_names"])
    assert [option for option in name.options if option != "Ana Bo"] == row["perturbed_names"]
    assert (caption.answer, caption.paraphrase) == (row["caption"], row["paraphrased_caption"])
    assert caption.perturbed == tuple(row["perturbed_captions"])
    (face, _), (world, open_world) = asked["real_faces"], asked["realworld"]
    assert (face.person, face.question) == ("Mia Nu", NAME_QUESTION)
    assert (world.question, world.answer, len(world.options)) == ("Who built it?", "Mia Nu", 4)
    assert (open_world.question, len(open_world.perturbed)) == ("Who built it?", 3)


def test_clear_draws_by_seed_and_by_picture(clear):
    root = clear.write()

    def drawn(seed):
        bench = ClearBench(root, seed=seed)
        asked = bench.scored("forget10", "retain90")
        options = [q.options for q in [*asked["forget"], *asked["retain"]] if q.options]
        return [sample.question for sample in bench.training("full")], options

    assert drawn(0) == drawn(0)
    assert len({str(drawn(seed)) for seed in range(5)}) == 5
    bench = ClearBench(root)
    assert bench.training("full")[:2] == bench.training("forget10")


def test_either_benchmark_is_opened_by_its_folders_mllmu_or_clear(clear, published):
    data = SimpleNamespace(text_source="ft_Data", max_bad_fraction=0.25, requests=())
    opened = open_benchmark(clear.write(), data, 3)
    assert isinstance(opened, ClearBench) and (opened.seed, opened.max_bad_fraction) == (3, 0.25)
    assert isinstance(open_benchmark(published.write(), data, 0), MLLMUBench)
    with pytest.raises(
        InputError, match="none of Full_Set .MLLMU-Bench., full.tofu .CLEAR., .*; name"
    ):
        open_benchmark(clear.root / "full", data, 0)
    shutil.copytree(published.root / "Full_Set", clear.root / "Full_Set")
    with pytest.raises(InputError, match="holds Full_Set and full.tofu; name the folder"):
        open_benchmark(clear.root, data, 0)


def picture(width: int, height: int) -> dict:
    """A PNG that claims a size, with pixels for none."""
    buffer = io.BytesIO()
    Image.new("1", (1, 1)).save(buffer, "png")
    encoded = bytearray(buffer.getvalue())
    encoded[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    encoded[29:33] = zlib.crc32(encoded[12:29]).to_bytes(4, "big")
    return {"bytes": bytes(encoded), "path": None}


BAD_ROWS = {
    "no image": ("forget10", {"image": None}, "image is null"),
    "cut image": ("forget10", {"image": {"bytes": b"\x89PNG\r\n", "path": ""}}, "cannot be dec"),
    "bomb": (
        "forget10",
        {"image": picture(100_000, 100_000)},
        "image has more pixels than 8192 x 8192",
    ),
    "long image": ("forget10", {"image": picture(100_000, 1)}, "image has 100000 x 1 pixels"),
    "flat image": ("forget10", {"image": picture(0, 5)}, "image"),
    "no caption": ("forget10", {"caption": " "}, "caption is empty"),
    "NaN": ("forget10", {"caption": "nan"}, "caption is empty"),
    "no answer": ("forget10+tofu", {"image": None}, "no image, and question '' with answer ''"),
    "both": ("forget10+tofu", {"question": "Who?", "answer": "Ana"}, "image and question 'Who"),
    "bare image": ("forget10+tofu", {"caption": None}, "image without caption"),
    "no names": ("forget10_perturbed", {"perturbed_names": []}, "perturbed_names is empty"),
    "own name": ("forget10_perturbed", {"perturbed_names": ["Ana Bo"]}, "perturbed_names: 'Ana"),
    "no words": ("forget10_perturbed", {"paraphrased_caption": ""}, "paraphrased_caption is"),
    "null": ("forget10_perturbed", {"perturbed_captions": [None]}, "perturbed_captions is"),
    "no face": ("real_faces", {"answer": None}, "question .* with answer ''"),
    "no question": ("real_world", {"question": ""}, "question '' with answer 'Mia Nu'"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_clear_names_a_record_that_cannot_be_used(clear, case):
    config, change, message = BAD_ROWS[case]
    rows = clear.tables[config]
    clear.tables[config] = [rows[0] | change, *rows[1:]]
    root = clear.write()

    def read(**options):
        bench = ClearBench(root, **options)
        if config == "forget10":
            return bench.training(config)
        return bench.scored("forget10", "retain90")

    with pytest.raises(
        InputError, match=rf"{re.escape(config)}/train-.*: row 0: .*{message}"
    ) as error:
        read()
    assert "\n" not in str(error.value) and "max_bad_fraction" in str(error.value)
    assert read(max_bad_fraction=1.0)


def test_clear_names_who_is_in_the_wrong_config(clear):
    clear.tables["retain_perturbed"] = clear.tables["forget10"]
    with pytest.raises(
        InputError,
        match="forget10/.*: row 0: name Ana Bo is here and in .*retain_perturbed/.*: row 0; remove",
    ):
        ClearBench(clear.write()).split(10)
    shutil.rmtree(clear.root)
    clear.tables["full"] = clear.tables["full"][2:]
    with pytest.raises(
        InputError, match="forget10/.*: row 0: name Ana Bo has no row in .*/full; add"
    ):
        ClearBench(clear.write()).split(10)
    shutil.rmtree(clear.root)
    clear.tables["full"][0] = clear.tables["full"][0] | {"name": None}
    with pytest.raises(InputError, match="full/train-.*: row 0: name is empty; fill it in"):
        ClearBench(clear.write()).people("full")


def test_clear_names_a_missing_config(clear):
    bench = ClearBench(clear.write())
    with pytest.raises(InputError, match="forget05: no such config; there are default, forget10,"):
        bench.split(5)


def test_clear_refuses_other_types_and_nesting(clear):
    clear.schemas["full+tofu"] = TOFU_SCHEMA.set(2, pa.field("question", pa.float64()))
    nan = {"question": float("nan")}
    clear.tables["full+tofu"] = [row | nan for row in clear.tables["full+tofu"]]
    root = clear.write(shards=2)
    with pytest.raises(InputError, match="full.tofu/train-00000.*: column question is double, not"):
        ClearBench(root).text_training("full")
    shutil.rmtree(root)
    clear.schemas["real_faces"] = clear.schemas["real_faces"].set(
        2, pa.field("options", pa.string())
    )
    for row in clear.tables["real_faces"]:
        row["options"] = json.dumps(row["options"])
    with pytest.raises(InputError, match="options is string, not list<.*; fetch the released file"):
        ClearBench(clear.write()).scored("forget10", "retain90")


def test_clear_refuses_shards_of_two_schemas(clear):
    root = clear.write()
    clear.root = root.with_name("other")
    clear.schemas["full"] = clear.schemas["full"].append(pa.field("split", pa.string()))
    file = "full/train-00000-of-00001.parquet"
    shutil.copy(clear.write() / file, root / "full/train-00001-of-00002.parquet")
    with pytest.raises(InputError, match="00001-of-00002.*: column split is string, but None in"):
        ClearBench(root).people("full")


def test_clear_texts_of_both_sets_are_named(clear):
    clear.tables["retain90+tofu"] = clear.tables["full+tofu"]
    with pytest.raises(InputError, match="retain90.tofu: question 'Who is Ana Bo.' is in forget10"):
        ClearBench(clear.write()).split(10)


def test_clear_names_are_cleaned(clear):
    clear.tables["forget10_perturbed"] = [
        row | {"name": f" {row['name']} "} for row in clear.tables["forget10_perturbed"]
    ]
    bench = ClearBench(clear.write())
    assert bench.split(10)
    assert {q.answer for q in bench.scored("forget10", "retain90")["forget"] if q.options} == {
        "Ana Bo"
    }


def test_clear_more_options_than_letters(clear):
    (face,) = clear.tables["real_faces"]
    clear.tables["real_faces"] = [face | {"options": [f"Nobody {n}" for n in range(26)]}]
    with pytest.raises(InputError, match="real_faces/.*: row 0: options: 26 options, more than"):
        ClearBench(clear.write()).scored("forget10", "retain90")
