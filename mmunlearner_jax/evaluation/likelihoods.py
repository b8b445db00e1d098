"""TOFU's statistics of likelihoods, which CLEAR takes over: what is forgotten, and what that cost.

Lines are predictions with `likelihoods`: `{"answer": a, "paraphrase": p, "perturbed": [w, ...]}`,
the mean log-probability per token, in nats, of the true answer, of the same in other words (None
where there is none: the answer stands for it) and of wrong answers, each as the model's answer.

Sources: Maini et al., "TOFU", arXiv 2401.06121, and its `aggregate_eval_stat.py`; CLEAR's
`mm/calculate_metrics.py`.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats
from scipy.spatial.distance import jensenshannon
from scipy.special import logsumexp

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.scores import mean_score, rouge

Line = Mapping[str, Any]
Definition = Literal["paper", "geometric", "released"]


class _Likelihoods(NamedTuple):
    """Nats per token."""

    answer: float
    paraphrase: float
    perturbed: np.ndarray


def _likelihoods(line: Line) -> _Likelihoods:
    found = line.get("likelihoods") or {}
    if "answer" not in found or not found.get("perturbed"):
        raise InputError(
            f"predictions: the line of {line['question']!r} has no likelihoods.answer and"
            " .perturbed; evaluate a data set that has perturbed answers"
        )
    paraphrase = found.get("paraphrase")
    answer = found["answer"]
    wrong = np.asarray(found["perturbed"], np.float64)
    if not np.isfinite([answer, paraphrase or 0.0, *wrong]).all():
        raise InputError(
            f"predictions: {line['split']}, {line['question']!r}: likelihoods are not finite; the"
            " model has diverged: unlearn with a smaller learning rate or fewer steps"
        )
    return _Likelihoods(answer, answer if paraphrase is None else paraphrase, wrong)


def answer_probabilities(lines: Sequence[Line], *, normalised: bool = False) -> np.ndarray:
    """Probability per token of the true answers.

    Args:
        lines: with `likelihoods`.
        normalised: exp(a) / (exp(a) + sum of exp(w)), as for TOFU's real authors and world facts
            and for CLEAR's faces and names; else exp(a), as for what was trained on.

    Returns:
        float64 [lines], in 0 to 1.

    Raises:
        InputError: a line has no likelihoods.
    """
    found = [_likelihoods(line) for line in lines]
    rivals = [logsumexp([x.answer, *x.perturbed]) if normalised else 0.0 for x in found]
    return np.exp([x.answer - rival for x, rival in zip(found, rivals, strict=True)])


def log_truth_ratios(lines: Sequence[Line], definition: Definition = "paper") -> np.ndarray:
    """How probable wrong answers are beside the paraphrased true one; about 0 is ignorance.

    Args:
        lines: with `likelihoods`.
        definition: "paper": R = mean over w of exp(w) / exp(p), TOFU's definition. "geometric":
            R = exp(mean of w - p), what `aggregate_eval_stat.py` computes (it works with 1 / R).
            "released": the same with one mean over the w of all lines, what CLEAR computes; a
            line's own wrong answers then hardly count.

    Returns:
        log R, float64 [lines].

    Raises:
        InputError: a line has no likelihoods.
    """
    found = [_likelihoods(line) for line in lines]
    if definition == "released":
        wrong = np.full(len(found), np.mean(np.concatenate([x.perturbed for x in found])))
    elif definition == "geometric":
        wrong = np.array([np.mean(x.perturbed) for x in found])
    else:
        wrong = np.array([logsumexp(x.perturbed) - np.log(len(x.perturbed)) for x in found])
    return wrong - [x.paraphrase for x in found]


def truth_scores(log_ratios: np.ndarray, *, forget: bool) -> np.ndarray:
    """Truth ratios R as scores in 0 to 1, of which tables report the mean.

    Args:
        log_ratios: log R.
        forget: min(R, 1 / R), high where nothing is known any more; else max(0, 1 - R), high
            where the truth is known.
    """
    return np.exp(-np.abs(log_ratios)) if forget else 1 - np.exp(np.minimum(log_ratios, 0))


def likelihood_scores(
    lines: Sequence[Line],
    *,
    forget: bool,
    normalised: bool = False,
    definition: Definition = "paper",
) -> dict[str, dict[str, Any]]:
    """`{"probability"|"truth_ratio": {"value", "n", "ci95"}}`, with bootstrap intervals.

    Args:
        lines: with `likelihoods`.
        forget: see `truth_scores`.
        normalised: see `answer_probabilities`.
        definition: see `log_truth_ratios`.

    Raises:
        InputError: a line has no likelihoods.
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
    """Whether the unlearned model's truth ratios are those of one that never saw the forget set.

    Args:
        lines: of the unlearned model, on the forget set.
        reference_lines: of the retain-only model; what it was asked beyond `lines` is left out.
        definition: see `log_truth_ratios`.
        bins: of the histogram of log R that both share, equally wide, for Jensen-Shannon.

    Returns:
        `p_value` of the two-sample Kolmogorov-Smirnov test (TOFU's forget quality; 1 / R gives the
        same), its `statistic`, `jensen_shannon`, the distance in 0 to 1 (base 2; CLEAR's tables
        show 1 minus such a figure, whose making is not in its code), and `n` lines of each model.

    Raises:
        InputError: the reference lacks a line, or a line has no likelihoods.
    """
    ours = log_truth_ratios(lines, definition)
    theirs = log_truth_ratios(_matching(lines, reference_lines), definition)
    test: Any = stats.ks_2samp(ours, theirs)
    edges = np.histogram_bin_edges([*ours, *theirs], bins)
    counts = [np.histogram(ratios, edges)[0] for ratios in (ours, theirs)]
    return {
        "p_value": float(test.pvalue),
        "statistic": float(test.statistic),
        "jensen_shannon": float(jensenshannon(*counts, base=2)),
        "n": len(lines),
    }


