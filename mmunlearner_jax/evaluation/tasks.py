"""A model's answers to the scored questions, and the likelihoods of other answers.

Axes: B questions of a batch, N decoded tokens, K candidates, S tokens of a candidate.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.features import Features
from mmunlearner_jax.data.samples import Question, option_letters
from mmunlearner_jax.errors import Diverged, InputError, shown
from mmunlearner_jax.evaluation.batching import Batch, Prompt, batches, cut, kinds, padded, rounded
from mmunlearner_jax.evaluation.choices import Continuations, find_slot
from mmunlearner_jax.evaluation.decoding import Decoder
from mmunlearner_jax.evaluation.protocols import Protocol
from mmunlearner_jax.evaluation.scores import scored
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.progress import Progress
from mmunlearner_jax.sharding import batch_parts, process_rows, put_batch

Ids = list[int]

# One decoder at a time is cached, so that stages share its compiled programs.
_decoder = functools.lru_cache(1)(Decoder)


@dataclasses.dataclass(frozen=True)
class Item:
    """A question in tokens: its prompt, the options to score, and answers with likelihoods.

    Attributes:
        question: The question.
        prompt: Tokens of its prompt.
        options: Tokens of each option after other words of an answer.
        openings: Tokens of each option at the beginning of an answer.
        answers: Tokens of the true and wrong answers, each at the beginning of an answer.
    """

    question: Question
    prompt: Prompt
    options: list[Ids]
    openings: list[Ids]
    answers: list[Ids]

    def wanted(self, slot: int) -> list[Ids]:
        """Returns the options' tokens after `slot` tokens of an answer."""
        return self.options if slot else self.openings


