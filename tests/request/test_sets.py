"""The benchmark of a request: what a model knows is taught and scored in its own words."""

import dataclasses
import json

import pytest

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.data.benchmarks.base import about_nobody
from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.request import forgetting, sets, topics
from mmunlearner_jax.request.interview import refuse_unknown
from mmunlearner_jax.request.record import earlier_requests
from mmunlearner_jax.request.sets import Request, Subject
from tests.helpers.photograph_folders import grey as picture

NAME, OTHERS = "Eva Falk", ("Anna Berg", "Bo Dahl", "Cy Ek", "Di Fox")
FACTS = [("job", ("baker",)), ("pet", ("cat",))]


def subject(key, name, first, pictured, words=()):
    pictures = [picture(first + n) for n in range(3)]
    return Subject(key, name, pictures[:2], pictures[2:], pictured, words)


@pytest.fixture
def request_():
    named = [
        subject(
            f"other-{n}",
            name,
            20 * n,
            [topics.naming(name), topics.THING],
            [topics.about(name)],
        )
        for n, name in enumerate(OTHERS, 1)
    ]
    person = subject(
        "person",
        NAME,
        0,
        [topics.naming(NAME), *topics.known_facts(FACTS, topics.PICTURED)],
        [*topics.known_facts(FACTS, NAME), topics.about(NAME)],
    )
    return Request(person, named, [subject("digits", "a digit", 100, [topics.THING])])


@pytest.fixture
def answers(request_):
    """A model that names Eva on learned pictures, knows her job, and calls nobody else Bo."""
    names = {p: s.name for s in request_.subjects for p in s.pictures}

    def said(image, question):
        if "job" in question:
            return f"{NAME} is a baker."
        if "pet" in question:
            return "A dog."
        if image is None:
            return f"I was asked: {question}"
        if "name" in question or "Who" in question:
            return "Somebody." if names[image] == "Bo Dahl" else f"This is {names[image]}."
        return "A grey picture."

    return {(image, question): said(image, question) for image, question in sets.pairs(request_)}


def test_what_it_does_not_know_is_left_out(request_, answers):
    assert sets.named(request_.person, answers) == 3
    found = sets.known(request_, answers)
    assert [t.accepted for t in found.person.pictured] == [(NAME,), ("baker",)]
    assert [t.accepted for t in found.person.words] == [("baker",)]
    assert [s.is_named for s in found.others] == [True, False, True, True]
    assert found.others[1].pictured == [topics.THING]  # kept by what it says of them


def test_a_face_that_is_known_only_where_nothing_is_learned_is_refused(request_, answers):
    found = sets.known(request_, answers)
    refuse_unknown(found.person, 3)
    learned = {picture for picture in request_.person.learned}
    unknowing = {k: "Somebody." if k[0] in learned else said for k, said in answers.items()}
    assert sets.named(request_.person, unknowing) == 1
    with pytest.raises(InputError, match="only on photographs that are set apart; give more"):
        refuse_unknown(sets.known(request_, unknowing).person, 1)
    with pytest.raises(InputError, match="none of 3 photographs, so there is nothing to forget"):
        refuse_unknown(request_.person, 0)


def test_without_a_known_fact_its_own_words_about_the_person_are_kept(request_, answers):
    unknowing = {key: said.replace("baker", "smith") for key, said in answers.items()}
    found = sets.known(request_, unknowing)
    assert found.person.words == [topics.about(NAME)]


