"""The method against PyTorch: importance both ways, the mask, one masked step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import mmunlearner_jax as mmu
from mmunlearner_jax.unlearn.steps import TrainState, forget_step, retain_step
from tests.helpers.compare import IGNORE, close_by_name, torch_gradients, with_answers

# Padding and every option of the model are compared by gradients in test_parity; here two models
# suffice: untied, and tied with class tokens.
pytestmark = pytest.mark.parametrize("case", ["plain", "tied-full"], indirect=True)


@pytest.fixture
def batch(case) -> dict[str, np.ndarray]:
    """Three examples with their own number of pictures."""
    return with_answers(case.batch("right"))


def rows(batch, case):
    """The batch as batches of one example, each with its own pictures."""
    used = 0
    for ids, mask, labels in zip(
        batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
    ):
        n = int((ids == case.ours.config.image_token_id).sum()) // case.ours.config.tokens_per_image
        one = {"input_ids": ids[None], "attention_mask": mask[None], "labels": labels[None]}
        if n:
            one["pixel_values"] = batch["pixel_values"][used : used + n]
        used += n
        yield one


def test_importance_per_example(case, batch):
    grads = [torch_gradients(case, one) for one in rows(batch, case)]
    expected = {k: np.mean([g[k] ** 2 for g in grads], axis=0) for k in grads[0]}
    got = mmu.importance(case.ours, [batch], fisher="example")
    split = mmu.importance(case.ours, rows(batch, case))  # whatever the batches
    close_by_name(mmu.to_hf_names(case.ours, split), expected)
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype("float32")}
    close_by_name(mmu.to_hf_names(case.ours, got), expected)


def test_importance_per_batch(case, batch):
    shorter = batch["labels"].copy()
    shorter[1, np.flatnonzero(shorter[1] != IGNORE)[0]] = IGNORE
    batches = [batch, {**batch, "labels": shorter}]
    grads = [torch_gradients(case, b) for b in batches]
    expected = {k: np.mean([g[k] ** 2 for g in grads], axis=0) for k in grads[0]}
    got = mmu.importance(case.ours, batches, fisher="batch")
    close_by_name(mmu.to_hf_names(case.ours, got), expected)


def test_mask_equals_the_published_comparison(case, batch):
    forget, preserve = list(rows(batch, case))[:2]
    ours = [mmu.importance(case.ours, [b]) for b in (forget, preserve)]
    mask = mmu.to_hf_names(case.ours, mmu.saliency_mask(*ours))
    f, p = (torch_gradients(case, b) for b in (forget, preserve))
    floor = 1e-10 * max(np.square(g).max() for g in f.values())
    compared = 0
    for name, got in mask.items():
        f2, p2 = np.square(f[name], dtype=np.float64), np.square(p[name], dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = f2 / p2
        # rounding of either side decides near 1, and where both are all but 0
        clear = (np.abs(ratio - 1) > 1e-2) & (np.maximum(f2, p2) > floor)
        np.testing.assert_array_equal(np.asarray(got)[clear], (ratio >= 1)[clear], err_msg=name)
        compared += clear.sum()
    assert compared > 0.5 * sum(m.size for m in mask.values())


def test_a_row_without_answer_is_an_error(case, batch):
    batch["labels"][1] = IGNORE
    with pytest.raises(ValueError, match="row 1"):
        mmu.importance(case.ours, [batch])
    with pytest.raises(ValueError, match="no example"):
        mmu.importance(case.ours, [])


@pytest.mark.parametrize("mask_on", ["update", "gradient"])
def test_one_masked_step_and_one_retain_step(case, batch, mask_on):
    """Clip, mask, AdamW with a shared state, as published: torch does the same by hand."""
    learning_rate, decay = 1e-3, 0.01
    forget, retain = list(rows(batch, case))[:2]
    rng = np.random.default_rng(0)
    masks = {k: rng.random(p.shape) < 0.5 for k, p in case.theirs.named_parameters()}

    start = {k: v.detach().clone() for k, v in case.theirs.state_dict().items()}
    optimizer = torch.optim.AdamW(
        case.theirs.parameters(), lr=learning_rate, eps=1e-6, weight_decay=decay
    )
    named = dict(case.theirs.named_parameters())
    try:
        for step, one in enumerate((retain, forget)):
            torch_gradients(case, one)
            for p in named.values():
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad * (-1) ** step
            torch.nn.utils.clip_grad_norm_(case.theirs.parameters(), 1.0)
            before = {k: p.detach().clone() for k, p in named.items()}
            if step:
                for k, p in named.items():
                    p.grad *= torch.from_numpy(masks[k])
            optimizer.step()
            if step and mask_on == "update":
                for k, p in named.items():
                    p.data = torch.where(torch.from_numpy(masks[k]), p.data, before[k])
        expected = {k: p.detach().numpy().copy() for k, p in named.items()}
    finally:
        case.theirs.load_state_dict(start)
        case.theirs.tie_weights()

    graphdef, params = nnx.split(case.ours)
    adam = optax.adamw(learning_rate, eps=1e-6, weight_decay=decay)
    clip = optax.clip_by_global_norm(1.0)
    state = TrainState.create(jax.tree.map(jnp.copy, params), optax.chain(clip, adam))
    mask = mmu.from_hf_names(case.ours, masks)
    state, _ = retain_step(graphdef, optax.chain(clip, adam))(state, [retain])
    middle = jax.tree.map(np.asarray, state.params)
    ascend = optax.chain(clip, mmu.masked_ascent(adam, mask_on=mask_on))
    state, _ = forget_step(graphdef, ascend)(state, [forget], mask)

    # Adam divides by |g|, so where g is all but 0 rounding decides the sign of a whole step.
    got = mmu.to_hf_names(case.ours, state.params)
    far = {k: np.abs(np.asarray(got[k]) - v) > 1e-2 * learning_rate for k, v in expected.items()}
    assert sum(x.sum() for x in far.values()) < 1e-3 * sum(x.size for x in far.values())

    moved = jax.tree.map(lambda a, b: np.asarray(a) != b, state.params, middle)
    protected_moved = jax.tree.map(lambda x, m: (x & ~np.asarray(m)).sum(), moved, mask)
    assert (sum(jax.tree.leaves(protected_moved)) == 0) == (mask_on == "update")
