"""Requests that come one after the other: people to forget in place of a benchmark's own split.

The last request is to be forgotten now; those before it were forgotten earlier, and are asked about
again. Everybody else is kept.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TypeVar

from mmunlearner_jax.data.benchmarks.base import Benchmark, Check, Kind, Questions, ScoredKind
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.errors import InputError, listed, shown

About = TypeVar("About", Sample, Question)


def request_split(number: int, split: str = "forget") -> str:
    """Returns the name of a split of an earlier request: "request_1", "request_1_test".

    Args:
        number: Number of the request, from 1.
        split: The benchmark's split of the same questions about the people to forget.
    """
    return f"request_{number}" if split == "forget" else f"request_{number}_{split}"


class Requested:
    """A benchmark with other people to forget; implements `Benchmark`.

    Args:
        bench: The benchmark, whose record is `by_person`.
        requests: IDs of the people of each request; the last one is forgotten now.
    """

    def __init__(self, bench: Benchmark, requests: Sequence[Sequence[str]]):
        self._bench, self._requests = bench, [tuple(map(str, people)) for people in requests]
        self.check: Check = bench.check
        bench.check = lambda size: self.check(size)  # it is set later: once a model is known
        self.taught, self.everyone, self.seed = bench.taught, bench.everyone, bench.seed
        kinds: dict[Kind, ScoredKind] = dict(bench.record.kinds)
        forgotten = {split for (split, _), kind in bench.record.kinds.items() if kind.falls}
        for number in range(1, len(requests)):
            for (split, modality), kind in bench.record.kinds.items():
                if split in forgotten:
                    label = f"Request {number}: {kind.label[:1].lower()}{kind.label[1:]}"
                    earlier = ScoredKind(label, falls=kind.falls, earlier=True)
                    kinds[request_split(number, split), modality] = earlier
        self.record = dataclasses.replace(bench.record, kinds=kinds, with_shots=None)
        self._people: dict[str, list[str]] = {}  # of the splits that requests make
        self._halves = "", ""  # the benchmark's own splits, which are everybody together

    def split(self, ratio: int) -> tuple[str, str]:
        """Returns the names of what is to be forgotten now, and of what is to be kept.

        Args:
            ratio: A ratio that the benchmark has; its two splits together are everybody.

        Raises:
            InputError: As the benchmark's; or a person is unknown, or in two requests; or nobody is
                kept.
        """
        self._halves = self._bench.split(ratio)
        halves = [self._bench.people(half) for half in self._halves]
        left = dict.fromkeys(person for half in halves for person in half)
        for number, people in enumerate(self._requests, 1):
            for person in people:
                if person not in left:
                    raise InputError(
                        f"config.data.requests: request {number}: {shown(person)} is in an earlier"
                        f" request or unknown; give each once, of {listed(left)}"
                    )
                del left[person]
        if not left:
            raise InputError("config.data.requests: nobody is kept; leave somebody out")
        names = [request_split(number) for number in range(1, len(self._requests) + 1)]
        kept = f"kept_{len(names)}"
        self._people = dict(zip(names, map(list, self._requests), strict=True)) | {kept: [*left]}
        return names[-1], kept

    def people(self, config: str) -> list[str]:
        """See `Benchmark.people`."""
        return self._people[config] if config in self._people else self._bench.people(config)

    def names(self) -> dict[str, str]:
        """See `Benchmark.names`."""
        return self._bench.names()

    def training(self, config: str) -> list[Sample]:
        """See `Benchmark.training`."""
        if config not in self._people:
            return self._bench.training(config)
        return self._about(config, [x for half in self._halves for x in self._bench.training(half)])

    def text_training(self, config: str) -> list[Sample]:
        """See `Benchmark.text_training`."""
        if config not in self._people:
            return self._bench.text_training(config)
        samples = [x for half in self._halves for x in self._bench.text_training(half)]
        return self._about(config, samples)

    def scored(
        self, forget: str, retain: str, *, photos_per_person: int | None = None
    ) -> Questions:
        """See `Benchmark.scored`; the splits of earlier requests come last.

        The benchmark is read with its halves in both orders, so that everybody is asked what it
        asks about people to forget, and what it asks about people to keep.
        """
        first, second = self._halves
        read = [
            self._bench.scored(*pair, photos_per_person=photos_per_person)
            for pair in ((first, second), (second, first))
        ]
        halves = [{*self._bench.people(half)} for half in self._halves]
        scored: Questions = {}
        earlier: Questions = {}
        for split, questions in read[0].items():
            asked = {question.person for question in questions}
            everybody = [*questions, *read[1][split]]
            if asked <= halves[0]:
                scored[split] = self._about(forget, everybody)
                for number in range(1, len(self._requests)):
                    again = self._about(request_split(number), everybody)
                    earlier[request_split(number, split)] = again
            elif asked <= halves[1]:
                scored[split] = self._about(retain, everybody)
            else:  # about other people, or about nobody
                scored[split] = questions
        return scored | earlier

    def _about(self, config: str, things: Iterable[About]) -> list[About]:
        people = {*self._people[config]}
        return [thing for thing in things if thing.person in people]