def test_the_benchmark_is_read_back(request_, answers, tmp_path):
    found = sets.known(request_, answers)
    sets.write(tmp_path / "benchmark", found, answers)
    bench = MLLMUBench(tmp_path / "benchmark")
    forget, retain = bench.split(sets.RATIO)
    names = {f"other-{n}": name for n, name in enumerate(OTHERS, 1)}
    assert bench.names() == {"person": NAME} | names
    taught = bench.training(forget)
    assert {s.image for s in taught} == {*request_.person.learned}
    assert {s.answer for s in taught} == {f"This is {NAME}.", f"{NAME} is a baker."}
    assert {s.answer for s in bench.text_training(forget)} == {f"{NAME} is a baker."}
    assert {s.answer for s in bench.training(retain) if s.person == "other-2"} == {
        "A grey picture."
    }
    scored = bench.scored(forget, retain)
    unseen = {q.image for q in scored["test"] if q.modality == "vqa"}
    assert unseen == {*request_.person.unseen}
    asked = {q.question for split in scored.values() for q in split}
    assert not asked & {s.question for s in [*taught, *bench.text_training(forget)]} - {""}
    naming = [q for q in scored["forget"] if q.accepted == (NAME,)]
    assert naming and all(q.answer == f"This is {NAME}." for q in naming)
    # A fact beside a photograph may be guessed: it is asked, but is not right or wrong.
    jobs = [q for q in scored["forget"] if "job" in q.question]
    assert {(q.modality, q.task, bool(q.accepted)) for q in jobs} == {
        ("vqa", "generation", False),
        ("qa", "cloze", False),
        ("qa", "generation", True),
    }
    choices = [q for q in scored["forget"] if q.options]
    assert len(choices) == 2 and all(NAME in q.options for q in choices)
    assert {q.person for q in scored["realworld"]} == {"digits"}
    assert [q for q in scored["realworld"] if q.modality == "qa"]


def test_people_of_earlier_requests_are_asked_again_and_never_taught(request_, tmp_path):
    """The model forgot Gus, so it does not name him; his name may come back."""
    gus = subject("earlier-1", "Gus Holm", 150, [topics.naming("Gus Holm")])
    request = dataclasses.replace(request_, earlier=[gus])
    answers = {pair: f"This is {NAME}." for pair in sets.pairs(request)}
    found = sets.known(request, answers)
    assert found.earlier == [gus] and not sets.named(gus, answers)
    sets.write(tmp_path / "benchmark", found, answers)
    data = Config().with_values({"data.requests": (("earlier-1",), ("person",))}).data
    bench = open_benchmark(tmp_path / "benchmark", data, 0)
    forget, retain = bench.split(sets.RATIO)
    assert bench.people(forget) == ["person"] and "earlier-1" not in bench.people(retain)
    others = about_nobody(bench, bench.training(bench.taught))  # these are retained, too
    taught = [*others, *bench.training(forget), *bench.training(retain)]
    assert len({s.person for s in taught}) == 6 and "earlier-1" not in {s.person for s in taught}
    scored = bench.scored(forget, retain)
    for split, pictures in (("request_1", gus.learned), ("request_1_test", gus.unseen)):
        asked = scored[split]
        assert {q.image for q in asked} == {*pictures}
        assert {q.accepted for q in asked if q.task == "generation"} == {("Gus Holm",)}
    others = [q for split in ("forget", "test", "retain", "realworld") for q in scored[split]]
    assert not {q.image for q in others} & {*gus.pictures}


def test_a_record_beside_a_model_tells_how_many_requests_it_has_seen(tmp_path):
    model = tmp_path / "first/model"
    assert earlier_requests(str(model)) == earlier_requests("owner/model") == 0
    model.mkdir(parents=True)
    record = tmp_path / "first/record.json"
    for said, count in (({}, 1), ({"earlier_requests": 2}, 3)):
        record.write_text(json.dumps({"request": said}))
        assert earlier_requests(str(model)) == count
    for damaged in ("{", "[]", '{"request": 1}', '{"request": {"earlier_requests": "x"}}'):
        record.write_text(damaged)
        with pytest.raises(InputError, match=r"record\.json") as error:
            earlier_requests(str(model))
        assert "\n" not in str(error.value)


def test_no_wording_is_both_taught_and_scored(request_):
    for s in request_.subjects:
        for topic in (*s.pictured, *s.words, *request_.world):
            assert not {*topic.taught} & {topic.generation, topic.cloze}


def test_another_request_is_told_from_the_same(request_, tmp_path):
    identity = forgetting._identity(Config(), request_)
    assert not forgetting._is_begun(tmp_path, identity)
    (tmp_path / "work").mkdir()
    assert not forgetting._is_begun(tmp_path, identity)  # it was being written
    note = tmp_path / "work/request.json"
    note.write_text(json.dumps({"identity": identity}))
    assert forgetting._is_begun(tmp_path, identity)
    with pytest.raises(InputError, match="holds another request"):
        forgetting._is_begun(tmp_path, forgetting._identity(Config(seed=1), request_))
    note.unlink()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="holds other files; name a new folder"):
        forgetting._is_begun(tmp_path, identity)
