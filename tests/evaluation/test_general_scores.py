"""F1 against scikit-learn; categories, changes and intervals by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.general_scores import general_changes, general_scores
from mmunlearner_jax.evaluation.scores import scored, summarise

RATES = {"value", "n", "ci95"}


def lines(answers, responses, split="general_pope", rule="yes_no", **fields):
    return [
        scored(
            {
                "split": split,
                "person": str(n // 3),
                "image": f"{n // 3}",
                "modality": "vqa",
                "task": "short",
                "question": f"Question {n}?",
                "answer": answer,
                "accepted": [answer],
                "options": [],
                "letters": "",
                "response": response,
                "rule": rule,
                "categories": ["random"] if n % 2 else ["popular", "adversarial"],
                "group": "",
                **fields,
            }
        )
        for n, (answer, response) in enumerate(zip(answers, responses, strict=True))
    ]


def test_f1_precision_and_recall_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    answers = rng.choice(["Yes", "No"], 90)
    responses = rng.choice(["yes", "No.", "Yes it is", "who knows"], 90)
    wanted = [answer == "Yes" for answer in answers]
    said = [response.lower().startswith("yes") for response in responses]
    found = general_scores(lines(answers, responses))["pope"]
    assert found["f1"]["value"] == pytest.approx(f1_score(wanted, said))
    assert found["precision"]["value"] == pytest.approx(precision_score(wanted, said))
    assert found["recall"]["value"] == pytest.approx(recall_score(wanted, said))
    assert found["yes"] == pytest.approx(np.mean(said))
    assert found["unread"] == pytest.approx(np.mean(responses == "who knows"))
    for measure in ("score", "f1"):
        low, high = found[measure]["ci95"]
        assert low < found[measure]["value"] < high and found[measure]["n"] == 90


def test_categories_are_scored_apart():
    found = general_scores(lines(["Yes", "No", "Yes", "No"], ["yes", "yes", "no", "no"]))["pope"]
    assert found["score"]["value"] == 0.5 and list(found["categories"]) == [
        *("adversarial", "popular", "random")
    ]
    # questions 0 and 2: one of two is found, nothing is said wrongly; F1 = 2/3
    popular = found["categories"]["popular"]
    assert popular["score"]["value"] == 0.5 and popular["score"].keys() == RATES
    assert popular["f1"]["value"] == pytest.approx(2 / 3)
    # questions 1 and 3: one false yes
    assert found["categories"]["random"]["precision"]["value"] == 0


def test_a_model_that_never_says_yes_has_no_precision():
    found = general_scores(lines(["Yes", "No"], ["no", "no"]))["pope"]
    assert found["f1"] == {"value": 0.0, "n": 2, "ci95": [0.0, 0.0]}


def test_intervals_resample_pictures():
    """Questions about a picture are all right or all wrong: there are 20 observations, not 60."""
    answers = ["Yes"] * 60
    together = ["yes" if n // 3 % 2 else "no" for n in range(60)]
    apart = ["yes" if n % 2 else "no" for n in range(60)]
    wide, narrow = (general_scores(lines(answers, x))["pope"]["score"] for x in (together, apart))
    assert wide["value"] == narrow["value"] == 0.5
    low, high = wide["ci95"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 20), rel=0.1)
    assert narrow["ci95"][1] - narrow["ci95"][0] < 0.5 * (high - low)


def test_changes_are_paired_by_question():
    answers = ["Yes", "No", "Yes", "No", "Yes", "No"]
    before = lines(answers, ["yes", "no", "yes", "no", "no", "yes"])
    after = lines(answers, ["no", "no", "no", "no", "yes", "yes"])
    change = general_changes(before, after)["pope"]
    assert change["value"] == pytest.approx(-1 / 6) and change["n"] == 6
    assert (change["lost"], change["gained"]) == (2, 1)
    assert change["ci95"][0] <= change["value"] <= change["ci95"][1]
    with pytest.raises(InputError, match="general_pope: the models before and after were asked"):
        general_changes(before[1:], after)


def test_answers_may_be_right_in_part():
    made = lines(["cup"], ["cup"], "general_vizwiz", "vqa", accepted=["cup", "cup", "mug", "pot"])
    found = general_scores(made)["vizwiz"]
    credit = (2 * 1 / 3 + 2 * 2 / 3) / 4
    assert found["score"]["value"] == pytest.approx(credit, abs=1e-6) and "f1" not in found
    summary = summarise(made)["general_vizwiz"]["vqa"]
    assert summary["vqa_score"]["value"] == pytest.approx(credit, abs=1e-6)
    assert summary["short"]["value"] == 0


def test_rotations_count_once():
    fields = {"options": ["red", "green"], "letters": "A", "group": "7"}
    made = lines(["red", "red"], ["A", "B"], "general_mmbench_circular", "letter", **fields)
    assert summarise(made)["general_mmbench_circular"]["vqa"]["short"]["n"] == 1
    assert general_scores(made)["mmbench_circular"]["score"] == {
        **{"value": 0.0, "n": 1, "ci95": [0.0, 0.0]}
    }


def test_other_splits_do_not_count():
    assert general_scores([{"split": "forget", "group": ""}]) == {}
