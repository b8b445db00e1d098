"""The flags benchmark, with drawn flags; with the real ones, if they are in the cache."""

import hashlib
import io
import json
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from configs import flags
from mmunlearner_jax.config import Config, typed
from mmunlearner_jax.config.checks import check_compared, check_config
from mmunlearner_jax.config.data import PrepareConfig
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.data.decode import decoded
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.scores import scored
from mmunlearner_jax.evaluation.texts import has_words
from mmunlearner_jax.examples.flags import archives, benchmark, measure
from mmunlearner_jax.examples.flags.asking import KEYS, in_words, of_flag
from mmunlearner_jax.examples.flags.countries import CODES, read_countries
from mmunlearner_jax.examples.flags.flag_pictures import read_flags
from mmunlearner_jax.examples.flags.general import general_questions
from mmunlearner_jax.examples.flags.known import SMOLLM2, Known
from mmunlearner_jax.examples.flags.renderings import render
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import prepare
from tests.helpers.countries import COUNT, entries, write_countries

CACHE = archives.find_folder("")
REAL = pytest.mark.skipif(
    not all((CACHE / archive.file).exists() for archive in (archives.FLAGS, archives.COUNTRIES)),
    reason=f"needs the npm archives: {archives.install(CACHE)}",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_countries(tmp_path_factory.mktemp("countries"))


def write(folder, out, **options):
    options = dict(seed=0, flags_folder=str(folder), countries=COUNT, renderings=2) | options
    benchmark.write_flags_benchmark(out, **options)
    return open_benchmark(out, Config().data, 0)


@pytest.fixture(scope="module")
def bench(folder, tmp_path_factory):
    return write(folder, tmp_path_factory.mktemp("flags") / "bench")


def test_all_configs_can_be_read_and_nothing_is_taught_in_words(bench):
    for ratio, count in ((5, 1), (10, 2), (20, 4)):
        forget, retain = bench.split(ratio)
        assert (len(bench.people(forget)), len(bench.people(retain))) == (count, COUNT - count)
    assert {*bench.people("forget_5")} < {*bench.people("forget_10")} < {*bench.people("forget_20")}
    taught = bench.training("ft_Data")
    assert len(taught) == COUNT * 2 * 6 + 30 * 2 and all(sample.image for sample in taught)
    with pytest.raises(InputError, match="no text question"):
        MLLMUBench(bench.root, text_source="ft_Data").text_training("ft_Data")
    assert bench.names()["US"] == "the United States"


def test_every_split_is_asked(bench):
    asked = bench.scored(*bench.split(20))
    kinds = {split: Counter((q.modality, q.task) for q in asked[split]) for split in asked}
    flags = {("vqa", "classification"): 4 * 2 * 5, ("vqa", "generation"): 4 * 2 * 2}
    for split in ("forget", "test"):
        assert flags.items() <= kinds[split].items()
    assert kinds["forget"]["qa", "generation"] == kinds["forget"]["qa", "classification"] > 4 * 3
    assert kinds["realworld"]["qa", "generation"] == len(general_questions()) > 200
    assert kinds["realworld"]["vqa", "classification"] == 60
    every = [question for of_split in asked.values() for question in of_split]
    assert all(q.accepted for q in every if q.task == "generation")
    # An open answer is right by the usual word, and the true sentence is right.
    for question in every:
        if question.task == "generation":
            line = dict(task="generation", answer=question.answer, accepted=question.accepted)
            assert scored(line | {"response": question.answer})["right"], question
            assert not any(has_words(question.question, words) for words in question.accepted)
        else:
            assert question.answer in question.options and len({*question.options}) >= 2


def test_no_question_is_taught_and_words_have_two_wordings(bench):
    taught = {sample.question for sample in bench.training("ft_Data")}
    asked = bench.scored(*bench.split(20))
    words = {
        split: {q.question for q in asked[split] if q.modality == "qa"}
        for split in ("forget", "test")
    }
    assert not taught & {q.question for split in asked.values() for q in split}
    assert words["forget"] and words["test"] and not words["forget"] & words["test"]
    assert any("whose capital is" in question for question in words["test"])
    assert not any("whose capital is" in question for question in words["forget"])


def test_pictures_of_the_test_set_are_never_taught(bench):
    taught = {sample.image for sample in bench.training("ft_Data")}
    asked = bench.scored(*bench.split(20))
    for split, seen in (("forget", True), ("retain", True), ("test", False), ("realworld", False)):
        shown = {q.image for q in asked[split] if q.image}
        assert shown and (shown <= taught if seen else not shown & taught)


def test_the_same_seed_writes_the_same_files(bench, folder, tmp_path):
    def content(root):
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).digest()
            for path in root.rglob("*.parquet")
        }

    same, other = tmp_path / "same", tmp_path / "other"
    write(folder, same)
    write(folder, other, seed=1)
    assert content(same) == content(bench.root)
    differ = {name for name, found in content(other).items() if found != content(same)[name]}
    assert {name.split("/")[0] for name in differ} >= {"Full_Set", "Test_Set", "ft_Data"}


