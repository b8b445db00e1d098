"""What `mmu forget` reads: folders of photographs, names and facts; refusals are one line."""

import numpy as np
import pytest
from PIL import Image

from mmunlearner_jax.data.decode import decoded
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.request import photographs, topics
from mmunlearner_jax.request.collecting import check_name, collect
from tests.helpers.photograph_folders import grey as picture


@pytest.fixture
def folder(tmp_path):
    person = tmp_path / "person"
    person.mkdir()
    for n in range(8):
        (person / f"{n}.png").write_bytes(picture(n))
    return person


def test_a_folder_is_read_by_name_and_copies_count_once(folder):
    (folder / "copy.png").write_bytes(picture(3))
    (folder / ".hidden").write_text("no picture")
    (folder / "inner").mkdir()
    names = [it.path.name for it in photographs.read_person(folder)]
    assert names == [f"{n}.png" for n in (0, 1, 2, 3, 4, 5, 6, 7)]


def test_photographs_are_turned_as_a_viewer_turns_them(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    (folder / "a.jpg").write_bytes(picture(9, "jpeg", exif=exif))
    turned = {it.path.name: it.encoded for it in photographs.read_person(folder)}["a.jpg"]
    assert decoded(turned).size == (4, 8)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no photograph"),
        ({"a.png": picture(1)}, "holds one photograph; give two or more"),
        ({"a.png": picture(1), "b.png": picture(1)}, "holds one photograph"),
        ({"a.png": picture(1), "b.png": picture(2)[:40]}, r"b\.png: cannot be decoded"),
        ({"a.png": picture(1), "notes.txt": b"x"}, r"notes\.txt: cannot be decoded.*or remove it"),
    ],
)
def test_what_is_no_folder_of_photographs_is_refused(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        photographs.read_person(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_missing_or_a_file_is_refused(folder):
    with pytest.raises(InputError, match="--person=.*nobody: does not exist; name a folder"):
        photographs.read_person(folder / "nobody")
    with pytest.raises(InputError, match="is a file"):
        photographs.read_person(folder / "0.png")


@pytest.mark.parametrize(("count", "apart"), [(2, 1), (4, 1), (8, 2), (10, 2), (1, 0)])
def test_one_in_four_is_set_apart(count, apart):
    given = list(range(count))
    learned, unseen = photographs.split(given, np.random.default_rng(0))  # pyright: ignore
    assert len(unseen) == apart and sorted([*learned, *unseen]) == given


def test_others_are_named_by_their_folders(folder, tmp_path):
    keep = tmp_path / "others"
    for name, values in {"Anna_Berg": (50, 51), "Bo": (60,), "Cy_Dahl": ()}.items():
        (keep / name).mkdir(parents=True)
        for value in values:
            (keep / name / f"{value}.png").write_bytes(picture(value))
    (keep / "tree.png").write_bytes(picture(70))
    request = collect(folder, "Eva Falk", keep, None, seed=0)
    # Who has one photograph is kept as a picture without a name.
    assert [(s.name, len(s.pictures)) for s in request.others] == [
        ("Anna Berg", 2),
        ("a picture", 2),
    ]
    (keep / "Bo" / "same.png").write_bytes(picture(3))
    with pytest.raises(InputError, match=r"same\.png: is also .*3\.png of --person"):
        collect(folder, "Eva Falk", keep, None, seed=0)


def test_people_who_were_forgotten_earlier_are_named_by_their_folders(folder, tmp_path):
    earlier = tmp_path / "earlier"
    for name, values in {"Anna_Berg": (50, 51), "Bo": (60,)}.items():
        (earlier / name).mkdir(parents=True)
        for value in values:
            (earlier / name / f"{value}.png").write_bytes(picture(value))
    request = collect(folder, "Eva Falk", None, None, earlier, seed=0)
    assert [(s.key, s.name, len(s.pictures)) for s in request.earlier] == [
        ("earlier-1", "Anna Berg", 2),
        ("earlier-2", "Bo", 1),
    ]
    assert all([topic.who for topic in s.pictured] == ["this person"] for s in request.earlier)
    assert not {s.key for s in request.taught} & {s.key for s in request.earlier}
    with pytest.raises(InputError, match="--earlier=.*has a folder of 'Bo', who is also in"):
        collect(folder, "Bo", None, None, earlier, seed=0)
    (earlier / "tree.png").write_bytes(picture(70))
    with pytest.raises(InputError, match="--earlier=.*holds a picture outside of the subfolders"):
        collect(folder, "Eva Falk", None, None, earlier, seed=0)
    (earlier / "tree.png").rename(earlier / "Bo/same.png")
    (earlier / "Bo/same.png").write_bytes(picture(3))
    with pytest.raises(InputError, match=r"same\.png: is also .*; remove it from --earlier"):
        collect(folder, "Eva Falk", None, None, earlier, seed=0)


def test_without_others_what_scikit_learn_ships_is_kept_and_said_so(folder, capsys):
    request = collect(folder, "Eva Falk", None, None, seed=0)
    assert "no --keep: pictures that scikit-learn ships" in capsys.readouterr().err
    assert [s.key for s in request.subjects] == ["person", "scenes", "digits"]
    for subject in request.subjects[1:]:
        assert subject.learned and subject.unseen
        assert not {*subject.learned} & {*subject.unseen}
    assert collect(folder, "Eva Falk", None, None, seed=0) == request


def test_one_picture_to_keep_is_too_few(folder, tmp_path):
    (tmp_path / "others").mkdir()
    (tmp_path / "others/tree.png").write_bytes(picture(70))
    with pytest.raises(InputError, match="--keep=.*holds one picture; give two or more"):
        collect(folder, "Eva Falk", tmp_path / "others", None, seed=0)


@pytest.mark.parametrize("name", ["photos/eva", r"photos\eva", "", "...", "\n"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InputError, match="--name=.*(is a path|has no letter)") as error:
        check_name(name)
    assert "\n" not in str(error.value)


def test_facts_have_several_spellings(tmp_path):
    file = tmp_path / "facts.csv"
    file.write_text("﻿fact, value,source\njob,baker,x\nhome town,Bern|Berne,\n", encoding="utf-8")
    facts = topics.read_facts(file)
    assert facts == [("job", ("baker",)), ("home town", ("Bern", "Berne"))]
    topic = topics.known_facts(facts, "Eva Falk")[1]
    assert topic.taught[0] == "What is the home town of Eva Falk?"
    assert topic.is_right("She lives in Berne.") and not topic.is_right("She lives in Bernau.")
    assert not {*topic.taught} & {topic.cloze, topic.generation}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("fact\njob\n", "no column value"),
        ("", "no column fact"),
        ("fact,value\n", "holds no fact"),
        ("fact,value\njob,\n", "line 2: .*has no fact or no value"),
        ("fact,value\njob,baker\n,x\n", "line 3"),
        ("fact,value\n{who},x\n", "line 2"),
        (b"fact,value\njob,\xff\n", "UTF-8|utf-8"),
    ],
)
def test_facts_that_cannot_be_read_are_refused(tmp_path, content, message):
    file = tmp_path / "facts.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        topics.read_facts(file)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)
