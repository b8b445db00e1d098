"""Verdicts against bars: damage never looks like success."""

import json
from types import SimpleNamespace

import pytest

from mmunlearner_jax.config.report import ReportConfig
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.scores import accuracy
from mmunlearner_jax.reporting.verdicts import floor_of, judge, judge_earlier, judgement
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import report
from tests.helpers.page import Page

BARS = ReportConfig()


def verdict(before, after, *, falls, floor=0.25, n=100):
    scores = (
        accuracy([True] * round(x * n) + [False] * round((1 - x) * n)) for x in (before, after)
    )
    return judge(*scores, BARS, falls=falls, floor=floor)


@pytest.mark.parametrize(
    ("before", "after", "falls", "words"),
    [
        (1.0, 0.25, True, "forgotten"),
        (1.0, 0.10, True, "forgotten"),  # below guessing
        (1.0, 0.40, True, "partly forgotten"),
        (1.0, 0.70, True, "not forgotten"),
        (1.0, 0.98, False, "kept"),
        (0.9, 0.95, False, "kept"),
        (1.0, 0.90, False, "partly kept"),
        (0.94, 0.41, False, "damaged"),
        (0.30, 0.25, True, "not known before"),
        (0.30, 0.25, False, "not known before"),
        (0.20, 0.20, True, "not known before"),
    ],
)
def test_words_and_grades(before, after, falls, words):
    it = verdict(before, after, falls=falls)
    grades = {"forgotten": "met", "kept": "met", "damaged": "missed", "not forgotten": "missed"}
    assert (it.words, it.grade) == (
        words,
        "none" if "known" in words else grades.get(words, "partly"),
    )


def test_the_share_and_the_bar_are_of_what_was_known_beyond_guessing():
    it = verdict(0.85, 0.40, falls=True)
    assert it.share == pytest.approx(0.15 / 0.6)
    assert it.bar == pytest.approx(0.25 + 0.1 * 0.6)
    assert it.sure == (accuracy([True] * 40 + [False] * 60)["ci95"][0] > it.bar)
    assert not verdict(0.85, 0.40, falls=True, n=20).sure


@pytest.mark.parametrize(
    ("before", "after", "words", "grade"),
    [
        (0.20, 0.25, "stayed forgotten", "met"),
        (0.20, 0.32, "stayed forgotten", "met"),  # of three quarters above guessing, a tenth
        (0.60, 0.30, "stayed forgotten", "met"),  # its own request had left a part
        (0.20, 0.40, "partly came back", "partly"),
        (0.60, 0.70, "partly came back", "partly"),
        (0.20, 0.63, "came back", "missed"),
    ],
)
def test_what_was_forgotten_earlier_may_come_back(before, after, words, grade):
    scores = (
        accuracy([True] * round(100 * x) + [False] * round(100 - 100 * x)) for x in (before, after)
    )
    it = judge_earlier(*scores, BARS, floor=0.25)
    assert (it.words, it.grade) == (words, grade)
    assert it.bar == pytest.approx(max(before, 0.25) + 0.075)
    assert it.share == pytest.approx(max(0, (after - 0.25) / 0.75))
    assert judge_earlier({}, {}, BARS, floor=None).words == "no bar"


def test_what_knows_nothing_scores_by_guessing():
    chances = {"forget/vqa": {"uniform": 0.25, "prior": 0.3}}
    chances["general_pope/vqa"] = {"uniform": 0.5, "prior": 0.5}
    kind = ("forget", "vqa")
    assert floor_of("classification", kind, falls=True, chances=chances) == 0.3
    assert floor_of("classification", kind, falls=False, chances=chances) == 0.25
    assert floor_of("classification", ("other", "vqa"), falls=True, chances=chances) is None
    assert floor_of("cloze", kind, falls=True, chances=chances) == 0
    assert floor_of("rougeL", kind, falls=True, chances=chances) is None
    assert floor_of("rougeL", kind, falls=False, chances=chances) == 0
    assert floor_of("short", ("general_pope", "vqa"), falls=False, chances=chances) == 0.5
    assert floor_of("vqa_score", ("general_x", "vqa"), falls=False, chances=chances) == 0
    assert judge({}, {}, BARS, falls=True, floor=None).words == "no bar"


def test_the_worst_row_decides():
    def row(falls, *change):
        return SimpleNamespace(falls=falls, verdict=verdict(*change, falls=falls))

    rows = [row(False, 1.0, 1.0), row(False, 1.0, 0.4), row(True, 1.0, 0.25), row(True, 0.3, 0.2)]
    keep, forget = (judgement(rows, falls=falls) for falls in (False, True))
    assert (keep.grade, keep.words, keep.met, len(keep.rows)) == ("missed", "damaged", 1, 2)
    assert keep.rows[0] is rows[1] and keep.sure
    assert (forget.words, forget.met, len(forget.rows)) == ("forgotten", 1, 1)
    assert judgement(rows[3:], falls=True).words == "nothing to forget"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"forgotten": 0.6}, "config.report.remembered is 0.5: give more than"),
        ({"returned": 0.5}, "give more than config.report.returned, 0.5"),
        (
            {"damaged": 0.99},
            "config.report.damaged is 0.99: give config.report.kept, 0.95, or less",
        ),
        ({"known": 1.0}, "config.report.known is 1.0: give less than 1"),
    ],
)
def test_bars_that_contradict_each_other(values, said):
    with pytest.raises(InputError, match=said):
        ReportConfig(**values)


def page(config, workdir):
    report.run(Session(config, workdir))
    return Page((workdir / "report.html").read_text())


def test_the_page_and_the_terminal_tell_damage_from_success(config, workdir, capsys):
    text = " ".join(page(config, workdir).text.split())
    assert "To forget Forgotten" in text and "To keep Kept" in text
    assert "nothing to forget" not in text
    path = workdir / "results.json"
    results = json.loads(path.read_text())
    results["after"]["retain"]["vqa"]["classification"] = accuracy([True, False] * 50)
    path.write_text(json.dumps(results))
    text = " ".join(page(config, workdir).text.split())
    assert "To keep Damaged" in text and "✗ damaged" in text
    assert "To keep: ✗ damaged" in capsys.readouterr().out
    lenient = config.with_values({"report.damaged": 0.1, "report.kept": 0.2})
    assert "To keep Kept" in " ".join(page(lenient, workdir).text.split())


def test_a_banner_says_that_nothing_was_known(config, workdir):
    path = workdir / "results.json"
    results = json.loads(path.read_text())
    results["before"]["forget"]["vqa"]["classification"] = accuracy([True, False, False, False])
    path.write_text(json.dumps(results))
    assert "There was nothing to forget." in page(config, workdir).text
