"""What is not finite is no answer and nothing forgotten; texts of any writing are compared."""

import json
import re
import unicodedata
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rouge_score.rouge_scorer import RougeScorer

from configs import orl
from mmunlearner_jax.comparison.cells import Cell, missing
from mmunlearner_jax.comparison.tuning import Choice
from mmunlearner_jax.config import Config, typed
from mmunlearner_jax.data.refusals import REFUSALS
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import Diverged, InputError
from mmunlearner_jax.evaluation import judge, likelihoods, overlap, parsing, scores, texts
from mmunlearner_jax.examples import digits, facts
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import compare, rescore
from mmunlearner_jax.stages.unlearn import Unlearner
from mmunlearner_jax.unlearn import scoring
from mmunlearner_jax.unlearn.controls import CONTROLS, Control
from mmunlearner_jax.unlearn.schedule import StopRule
from tests.helpers import tiny
from tests.helpers.lessons import word_processor
from tests.helpers.models import filled
from tests.helpers.parrot import JOBS, Parrot, answers
from tests.helpers.tokens import CONFIG, IDS, LABELS

BAD = [np.nan, np.inf, -np.inf]
CHOICE = Question("1", "qa", "classification", None, "What is the job?", "pilot", JOBS, "D")
OPEN = Question("1", "qa", "generation", None, "What is the job?", "a pilot")
WEIGHED = Question("1", "qa", "naming", None, "Who is it?", "Kim Stone", perturbed=("Alba Birch",))


@pytest.fixture(scope="module")
def processor():
    return word_processor()


@pytest.fixture
def answer(monkeypatch, processor):
    return answers(monkeypatch, processor)


@pytest.fixture(scope="module")
def model():
    return filled(CONFIG)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("program", ["greedy", "score"])
@pytest.mark.parametrize("question", [CHOICE, OPEN, WEIGHED], ids=lambda it: it.task)
def test_scores_that_are_not_finite_are_no_answer(answer, monkeypatch, question, program, bad):
    def broken(self, *given):
        found = kept(self, *given)
        if program == "score":
            return found.at[-1, 0].set(bad)
        return found[0], found[1].at[0, 0, 0].set(bad)

    kept = getattr(Parrot, program)
    monkeypatch.setattr(Parrot, program, broken)
    if program == "score" and question is not WEIGHED:  # words of one token are not scored again
        answer("Kim Stone works as a pilot.", [question])
        return
    with pytest.raises(Diverged) as error:
        answer("Kim Stone works as a pilot.", [question])
    said = str(error.value)
    assert said.startswith(f"before/forget: {question.question!r}") and "learning rate" in said


LINE = {
    "split": "forget",
    "modality": "qa",
    "task": "classification",
    "question": "Which?",
    "answer": "baker",
    "options": ["smith", "baker"],
    "response": "a smith",
    "scores": [-2.0, -1.0],
}


@pytest.mark.parametrize(
    "scores", ["[NaN, -1]", "[-2, 1e999]", "[-Infinity, 0]", "[-1]", "[1,2,3]"]
)
def test_predictions_that_are_not_finite_are_not_scored_again(tmp_path, scores):
    (tmp_path / "predictions").mkdir()
    text = json.dumps(LINE).replace("[-2.0, -1.0]", scores)
    (tmp_path / "predictions/before-forget.jsonl").write_text(text + "\n")
    (tmp_path / "results.json").write_text('{"before": {"forget": {}}}')
    session = Session(Config.of({"evaluate": {"protocol": "plain"}}), tmp_path)
    with pytest.raises(InputError, match=r"before-forget.jsonl, line 1: .*; restore it"):
        rescore.run(session)


@pytest.mark.parametrize("values", [[], [np.nan], [1.0, np.inf], [-np.inf]])
def test_a_mean_of_nothing_or_of_no_numbers_is_none(values):
    with pytest.raises(InputError, match="not all are finite"):
        scores.mean_score(values)


