"""Ten iterations of the stage against the published loop, rendered in torch."""

import jax
import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

import mmunlearner_jax as mmu
from mmunlearner_jax.stages.unlearn import Unlearner
from mmunlearner_jax.stages.unlearn_batches import forget_batches, retain_batches
from mmunlearner_jax.unlearn.mask import cover
from mmunlearner_jax.weights.io import leaf_labels
from tests.helpers import tiny

RATE, EVERY, ITERATIONS = 1e-3, 2, 10


def torch_loss(model, batches):
    """Mean over the supervised tokens of all batches, as transformers takes it of one."""
    total, count = torch.zeros(()), 0
    for batch in batches:
        given = {k: torch.from_numpy(batch[k]).long() for k in ("input_ids", "attention_mask")}
        if "pixel_values" in batch:
            given["pixel_values"] = torch.from_numpy(batch["pixel_values"][:, 0])
        wanted = torch.from_numpy(batch["labels"]).long()[:, 1:]
        logits = model(**given).logits[:, :-1].float()
        total = total + torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), wanted, ignore_index=-100, reduction="sum"
        )
        count += int((wanted != -100).sum())
    return total / count


def published_loop(model, data, masks, clip):
    """The published alternation: the gradient is clipped, then masked where there is a mask."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, eps=1e-6, weight_decay=0.0)

    def step(loss, masks):
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        for name, parameter in model.named_parameters():
            if name in masks and parameter.grad is not None:
                parameter.grad *= torch.from_numpy(masks[name])
        optimizer.step()
        optimizer.zero_grad()

    for iteration in range(ITERATIONS):
        if iteration % EVERY == 0:
            step(-torch_loss(model, [next(data["forget"])]), masks)
        step(torch_loss(model, [next(data[name]) for name in ("pictures", "text")]), {})


@pytest.mark.parametrize(("method", "clip"), [("ga_diff", 0.0), ("mmunlearner", 1.0)])
def test_released_semantics_are_the_published_loop(tmp_path, method, clip):
    at = tiny.varied(
        tiny.session(tmp_path, labels="full", supervise_end=False),
        semantics="released",
        method=method,
        learning_rate=RATE,
        clip=clip,
        iterations=ITERATIONS,
        forget_every=EVERY,
        adam_eps=1e-6,
    )
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path / "vanilla").eval()
    start = {k: p.detach().numpy().copy() for k, p in theirs.named_parameters()}
    rng = np.random.default_rng(0)
    masks = {
        k: rng.random(p.shape) < (0.5 if method == "mmunlearner" else 2) for k, p in start.items()
    }
    mask = mmu.from_hf_names(at.model, masks)
    mask = jax.device_put(mask, jax.tree.map(lambda p: p.sharding, at.params))
    parts = ("proj", "fc", "linear", "mlp", "qkv")
    masks = {k: m for k, m in masks.items() if any(part in k for part in parts)}
    assert 0 < len(masks) < len(start)
    options = at.config.mask
    mask = cover(mask, leaf_labels(at.model)[0], options.cover, uncovered=options.uncovered)

    unlearner = Unlearner(at)
    retained = retain_batches(at, at.config.unlearn.chosen.retain)
    published_loop(
        theirs,
        {k: iter(b) for k, b in (forget_batches(at) | retained).items()},
        masks,
        clip,
    )
    with jax.default_matmul_precision("highest"):
        outcome = unlearner.run(mask)
    assert (outcome.forget_steps, outcome.retain_steps) == (ITERATIONS // EVERY, ITERATIONS)
    ours = mmu.to_hf_names(at.model, outcome.params)
    moved = 0.0
    for name, parameter in theirs.named_parameters():
        wanted = parameter.detach().numpy()
        np.testing.assert_allclose(ours[name], wanted, rtol=0, atol=1e-4, err_msg=name)
        moved = max(moved, np.abs(wanted - start[name]).max())
    assert moved > 3 * RATE