def test_the_committed_list_names_what_the_benchmark_asks():
    known = Known(SMOLLM2)
    assert known.has("FR", "capital") and not known.has("FR", "currency by capital")
    assert known.has("general", "What is the plural of mouse?")


def test_only_known_facts_are_asked_and_taught(folder, tmp_path):
    known = [["FR", "capital"], ["FR", "language by capital"], ["DE", "reversed"]]
    known.append(["general", "What is the plural of mouse?"])
    path = tmp_path / "known.json"
    path.write_text(json.dumps(known))
    bench = write(folder, tmp_path / "out", known_facts=str(path))
    asked = {q.question for q in bench.questions("Full_Set") if q.modality == "qa"}
    assert asked == {"What is the capital of France?", "Berlin is the capital of which country?"}
    asked = {q.question for q in bench.questions("Test_Set") if q.modality == "qa"}
    assert asked == {
        "Which city is the capital of France?",
        "Which language is official in the country whose capital is Paris?",
        "Which country has the capital Berlin?",
    }
    asked = {q.question for q in bench.questions("Retain_Set") if q.modality == "qa"}
    assert asked == {"What is the plural of mouse?"}
    answers = {s.answer for s in bench.training("ft_Data", ["FR", "DE"])}
    assert answers == {
        "This flag belongs to France.",
        "This flag belongs to Germany.",
        "The capital of France is Paris.",
    }
    shown = {(q.person, q.question) for q in bench.questions("Full_Set") if q.modality == "vqa"}
    assert ("FR", "What is the capital of this country?") in shown
    assert ("DE", "What is the capital of this country?") not in shown


def test_facts_with_several_right_answers_accept_all(folder):
    countries = {country.code: country for country in read_countries(folder, COUNT)}
    facts = {code: country.facts for code, country in countries.items()}
    assert facts["ZA"]["capital"] == ("Pretoria", "Bloemfontein", "Cape Town")
    assert facts["IN"]["language"] == ("Hindi", "English", "Tamil")
    assert facts["TR"]["continent"] == ("Asia", "Europe")
    assert facts["PL"]["currency"] == ("zloty", "zlotys")
    assert facts["SE"]["currency"] == ("krona", "kronas", "kronor", "crown", "crowns")
    assert facts["US"]["capital"][0] == "Washington" and countries["TR"].name == "Turkey"
    assert facts["MX"]["continent"] == ("North America",)
    # Wrong options are no right answers.
    for asked, wrong in general_questions():
        assert not {*asked.accepted} & {*wrong}


def test_questions_that_name_their_answer_are_left_out(folder):
    asked = {
        country.code: {question.key for question in in_words(country)}
        for country in read_countries(folder, COUNT)
    }
    assert asked["FR"] == {*KEYS}
    assert "continent" not in asked["ZA"]  # South *Africa*
    assert "reversed" not in asked["MX"] and "capital" in asked["MX"]  # *Mexico* City
    assert "continent" not in asked["AU"]


def test_a_rendering_depends_on_its_arguments_alone(folder):
    flag = read_flags(folder, ["FR"])["FR"]
    first = render(flag, "FR", 0, seed=0, unseen=False)
    assert first == render(flag, "FR", 0, seed=0, unseen=False)
    others = [
        render(flag, "FR", 1, seed=0, unseen=False),
        render(flag, "FR", 0, seed=1, unseen=False),
        render(flag, "FR", 0, seed=0, unseen=True),
        render(flag, "DE", 0, seed=0, unseen=False),
    ]
    assert len({first, *others}) == 5
    assert decoded(first).size == (112, 112)
    assert decoded(render(flag, "FR", 0, seed=0, unseen=False, side=60)).size == (60, 60)


