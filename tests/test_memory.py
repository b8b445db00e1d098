"""Memory by arithmetic, refusals before weights are read, and batches that fit the devices."""

import dataclasses

import jax
import pytest
from flax import nnx
from jax.errors import JaxRuntimeError

from configs import llava, orl
from mmunlearner_jax import main, memory, progress
from mmunlearner_jax.config import typed
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.config.fitting import chosen, fitted
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.weights.io import save_pretrained
from tests.helpers.benchmarks import Published
from tests.helpers.questions import llava as tiny_llava
from tests.helpers.small import SMALL


def abstract(mesh, dtype="float32"):
    return nnx.merge(*abstract_model(SMALL, mesh, dtype))


@pytest.fixture(scope="module")
def model():
    return abstract(make_mesh((1, 1, 1), jax.devices()[:1]))


@pytest.fixture(scope="module")
def size(model):
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(nnx.split(model)[1]))


def config_of(**values):
    config = llava.get_config()
    config.update_from_flattened_dict(values)
    return typed(config)


def test_every_kind_is_counted_by_its_dtype(model, size):
    assert memory.least(config_of(), "evaluate", model) == {"weights": 4 * size}
    found = memory.least(config_of(), "importance", model)
    assert found["sums of squares"] == 4 * size + 4  # and how many
    found = memory.least(config_of(), "unlearn", model)
    assert found["gradients"] == 4 * size
    assert size / 8 <= found["mask"] < size / 2  # three layers share a byte
    assert 0 <= found["moments"] - 8 * size < 100  # and counters


def test_stochastic_rounding_halves_all_but_the_mask(size):
    values = {"model.param_dtype": "bfloat16", "unlearn.rounding": "stochastic"}
    half = abstract(make_mesh((1, 1, 1), jax.devices()[:1]), "bfloat16")
    found = memory.least(config_of(**values), "unlearn", half)
    assert found["weights"] == found["gradients"] == 2 * size
    assert 0 <= found["moments"] - 4 * size < 100
    found = memory.least(
        config_of(**values | {"finetune.rounding": "stochastic"}), "finetune", half
    )
    assert 0 <= found["moments"] - 4 * size < 100


def test_what_a_run_holds_beside(model, size):
    unsee = memory.least(config_of(**{"unlearn.method": "unsee"}), "unlearn", model)
    tower = unsee["gradients"]
    assert tower < 4 * size / 2 and unsee["weights before"] == tower
    assert memory.least(config_of(), "compare", model)["weights before"] == 4 * size
    adapted = memory.least(config_of(**{"unlearn.lora.rank": 2}), "unlearn", model)
    assert adapted["moments"] < size and adapted["mask"] == size
    frozen = config_of(**{"model.frozen": ("language",)})
    assert memory.least(frozen, "importance", model)["sums of squares"] < 2 * size


def test_eight_devices_hold_an_eighth(model):
    many = abstract(make_mesh((1, 8, 1)))
    one, eighth = (sum(memory.least(config_of(), "unlearn", m).values()) for m in (model, many))
    assert one / 8 <= eighth < one / 7


def refused(each, size, model, **values):
    """Returns the line that refuses unlearning on devices with so many bytes a parameter."""
    with pytest.raises(InputError) as error:
        memory.refuse_misfit(config_of(**values), "unlearn", model, int(each * size))
    return str(error.value)


def test_weights_that_are_split_by_heads_to_answer_are_copies(size):
    model = abstract(make_mesh((1, 8, 1)))
    found = memory.least(config_of(), "evaluate", model)
    # Two heads: half of nearly all weights on a device.
    assert 2 * size <= found["weights to answer with"] < 2.2 * size
    assert [*memory.least(config_of(**{"evaluate.decode.weights": "mesh"}), "evaluate", model)] == [
        "weights"
    ]


def test_weights_in_the_dtype_of_the_computation_are_copies(size):
    half = dataclasses.replace(SMALL, dtype="bfloat16")
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    whole = nnx.merge(*abstract_model(half, mesh, "float32"))
    wanted = {"weights": 4 * size, "weights to answer with": 2 * size}
    assert memory.least(config_of(), "evaluate", whole) == wanted
    config = config_of(**{"model.param_dtype": "bfloat16"})
    same = nnx.merge(*abstract_model(half, mesh, "bfloat16"))
    assert memory.least(config, "evaluate", same) == {"weights": 2 * size}


def test_a_misfit_is_one_line_with_the_nearest_options_that_fit(model, size):
    memory.refuse_misfit(config_of(), "unlearn", model, 18 * size)
    said = refused(16, size, model, mesh=(8, 1, 1))
    assert said.startswith("config.model.param_dtype is 'float32': the stage unlearn needs 0.0 GiB")
    assert "(weights 0.0, moments 0.0, gradients 0.0, mask 0.0)" in said
    assert "give config.mesh=(1, -1, 1) (" in said
    one = {"mesh": (8, 1, 1)}
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:  # as on one device
        patch.setattr(memory, "make_mesh", lambda _: make_mesh((1, 1, 1), jax.devices()[:1]))
        patch.setattr(jax, "device_count", lambda: 1)
        said = refused(12, size, model, **one)
        half = "config.model.param_dtype='bfloat16' and config."
        assert f"give {half}unlearn.rounding='stochastic' (" in said
        assert "give config.unlearn.lora.rank=16 (" in refused(8, size, model, **one)
        assert f"give {half}unlearn.lora.rank=16 (" in refused(5, size, model, **one)
        said = refused(0.1, size, model, **one)
        assert said.endswith("; give 164 devices or more, with config.mesh=(1, -1, 1)")