@pytest.mark.parametrize("likelihood", [0.0, -3.0, -800.0])
def test_statistics_of_equal_lines_are_finite(likelihood):
    found = {"answer": likelihood, "paraphrase": None, "perturbed": [likelihood] * 2}
    line = {"person": "1", "question": "q", "answer": "a", "response": "b", "split": "forget"}
    lines = [line | {"likelihoods": found}] * 3
    told = [
        likelihoods.forget_quality(lines, lines),
        likelihoods.model_utility({"retain": lines}),
        likelihoods.likelihood_scores(lines, forget=True),
        likelihoods.likelihood_scores(lines, forget=False, normalised=True),
    ]
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("bad", BAD)
def test_losses_that_are_not_finite_end_a_stage(tmp_path, bad):
    def write(**values):
        with Metrics(tmp_path, "unlearn", total=9, saved=3) as told:
            for step in range(1, 10):
                told.write(step, loss=jnp.float32(bad if step == 5 else 1), **values)
                assert step < 6  # before the checkpoint of step 6

    with pytest.raises(Diverged, match="unlearn, step 5: loss is .*: the run diverged; lower"):
        write()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    assert "NaN" not in "".join(lines) and "Infinity" not in "".join(lines)
    with pytest.raises(Diverged), Metrics(tmp_path, "b", total=1) as told:  # at the end, too
        told.write(1, loss=bad)


@pytest.mark.parametrize("bad", BAD[:2])
def test_answers_of_no_numbers_are_not_forgotten(model, bad):
    graphdef, params = nnx.split(model)
    batch = {"input_ids": IDS, "labels": LABELS}
    broken = jax.tree.map(lambda p: p.at[(0,) * p.ndim].set(bad), params)
    right, count = scoring.exact_answers(graphdef, broken, batch)
    assert np.isnan(right) and count == 2
    assert not StopRule(remembered=0.5).reached(float(right) / int(count))


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    return tiny.session(tmp_path_factory.mktemp("run"))


def test_a_run_that_diverges_is_not_taken_for_forgetting(at, tmp_path):
    for name, remembered, said in (
        ("look", 0.9, "look, step 1: logits are not finite"),
        ("end", -1.0, "end, step 1: weights are not finite"),
    ):
        rule = {"iterations": 1, "stop_remembered": remembered, "clip": 0.0}
        rule |= {"method": "ga", "learning_rate": 1e38, "weight_decay": 1e38}
        with pytest.raises(Diverged, match=said):
            Unlearner(tiny.varied(at, tmp_path, **rule)).run(None, label=name)
        rows = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        assert not any("remembered" in row for row in rows)


class Diverging:
    """A contest whose runs diverge."""

    def control(self, name):
        return CONTROLS.get(name) or Control(name)

    def play(self, name, rate):
        raise Diverged(f"{name}: diverged")


def test_a_run_that_diverges_is_told_and_never_scored(tmp_path):
    config = typed(orl.get_config()).with_values({"compare.controls": ("no_mask",)})
    at: Any = SimpleNamespace(config=config)
    contest: Any = Diverging()
    choices = {"ga": Choice(1e-4, True), "mmunlearner": Choice(1e-3, False), "npo": None}
    told = {name: compare._variant(contest, at, name, choices) for name in ("ga", "no_mask", "npo")}
    assert [entry["diverged"] for entry in told.values()] == [True] * 3
    assert [entry["learning_rate"] for entry in told.values()] == [1e-4, 1e-3, None]
    assert told["no_mask"]["control"] and told["ga"]["edge"] and "end" not in told["ga"]
    cell = Cell(0, 5, tmp_path, {}, {"vanilla": {}, "ga": told["ga"]}, {}, {})
    assert missing([cell]) == ["seed 0, 5 % forgotten: Gradient ascent, which diverged"]
    assert cell.accuracies("ga", "gold") is cell.accuracies("ga", "end") is None


