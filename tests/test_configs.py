"""The configs of the two benchmarks: published values, a typed ratio, nothing that is refused."""

import jax
import pytest

from configs import (
    llava,
    llava_1gpu,
    llava_1gpu_lora,
    llava_clear,
    llava_mllmu,
    llava_next,
    llava_next_mllmu,
    qwen2_5_vl,
    qwen2_5_vl_mllmu,
    qwen2_vl,
    qwen2_vl_1gpu,
    qwen2_vl_1gpu_lora,
    qwen2_vl_clear,
    qwen2_vl_mllmu,
)
from mmunlearner_jax.config import typed
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.config.fitting import fitted
from mmunlearner_jax.errors import InputError


def name(module):
    return module.__name__


BENCHMARKS = {
    llava_mllmu: ("hf://datasets/MLLMMU/MLLMU-Bench", 15),
    llava_clear: ("hf://datasets/therem/CLEAR", 1),
    qwen2_vl_mllmu: ("hf://datasets/MLLMMU/MLLMU-Bench", 15),
    qwen2_vl_clear: ("hf://datasets/therem/CLEAR", 1),
    **dict.fromkeys(
        (llava_1gpu, llava_1gpu_lora, qwen2_vl_1gpu, qwen2_vl_1gpu_lora),
        ("hf://datasets/MLLMMU/MLLMU-Bench", 15),
    ),
    llava_next_mllmu: ("hf://datasets/MLLMMU/MLLMU-Bench", 15),
    qwen2_5_vl_mllmu: ("hf://datasets/MLLMMU/MLLMU-Bench", 15),
}


@pytest.mark.parametrize("module", BENCHMARKS, ids=name)
def test_the_published_values_and_a_typed_ratio(module):
    benchmark, other = BENCHMARKS[module]
    config = module.get_config()
    assert (config.data.benchmark, config.data.forget_ratio) == (benchmark, 5)
    assert (config.unlearn.forget_batch, config.unlearn.retain_batch) == (4, 4)
    assert (config.unlearn.learning_rate, config.unlearn.epochs) == (1e-5, 1)
    assert config.evaluate.decode.max_new_tokens == 50
    assert module.get_config(f"ratio={other}").data.forget_ratio == other
    released = module.get_config(f"ratio={other},semantics=released")
    assert (released.data.forget_ratio, released.data.labels) == (other, "full")
    # A picture of CLEAR has one question; where prompts are learned, none can share them.
    shared = (2, 2, 5) if "MLLMU" in benchmark else (1, 1, 1)
    for made, packs in ((config, shared), (released, (1, 1, 1))):
        assert (made.unlearn.pack, made.unlearn.text_pack, made.importance.pack) == packs
    for wrong, said in (
        ("ratio=five", "ratio is of type int: ratio=5, semantics=paper"),
        ("ratios=5", "'ratios' is none of ratio=5, semantics=paper"),
        ("semantics=mine", "write FILE, FILE:paper or FILE:released"),
    ):
        with pytest.raises(InputError, match=said):
            module.get_config(wrong)


@pytest.mark.parametrize("module", [llava, llava_next, qwen2_vl, qwen2_5_vl, *BENCHMARKS], ids=name)
def test_no_value_is_refused(module):
    config = module.get_config()
    config.mesh = (1, 4, 1)
    check_config(fitted(typed(config), 4), jax.devices()[:4])
    config.evaluate.shots = 1
    check_config(fitted(typed(config), 4), jax.devices()[:4])
    config.evaluate.protocol = "plain"
    with pytest.raises(InputError, match="config.evaluate.shots is 1: give 0, or the protocol"):
        check_config(fitted(typed(config), 4), jax.devices()[:4])