def _matching(lines: Sequence[Line], reference_lines: Sequence[Line]) -> list[Line]:
    """The reference's line of each line; several photographs may share one wording."""

    def key(line: Line) -> tuple[str, str, str]:
        return line["person"], line["question"], line["answer"]

    left: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
    for line in reference_lines:
        left[key(line)].append(line)
    found = []
    for line in lines:
        if not left[key(line)]:
            raise InputError(
                "predictions of the retain-only model: no line for (person, question, answer) ="
                f" {key(line)}; evaluate it on the same questions"
            )
        found.append(left[key(line)].pop(0))
    return found


def model_utility(
    entries: Mapping[str, Sequence[Line]],
    *,
    normalised: Collection[str] = (),
    definition: Definition = "paper",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """What is left of the model: the harmonic mean of three scores of every non-forget entry.

    The scores: mean probability of the answer, mean ROUGE-L recall of the response, mean of
    max(0, 1 - R). CLEAR's later code adds chrF++, which is left out here.

    Args:
        entries: lines by name, e.g. `retain`, `real_faces`; none of the forget set.
        normalised: names of the entries with normalised probabilities.
        definition: see `log_truth_ratios`; "released" also takes the published ROUGE.
        resamples: of the bootstrap, which draws lines within every entry.
        seed: of the bootstrap.

    Returns:
        `value` in 0 to 1, `n` (lines of all entries), `ci95` (percentiles), and `entries`:
        `{name: {"probability"|"rougeL_recall"|"truth_ratio": {"value", "n", "ci95"}}}`.

    Raises:
        InputError: an entry is empty, or a line has no likelihoods.
    """
    rng, published = np.random.default_rng(seed), definition == "released"
    names = ("probability", "rougeL_recall", "truth_ratio")
    found, means, drawn = {}, [], []
    for name, lines in entries.items():
        if not lines:
            raise InputError(f"model utility: no predictions of {name!r}; evaluate that split")
        said = [(line["answer"], line["response"]) for line in lines]
        recalls = [rouge(*pair, published=published)["rougeL_recall"] for pair in said]
        truths = truth_scores(log_truth_ratios(lines, definition), forget=False)
        probabilities = answer_probabilities(lines, normalised=name in normalised)
        table = np.stack([probabilities, recalls, truths], axis=1)
        columns = zip(names, table.T, strict=True)
        found[name] = {score: mean_score(values.tolist()) for score, values in columns}
        means.append(table.mean(axis=0))
        rows = (rng.integers(len(lines), size=len(lines)) for _ in range(resamples))
        drawn.append([table[chosen].mean(axis=0) for chosen in rows])
    low, high = np.percentile(stats.hmean(np.concatenate(drawn, axis=1), axis=1), [2.5, 97.5])
    return {
        "value": float(stats.hmean(np.concatenate(means))),
        "n": sum(map(len, entries.values())),
        "ci95": [float(low), float(high)],
        "entries": found,
    }