@pytest.mark.parametrize(
    ("each", "changes"),
    [
        (None, {}),
        (18, {}),
        (12, {"model.param_dtype": "bfloat16", "unlearn.rounding": "stochastic"}),
        (8, {"unlearn.lora.rank": 16}),
        (0.1, {}),  # nothing fits: the run itself is refused
    ],
)
def test_the_first_options_that_fit_are_chosen(model, size, monkeypatch, each, changes):
    monkeypatch.setattr(memory, "make_mesh", lambda _: make_mesh((1, 1, 1), jax.devices()[:1]))
    monkeypatch.setattr(memory, "device_limit", lambda: each and int(each * size))
    given = config_of(stages=("unlearn",))
    config, varied = memory.fitting(given, model)
    assert config == given.with_values(changes)
    assert {str(x.dtype) for x in jax.tree.leaves(nnx.split(varied)[1])} == {
        config.model.param_dtype
    }


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs stages on devices with so many bytes; returns the line that they end with."""
    model, encoder = tiny_llava()
    save_pretrained(model, tmp_path / "model", processor=encoder.processor)
    config = llava.get_config()
    config.model.checkpoint, config.data.forget_ratio = str(tmp_path / "model"), 25
    config.data.benchmark = str(Published(tmp_path / "published").write())
    config.unlearn.update(dict(epochs=0, iterations=1))
    config.mesh = (1, -1, 1)  # the tiny model's heads do not divide among four

    def line(limit, *stages):
        monkeypatch.setattr(memory, "device_limit", lambda: limit)
        config.stages = stages
        with pytest.raises(InputError) as error:
            main.run(typed(config), tmp_path / "run")
        # No option is held on to, so that it can be corrected.
        assert all(path.name.startswith(".lock") for path in tmp_path.glob("run/*"))
        return str(error.value)

    return line


def test_a_misfit_is_found_before_weights_are_read(run, monkeypatch):
    def read(*_):
        raise AssertionError

    monkeypatch.setattr("mmunlearner_jax.session.load_model", read)
    said = run(24_000, "importance", "mask", "unlearn")
    assert "the stage unlearn needs 0.0 GiB of a device at least" in said


def test_out_of_memory_is_one_line(run, monkeypatch):
    def fail(*_):
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory trying to allocate 9 bytes.\nmore")

    monkeypatch.setattr("mmunlearner_jax.stages.importance.measure", fail)
    said = run(2**40, "importance")
    assert said.startswith("the stage importance ran out of the memory of a device (JaxRuntime")
    assert said.endswith("lower config.importance.batch_size, or take more devices")
    with pytest.raises(JaxRuntimeError, match="INTERNAL"), memory.refusing_misfit("unlearn"):
        raise JaxRuntimeError("INTERNAL: no")


def test_devices_that_do_not_tell_are_not_asked():
    assert memory.device_limit() is None  # CPUs


def test_batches_are_rounded_up_where_the_config_lets_them():
    devices = jax.devices()
    given = config_of(**{"unlearn.text_batch": 0, "unlearn.pack": 3, "stages": ("unlearn",)})
    config = fitted(given, len(devices))
    check_config(config, devices)
    assert (config.mesh, config.unlearn.forget_batch) == ((1, -1, 4), 6)
    assert config.unlearn.text_batch == 0
    assert (config.evaluate.decode.batch_size, config.importance.batch_size) == (160, 16)
    assert config.audit.own["relearn_same"].to_dict()["batch"] == 16
    line = chosen(given, config, devices)
    assert line == (
        "8 devices (cpu): mesh data 1 x fsdp 2 x tensor 4; batches rounded up:"
        " unlearn.forget_batch 4 to 6, unlearn.retain_batch 4 to 6"
    )
    assert fitted(config, len(devices)) == config
    assert chosen(given, given, devices[:1]) == ""


@pytest.mark.parametrize("first", [True, False])
def test_one_process_tells_what_was_chosen(tmp_path, monkeypatch, capsys, first):
    monkeypatch.setattr(main, "is_first", lambda: first)
    monkeypatch.setattr(main, "_run_stages", lambda *_: None)
    monkeypatch.setattr(progress._Run, "quiet", False)
    main.run(config_of(), tmp_path)
    told = capsys.readouterr().err
    assert ("devices (cpu): mesh data 1" in told) == first and (told == "") != first


def test_other_batches_are_refused_with_that_option():
    config = typed(orl.get_config()).with_values({"unlearn.forget_batch": 6})
    assert fitted(config, 8) is config
    with pytest.raises(InputError, match="multiple of 8, config.round_batches=True, or another"):
        check_config(config, jax.devices())


@pytest.mark.parametrize(("count", "tensor", "batch"), [(1, 1, 4), (2, 2, 4), (6, 2, 6), (8, 4, 4)])
def test_llava_fits_any_number_of_devices(count, tensor, batch):
    config = fitted(config_of(), count)
    check_config(config, jax.devices()[:count])
    assert (config.mesh, config.unlearn.forget_batch) == ((1, -1, tensor), batch)
