"""What the kinds of scored questions are about, as `results.json` says it to later readers."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmunlearner_jax.data.benchmarks import BENCHMARKS
from mmunlearner_jax.data.benchmarks.base import Kind, ScoredKind

FORGET: Kind = ("forget", "vqa")  # what every method is to forget

Kinds = Mapping[Kind, ScoredKind]


def entry(kinds: Kinds) -> dict[str, Any]:
    """What the stages write to `results.json` as `kinds`: `{"forget/vqa": {"label": ...}}`."""
    return {"/".join(kind): scored._asdict() for kind, scored in kinds.items()}


def read_kinds(results: Mapping[str, Any]) -> dict[Kind, ScoredKind]:
    """The kinds of questions of a run's benchmark, in the order of tables.

    Args:
        results: what `results.json` holds. That of earlier versions says nothing of kinds: then
            those of all benchmarks' records serve.

    Raises:
        TypeError, ValueError: the entry is damaged.
    """
    written = results.get("kinds")
    if written is None:
        return {k: v for record in BENCHMARKS.values() for k, v in record.kinds.items()}
    return {_kind(name): ScoredKind(**fields) for name, fields in written.items()}


def with_unknown(kinds: Kinds, scored: Iterable[Kind]) -> dict[Kind, ScoredKind]:
    """Known kinds, then those of some scored ones that are not known, under their own names."""
    unknown = {kind: ScoredKind(_own_name(kind)) for kind in scored if kind not in kinds}
    return {**kinds, **unknown}


def kinds_of(scores: Mapping[str, Any]) -> list[Kind]:
    """The kinds of questions that scores are about: `{split: {modality: ...}}`."""
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
    return f"{split.replace('_', ' ').capitalize()}, {_MODALITIES.get(modality, modality)}"


_MODALITIES = {"vqa": "pictures", "qa": "in words"}
