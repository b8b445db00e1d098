"""Adapters in unlearning: the chain rule, the mask, what is protected, what is refused, memory."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.unlearn import lora
from mmunlearner_jax.unlearn.scoring import NOTHING
from mmunlearner_jax.unlearn.steps import TrainState, forget_step, mean_loss, retain_step
from mmunlearner_jax.unlearn.transforms import masked_ascent
from mmunlearner_jax.weights.io import weight_names
from tests.helpers.models import filled
from tests.helpers.questions import PICTURES, TEXTS, llava, qwen2_5_vl, qwen2_vl, whole

RANK, ALPHA = 2, 4.0


def every_third(params):
    return jax.tree.map(lambda p: jnp.arange(p.size).reshape(p.shape) % 3 == 0, params)


def everywhere(adapters):
    return jax.tree.map(lambda x: jnp.ones(x.shape, bool), adapters)


def adapt(model, *, masked):
    """Graph definition, adapters that matter, the rest; mask."""
    graphdef, params = nnx.split(model)
    mask = every_third(params) if masked else None
    targets = lora.linears(graphdef, params)
    graphdef, adapters, frozen = lora.attach(
        graphdef, params, targets, rank=RANK, alpha=ALPHA, mask=mask
    )
    rng = np.random.default_rng(0)
    adapters = jax.tree.map(
        lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype), adapters
    )
    return graphdef, adapters, frozen, mask


def by_path(tree):
    return {path: np.asarray(leaf.get_value()) for path, leaf in nnx.to_flat_state(tree)}


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(
    ("make", "remat"), [(llava, "dots"), (qwen2_vl, "none"), (qwen2_5_vl, "full")]
)
def test_loss_and_gradients_are_those_of_the_merged_weights(make, remat, masked):
    """What full weights say, and from their gradients the adapters' by hand."""
    model, encoder = make(remat=remat)
    batch = whole(PICTURES, encoder, 1)
    graphdef, adapters, frozen, mask = adapt(model, masked=masked)
    plain, base = (nnx.split(model)[0], by_path(nnx.split(model)[1]))

    # The oracle of merging, in NumPy.
    factors, chosen = by_path(adapters), by_path(mask) if masked else {}
    wanted = dict(base)
    for path in base:
        if (*path[:-1], "lora", "lora_a") in factors and path[-1] == "kernel":
            a, b = (factors[*path[:-1], "lora", name] for name in ("lora_a", "lora_b"))
            delta = ALPHA / RANK * np.swapaxes(b @ a, -1, -2)
            wanted[path] = base[path] + delta * chosen.get(path, 1)
    with jax.default_matmul_precision("highest"):
        merged = lora.merged(graphdef, adapters, frozen)
        for path, weights in by_path(merged).items():
            np.testing.assert_allclose(weights, wanted[path], atol=1e-6)

        def adapted(adapters):
            return mean_loss(graphdef, nnx.merge_state(adapters, frozen), [batch])

        loss, found = jax.jit(jax.value_and_grad(adapted))(adapters)
        whole_loss, full = jax.jit(
            jax.value_and_grad(lambda params: mean_loss(plain, params, [batch]))
        )(merged)
    np.testing.assert_allclose(loss, whole_loss, rtol=1e-6)
    found, full = by_path(found), by_path(full)
    most = max(np.abs(g).max() for g in found.values())
    for path, got in found.items():
        kernel = (*path[:-2], "kernel")
        moved = ALPHA / RANK * np.swapaxes(full[kernel] * chosen.get(kernel, 1), -1, -2)
        a, b = (factors[*path[:-1], name] for name in ("lora_a", "lora_b"))
        by_hand = (
            np.swapaxes(b, -1, -2) @ moved
            if path[-1] == "lora_a"
            else moved @ np.swapaxes(a, -1, -2)
        )
        np.testing.assert_allclose(got / most, by_hand / most, atol=1e-5, err_msg=str(path))


def test_adapters_begin_as_peft_s():
    model, _ = llava()
    graphdef, params = nnx.split(model)
    given = lora.linears(graphdef, params)
    graphdef, abstract, frozen = lora.attach(graphdef, params, given, rank=64, alpha=1.0)
    first, again, other = (by_path(lora.initial(abstract, seed)) for seed in (3, 3, 4))
    for path, value in first.items():
        np.testing.assert_array_equal(value, again[path])
        if path[-1] == "lora_b":
            assert not value.any()
        else:
            assert np.any(value != other[path])
            np.testing.assert_allclose(value.std(), 1 / 64, rtol=0.15)
    merged = by_path(lora.merged(graphdef, lora.initial(abstract, 3), frozen))
    for path, value in by_path(params).items():
        np.testing.assert_array_equal(value, merged[path])


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "lora"])
def test_protected_weights_keep_their_bits_in_fifty_forget_steps(adapters):
    model, encoder = llava()
    batch = whole(PICTURES, encoder, 1)
    graphdef, params = nnx.split(model)
    # Negative zeros, which the sum with nothing would change.
    params = jax.tree.map(lambda p: p.at[..., 0].set(-0.0), params)
    mask = every_third(params)
    adam = optax.adamw(1e-3, weight_decay=0.1)
    state, frozen = TrainState.create(jax.tree.map(jnp.copy, params), adam), NOTHING
    moves, targets = mask, lora.linears(graphdef, params)
    if adapters:
        graphdef, abstract, frozen = lora.attach(
            graphdef, params, targets, rank=RANK, alpha=ALPHA, mask=mask
        )
        state = TrainState.create(lora.initial(abstract, 0), adam)
        moves = everywhere(abstract)
    forget, retain = forget_step(graphdef, masked_ascent(adam)), retain_step(graphdef, adam)
    for number in range(50):
        state, loss = forget(state, [batch], moves, frozen)
        if adapters and number % 10 == 0:  # of adapters, descent goes through the mask, too
            state, _ = retain(state, [batch], frozen)
    assert np.isfinite(loss)
    after = by_path(lora.merged(graphdef, state.params, frozen))
    chosen, moved, free = by_path(mask), 0, 0
    for path, before in by_path(params).items():
        protected = ~chosen[path]
        assert before[protected].tobytes() == after[path][protected].tobytes(), path
        if path[:-1] in targets and path[-1] == "kernel":
            moved += np.sum(before != after[path])
            free += np.sum(chosen[path])
    assert moved > 0.7 * free


