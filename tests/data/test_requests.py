"""Requests in place of a benchmark's split: whose samples and questions each split has."""

import pytest

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.data.benchmarks.clear import CLEAR
from mmunlearner_jax.data.benchmarks.ppu import PPU
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.questions import scored_questions
from mmunlearner_jax.examples.orl import write_orl_benchmark


@pytest.fixture(scope="module")
def orl(tmp_path_factory):
    out = tmp_path_factory.mktemp("orl") / "mllmu"
    write_orl_benchmark(out, seed=0, people=12)
    return out


def opened(folder, *requests):
    data = Config().with_values({"data.requests": requests, "data.forget_ratio": 10}).data
    return open_benchmark(folder, data, 0)


def test_the_last_request_is_forgotten_and_those_not_requested_are_kept(orl):
    bench = opened(orl, ("s3",), ("s7", "s9"))
    forget, retain = bench.split(10)
    assert bench.people(forget) == ["s7", "s9"]
    others = {f"s{n}" for n in range(1, 13)} - {"s3", "s7", "s9"}
    assert {*bench.people(retain)} == others and len(bench.people(bench.everyone)) == 12
    for taught in (bench.training, bench.text_training):
        assert {x.person for x in taught(forget)} == {"s7", "s9"}
        assert {x.person for x in taught(retain)} == others
        assert {x.person for x in taught(bench.taught)} >= others | {"s3", "s7", "s9"}


def test_earlier_requests_are_asked_again_as_they_were_asked(orl):
    """Everybody is asked the same, whichever half of the benchmark's own split holds them."""
    first = opened(orl, ("s3",))
    second = opened(orl, ("s3",), ("s7", "s9"))
    asked = first.scored(*first.split(10), photos_per_person=2)
    again = second.scored(*second.split(10), photos_per_person=2)
    assert [*again] == [*asked, "request_1", "request_1_test"]
    assert again["request_1"] == asked["forget"] and again["request_1_test"] == asked["test"]
    assert again["realworld"] == asked["realworld"]
    own = open_benchmark(orl, Config().with_values({"data.forget_ratio": 10}).data, 0)
    halves = own.split(10)
    person = own.people(halves[0])[0]
    alone = opened(orl, (person,))
    whole = own.scored(*halves, photos_per_person=2)
    found = alone.scored(*alone.split(10), photos_per_person=2)
    for split in ("forget", "test"):
        assert found[split] == [q for q in whole[split] if q.person == person]
    kept = {*alone.people(alone.split(10)[1])}
    assert {q.person for split in ("retain", "test_retain") for q in found[split]} == kept


def test_kinds_of_earlier_requests_are_to_stay_fallen(orl):
    kinds = opened(orl, ("s3",), ("s7",)).record.kinds
    assert kinds["request_1", "vqa"].falls and kinds["request_1_test", "vqa"].falls
    assert not kinds["request_1", "qa"].falls
    assert {name for name, kind in kinds.items() if kind.earlier} == {
        name for name in kinds if name[0].startswith("request_1")
    }
    assert kinds["request_1", "vqa"].label.startswith("Request 1: forgotten people")
    assert not any(split.startswith("request") for split, _ in opened(orl, ("s3",)).record.kinds)


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ((("s3",), ("s99",)), "request 2: s99 is in an earlier request or unknown; give each once"),
        ((("s3",), ("s3",)), "request 2: s3 is in an earlier request or unknown"),
        ((tuple(f"s{n}" for n in range(1, 13)),), "nobody is kept; leave somebody out"),
        ((("s3",), ()), "give at least one person in each request"),
    ],
)
def test_requests_are_checked(orl, requests, said):
    with pytest.raises(InputError, match=f"config.data.requests.*{said}") as error:
        opened(orl, *requests).split(10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("record", [PPU, CLEAR])
def test_where_data_are_not_apart_by_person_requests_are_refused(tmp_path, record):
    (tmp_path / record.folder).mkdir()
    data = Config().with_values({"data.requests": (("s1",),)}).data
    with pytest.raises(InputError, match=f"requests is .*: give .*: the data of {record.title}"):
        open_benchmark(tmp_path, data, 0)


def test_few_shot_is_refused(orl):
    bench = opened(orl, ("s3",))
    options = Config().with_values({"evaluate.shots": 1, "evaluate.protocol": "released"}).evaluate
    with pytest.raises(InputError, match="has no few-shot setting"):
        scored_questions(options, bench, *bench.split(10))
