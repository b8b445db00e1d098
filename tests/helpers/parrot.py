"""A decoder that returns one fixed sentence for every question."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.evaluation import tasks
from mmunlearner_jax.evaluation.protocols import Protocol
from mmunlearner_jax.sharding import make_mesh

STEPS = 12
JOBS = ("baker", "barber", "carpenter", "pilot")


class Parrot:
    """Replaces `Decoder`: it returns the ids in `params`, each with probability 0.9."""

    def __init__(self, graphdef, *, max_new_tokens, end_id):
        self.max_new_tokens, self.end_id = max_new_tokens, end_id

    def _probability(self, params, tokens):
        ids = np.full(max(self.max_new_tokens, tokens.shape[-1]), self.end_id)
        ids[: len(params)] = params
        # The probabilities of all other tokens differ a little.
        return ids, np.where(tokens == ids[: tokens.shape[-1]], 0.9, 1e-3 / (1 + tokens))

    def prefill(self, params, batch, shared=None, rows=None, *, room):
        return batch["input_ids"], None

    def greedy(self, params, logits, cache, candidates):
        candidates = np.broadcast_to(
            np.asarray(candidates)[..., None], (*candidates.shape, self.max_new_tokens)
        )
        ids, p = self._probability(params, candidates)
        return jnp.asarray(np.tile(ids, (len(p), 1))), jnp.log(jnp.asarray(np.swapaxes(p, 1, 2)))

    def score(self, params, logits, cache, tokens, scored):
        _, p = self._probability(params, tokens)
        return jnp.asarray(np.sum(np.log(p) * scored, axis=-1))


def answers(monkeypatch: pytest.MonkeyPatch, processor: Any) -> Any:
    """Returns a function that answers questions with a sentence, through the real `Answerer`."""
    monkeypatch.setattr(tasks, "_decoder", Parrot)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])

    def answer(sentence, questions, *, batch_size=2, max_new_tokens=STEPS, letters=None):
        encoder = Encoder(processor)

        def plain(question):
            return encoder.prompt(question.question, question.image is not None)

        answerer = tasks.Answerer(
            None,  # pyright: ignore[reportArgumentType]
            encoder,
            mesh,
            letters or Protocol(plain, letters=False, likelihood=True),
            positions=128,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
        )
        ids = processor.tokenizer(f"ASSISTANT: {sentence}").input_ids
        head = len(processor.tokenizer("ASSISTANT:").input_ids)
        return answerer.answer(ids[head:], questions, split="forget", label="before")

    answer.ids = lambda text: processor.tokenizer(f" {text}", add_special_tokens=False).input_ids
    return answer
