"""TOFU's statistics of likelihoods, which CLEAR uses, too: forget quality and model utility.

Lines are predictions with `likelihoods`: `{"answer": a, "paraphrase": p, "perturbed": [w, ...]}`.
These are mean log-probabilities per token, in nats, of the true answer, of its paraphrase (None if
there is none; the answer replaces it) and of wrong answers, each as the model's whole answer.

Sources: Maini et al., "TOFU", arXiv 2401.06121, and its `aggregate_eval_stat.py`; CLEAR's
`mm/calculate_metrics.py`.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.scores import mean_score

Line = Mapping[str, Any]
Definition = Literal["paper", "geometric", "released"]


class _Likelihoods(NamedTuple):
    """Likelihoods of a line, in nats per token."""

    answer: float
    paraphrase: float
    perturbed: np.ndarray


def _likelihoods(line: Line) -> _Likelihoods:
    values = line.get("likelihoods") or {}
    if "answer" not in values or not values.get("perturbed"):
        raise InputError(
            f"predictions: the line of {line['question']!r} has no likelihoods.answer or no"
            " likelihoods.perturbed; evaluate a data set that has perturbed answers"
        )
    paraphrase = values.get("paraphrase")
    answer = values["answer"]
    wrong = np.asarray(values["perturbed"], np.float64)
    if not np.isfinite([answer, paraphrase or 0.0, *wrong]).all():
        raise InputError(
            f"predictions: {line['split']}, {line['question']!r}: likelihoods are not finite; the"
            " model has diverged: unlearn with a smaller learning rate or fewer steps"
        )
    return _Likelihoods(answer, answer if paraphrase is None else paraphrase, wrong)


def answer_probabilities(lines: Sequence[Line], *, normalised: bool = False) -> np.ndarray:
    """Returns the probabilities per token of the true answers.

    Args:
        lines: Predictions with `likelihoods`.
        normalised: True: exp(a) / (exp(a) + sum of exp(w)), as for TOFU's real authors and world
            facts and for CLEAR's faces and names. False: exp(a), as for answers that were taught.

    Returns:
        Probabilities from 0 to 1, float64 [lines].

    Raises:
        InputError: A line has no likelihoods.
    """
    values = [_likelihoods(line) for line in lines]
    totals = [
        scipy.special.logsumexp([x.answer, *x.perturbed]) if normalised else 0.0 for x in values
    ]
    return np.exp([x.answer - total for x, total in zip(values, totals, strict=True)])


def log_truth_ratios(lines: Sequence[Line], definition: Definition = "paper") -> np.ndarray:
    """Returns log R, the truth ratios of wrong answers to the paraphrase; ignorance gives about 0.

    Args:
        lines: Predictions with `likelihoods`.
        definition: "paper": R = mean over w of exp(w) / exp(p), TOFU's definition. "geometric":
            R = exp(mean of w - p), which `aggregate_eval_stat.py` computes (it works with 1 / R).
            "released": the same with one mean over the w of all lines, which CLEAR computes; a
            line's own wrong answers then hardly count.

    Returns:
        log R, float64 [lines].

    Raises:
        InputError: A line has no likelihoods.
    """
    values = [_likelihoods(line) for line in lines]
    if definition == "released":
        wrong = np.full(len(values), np.mean(np.concatenate([x.perturbed for x in values])))
    elif definition == "geometric":
        wrong = np.array([np.mean(x.perturbed) for x in values])
    else:
        wrong = np.array(
            [scipy.special.logsumexp(x.perturbed) - np.log(len(x.perturbed)) for x in values]
        )
    return wrong - [x.paraphrase for x in values]


def truth_scores(log_ratios: np.ndarray, *, forget: bool) -> np.ndarray:
    """Returns truth ratios R as scores from 0 to 1, whose mean tables report.

    Args:
        log_ratios: log R, float [lines].
        forget: True: min(R, 1 / R), which is high if the truth is forgotten. False:
            max(0, 1 - R), which is high if the truth is known.
    """
    return np.exp(-np.abs(log_ratios)) if forget else 1 - np.exp(np.minimum(log_ratios, 0))


def likelihood_scores(
    lines: Sequence[Line],
    *,
    forget: bool,
    normalised: bool = False,
    definition: Definition = "paper",
) -> dict[str, dict[str, Any]]:
    """Returns `{"probability"|"truth_ratio": {"value", "n", "ci95"}}`, with bootstrap intervals.

    Args:
        lines: Predictions with `likelihoods`.
        forget: See `truth_scores`.
        normalised: See `answer_probabilities`.
        definition: See `log_truth_ratios`.

    Raises:
        InputError: A line has no likelihoods.
    """
    probabilities = answer_probabilities(lines, normalised=normalised)
    scores = truth_scores(log_truth_ratios(lines, definition), forget=forget)
    return {
        "probability": mean_score(probabilities.tolist()),
        "truth_ratio": mean_score(scores.tolist()),
    }


def forget_quality(
    lines: Sequence[Line],
    reference_lines: Sequence[Line],
    *,
    definition: Definition = "paper",
    bins: int = 20,
) -> dict[str, Any]:
    """Compares the truth ratios of the unlearned model with those of a retain-only model.

    Args:
        lines: Predictions of the unlearned model on the forget set.
        reference_lines: Predictions of the retain-only model; further questions are ignored.
        definition: See `log_truth_ratios`.
        bins: Number of equally wide bins of both histograms of log R, for `jensen_shannon`.

    Returns:
        `p_value` of the two-sample Kolmogorov-Smirnov test (TOFU's forget quality; 1 / R gives the
        same value), its `statistic`, `jensen_shannon`, and `n`, the number of lines of each model.
        `jensen_shannon` is the distance from 0 to 1 (base 2). CLEAR's tables show 1 minus such a
        figure, which its code does not compute.

    Raises:
        InputError: The reference lacks a line, or a line has no likelihoods.
    """
    ours = log_truth_ratios(lines, definition)
    theirs = log_truth_ratios(_matching(lines, reference_lines), definition)
    test: Any = scipy.stats.ks_2samp(ours, theirs)
    edges = np.histogram_bin_edges([*ours, *theirs], bins)
    counts = [np.histogram(ratios, edges)[0] for ratios in (ours, theirs)]
    return {
        "p_value": float(test.pvalue),
        "statistic": float(test.statistic),
        "jensen_shannon": float(scipy.spatial.distance.jensenshannon(*counts, base=2)),
        "n": len(lines),
    }


def _matching(lines: Sequence[Line], reference_lines: Sequence[Line]) -> list[Line]:
    """Returns the reference's line for each line; several photographs may share one wording."""

    def key(line: Line) -> tuple[str, str, str]:
        return line["person"], line["question"], line["answer"]

    left: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
    for line in reference_lines:
        left[key(line)].append(line)
    matches = []
    for line in lines:
        if not left[key(line)]:
            raise InputError(
                "predictions of the retain-only model: no line for (person, question, answer) ="
                f" {key(line)}; evaluate it on the same questions"
            )
        matches.append(left[key(line)].pop(0))
    return matches