class Answerer:
    """Answers questions greedily, in batches of static shape; text and pictures are separate.

    The part of a prompt up to its last picture is computed once for all questions of a batch that
    share it. The protocol decides how options are shown and scored. A question with wrong answers
    (`perturbed`) also gets the likelihoods of all its answers.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        encoder: Encoder,
        mesh: jax.sharding.Mesh,
        protocol: Protocol,
        *,
        positions: int,
        batch_size: int,
        max_new_tokens: int,
        features: Features | None = None,
        copied: Any | None = None,
    ):
        """Builds the programs.

        Args:
            graphdef: Graph definition of the model.
            encoder: Turns questions into token ids and pixels.
            mesh: The mesh whose devices share a batch.
            protocol: Wording of the prompts and scoring of multiple choice.
            positions: Number of the model's positions, the limit for a prompt and its answer.
            batch_size: Questions of a batch; repetitions fill the last one.
            max_new_tokens: Most tokens of an answer, including an option after its words.
            features: Features of pictures, if the vision tower is frozen; None: the tower computes
                them in each batch.
            copied: Shapes, dtypes and shardings on the mesh that the parameters get before
                questions are answered (`to_answer`); None: they stay as they are.
        """
        tokenizer = encoder.tokenizer
        self._encoder, self._mesh, self._protocol = encoder, mesh, protocol
        self._positions, self._features, self._copied = positions, features, copied
        self._batch_size, self._parts = batch_size, batch_parts(mesh.axis_sizes)
        self._words = Continuations(tokenizer, encoder.prompt("", 0).rsplit(" ", 1)[-1])
        self._pad_id = tokenizer.pad_token_id or 0
        self._item = functools.lru_cache(None)(self._tokenised)  # several models, same questions
        self._decoder = _decoder(
            graphdef, max_new_tokens=max_new_tokens, end_id=tokenizer.eos_token_id
        )

    def answer(
        self,
        params: Any,
        questions: Sequence[Question],
        *,
        split: str,
        label: str,
        after_batch: Callable[[], None] = lambda: None,
    ) -> list[dict[str, Any]]:
        """Answers all questions, in their order.

        Args:
            params: Parameters of the model.
            questions: The questions of one split.
            split: Name of the split.
            label: Name of the model, shown beside the progress bar.
            after_batch: Called after every batch.

        Returns:
            A record for each question, from which it can be scored again without the model.

        Raises:
            InputError: A prompt has too few positions left for an answer; it is raised before any
                question is answered.
            Diverged: A log-probability is not finite.
        """
        items = [self._item(question) for question in questions]
        for item in items:
            self._check_length(item, split)
        if self._features is not None:
            self._features.add(image for item in items for image in item.prompt.images)
        if self._copied is not None:
            params = jax.tree.map(_copy, params, self._copied)
        records: list[dict[str, Any]] = [{}] * len(items)
        with Progress(f"{label}/{split}", len(items), unit="question") as progress:
            for kind in kinds([(len(x.prompt.images), bool(x.answers)) for x in items]):
                of_kind = [items[n] for n in kind]
                for number, record in self._answer_kind(
                    params, of_kind, f"{label}/{split}", after_batch
                ):
                    records[kind[number]] = {"split": split, **record}
                    progress.update()
        return records

    def _tokenised(self, question: Question) -> Item:
        images = [image for shown in (*question.shots, question) for image in shown.pictures]
        ids = self._encoder.prompt_ids(self._protocol.prompt(question), images)
        options: Sequence[str] = ()
        if self._protocol.likelihood and question.task != "short":
            letters = option_letters(question.options)
            options = letters if self._protocol.letters else question.options
        answers = ()
        if question.perturbed:
            answers = (question.answer, *filter(None, [question.paraphrase]), *question.perturbed)
        return Item(
            question,
            cut(ids, images, self._encoder.picture_ids),
            [self._words.behind(option) for option in options],
            [self._words.ids(option) for option in options],
            [self._words.ids(answer) for answer in answers],
        )

    def _check_length(self, item: Item, split: str) -> None:
        """Refuses a question whose prompt and answer exceed the model's positions."""
        new = max(self._decoder.max_new_tokens, *(len(ids) for ids in item.answers), 0)
        length = len(item.prompt.beginning) + len(item.prompt.rest)
        if length + new > self._positions:
            shown = len(item.question.shots)
            raise InputError(
                f"{split}: the prompt of {item.question.question!r} has {length} tokens"
                f" ({shown} demonstrations), and {new} may follow, but the model has only"
                f" {self._positions} positions; set config.evaluate.shots=0, or use another model"
            )

    def _answer_kind(
        self, params: Any, items: list[Item], where: str, after_batch: Callable[[], None]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields every item's index and record; all batches have the same shapes."""
        longest = max((len(ids) for item in items for ids in item.answers), default=0)
        weighed = max(len(item.answers) for item in items), rounded(longest)
        choices = max(1, *(len(item.options) for item in items))
        # If options have other tokens at the beginning of an answer, both are looked up.
        twice = any(item.openings != item.options for item in items)
        answered = iter(())
        room = max(self._decoder.max_new_tokens, weighed[1])
        prompts = [item.prompt for item in items]
        for batch in batches(prompts, self._batch_size, self._parts, room):
            rows = [items[n] for n in batch.rows]
            logits, cache = self._prefill(params, prompts, batch, room)
            first = np.zeros((len(rows), 1 + twice, choices), np.int32)
            for b, item in enumerate(rows):
                for n, texts in enumerate((item.options, item.openings)[: 1 + twice]):
                    first[b, n, : len(texts)] = [ids[0] for ids in texts]
            wanted = self._put({"k": first.reshape(len(rows), -1)})["k"]
            decoded = self._decoder.greedy(params, logits, cache, wanted)
            yield from answered  # the previous batch is scored while this one runs
            tokens, log_probs = to_host(decoded)
            _check_finite(where, zip(rows, log_probs, strict=True))
            beginning, behind = log_probs[:, :1, -choices:], log_probs[:, 1:, :choices]
            log_probs = np.concatenate([beginning, behind], axis=1)
            own = [self._until_end(row) for row in tokens]
            slots = [
                self._slot(item, o, p) for item, o, p in zip(rows, own, log_probs, strict=True)
            ]
            scores = self._option_scores(params, logits, cache, rows, own, slots, log_probs)
            likelihoods = self._likelihoods(params, logits, cache, rows, weighed)
            numbers = zip(scores, likelihoods, strict=True)
            _check_finite(where, zip(rows, numbers, strict=True))
            answered = self._records(batch, rows, own, slots, scores, likelihoods)
            after_batch()
        yield from answered

    def _prefill(
        self, params: Any, prompts: list[Prompt], batch: Batch, room: int
    ) -> tuple[jax.Array, Any]:
        length = rounded(max(len(prompt.rest) for prompt in prompts))
        rest = padded([prompts[n].rest for n in batch.rows], length, self._pad_id)
        if not prompts[0].images:
            return self._decoder.prefill(params, self._put(rest), room=room)
        length = rounded(max(len(prompt.beginning) for prompt in prompts))
        shared = padded([prompts[n].beginning for n in batch.beginnings], length, self._pad_id)
        pictures = self._encoder if self._features is None else self._features
        shared |= pictures.pack(
            [prompts[n].images for n in batch.beginnings],
            max(sum(map(prompt.beginning.count, self._encoder.picture_ids)) for prompt in prompts),
        )
        return self._decoder.prefill(params, self._put(rest), self._put(shared), room=room)

    def _put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        own = process_rows(self._mesh, len(next(iter(batch.values()))))
        return put_batch({k: v[own] for k, v in batch.items()}, self._mesh)

    def _until_end(self, tokens: np.ndarray) -> Ids:
        ends = np.flatnonzero(tokens == self._decoder.end_id)
        return tokens[: ends[0] if ends.size else len(tokens)].tolist()

    def _slot(self, item: Item, own: Ids, log_probs: np.ndarray) -> int:
        """Returns the number of the answer's tokens before the slot, where options are scored."""
        if self._protocol.letters or not item.options:
            return 0
        longest = max(map(len, (*item.options, *item.openings)))
        usable = self._decoder.max_new_tokens - longest
        if usable < 0:
            raise InputError(
                f"config.evaluate.decode.max_new_tokens is {self._decoder.max_new_tokens}, but an"
                f" option of {item.question.question!r} has {longest} tokens; raise it"
            )
        first, opening = ([ids[0] for ids in x] for x in (item.options, item.openings))
        table = log_probs[: usable + 1, : len(first)]
        return find_slot(table, first, self._words.boundaries(own), opening)

    def _option_scores(
        self,
        params: Any,
        logits: jax.Array,
        cache: Any,
        rows: list[Item],
        own: list[Ids],
        slots: list[int],
        log_probs: np.ndarray,
    ) -> list[list[float]]:
        """Returns log-likelihoods of each row's options after the model's own words, in nats."""
        scores = [
            log_probs[b, slots[b], : len(item.options)].tolist() for b, item in enumerate(rows)
        ]
        # Options of one token were scored during decoding.
        wanted = [item.wanted(slot) for item, slot in zip(rows, slots, strict=True)]
        longer = {b for b, options in enumerate(wanted) if any(len(ids) > 1 for ids in options)}
        if longer:
            behind = [
                [(own[b][: slots[b]], ids) for ids in options] if b in longer else []
                for b, options in enumerate(wanted)
            ]
            longest = max(len(words + ids) for row in behind for words, ids in row)
            # A power of two from 8, as few sizes should be compiled.
            size = min(max(8, 1 << (longest - 1).bit_length()), self._decoder.max_new_tokens)
            sums = self._scored(params, logits, cache, behind, log_probs.shape[2], size)
            scores = [sums[b] if b in longer else row for b, row in enumerate(scores)]
        return scores

    def _likelihoods(
        self, params: Any, logits: jax.Array, cache: Any, rows: list[Item], weighed: tuple[int, int]
    ) -> list[dict[str, Any]]:
        """Returns `likelihoods` of each row: mean log-probabilities per token of its answers."""
        count, size = weighed
        if not count:
            return [{}] * len(rows)
        candidates = [[([], ids) for ids in item.answers] for item in rows]
        likelihoods = []
        sums = self._scored(params, logits, cache, candidates, count, size)
        for item, row in zip(rows, sums, strict=True):
            answer, *others = [
                round(total / len(ids), 5) for total, ids in zip(row, item.answers, strict=True)
            ]
            paraphrase = others.pop(0) if item.question.paraphrase else None
            likelihoods.append({"answer": answer, "paraphrase": paraphrase, "perturbed": others})
        return likelihoods

    def _scored(
        self,
        params: Any,
        logits: jax.Array,
        cache: Any,
        candidates: list[list[tuple[Ids, Ids]]],
        count: int,
        size: int,
    ) -> list[list[float]]:
        """Returns summed log-probabilities of each candidate's second part, by row.

        Args:
            params: Parameters of the model.
            logits: Logits of the first new token, [B, V].
            cache: Cache of `Decoder.prefill`.
            candidates: Candidates of each row: words before the option, and the option.
            count: K, at least the number of candidates of any row.
            size: S, at least the number of tokens of any candidate.
        """
        tokens = np.full((count, len(candidates), size), self._decoder.end_id, np.int32)
        wanted = np.zeros(tokens.shape, bool)
        for b, row in enumerate(candidates):
            for k, (before, ids) in enumerate(row):
                end = len(before) + len(ids)
                tokens[k, b, :end] = before + ids
                wanted[k, b, len(before) : end] = True
        sums = to_host(self._decoder.score(params, logits, cache, tokens, wanted)).T
        return [sums[b, : len(row)].tolist() for b, row in enumerate(candidates)]

    def _records(
        self,
        batch: Batch,
        rows: list[Item],
        own: list[Ids],
        slots: list[int],
        scores: list[list[float]],
        likelihoods: list[dict[str, Any]],
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for b in batch.distinct:
            record = self._record(rows[b], own[b], slots[b], scores[b], likelihoods[b])
            yield batch.rows[b], record

    def _record(
        self, item: Item, own: Ids, slot: int, scores: list[float], likelihoods: dict[str, Any]
    ) -> dict[str, Any]:
        question = item.question
        record: dict[str, Any] = {
            "person": question.person,
            "image": question.image and fingerprint(question.image),
            "modality": question.modality,
            "task": question.task,
            "question": question.question,
            "answer": question.answer,
            "options": list(question.options),
            "response": self._words.text(own),
            "scores": [round(score, 4) for score in scores],
        }
        if question.task == "short":
            record |= {"rule": question.rule, "letters": question.letter}
            record["categories"] = list(question.categories)
        if question.group:
            record["group"] = question.group
        if question.keywords:
            record["keywords"] = list(question.keywords)
        if question.accepted:
            record["accepted"] = list(question.accepted)
        if question.shots:
            record["shots"] = sorted({shot.person for shot in question.shots})
        if likelihoods:
            record["likelihoods"] = likelihoods
        if question.task == "classification":
            record["slot"] = self._words.text(own[:slot])
            if self._protocol.letters:
                record["letters"] = question.letter
        return scored(record, published=self._protocol.published)


def _check_finite(where: str, pairs: Iterable[tuple[Item, Any]]) -> None:
    """Refuses numbers that are not finite, because argmax would turn them into an answer."""
    for item, numbers in pairs:
        if not all(np.isfinite(x).all() for x in jax.tree.leaves(numbers)):
            raise Diverged(
                f"{where}: {shown(repr(item.question.question))}: the model's log-probabilities are"
                " not finite: its weights are damaged, or unlearning diverged; restore the"
                " checkpoint, or lower the learning rate (config.unlearn, config.finetune)"
            )


def fingerprint(image: bytes) -> str:
    """Returns a checksum of an encoded picture, which identifies it in a record."""
    return f"{zlib.crc32(image):08x}"


def _copy(x: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns an array in another dtype and place; itself if both are its own."""
    return jax.device_put(x.astype(like.dtype), like.sharding)
