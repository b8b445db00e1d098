"""TOFU's statistics by hand, and against scipy called directly."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.likelihoods import (
    answer_probabilities,
    forget_quality,
    likelihood_scores,
    log_truth_ratios,
    model_utility,
    truth_scores,
)
from mmunlearner_jax.evaluation.scores import mean_score


def truth_ratios(*given):
    return np.exp(log_truth_ratios(*given))


def line(answer, perturbed, paraphrase=None, question="Who?", response="x", **more):
    """A line from probabilities per token."""
    likelihoods = {
        "answer": float(np.log(answer)),
        "paraphrase": None if paraphrase is None else float(np.log(paraphrase)),
        "perturbed": np.log(perturbed).tolist(),
    }
    named = dict(person="s1", question=question, answer="x", response=response)
    return named | dict(likelihoods=likelihoods) | more


TWO = [line(0.5, [0.1, 0.4], paraphrase=0.25), line(0.8, [0.2, 0.8])]


def random_lines(seed, n=50, shift=0.0):
    rng = np.random.default_rng(seed)
    return [
        line(0.3, np.exp(rng.normal(-2 + shift, 1, 3)), np.exp(rng.normal(-1, 1)), f"Who is {i}?")
        for i in range(n)
    ]


def test_clear_probability_raw_and_among_the_wrong_answers():
    np.testing.assert_allclose(answer_probabilities(TWO), [0.5, 0.8])
    np.testing.assert_allclose(answer_probabilities(TWO, normalised=True), [0.5, 0.8 / 1.8])


def test_clear_truth_ratio_by_hand():
    # The second line has no paraphrase: its answer stands for it.
    np.testing.assert_allclose(truth_ratios(TWO), [0.25 / 0.25, 0.5 / 0.8])
    np.testing.assert_allclose(truth_ratios(TWO, "geometric"), [0.2 / 0.25, 0.4 / 0.8])
    every = (0.1 * 0.4 * 0.2 * 0.8) ** 0.25
    np.testing.assert_allclose(truth_ratios(TWO, "released"), [every / 0.25, every / 0.8])


def test_clear_truth_ratio_of_one_wrong_answer_is_the_same_by_both_means():
    lines = [line(0.5, [0.1]), line(0.2, [0.3], paraphrase=0.6)]
    np.testing.assert_allclose(truth_ratios(lines), truth_ratios(lines, "geometric"))


def test_clear_truth_scores_by_hand():
    ratios = np.array([0.25, 1.0, 4.0])
    assert truth_scores(np.log(ratios), forget=True).tolist() == [0.25, 1, 0.25]
    assert truth_scores(np.log(ratios), forget=False).tolist() == [0.75, 0, 0]


def test_clear_likelihood_scores_have_bootstrap_intervals():
    lines = random_lines(0)
    found = likelihood_scores(lines, forget=True, normalised=True, definition="geometric")
    scores = truth_scores(log_truth_ratios(lines, "geometric"), forget=True)
    assert found == {
        "probability": mean_score(answer_probabilities(lines, normalised=True).tolist()),
        "truth_ratio": mean_score(scores.tolist()),
    }


@pytest.mark.parametrize("definition", ["paper", "geometric", "released"])
def test_clear_forget_quality_is_what_scipy_says(definition):
    lines, reference = random_lines(0), random_lines(1, shift=1.0)
    found = forget_quality(lines, reference[::-1], definition=definition, bins=8)
    ours, theirs = truth_ratios(lines, definition), truth_ratios(reference, definition)
    test = stats.ks_2samp(1 / ours, 1 / theirs)  # the other direction tells the same
    assert (found["p_value"], found["statistic"]) == (test.pvalue, test.statistic)
    both = np.log([*ours, *theirs])
    edges = np.linspace(both.min(), both.max(), 9)
    counts = [np.histogram(np.log(ratios), edges)[0] for ratios in (ours, theirs)]
    assert found["jensen_shannon"] == pytest.approx(jensenshannon(*counts, base=2))
    assert found["n"] == 50


def test_clear_forget_quality_at_its_ends():
    lines = random_lines(0)
    same = forget_quality(lines, lines)
    assert same == {"p_value": 1, "statistic": 0, "jensen_shannon": 0, "n": 50}
    apart = forget_quality(lines, random_lines(1, shift=99.0))
    assert apart["p_value"] < 1e-9 and (apart["statistic"], apart["jensen_shannon"]) == (1, 1)


def test_clear_forget_quality_wants_the_same_questions():
    lines = [line(0.5, [0.1]), line(0.5, [0.2]), line(0.5, [0.3], question="Where?")]
    more = [line(0.5, [0.9], person="s2")]
    assert forget_quality(lines, more + lines[::-1])["p_value"] == 1
    with pytest.raises(InputError, match=r"retain-only .* \('s1', 'Who\?', 'x'\); evaluate"):
        forget_quality(lines, lines[1:] + more)  # two photographs, one line


def test_clear_model_utility_is_the_harmonic_mean():
    entries = {
        "retain": [line(0.5, [0.1]), line(0.7, [0.07], response="no")],
        "real_faces": [line(0.6, [0.3], response="x y"), line(0.6, [0.3])],
    }
    found = model_utility(entries, normalised={"real_faces"})
    wanted = [0.6, 0.5, (0.8 + 0.9) / 2, 0.6 / 0.9, 1.0, 0.5]
    assert found["value"] == pytest.approx(6 / sum(1 / x for x in wanted))
    scores = found["entries"]
    assert [s["value"] for e in scores.values() for s in e.values()] == pytest.approx(wanted)
    assert scores["retain"]["rougeL_recall"] == mean_score([1.0, 0.0])
    assert found["n"] == 4
    assert found["ci95"][0] <= found["value"] <= found["ci95"][1]
    assert model_utility(entries, normalised={"real_faces"}) == found


def test_clear_model_utility_is_zero_where_one_score_is():
    found = model_utility({"retain": [line(0.5, [0.9]), line(0.5, [0.7])]})
    assert (found["value"], found["ci95"]) == (0, [0, 0])


def test_lines_without_likelihoods_are_named():
    bare = {"person": "s1", "question": "Who?", "answer": "x", "response": "x"}
    for lacking in (bare, bare | {"likelihoods": {"answer": -1.0, "perturbed": []}}):
        with pytest.raises(InputError, match="line of 'Who.' has no likelihoods.answer"):
            truth_ratios([lacking])
    with pytest.raises(InputError, match="no predictions of 'retain'"):
        model_utility({"retain": []})


def test_clear_extreme_likelihoods_are_ratios_and_what_is_not_finite_is_named():
    never = line(0.5, [0.1])
    never["likelihoods"]["answer"] = -2000.0  # exp of it is 0
    assert np.isfinite(log_truth_ratios([never])).all()
    assert truth_scores(log_truth_ratios([never]), forget=True).tolist() == [0]
    assert forget_quality([never] * 3, [never] * 3)["p_value"] == 1
    lost = line(0.5, [0.1], split="forget")
    lost["likelihoods"]["perturbed"] = [float("nan")]
    with pytest.raises(InputError, match="forget, 'Who.': likelihoods are not finite; the model"):
        log_truth_ratios([lost])