SENTENCES = {
    "Chinese": "她住在北京，是一名面包师。",
    "Japanese": "彼女は東京でパンを焼いています。",
    "Korean": "그녀는 서울에 사는 제빵사입니다.",
    "Arabic": "هي خبازة تعيش في القاهرة.",
    "Persian": "او نانوا است و می‌خواهد بماند.",
    "Hebrew": "היא אופה וגרה בתל אביב.",
    "Hindi": "वह दिल्ली में रहने वाली एक बेकर है।",
    "Bengali": "তিনি ঢাকায় থাকেন।",
    "Tamil": "அவள் சென்னையில் வசிக்கிறாள்.",
    "Thai": "เธอเป็นคนทำขนมปังอยู่ในกรุงเทพ",
    "Russian": "Она живёт в Москве и печёт хлеб.",
    "Greek": "Η Άννα ζει στην Αθήνα, ΣΊΣΥΦΟΣ.",
    "German": "Zoë Müller wohnt in der Straße am Fluß.",
    "Vietnamese": "Nguyễn Ái sống ở Huế.",
    "Turkish": "İpek Diyarbakır'da yaşıyor.",
    "mixed": "Anna 住在 Köln 2024年",
}


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_same_text_is_the_same_in_every_writing(text, form):
    said = unicodedata.normalize(form, text)
    assert overlap.rouge(text, said) == dict.fromkeys(
        ("rouge1", "rouge2", "rougeL", "rougeL_recall"), 1.0
    )
    assert overlap.bleu(text, said) == overlap.bleu(text, text) > 0.5  # 1 from four words on
    assert overlap.rouge(text, "something else") == dict.fromkeys(overlap.rouge("a", "b"), 0.0)
    for task in ("cloze", "naming"):
        found = scores.scored(LINE | {"task": task, "answer": text, "response": f"So: {said}"})
        assert found["correct"]
    assert texts.same_words(text, f"«{said}»!") and not texts.same_words(text, f"{said} a")
    parts = texts.words(text)
    other = overlap.rouge(text, " ".join(parts[: len(parts) // 2]))
    assert 0.3 < other["rouge1"] < 1 and other["rougeL_recall"] < 1
    chosen = LINE | {"answer": said, "options": ["x", text]}
    assert scores.scored(chosen)["correct"]


@pytest.mark.parametrize(
    ("reference", "response", "same"),
    [
        ("é", "e", False),
        ("résumé", "resume", False),
        ("STRASSE", "straße", True),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ", True),
        ("रहती", "रहत", False),  # a vowel sign is no punctuation
        ("🎉", "🚀", False),
        ("🎉", " 🎉", True),
        ("!", "?", False),
        ("x²", "x2", False),
    ],
)
def test_what_differs_is_not_the_same(reference, response, same):
    assert texts.same_words(reference, response) is same
    assert (
        scores.scored(LINE | {"task": "cloze", "answer": reference, "response": response})["exact"]
        is same
    )


def corpus():
    """English texts of the package, and signs."""
    text = (scores.__doc__ or "") + " ".join(x.__doc__ or "" for x in (facts, digits, judge))
    said = [judge.RUBRIC, *REFUSALS, *text.replace("\u2019", "'").splitlines()]
    return [*said, "".join(map(chr, range(128))), "It's a_b 3.5-4 U.S. 'x' running runs\x1cran\x0b"]


def test_texts_in_ascii_score_as_they_did():
    kinds = ["rouge1", "rouge2", "rougeL"]
    theirs = RougeScorer(kinds, use_stemmer=True)

    lines = [line for line in corpus() if line.isascii()]
    assert len(lines) > 30
    for one, other in zip(lines, [*lines[1:], lines[0]], strict=True):
        for reference, response in ((one, other), (one, one.upper()), (one, one[::2])):
            found = theirs.score(reference, response)
            wanted = {kind: found[kind].fmeasure for kind in kinds}
            wanted["rougeL_recall"] = found["rougeL"].recall
            assert overlap.rouge(reference, response) == wanted
            published = overlap.rouge(reference, response, published=True)
            assert published == wanted
            assert overlap.bleu(reference, response) == overlap.bleu(
                reference, response, published=True
            )
            assert texts.contains(response, reference) == (reference.lower() in response.lower())
        assert texts.words(one) == re.findall(r"\w+", one.lower())
        assert texts.pieces(one) == one.split()


def test_the_published_scorers_stay_for_released():
    text = SENTENCES["German"]
    theirs = RougeScorer(["rouge1"], use_stemmer=True).score(text, "Zo Mller")["rouge1"].fmeasure
    line = LINE | {"task": "generation", "answer": text, "response": "Zo Mller"}
    assert scores.scored(line, published=True)["rouge1"] == round(theirs, 4) > 0
    assert scores.scored(line)["rouge1"] == 0
    assert overlap.rouge(SENTENCES["Chinese"], SENTENCES["Chinese"], published=True)["rouge1"] == 0


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_accented_letter_is_no_letter_of_an_option(form):
    assert parsing.first_letter(unicodedata.normalize(form, "É: ça, B")) == "A"
    assert parsing.offered_letter(unicodedata.normalize(form, "Å, B"), "AB") == "B"
