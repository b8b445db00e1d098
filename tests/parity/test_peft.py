"""Adapters against PEFT: its files, its logits, its gradients, and our merged export."""

import copy
import json
from types import SimpleNamespace

import jax
import numpy as np
import peft
import pytest
import torch
from flax import nnx
from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

from mmunlearner_jax.unlearn import lora
from mmunlearner_jax.weights.io import from_pretrained, save_pretrained, weight_names
from mmunlearner_jax.weights.peft import save_adapters
from tests.helpers import compare
from tests.helpers import torch_llava as llava
from tests.helpers import torch_llava_next as llava_next
from tests.helpers import torch_qwen2_vl as qwen2_vl

RANK, ALPHA = 3, 5.0
KINDS = {
    "llava": (
        LlavaForConditionalGeneration,
        llava.Case,
        lambda: llava.make_torch_model("grouped-rope"),
        (r"!self_attn\.k_proj", r"^model\.", r"^lm_head"),
    ),
    "llava_next": (
        LlavaNextForConditionalGeneration,
        llava_next.Case,
        lambda: llava_next.make_torch_model("mistral"),
        (r"!self_attn\.k_proj", r"^model\.", r"^lm_head"),
    ),
    "qwen2_vl": (
        Qwen2VLForConditionalGeneration,
        qwen2_vl.Case,
        lambda: qwen2_vl.make_torch_model("two heads share"),
        (r"^model\.visual", r"!mlp", r"language_model"),
    ),
    "qwen2_5_vl": (
        Qwen2_5_VLForConditionalGeneration,
        qwen2_vl.Case,
        lambda: qwen2_vl.make_torch_model("windows of four"),
        (r"^model\.visual", r"!mlp", r"language_model"),
    ),
}


def names_of(model):
    graphdef, params = nnx.split(model)
    names = weight_names(model.config.model_type, params)
    return {path: names[*path, "kernel"] for path in lora.linears(graphdef, params)}


@pytest.fixture(scope="module", params=KINDS)
def adapted(request, tmp_path_factory):
    """A model, adapters that matter, and the files of both."""
    kind, case, make, targets = KINDS[request.param]
    path = tmp_path_factory.mktemp(request.param)
    theirs = make()
    theirs.save_pretrained(path / "vanilla")
    ours = from_pretrained(path / "vanilla")
    graphdef, params = nnx.split(ours)
    chosen = lora.choose(targets, names_of(ours))
    graphdef, adapters, frozen = lora.attach(graphdef, params, chosen, rank=RANK, alpha=ALPHA)
    rng = np.random.default_rng(0)
    adapters = jax.tree.map(
        lambda x: jax.numpy.asarray(0.3 * rng.normal(size=x.shape), x.dtype), adapters
    )
    names = weight_names(ours.config.model_type, params)
    base = str(path / "vanilla")
    save_adapters(adapters, names, path / "adapters", rank=RANK, alpha=ALPHA, base=base)
    with jax.default_matmul_precision("highest"):
        merged = nnx.merge(nnx.split(ours)[0], lora.merged(graphdef, adapters, frozen))
    merged.source = base
    save_pretrained(merged, path / "export")
    wrapped = peft.PeftModel.from_pretrained(theirs, path / "adapters", is_trainable=True)
    return SimpleNamespace(
        case=case(kind.from_pretrained(path / "vanilla").eval(), ours, path),
        kind=kind,
        path=path,
        wrapped=wrapped.eval(),
        split=(graphdef, adapters, frozen),
    )


def test_peft_gives_the_logits_of_our_export(adapted):
    batch = adapted.case.torch_batch("left")
    valid = batch["attention_mask"].bool()
    export = compare.reload(adapted.kind, adapted.path / "export").eval()
    with torch.no_grad():
        wanted = adapted.wrapped(**batch).logits[valid]
        compare.close(export(**batch).logits[valid].numpy(), wanted, 1e-4)
        assert (adapted.case.theirs(**batch).logits[valid] - wanted).abs().max() > 0.1


def test_our_adapted_model_gives_peft_s_logits(adapted):
    graphdef, adapters, frozen = adapted.split
    batch = adapted.case.batch("left")
    valid = batch["attention_mask"].astype(bool)
    with torch.no_grad():
        wanted = adapted.wrapped(**adapted.case.torch_batch("left")).logits
    ours = nnx.merge(graphdef, adapters, frozen)(**batch)
    compare.close(ours[valid], wanted[valid], 1e-4)


def test_gradients_of_adapters_are_peft_s(adapted):
    graphdef, adapters, frozen = adapted.split
    case = adapted.case
    batch = compare.with_answers(case.batch("left"))
    labels = batch.pop("labels")
    # In float64, so that the difference is ours alone: torch's own rounding depends on the host.
    exact = copy.deepcopy(adapted.wrapped).double()
    inputs = case.torch_inputs({**batch, "labels": labels})
    inputs = {k: x.double() if x.is_floating_point() else x for k, x in inputs.items()}
    exact(**inputs).loss.backward()
    theirs = {
        name: p.grad.numpy()
        for name, p in exact.named_parameters()
        if p.requires_grad
        if p.grad is not None
    }

    def loss(adapters, batch):
        model = nnx.merge(graphdef, nnx.merge_state(adapters, frozen))
        logits = model(**batch)[:, :-1]
        logs = jax.nn.log_softmax(logits)
        picked = jax.numpy.take_along_axis(logs, np.maximum(labels[:, 1:], 0)[..., None], 2)
        return -jax.numpy.mean(picked[..., 0], where=labels[:, 1:] != -100)

    grads = jax.jit(jax.grad(loss))(adapters, case.ours.group_pictures(batch))
    names = names_of(case.ours)
    ours = {}
    for path, leaf in nnx.to_flat_state(grads):
        value, factor = leaf.get_value(), path[-1].replace("_a", "_A").replace("_b", "_B")
        for name, array in zip(
            names[path[:-2]], value if value.ndim == 3 else value[None], strict=True
        ):
            module = name.removesuffix(".weight")
            ours[f"base_model.model.{module}.{factor}.default.weight"] = np.asarray(array)
    assert theirs and theirs.keys() <= ours.keys()
    most = max(np.abs(g).max() for g in theirs.values())
    for name, got in ours.items():
        # Layers behind the features get no gradient at all in torch.
        wanted = theirs.get(name, np.zeros_like(got))
        np.testing.assert_allclose(got / most, wanted / most, atol=1e-5, rtol=0, err_msg=name)


def test_the_config_names_what_was_chosen(adapted):
    config = json.loads((adapted.path / "adapters/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (RANK, ALPHA, "LORA")
    linear = {n for n, m in adapted.case.theirs.named_modules() if isinstance(m, torch.nn.Linear)}
    wrapped = {
        name.removeprefix("base_model.model.")
        for name, module in adapted.wrapped.named_modules()
        if hasattr(module, "lora_A")
    }
    if adapted.kind in (LlavaForConditionalGeneration, LlavaNextForConditionalGeneration):
        assert wrapped == {name for name in linear if "self_attn.k_proj" not in name}
    else:
        assert wrapped == {
            name
            for name in linear
            if name.startswith("model.visual") or ("language" in name and "mlp" not in name)
        }
