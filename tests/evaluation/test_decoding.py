"""Batched decoding against `generate` and full forward passes of transformers, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from mmunlearner_jax.evaluation.decoding import Decoder
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.weights.io import from_pretrained
from tests.helpers.torch_llava import IMAGE, PAD, VISION, Case, make_torch_model

STEPS = 6
LENGTH = 24
CANDIDATES = np.array([[1, 2, 3], [4, 4, 48], [0, 30, 5], [9, 8, 7]])


@dataclass
class Prompts:
    """Prompts of different lengths, and what both sides make of them."""

    theirs: Any
    rows: list[list[int]]
    pixels: np.ndarray
    end: int
    decoder: Decoder
    params: Any

    def decode(self, which: slice = slice(None)) -> tuple[jax.Array, jax.Array]:
        prefilled = self.decoder.prefill(
            self.params, padded_left(self.rows[which], self.pixels[which])
        )
        return self.decoder.greedy(self.params, *prefilled, jnp.asarray(CANDIDATES[which]))

    def score(self, continuations: np.ndarray, scored: np.ndarray) -> jax.Array:
        prefilled = self.decoder.prefill(self.params, padded_left(self.rows, self.pixels))
        return self.decoder.score(self.params, *prefilled, continuations, scored)

    @torch.no_grad()
    def log_probs_after(self, row: int, more: Sequence[int]) -> np.ndarray:
        """Log-probabilities [len(more), V] of what follows a prompt, by one full forward pass."""
        inputs = torch_inputs(self.rows[row], self.pixels[row], more)
        logits = self.theirs(**inputs).logits[0]
        return torch.log_softmax(logits, -1).numpy()[len(self.rows[row]) - 1 : -1]


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    path = tmp_path_factory.mktemp("grouped-rope")
    model = make_torch_model("grouped-rope")
    model.save_pretrained(path)
    return Case(model, from_pretrained(path), path)


@pytest.fixture(scope="module", params=["pictures", "text"])
def prompts(request, case) -> Prompts:
    pictured, side = request.param == "pictures", VISION["image_size"]
    picture = [IMAGE] * case.ours.config.tokens_per_image if pictured else []
    rows = [
        [3, *picture, 5, 7, 9],
        [4, 8, 15, *picture, 16, 23, 42, 2, 11],
        [*picture, 6, 12],
        [1, 2, 3, 5, 8, 13, 21],
    ]
    # The last row has no image token, and must not see its picture.
    pixels = np.random.default_rng(0).normal(size=(4, 1, 3, side, side)).astype(np.float32)
    end = generated(case.theirs, rows[0], pixels[0])[2]
    graphdef, params = nnx.split(case.ours)
    decoder = Decoder(graphdef, max_new_tokens=STEPS, end_id=end)
    return Prompts(case.theirs, rows, pixels, end, decoder, params)


def padded_left(rows: Sequence[Sequence[int]], pixels: np.ndarray) -> dict[str, Any]:
    ids = np.full((len(rows), LENGTH), PAD, np.int32)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, -len(tokens) :], mask[row, -len(tokens) :] = tokens, 1
    batch = dict(input_ids=ids, attention_mask=mask)
    return batch | dict(pixel_values=pixels) if IMAGE in ids else batch


def torch_inputs(
    prompt: Sequence[int], pixels: np.ndarray, more: Sequence[int] = ()
) -> dict[str, Any]:
    inputs = dict(input_ids=torch.tensor([[*prompt, *more]]))
    pictured = IMAGE in prompt  # the model may say an image token, which then stands for itself
    return inputs | dict(pixel_values=torch.from_numpy(pixels)) if pictured else inputs


@torch.no_grad()
def generated(model: Any, tokens: list[int], pixels: np.ndarray, end: int | None = None):
    """What transformers says, padded with `end`."""
    inputs = torch_inputs(tokens, pixels)
    out = model.generate(
        **inputs,
        attention_mask=torch.ones_like(inputs["input_ids"]),
        max_new_tokens=STEPS,
        do_sample=False,
        eos_token_id=end,
    )
    new = out[0, len(tokens) :].tolist()
    return new + [end] * (STEPS - len(new))


def test_a_left_padded_batch_says_what_transformers_says_one_by_one(prompts):
    theirs = [
        generated(prompts.theirs, row, pixels, prompts.end)
        for row, pixels in zip(prompts.rows, prompts.pixels, strict=True)
    ]
    assert theirs[0][2:] == [prompts.end] * (STEPS - 2)  # one row ends early
    tokens, _ = prompts.decode()
    assert tokens.tolist() == theirs


def test_a_batch_says_what_its_rows_say_alone(prompts):
    tokens, log_probs = prompts.decode()
    for row in range(len(prompts.rows)):
        which = slice(row, row + 1)
        alone = prompts.decode(which)
        assert alone[0].tolist() == tokens[which].tolist()
        said = 1 + next((n for n, t in enumerate(tokens[row]) if t == prompts.end), STEPS - 1)
        ours, theirs = alone[1][:, :said], log_probs[which, :said]
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_beginnings_that_are_shared_change_nothing(case, prompts, parts):
    if IMAGE not in prompts.rows[0]:
        pytest.skip("text has no picture to share")
    # Each of two pictures is asked two questions.
    picture, texts = [3, *[IMAGE] * case.ours.config.tokens_per_image], [[5, 7], [9], [8, 2, 4]]
    asked = [(0, texts[0]), (0, texts[1]), (1, texts[2]), (1, texts[1])]
    pixels = prompts.pixels[[at for at, _ in asked]]
    whole = padded_left([[*picture, *text] for _, text in asked], pixels)
    alone = prompts.decoder.prefill(prompts.params, whole)
    graphdef, params = nnx.split(prompts_model(case, parts))
    decoder = Decoder(graphdef, max_new_tokens=STEPS, end_id=prompts.end)
    shared = padded_left([picture] * 2, prompts.pixels[:2])
    rest = padded_left([text for _, text in asked], pixels)
    together = decoder.prefill(params, rest, shared)
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-5, atol=1e-5)
    candidates = jnp.asarray(CANDIDATES)
    one = prompts.decoder.greedy(prompts.params, *alone, candidates)
    many = decoder.greedy(params, *together, candidates)
    assert one[0].tolist() == many[0].tolist()
    np.testing.assert_allclose(one[1], many[1], rtol=1e-4, atol=1e-4)


def prompts_model(case: Case, parts: int) -> Any:
    """The model on so many parts of a mesh."""
    mesh = make_mesh((parts, 1, 1), jax.devices()[:parts])
    return from_pretrained(case.path, mesh=mesh)


def test_log_probs_of_candidates_are_those_of_a_full_forward_pass(prompts):
    tokens, log_probs = prompts.decode()
    assert log_probs.shape == (len(prompts.rows), STEPS, CANDIDATES.shape[1])
    for row, candidates in enumerate(CANDIDATES):
        theirs = prompts.log_probs_after(row, tokens[row].tolist())[:, candidates]
        np.testing.assert_allclose(log_probs[row], theirs, rtol=1e-4, atol=1e-4)


def test_scores_are_sums_over_a_full_forward_pass(prompts):
    rng = np.random.default_rng(1)
    shape = 3, len(prompts.rows), STEPS - 1
    continuations = rng.integers(1, IMAGE, shape, np.int32)
    scored = rng.random(shape) < 0.6
    scored[0], scored[1] = True, np.arange(STEPS - 1) == 0  # all, and the first token alone
    scores = prompts.score(continuations, scored)
    assert scores.shape == shape[:2]
    for k, row in np.ndindex(*shape[:2]):
        more = continuations[k, row]
        theirs = prompts.log_probs_after(row, more.tolist())
        wanted = theirs[np.arange(len(more)), more] @ scored[k, row]
        np.testing.assert_allclose(scores[k, row], wanted, rtol=1e-4, atol=1e-4)


def test_what_stands_behind_the_scored_tokens_does_not_count(prompts):
    continuations = np.full((3, len(prompts.rows), STEPS - 1), 5, np.int32)
    continuations[1:, :, 3:] = 40
    scored = np.broadcast_to(np.arange(STEPS - 1) < 3, continuations.shape)
    scores = prompts.score(continuations, scored)
    np.testing.assert_array_equal(scores[0], scores[1])


def test_batches_and_models_of_equal_shape_share_the_programs(case, prompts, caplog):
    graphdef = nnx.split(case.ours)[0]
    decoder = Decoder(graphdef, max_new_tokens=STEPS, end_id=prompts.end)

    def answer(params: Any, rows: list[list[int]], pixels: np.ndarray) -> list[Any]:
        prefilled = decoder.prefill(params, padded_left(rows, pixels))
        tokens, _ = decoder.greedy(params, *prefilled, jnp.asarray(CANDIDATES))
        continuations = np.full((3, len(rows), STEPS - 1), 5, np.int32)
        scores = decoder.score(params, *prefilled, continuations, continuations > 0)
        return [tokens.tolist(), scores.tolist()]

    def compilations() -> list[str]:
        return [r.message for r in caplog.records if r.message.startswith("Compiling")]

    others = jax.tree.map(lambda p: p + 0.1, prompts.params)
    shorter = [row[:-1] for row in prompts.rows]
    with jax.log_compiles():
        first = answer(prompts.params, prompts.rows, prompts.pixels)
        assert any("greedy" in message for message in compilations())
        caplog.clear()
        second = answer(others, shorter, prompts.pixels + 1)
    assert compilations() == []
    assert first != second