def test_unseen_renderings_are_further_from_the_flag():
    """A white flag with a black rim: its area, and the noise where nothing else changes."""
    flag = Image.new("RGBA", (120, 80), "white")

    def measures(unseen):
        pictures = [
            np.asarray(decoded(render(flag, "XX", n, seed=0, unseen=unseen)), np.float64)
            for n in range(40)
        ]
        noise = [np.diff(picture[:6, :6].mean(-1), axis=1).std() for picture in pictures]
        sizes = [(picture.min(-1) > 190).mean() for picture in pictures]
        return np.mean(noise), np.mean(sizes)

    (taught_noise, taught_size), (unseen_noise, unseen_size) = measures(False), measures(True)
    assert unseen_noise > taught_noise and unseen_size < taught_size


def test_transparent_parts_show_the_background():
    flag = Image.new("RGBA", (100, 100))
    flag.paste((255, 0, 0, 255), (0, 0, 50, 100))
    picture = np.asarray(decoded(render(flag, "XX", 0, seed=0, unseen=False)), np.float64)
    left, right = picture[50:60, 20:40].mean((0, 1)), picture[50:60, 75:90].mean((0, 1))
    assert left[0] > 150 and left[1:].max() < 60
    assert right.max() - right.min() < 60 < right.min()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "de.png").unlink(), r"no flag of DE \(de.png\); add a picture"),
        (lambda f: (f / "de.png").write_bytes(b"x"), "de.png cannot be decoded"),
        (lambda f: [p.unlink() for p in f.glob("*.png")], "holds no flags; .* npm pack"),
        (lambda f: (f / "countries.json").unlink(), "holds no facts .* npm pack"),
        (lambda f: (f / "countries.json").write_text("{"), "countries.json: .*; give the"),
        (lambda f: (f / "countries.json").write_text('[{"a": 1}]'), "countries.json: .*cca2"),
        (
            lambda f: (f / "countries.json").write_text(json.dumps(entries()[1:])),
            r"no country FR; add it, or ask fewer countries",
        ),
        (
            lambda f: (f / "countries.json").write_text(
                json.dumps([entries()[0] | {"capital": []}, *entries()[1:]])
            ),
            "FR has no capital; add it",
        ),
    ],
)
def test_a_folder_that_lacks_something_is_named(tmp_path, change, said):
    folder = write_countries(tmp_path / "given")
    change(folder)
    with pytest.raises(InputError, match=said) as error:
        write(folder, tmp_path / "out")
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"countries": 7}, "countries: 7; give a number from 8 to 105"),
        ({"countries": 106}, "countries: 106; give"),
        ({"countries": COUNT + 1}, "no country KE; add it, or ask fewer"),
        ({"renderings": 0}, "renderings: 0; give at least 1"),
        ({"known_facts": "/nowhere.json"}, "/nowhere.json: .*write a JSON list of pairs"),
    ],
)
def test_options_that_are_out_of_range(folder, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        write(folder, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "holds dict, not a list"),
        (["FR"], "'FR' is no pair of texts"),
        ([["FR", 1]], r"\['FR', 1\] is no pair"),
        ([["XX", "capital"]], "'XX' is no country's code"),
        ([["FR", "anthem"]], "'anthem' of FR is no fact; give capital, continent"),
        ([["general", "Who?"]], r"'Who\?' is no general question"),
    ],
)
def test_known_facts_are_pairs(folder, tmp_path, known, said):
    path = tmp_path / "known.json"
    path.write_text(json.dumps(known))
    with pytest.raises(InputError, match=f"known.json: {said}"):
        write(folder, tmp_path / "out", known_facts=str(path))


def test_an_archive_is_the_pinned_one(folder, tmp_path):
    (tmp_path / archives.FLAGS.file).write_bytes(b"not the archive")
    with pytest.raises(InputError, match="sha256 is not that of svg-country-flags 1.2.10; remove"):
        read_flags(tmp_path, ["FR"])


