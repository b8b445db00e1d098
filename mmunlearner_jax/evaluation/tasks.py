"""Asks a model the scored questions: what it answers, and which option its answer wants."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from mmunlearner_jax.data.prompts import Encoder
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation import published
from mmunlearner_jax.evaluation.decoding import Decoder
from mmunlearner_jax.evaluation.metrics import scored
from mmunlearner_jax.evaluation.options import Continuations, find_slot
from mmunlearner_jax.evaluation.parsing import option_letters
from mmunlearner_jax.processes import is_first, to_host
from mmunlearner_jax.sharding import process_rows, put_batch

# Prompts are padded to a multiple of this, so that a split compiles once or twice.
LENGTH_MULTIPLE = 16


class Answerer:
    """Answers questions in batches of static shape; text and pictures apart.

    Zero-shot, greedy. Multiple choice is scored by likelihood, a blank is right if its words occur
    in the answer (the published test), an open answer gets ROUGE and BLEU. With `prompts` of
    "template" the question stands alone in the chat template, and the options are scored where the
    model's own words want one (`options`); with "published" they are listed in MLLMU-Bench's prompt
    (`published`), and their letters are scored at the start of the answer; the answer's own letter
    is parsed besides, as published.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        encoder: Encoder,
        mesh: jax.sharding.Mesh,
        *,
        batch_size: int,
        max_new_tokens: int,
        prompts: Literal["template", "published"] = "template",
    ):
        """Builds the programs.

        Args:
            graphdef: of the model.
            encoder: makes prompts and their ids.
            mesh: whose devices share a batch.
            batch_size: questions answered at once; the last batch is filled with repetitions.
            max_new_tokens: the longest answer; options must fit behind its words.
            prompts: whose wording and whose multiple choice.
        """
        self._by_letter = prompts == "published"
        tokenizer = encoder.tokenizer
        self._encoder, self._mesh, self._batch_size = encoder, mesh, batch_size
        self._words = Continuations(tokenizer, encoder.prompt("", False).rsplit(" ", 1)[-1])
        self._pad_id = tokenizer.pad_token_id or 0
        self._decoder = Decoder(
            graphdef, max_new_tokens=max_new_tokens, end_id=tokenizer.eos_token_id
        )

    def answer(
        self, params: Any, questions: Sequence[Question], *, split: str, label: str
    ) -> list[dict[str, Any]]:
        """Answers all questions, in their order.

        Args:
            params: of the model.
            questions: of one split.
            split: its name.
            label: shown beside the bar.

        Returns:
            One record per question, enough to score it again without the model.
        """
        records: list[dict[str, Any] | None] = [None] * len(questions)
        with tqdm(
            total=len(questions),
            desc=f"{label}/{split}",
            unit="question",
            disable=not is_first(),
        ) as bar:
            for rows in self._chunks(questions):
                answered = self._answer_batch(params, [questions[i] for i in rows])
                for i, record in zip(rows, answered, strict=True):
                    records[i] = {"split": split, **record}
                bar.update(len(rows))
        return [r for r in records if r is not None]

    def _chunks(self, questions: Sequence[Question]) -> Iterable[list[int]]:
        for pictured in (True, False):
            rows = [i for i, q in enumerate(questions) if (q.image is not None) == pictured]
            for start in range(0, len(rows), self._batch_size):
                yield rows[start : start + self._batch_size]

    def _answer_batch(self, params: Any, questions: list[Question]) -> list[dict[str, Any]]:
        filled = [questions[i % len(questions)] for i in range(self._batch_size)]
        logits, cache = self._decoder.prefill(params, self._prompts(filled))
        choices = [option_letters(q.options) if self._by_letter else q.options for q in filled]
        options = [[self._words.ids(o) for o in row] or [[0]] for row in choices]
        width = max(map(len, options))
        first = np.array([[(o * width)[k][0] for k in range(width)] for o in options], np.int32)
        candidates = self._put({"k": first})["k"]
        tokens, log_probs = to_host(self._decoder.greedy(params, logits, cache, candidates))
        own = [self._until_end(row) for row in tokens]
        slots = []
        for b, choices in enumerate(options):
            usable = self._decoder.max_new_tokens - max(map(len, choices))
            if usable < 0:
                raise InputError(
                    f"config.evaluate.decode.max_new_tokens is {self._decoder.max_new_tokens}: an"
                    f" option of {filled[b].question!r} is longer"
                )
            seen = log_probs[b, : usable + 1, : len(choices)]
            starts = [0] if self._by_letter else self._words.boundaries(own[b])
            slots.append(find_slot(seen, first[b, : len(choices)], starts))
        scores = np.zeros((self._batch_size, width))
        if width > 1:
            scores = self._option_scores(params, logits, cache, own, slots, options, width)
        return [
            self._record(q, own[b], slots[b], scores[b, : len(q.options)].tolist())
            for b, q in enumerate(questions)
        ]

    def _prompts(self, questions: list[Question]) -> dict[str, jax.Array]:
        encoded = [self._encoder.encode_prompt(self._prompt(q), q.image) for q in questions]
        longest = max(len(e["input_ids"]) for e in encoded)
        length = -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        batch = {
            "input_ids": np.full((len(encoded), length), self._pad_id, np.int32),
            "attention_mask": np.zeros((len(encoded), length), np.int32),
        }
        for row, e in enumerate(encoded):
            n = len(e["input_ids"])
            batch["input_ids"][row, length - n :] = e["input_ids"]
            batch["attention_mask"][row, length - n :] = 1
        if "pixel_values" in encoded[0]:
            batch["pixel_values"] = np.stack([e["pixel_values"] for e in encoded])
        return self._put(batch)

    def _prompt(self, question: Question) -> str:
        if self._by_letter:
            return published.prompt(question)
        return self._encoder.prompt(question.question, question.image is not None)

    def _put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        own = process_rows(self._mesh, self._batch_size)
        return put_batch({k: v[own] for k, v in batch.items()}, self._mesh)

    def _until_end(self, tokens: np.ndarray) -> list[int]:
        ends = np.flatnonzero(tokens == self._decoder.end_id)
        return tokens[: ends[0] if ends.size else len(tokens)].tolist()

    def _option_scores(
        self,
        params: Any,
        logits: jax.Array,
        cache: Any,
        own: list[list[int]],
        slots: list[int],
        options: list[list[list[int]]],
        width: int,
    ) -> np.ndarray:
        """Log-likelihoods [B, K] of the options behind the model's own words."""
        size = self._decoder.max_new_tokens
        tokens = np.full((width, len(own), size), self._decoder.end_id, np.int32)
        scored = np.zeros(tokens.shape, bool)
        for b, (words, slot, choices) in enumerate(zip(own, slots, options, strict=True)):
            for k, choice in enumerate(choices):
                row = (words[:slot] + choice)[:size]
                tokens[k, b, : len(row)] = row
                scored[k, b, slot : len(row)] = True
        return to_host(self._decoder.score(params, logits, cache, tokens, scored)).T

    def _record(
        self, question: Question, own: list[int], slot: int, scores: list[float]
    ) -> dict[str, Any]:
        response = self._words.text(own)
        record: dict[str, Any] = {
            "person": question.person,
            "modality": question.modality,
            "task": question.task,
            "question": question.question,
            "answer": question.answer,
            "options": list(question.options),
            "response": response,
            "scores": [round(s, 4) for s in scores],
        }
        if question.task == "classification":
            record["slot"] = self._words.text(own[:slot])
            if self._by_letter:
                record["letters"] = True  # what the answer is to be read as
        return scored(record)
