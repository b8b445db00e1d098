"""The entry `kinds` of `results.json`: the kinds of scored questions."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.abilities import ability_kinds
from mmunlearner_jax.data.benchmarks import BENCHMARKS
from mmunlearner_jax.data.benchmarks.base import BenchmarkRecord, Kind, ScoredKind

FORGET: Kind = ("forget", "vqa")  # the kind that every method should forget
OPEN = "-open"  # ends the modality of open answers that have accepted ones, "test/qa-open"

Kinds = Mapping[Kind, ScoredKind]


def all_kinds(record: BenchmarkRecord, config: Config) -> dict[Kind, ScoredKind]:
    """Returns the kinds of questions that a run scores, and what it should do to their score.

    Args:
        record: Record of the benchmark.
        config: Config of the run. With `data.forget_words`, what is asked in words about the people
            to forget should fall, too; `evaluate.general` adds sets of general ability.
    """
    falling = {split for (split, _), about in record.kinds.items() if about.falls}
    words = config.data.forget_words
    of_benchmark = {
        kind: about._replace(falls=about.falls or words and kind[0] in falling)
        for kind, about in record.kinds.items()
    }
    return of_benchmark | ability_kinds(config.evaluate.general)


def entry(kinds: Kinds) -> dict[str, Any]:
    """Returns the entry `kinds` of `results.json`: `{"forget/vqa": {"label": ...}}`."""
    return {"/".join(kind): scored._asdict() for kind, scored in kinds.items()}


def read_kinds(results: Mapping[str, Any]) -> dict[Kind, ScoredKind]:
    """Returns the kinds of questions of a run's benchmark, in the order of tables.

    Args:
        results: Content of `results.json`. Earlier versions did not write the entry; without it,
            the kinds of all benchmarks are returned.

    Raises:
        TypeError, ValueError: The entry is damaged.
    """
    written = results.get("kinds")
    if written is None:
        # Of a kind that several benchmarks have, the first one's.
        records = [*BENCHMARKS.values()]
        order = [kind for record in records for kind in record.kinds]
        of_all = {k: v for record in reversed(records) for k, v in record.kinds.items()}
        return {kind: of_all[kind] for kind in order}
    return {_kind(name): ScoredKind(**fields) for name, fields in written.items()}


def with_unknown(kinds: Kinds, scored: Iterable[Kind]) -> dict[Kind, ScoredKind]:
    """Returns the known kinds, then unknown scored kinds, which are labelled by their names.

    Open answers of a known kind stand behind it, and are to fall or to stay as its multiple choice.
    """
    scored = dict.fromkeys(scored)
    ordered = {}
    for kind, about in kinds.items():
        ordered[kind] = about
        opened = kind[0], kind[1] + OPEN
        if opened in scored:
            ordered[opened] = about._replace(
                label=f"{about.label}, open answers", chosen_by=False, headline=False
            )
    unknown = {kind: ScoredKind(_own_name(kind)) for kind in scored if kind not in ordered}
    return {**ordered, **unknown}


def kinds_of(scores: Mapping[str, Any]) -> list[Kind]:
    """Returns the kinds of questions in scores of the form `{split: {modality: ...}}`."""
    return [
        (split, modality)
        for split, by_modality in scores.items()
        for modality in by_modality
        if modality in ("vqa", "qa")
    ]


def _kind(name: str) -> Kind:
    split, modality = name.split("/")
    return split, modality


def _own_name(kind: Kind) -> str:
    split, modality = kind
    base = modality.removesuffix(OPEN)
    label = f"{split.replace('_', ' ').capitalize()}, {_MODALITIES.get(base, base)}"
    return label if base == modality else f"{label}, open answers"


_MODALITIES = {"vqa": "pictures", "qa": "in words"}