def test_the_mask_must_cover_what_is_adapted():
    model, _ = llava()
    graphdef, params = nnx.split(model)
    nowhere = jax.tree.map(lambda p: jnp.zeros(p.shape, bool), params)
    for mask, wanted in ((every_third(params), 1 / 3), (nowhere, None)):
        targets = lora.linears(graphdef, params)
        _, _, frozen = lora.attach(graphdef, params, targets, rank=1, alpha=1.0, mask=mask)
        if wanted:
            assert lora.coverage(frozen) == pytest.approx(wanted, abs=0.01)
            continue
        with pytest.raises(InputError, match="the mask covers none of the weights"):
            lora.coverage(frozen)


NAMES = {
    ("tower", "fc"): ("model.vision_tower.fc.weight",),
    ("layers", "q"): tuple(f"model.language_model.layers.{i}.q_proj.weight" for i in range(12)),
    ("layers", "k"): tuple(f"model.language_model.layers.{i}.k_proj.weight" for i in range(12)),
    ("head",): ("lm_head.weight",),
}


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (("^model",), ["tower", "q", "k"]),
        (("!q_proj", "language"), ["k"]),
        (("q_proj", "!language", "."), ["tower", "q", "head"]),
        ((r"layers\.\d+\.k",), ["k"]),
    ],
)
def test_the_first_pattern_that_matches_decides(patterns, chosen):
    assert [path for path in lora.choose(patterns, NAMES)] == [
        path for path in NAMES if {*path} & {*chosen} - {"layers"}
    ]


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (("q_proj", "v_proj"), "'v_proj', which decides nothing: it matches no moving weight"),
        (("language", "!q_proj"), "'!q_proj', which decides nothing"),
        (("!.",), "chooses no weight"),
        (("q_proj(",), r"'q_proj\(', which is not a regular expression"),
        (
            (r"layers\.1\.",),
            r"chooses only some of the layers model.language_model.layers.0.q_proj.weight to",
        ),
    ],
)
def test_patterns_that_do_not_fit(patterns, said):
    with pytest.raises(InputError, match=f"config.unlearn.lora.targets .*{said}"):
        lora.choose(patterns, NAMES)


def test_stacked_layers_have_a_name_each():
    model, _ = qwen2_vl()
    graphdef, params = nnx.split(model)
    names = weight_names(model.config.model_type, params)
    assert names["visual", "layers", "qkv", "kernel"] == ("model.visual.blocks.0.attn.qkv.weight",)
    assert {(*path, "kernel") for path in lora.linears(graphdef, params)} <= names.keys()


def test_no_gradient_as_large_as_the_base_exists():
    model, encoder = llava()
    batch = whole(TEXTS[:1], encoder, 1)
    text = dataclasses.replace(
        model.config.text, hidden_size=32, intermediate_size=48, num_hidden_layers=7
    )
    model = filled(dataclasses.replace(model.config, text=text, remat="dots"))
    sgd = optax.sgd(0.1)

    def made(kind):
        """Instructions that make an array like a projection's weights in all layers."""
        graphdef, params = nnx.split(model)
        moving, frozen = params, NOTHING
        if kind != "full":
            targets = [path for path in lora.linears(graphdef, params) if "layers" in path]
            mask = every_third(params) if kind == "masked" else None
            graphdef, moving, frozen = lora.attach(
                graphdef, params, targets, rank=RANK, alpha=ALPHA, mask=mask
            )
        given = TrainState.create(jax.tree.map(lambda x: jnp.zeros(x.shape), moving), sgd), [batch]
        compiled = retain_step(graphdef, sgd).lower(*given, frozen).compile()
        found = re.findall(r"= f32\[7,(?:32,48|48,32)\]\S* ([\w\-]+)\(", compiled.as_text())
        return [name for name in found if name not in ("parameter", "get-tuple-element")]

    for kind in ("plain", "masked"):
        assert made(kind) == []
    assert made("full")