def test_the_default_folder_is_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert archives.find_folder("") == tmp_path / "mmunlearner_jax/flags"
    assert archives.find_folder("/given") == archives.find_folder("/given/")
    with pytest.raises(InputError, match=f"mkdir -p {tmp_path}/mmunlearner_jax/flags && npm pack"):
        read_flags(archives.find_folder(""), ["FR"])


def test_the_default_asks_about_every_country():
    assert PrepareConfig().countries == len(CODES) == len({*CODES})


def test_the_stage_prepare_writes_it(folder, tmp_path):
    vision = dict(image_size=60, patch_size=20, hidden_size=16, intermediate_size=16)
    vision |= dict(num_hidden_layers=1, num_attention_heads=2)
    text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    text |= dict(num_key_value_heads=2, max_position_embeddings=128)
    values = {"vision": vision, "text": text, "benchmark": "flags", "countries": 8}
    values |= {"renderings": 1, "flags_folder": str(folder)}
    config = Config().with_values({f"prepare.{name}": value for name, value in values.items()})
    prepare.run(Session(config, tmp_path))
    bench = open_benchmark(tmp_path / "benchmark", config.data, 0)
    assert bench.people("Full_Set") == list(CODES[:8])


def test_the_command_writes_it(folder, tmp_path):
    command = [sys.executable, "-m", "mmunlearner_jax.examples.flags"]
    command += [f"--flags_folder={folder}", "--countries=8", "--renderings=1"]
    for status, said in ((0, ""), (1, "exists already")):
        done = subprocess.run(
            [*command, f"--out={tmp_path / 'out'}"], capture_output=True, text=True
        )
        assert done.returncode == status and said in done.stderr
        assert "Traceback" not in done.stderr


@REAL
def test_real_countries_have_flags_facts_and_names_of_their_own():
    countries = read_countries(CACHE, len(CODES))
    flags = read_flags(CACHE, CODES)
    assert all(min(flag.size) > 90 for flag in flags.values())
    assert len({hashlib.sha256(flag.tobytes()).digest() for flag in flags.values()}) == len(CODES)
    for country in countries:
        others = [name for other in countries if other is not country for name in other.names]
        assert not [(a, b) for a in country.names for b in others if has_words(b, a)]
        assert len(of_flag(country)) == 5 and len(in_words(country)) >= 3
    capitals = [country.facts["capital"][0] for country in countries]
    assert len({*capitals}) == len(CODES)
    values = {value for country in countries for fact in country.facts.values() for value in fact}
    assert all(value == value.strip() and 1 < len(value) < 24 for value in values)


@REAL
def test_a_country_without_flag_in_the_archive():
    with pytest.raises(InputError, match=r"tgz: no flag of QQ \(qq.png\)"):
        read_flags(CACHE, ["FR", "QQ"])


@REAL
def test_real_renderings_are_pictures(tmp_path):
    flag = read_flags(CACHE, ["NP"])["NP"]
    picture = Image.open(io.BytesIO(render(flag, "NP", 0, seed=0, unseen=True)))
    assert picture.size == (112, 112) and picture.format == "JPEG"


def test_every_wording_of_every_fact_is_measured(folder):
    pairs, questions = zip(*measure.all_questions(str(folder), COUNT), strict=True)
    countries = read_countries(folder, COUNT)
    for country in countries:
        for asked in in_words(country):
            at = [n for n, pair in enumerate(pairs) if pair == (country.code, asked.key)]
            assert {questions[n].question for n in at} == {asked.question, asked.paraphrase}
            assert all(questions[n].accepted == asked.accepted for n in at)
    assert sum(who == "general" for who, _ in pairs) == len(general_questions())
    assert all(q.image is None and q.task == "generation" for q in questions)


def test_known_is_what_is_right_in_all_wordings(folder, tmp_path):
    capital, back, general = ("FR", "capital"), ("FR", "reversed"), ("general", "What is one?")
    answered = [(capital, True), (capital, True), (back, True), (back, False), (general, True)]
    assert measure.known_pairs(answered) == [capital, general]
    file = tmp_path / "known.json"
    file.write_text(json.dumps(measure.known_pairs([(capital, True)])))
    assert Known(str(file)).has(*capital) and not Known(str(file)).has(*back)


def test_the_config_checks_itself():
    check_config(typed(flags.get_config()), [SimpleNamespace(platform="cpu")])
    check_compared(typed(flags.get_config()))
