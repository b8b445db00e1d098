"""The shared part of all models' parity tests; a `Case` holds the model of both sides."""

import functools
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from mmunlearner_jax.weights.io import to_hf_names

IGNORE = -100

Batch = dict[str, np.ndarray]


class Case(Protocol):
    theirs: Any
    ours: Any
    path: Path

    def batch(self, padding: str) -> Batch:
        """Returns rows of different lengths: two pictures, one picture after text, no picture."""
        ...

    def torch_inputs(self, batch: Batch) -> dict[str, Any]:
        """Returns the batch as inputs of the torch model."""
        ...

    def torch_batch(self, padding: str) -> dict[str, Any]:
        return self.torch_inputs(self.batch(padding))


@torch.no_grad()
def make_noisy(model: torch.nn.Module) -> None:
    """Gives a model random parameters, so that every parameter changes the output."""
    for key, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        centre = 1.0 if ("norm" in key or "ln_q" in key) and key.endswith("weight") else 0.0
        parameter.copy_(centre + 0.2 * noise)


def padded(rows: list[list[int]], padding: str, pad: int) -> Batch:
    """Returns `input_ids` and `attention_mask` [B, T] of rows of tokens."""
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), pad)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        where = slice(-len(tokens), None) if padding == "left" else slice(len(tokens))
        ids[row, where], mask[row, where] = tokens, 1
    return dict(input_ids=ids, attention_mask=mask)


def with_answers(batch: Batch) -> Batch:
    """Adds labels to a batch: answers of 2, 3 and 1 tokens."""
    labels = np.full_like(batch["input_ids"], IGNORE)
    for row, answer in enumerate((2, 3, 1)):
        where = np.flatnonzero(batch["attention_mask"][row])[-answer:]
        labels[row, where] = batch["input_ids"][row, where]
    return {**batch, "labels": labels}


def close(ours, theirs, tolerance=1e-5):
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=tolerance, atol=tolerance)


def close_by_name(ours, theirs, rtol=1e-4):
    """Compares trees of gradients, or arrays computed from them, by name."""
    assert ours.keys() == theirs.keys()
    # The gradient of a key's bias is only rounding, so the scale is that of all tensors.
    atol = 1e-2 * rtol * max(np.abs(v).max() for v in theirs.values())
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=rtol, atol=atol, err_msg=name)


def layer_of(layers: nnx.Module, index: int) -> nnx.Module:
    graphdef, params = nnx.split(layers)
    return nnx.merge(graphdef, jax.tree.map(lambda p: p[index], params))


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.grad, argnums=1)
def gradients(graphdef, params, batch, labels):
    logits, targets = nnx.merge(graphdef, params)(**batch)[:, :-1], labels[:, 1:]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(targets, 0))
    return jnp.mean(loss, where=targets != IGNORE)


def torch_gradients(case: Case, batch: Batch) -> dict[str, np.ndarray]:
    case.theirs.zero_grad()
    case.theirs(**case.torch_inputs(batch)).loss.backward()
    return {
        # In torch, layers after the selected features get no gradient.
        k: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy().copy()
        for k, p in case.theirs.named_parameters()
    }


def logits_agree(case: Case, padding: str):
    batch, valid = case.batch(padding), case.batch(padding)["attention_mask"].astype(bool)
    with torch.no_grad():
        theirs = case.theirs(**case.torch_batch(padding)).logits
    close(case.ours(**batch)[valid], theirs[valid], 1e-4)
    close(case.ours(**case.ours.group_pictures(batch))[valid], theirs[valid], 1e-4)


def hidden_states_agree(case: Case, padding: str):
    """Compares the state at every depth; the head's own norm is already in transformers' last."""
    batch, valid = case.batch(padding), case.batch(padding)["attention_mask"].astype(bool)
    with torch.no_grad():
        theirs = case.theirs(**case.torch_batch(padding), output_hidden_states=True)
    states, logits = case.ours.over_depth(lambda x, head: (x, head(x)), **batch)
    assert len(states) == len(theirs.hidden_states) == case.ours.config.text.num_hidden_layers + 1
    for ours, wanted in zip(states[:-1], theirs.hidden_states[:-1], strict=True):
        close(ours[valid], wanted[valid], 1e-4)
    close(logits[-1][valid], theirs.logits[valid], 1e-4)


def logits_of_text_agree(case: Case):
    ids = np.arange(1, 15).reshape(2, 7)
    with torch.no_grad():
        theirs = case.theirs(input_ids=torch.from_numpy(ids)).logits
    close(case.ours(ids), theirs, 1e-4)


def gradients_agree(case: Case, padding: str, batch: Batch):
    """Compares gradients of the loss on all tokens; `batch` has grouped pictures, for `jit`."""
    # Only padding stands before the first token, and outputs at padding are arbitrary.
    supervised = np.cumsum(batch["attention_mask"], axis=1) > 1
    labels = np.where(supervised & (batch["attention_mask"] == 1), batch["input_ids"], IGNORE)
    theirs = torch_gradients(case, case.batch(padding) | {"labels": labels})
    ours = to_hf_names(case.ours, gradients(*nnx.split(case.ours), batch, labels))
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        np.testing.assert_allclose(ours[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def greedy_tokens_agree(case: Case, steps: int = 8):
    batch, inputs = case.batch("left"), case.torch_batch("left")
    inputs.pop("position_ids", None)  # `generate` computes them
    start = batch["input_ids"].shape[1]
    with torch.no_grad():
        theirs = case.theirs.generate(**inputs, max_new_tokens=steps, do_sample=False)[:, start:]
    cache = case.ours.init_cache(len(theirs), start + steps)
    logits, cache = case.ours.decode(**batch, cache=cache)
    tokens = [jnp.argmax(logits[:, -1], axis=-1)]
    for _ in range(steps - 1):
        logits, cache = case.ours.decode(tokens[-1][:, None], None, cache)
        tokens.append(jnp.argmax(logits[:, -1], axis=-1))
    np.testing.assert_array_equal(np.stack(tokens, axis=1), theirs)


def same_bits(ours, theirs: torch.Tensor) -> bool:
    ours = np.asarray(ours)
    raw = theirs.detach().contiguous().view(torch.uint8).numpy()
    return ours.shape == tuple(theirs.shape) and ours.tobytes() == raw.tobytes()


def assert_same_model(ours, theirs):
    named = to_hf_names(ours, nnx.split(ours)[1])
    wanted = dict(theirs.named_parameters())
    assert named.keys() == wanted.keys()
    assert [n for n, p in wanted.items() if not same_bits(named[n], p)] == []


def reload(model: type, path: Path) -> Any:
    """Loads a checkpoint with transformers; no tensor may be missing or left over."""
    loaded, info = model.from_pretrained(path, output_loading_info=True)  # type: ignore
    assert not any(info.values()), info
    return loaded
