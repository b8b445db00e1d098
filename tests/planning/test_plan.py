"""The planner on slices that are not there, with libtpu's compiler; a tiny model."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.errors import JaxRuntimeError
from jax.sharding import NamedSharding, PartitionSpec

from configs import llava, qwen2_5_vl, qwen2_vl
from mmunlearner_jax import plan
from mmunlearner_jax.config import Config, typed
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.llava import LLAVA
from mmunlearner_jax.models.qwen2_5_vl import QWEN2_5_VL
from mmunlearner_jax.models.qwen2_vl import QWEN2_VL
from mmunlearner_jax.planning.audit import audit_cost
from mmunlearner_jax.planning.durations import MEASURED, durations, whole
from mmunlearner_jax.planning.estimate import estimate
from mmunlearner_jax.planning.programs import STAGES, model_config, programs
from mmunlearner_jax.planning.topologies import find_slice
from mmunlearner_jax.sharding import make_mesh, process_rows
from mmunlearner_jax.unlearn.bits import DEVICES, packed_shapes
from mmunlearner_jax.unlearn.transforms import masked_ascent
from mmunlearner_jax.weights.io import save_pretrained
from tests.helpers.questions import llava as llava_of_questions
from tests.helpers.small import SMALL, SMALL_QWEN, SMALL_WINDOWED

pytest.importorskip("libtpu", reason="needs the extra 'tpu'")


RESULTS = Path(__file__).parents[2] / "benchmarks/results"
SHORT = {
    "mesh": (1, -1, 1),  # so that layers are gathered
    "plan.question_tokens": 24,
    "plan.answer_tokens": 8,
    "evaluate.decode.max_new_tokens": 4,
    "importance.batch_size": 4,
    "evaluate.decode.batch_size": 4,
}


def test_a_masked_step_writes_no_booleans():
    """Bits of stacked layers are unpacked inside of the kernels that use them."""
    one = NamedSharding(make_mesh((1, 1, 1), find_slice("v5p:1x1x1").devices), PartitionSpec())

    def placed(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one)

    weights = placed(jax.ShapeDtypeStruct((28, 64, 256), jnp.float32))
    optimizer = masked_ascent(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)))
    state = jax.tree.map(placed, jax.eval_shape(optimizer.init, weights))

    def step(weights, state, gradient, mask):
        updates, state = optimizer.update(gradient, state, weights, mask=mask)
        return optax.apply_updates(weights, updates), state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
        *(weights, state, weights, packed_shapes(weights, DEVICES))
    )
    assert lowered.compile().memory_analysis().temp_size_in_bytes < weights.size / 2


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(LLAVA.sizes, "llava_1_5_7b", lambda: SMALL)
    config = llava.get_config()
    config.update_from_flattened_dict(SHORT)
    return config


def test_a_ring_of_chips_gives_hosts_rows_that_are_no_neighbours():
    """Put on the devices, a host's rows are those of its chips (the description's first host's)."""
    mesh = make_mesh((1, 16, 1), find_slice("v5e-16").devices)
    hosts = [device.process_index for device in mesh.devices.flat]
    own = process_rows(mesh, 32)
    assert len(own) == 2 * hosts.count(0) == 8
    assert [hosts[row // 2] for row in own] == [0] * 8
    assert own[-1] - own[0] > len(own)


def test_a_mesh_may_split_an_axis_of_the_slice():
    mesh = make_mesh((1, 2, 8), find_slice("v6e-16").devices)
    assert mesh.axis_sizes == (1, 2, 8)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_compiled_for_a_slice(config, stage):
    target = find_slice("v5e-4")
    found = plan.plan(typed(config), target, (stage,))
    assert {e.stage for e in found} == {stage}
    for e in found:
        assert e.fits and e.arguments > 0 and e.total >= e.arguments + e.temporaries
        assert e.flops >= e.model_flops > 0
        assert e.traffic.stored > 0 and e.seconds > 0 and 0 < e.utilisation(target) <= 1
        # Of seven questions about a picture, two share a row of a batch of four.
        each = {"retain step": 8, "prefill": 3.5, "greedy": 3.5}
        assert e.questions == each.get(e.name, 4)
        assert e.flops_per_question == e.flops / e.questions
    # So small a forward pass was once compiled without any; a backward pass of two keeps more.
    assert any(e.temporaries > 0 for e in found) or stage == "evaluate"
    if stage == "evaluate":  # two chips share the parameters by heads, and gather none
        moved = sum(size for e in found for _, size in e.traffic.collectives.values())
        assert moved < found[0].arguments / 4
    else:  # four chips share the parameters: every layer's are gathered, forward and backward
        assert found[0].traffic.collectives["all-gather"][0] > 3 * 7
    page = plan.render(config, target, found)
    assert f"**{stage}: fits**" in page and page.splitlines()[2].startswith("**It fits, and takes ")
    written = json.loads(json.dumps(plan.as_json(config, target, found)))
    assert written["verdict"] == {stage: "fits"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "record", "small"),
    [(qwen2_vl, QWEN2_VL, SMALL_QWEN), (qwen2_5_vl, QWEN2_5_VL, SMALL_WINDOWED)],
    ids=["qwen2_vl", "qwen2_5_vl"],
)
def test_pictures_of_any_size_are_planned_with_the_largest_budget(
    module, record, small, monkeypatch
):
    config = module.get_config()
    monkeypatch.setitem(record.sizes, config.model.size, lambda: small)
    config.update_from_flattened_dict(SHORT | {"model.patch_budgets": (32, 64)})
    target = find_slice("v5e-4")
    picture, text = programs(typed(config), make_mesh(config.mesh, target.devices), "importance")
    shapes = {name: x.shape for name, x in picture.arguments[2].items()}
    assert shapes["pixel_values"] == (4, 64, 3 * 2 * 4 * 4)
    assert shapes["image_grid_thw"] == (4, 1, 3)
    assert "pixel_values" not in text.arguments[2]
    found = plan.plan(typed(config), target, ("importance",))
    assert len(found) == 2 and all(e.fits and e.flops >= e.model_flops > 0 for e in found)


@pytest.mark.slow
def test_a_kernel_of_a_tpu(config):
    config.model.attention = "splash"
    (first, _), target = (
        plan.plan(typed(config), find_slice("v5e-4"), ("importance",)),
        find_slice("v5e-4"),
    )
    assert first.fits and first.flops > 0
    assert "attention `splash`" in plan.render(config, target, [first])
    config.model.attention = "cudnn"
    with pytest.raises(
        InputError, match="attention='cudnn' does not run on tpu: use xla or blocks or splas"
    ):
        plan.plan(typed(config), target, ("importance",))


@pytest.mark.slow
def test_a_tpu_stands_in_for_a_gpu(config):
    target = find_slice("h100-1")
    assert (target.name, len(target.devices)) == ("h100-1", 1)
    config.model.attention = "splash"
    with pytest.raises(
        InputError, match="attention='splash' does not run on gpu: use xla or blocks or cudnn"
    ):
        plan.plan(typed(config), target, ("importance",))
    config.model.attention = "cudnn"
    found = plan.plan(typed(config), target, ("importance",))
    for e in found:
        assert e.fits and e.compute_seconds == e.flops / target.chip.flops
    page = plan.render(config, target, found)
    assert "libtpu cannot compile for a GPU: the programs are those of as many v5p chips" in page
    assert plan.as_json(config, target, found)["topology"] == "h100-1"


@pytest.mark.slow
def test_out_of_memory_is_a_verdict(config):
    config.update_from_flattened_dict(
        {"plan.question_tokens": 16384, "importance.batch_size": 64, "model.remat": "none"}
    )
    target = find_slice("v5e-4")
    found = plan.plan(typed(config), target, ("importance",))
    worst = found[-1]
    assert not worst.fits and worst.total > worst.temporaries > target.chip.hbm
    page = plan.render(config, target, found)
    assert "**importance: does not fit**" in page
    assert page.splitlines()[2] == "**It does not fit** (importance)."


@pytest.mark.parametrize(
    ("name", "chips", "found"),
    [
        ("v5e:4x4", 16, "v5e:4x4"),
        ("v5p-8", 4, "v5p:2x2x1"),
        ("v6e-8", 8, "v6e:2x4"),
        ("h100:8", 8, "h100-8"),
    ],
)
def test_slices_by_shape_and_by_name(name, chips, found):
    target = find_slice(name)
    assert (target.name, len(target.devices)) == (found, chips)


@pytest.mark.parametrize("name", ["v5e", "v5e-7", "v4-8", "h100", "v5e:four", ""])
def test_a_slice_that_is_not_known(name):
    with pytest.raises(InputError, match=f"--topology={name}: unknown; use a shape like"):
        find_slice(name)


def test_a_mesh_that_does_not_fill_the_slice(config):
    config.mesh = (1, 3, 1)
    with pytest.raises(InputError, match="config.mesh"):
        plan.plan(typed(config), find_slice("v5e-4"), ("importance",))


def test_a_size_that_is_not_published():
    config = llava.get_config()
    config.model.size = "llava_70b"
    with pytest.raises(InputError, match="config.model.size is 'llava_70b': give one of llava_1_5"):
        model_config(config)


def test_pictures_of_any_size_need_a_budget():
    config = qwen2_vl.get_config()
    config.model.patch_budgets = ()
    target = find_slice("v5e-4")
    with pytest.raises(InputError, match="config.model.patch_budgets is empty"):
        next(programs(typed(config), make_mesh(config.mesh, target.devices), "importance"))


def test_a_compiler_that_fails_is_one_line(config):
    target = find_slice("v5e-4")
    plain, *_ = programs(typed(config), make_mesh(config.mesh, target.devices), "importance")

    def lower(*_):
        raise JaxRuntimeError("INTERNAL: it cannot be read back\nmore")

    broken = dataclasses.replace(plain, function=SimpleNamespace(lower=lower))
    said = r"picture batch: libtpu .* \(INTERNAL: it cannot be read back\); use the libtpu that jax"
    with pytest.raises(InputError, match=said):
        estimate(broken, plain, plain, target)


def test_a_run_takes_from_its_rooflines_to_the_utilisation_of_a_gpu():
    target: Any = SimpleNamespace(devices=[0, 1], chip=SimpleNamespace(flops=50.0))

    def made(stage, times, seconds, model_flops):
        values = {"stage": stage, "times": times, "seconds": seconds, "model_flops": model_flops}
        return SimpleNamespace(**values)

    estimates: Any = [
        made("importance", 3, 2.0, 100.0),
        made("unlearn", 2, 10.0, 30.3),  # slower than on a GPU: nothing to add
        made("unlearn", 1, 1.0, 60.6),
        made("evaluate", 5, 1.0, 10.0),
    ]
    found = durations(estimates, target)
    assert found["importance"] == pytest.approx((6, 3 / 0.358))
    assert found["unlearn"] == pytest.approx((21, 20 + 2))
    assert found["evaluate"] == (5, 5)
    assert whole(found) == pytest.approx((32, 3 / 0.358 + 27))


def test_the_utilisation_is_the_lowest_that_was_measured():
    for stage, share in MEASURED.items():
        text = (RESULTS / f"h100-7b-{stage}-xla.json").read_text()
        lowest = min(program["mfu"] for program in json.loads(text)["programs"])
        assert share == round(lowest, 3)


def test_an_audit_costs_what_its_attacks_ask_and_learn():
    config = Config().with_values({"audit.attacks": ("quantisation", "relearn_retained")})
    own, audited = config.audit.own["relearn_retained"], config.plan.audited

    def made(stage, name, per_second):
        return SimpleNamespace(stage=stage, name=name, fits=True, questions_per_second=per_second)

    estimates: Any = [made("evaluate", "prefill", 50.0), made("evaluate", "greedy", 50.0)]
    estimates.append(made("evaluate", "greedy, in words", 1.0))  # attacks ask about pictures
    assert audit_cost(config, estimates) is None
    estimates.append(made("unlearn", "retain step", 10.0))
    cost = audit_cost(config, estimates)
    assert cost is not None
    assert cost.asked == 3 * audited * (1 + 2 + len(own.steps))  # clean, 8 and 4 bits, relearned
    assert cost.learned == 3 * max(own.steps) * own.batch
    assert cost.seconds == pytest.approx(cost.asked / 25 + cost.learned / 10)
    estimates[0].fits = False
    assert audit_cost(config, estimates) is None


def test_a_checkpoint_is_planned_for_by_its_own_sizes(tmp_path):
    model, encoder = llava_of_questions()
    save_pretrained(model, tmp_path / "model", processor=encoder.processor)
    config = Config().with_values({"model.checkpoint": str(tmp_path / "model")})
    found = model_config(config)
    sizes = "vocab_size", "hidden_size", "num_hidden_layers", "heads", "kv_heads", "head_size"
    for size in sizes:
        assert getattr(found.text, size) == getattr(model.config.text, size), size
    assert found.vision == model.config.vision
    assert (found.dtype, found.remat) == (config.model.compute_dtype, config.model.remat)