def model_utility(
    entries: Mapping[str, Sequence[Line]],
    *,
    normalised: Collection[str] = (),
    definition: Definition = "paper",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns model utility: the harmonic mean of three scores of every entry.

    The scores are the mean probability of the answer, the mean ROUGE-L recall of the response, and
    the mean of max(0, 1 - R). CLEAR's later code adds chrF++, which is left out here.

    Args:
        entries: Predictions by name, e.g. `retain`, `real_faces`; none on the forget set.
        normalised: Names of the entries with normalised probabilities.
        definition: See `log_truth_ratios`; "released" also uses the published ROUGE.
        resamples: Number of bootstrap resamples, drawn within every entry.
        seed: Seed of the bootstrap.

    Returns:
        `value` from 0 to 1, `n` (lines of all entries), `ci95` (percentiles), and `entries`:
        `{name: {"probability"|"rougeL_recall"|"truth_ratio": {"value", "n", "ci95"}}}`.

    Raises:
        InputError: An entry is empty, or a line has no likelihoods.
    """
    from mmunlearner_jax.evaluation.overlap import rouge  # takes two seconds

    rng, published = np.random.default_rng(seed), definition == "released"
    names = ("probability", "rougeL_recall", "truth_ratio")
    scores, means, drawn = {}, [], []
    for name, lines in entries.items():
        if not lines:
            raise InputError(f"model utility: no predictions of {name!r}; evaluate that split")
        pairs = [(line["answer"], line["response"]) for line in lines]
        recalls = [rouge(*pair, published=published)["rougeL_recall"] for pair in pairs]
        truths = truth_scores(log_truth_ratios(lines, definition), forget=False)
        probabilities = answer_probabilities(lines, normalised=name in normalised)
        table = np.stack([probabilities, recalls, truths], axis=1)
        columns = zip(names, table.T, strict=True)
        scores[name] = {score: mean_score(values.tolist()) for score, values in columns}
        means.append(table.mean(axis=0))
        rows = (rng.integers(len(lines), size=len(lines)) for _ in range(resamples))
        drawn.append([table[chosen].mean(axis=0) for chosen in rows])
    low, high = np.percentile(scipy.stats.hmean(np.concatenate(drawn, axis=1), axis=1), [2.5, 97.5])
    return {
        "value": float(scipy.stats.hmean(np.concatenate(means))),
        "n": sum(map(len, entries.values())),
        "ci95": [float(low), float(high)],
        "entries": scores,
    }
