"""What `results.json` says of likelihoods, against the formulas."""

import numpy as np
import pytest
from scipy import stats

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.likelihoods import model_utility
from mmunlearner_jax.evaluation.scores import scored
from mmunlearner_jax.evaluation.summary import quality, summary, utility

RNG = np.random.default_rng(0)


def line(split, task, person, weighed=True):
    made = dict(split=split, modality="vqa", task=task, person=person, question="Who?")
    made |= dict(answer="Ana Bo", response="It is Ana Bo", options=[], scores=[])
    if weighed:
        answer, paraphrase, *wrong = (-RNG.random(5)).tolist()
        paraphrase = None if task == "naming" else paraphrase
        made["likelihoods"] = dict(answer=answer, paraphrase=paraphrase, perturbed=wrong)
    return scored(made)


@pytest.fixture
def lines():
    return [
        line(split, task, str(person))
        for split, task in (
            ("forget", "naming"),
            ("forget", "generation"),
            ("retain", "naming"),
            ("retain", "generation"),
            ("real_faces", "naming"),
        )
        for person in range(6)
    ] + [line("forget", "generation", "", weighed=False)]


def found(lines, split, task):
    chosen = [x for x in lines if (x["split"], x["task"]) == (split, task) and "likelihoods" in x]
    return [x["likelihoods"] for x in chosen]


def test_clear_probabilities_and_truth_ratios_by_hand(lines):
    scores = summary(lines)
    captions, names = found(lines, "forget", "generation"), found(lines, "forget", "naming")
    cell = scores["forget"]["vqa"]
    assert cell["probability"]["value"] == pytest.approx(
        np.mean([np.exp(x["answer"]) for x in captions])
    )
    share = [
        np.exp(x["answer"]) / (np.exp(x["answer"]) + np.exp(x["perturbed"]).sum()) for x in names
    ]
    assert cell["naming_probability"]["value"] == pytest.approx(np.mean(share))
    ratios = [np.exp(x["perturbed"]).mean() / np.exp(x["paraphrase"]) for x in captions]
    assert cell["truth_ratio"]["value"] == pytest.approx(np.mean([min(r, 1 / r) for r in ratios]))
    kept = [
        np.exp(x["perturbed"]).mean() / np.exp(x["answer"])  # a name has no paraphrase
        for x in found(lines, "retain", "naming")
    ]
    assert scores["retain"]["vqa"]["naming_truth_ratio"]["value"] == pytest.approx(
        np.mean([max(0, 1 - r) for r in kept])
    )
    assert cell["probability"]["n"] == 6 and cell["rougeL"]["n"] == 7
    assert cell["naming"]["value"] == 1 and "naming_rougeL" not in cell


def test_clear_released_truth_ratio_takes_one_mean_for_all(lines):
    captions = found(lines, "forget", "generation")
    wrong = np.mean([x["perturbed"] for x in captions])
    ratios = [np.exp(wrong - x["paraphrase"]) for x in captions]
    value = summary(lines, "released")["forget"]["vqa"]["truth_ratio"]["value"]
    assert value == pytest.approx(np.mean([min(r, 1 / r) for r in ratios]))


def test_clear_utility_is_of_all_but_the_forget_set(lines):
    entries = {
        "retain naming": [x for x in lines if (x["split"], x["task"]) == ("retain", "naming")],
        "retain generation": [
            x for x in lines if (x["split"], x["task"]) == ("retain", "generation")
        ],
        "real_faces naming": [x for x in lines if x["split"] == "real_faces"],
    }
    wanted = model_utility(entries, normalised=["retain naming", "real_faces naming"])
    assert utility(lines) == wanted
    parts = [score["value"] for entry in wanted["entries"].values() for score in entry.values()]
    assert wanted["value"] == pytest.approx(len(parts) / sum(1 / x for x in parts))
    assert utility([line("retain", "generation", "1", weighed=False)]) is None


def test_clear_forget_quality_is_by_task(lines):
    other = [line("forget", task, str(n)) for task in ("naming", "generation") for n in range(6)]
    result = quality(lines, other)
    assert set(result) == {"naming", "generation"}

    def ratios(of):
        return [
            np.exp(x["perturbed"]).mean() / np.exp(x["paraphrase"])
            for x in found(of, "forget", "generation")
        ]

    test = stats.ks_2samp(ratios(lines), ratios(other))
    assert result["generation"]["p_value"] == pytest.approx(test.pvalue)
    with pytest.raises(InputError, match="retain-only model: no line for"):
        quality(lines, other[:6])
