from pathlib import Path

import pytest

from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.examples.orl import write_orl_benchmark
from mmunlearner_jax.models.llava.tiny import build_processor
from tests.helpers.benchmarks import Clear, Published


@pytest.fixture(scope="session")
def orl(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("orl") / "benchmark"
    write_orl_benchmark(out, seed=0)
    return out


@pytest.fixture(scope="session")
def bench(orl) -> MLLMUBench:
    return MLLMUBench(orl)


@pytest.fixture(scope="session")
def processor(bench):
    return build_processor(bench.training("ft_Data") + bench.text_training("ft_Data"))


@pytest.fixture
def clear(tmp_path) -> Clear:
    return Clear(tmp_path / "clear")


@pytest.fixture
def published(tmp_path) -> Published:
    return Published(tmp_path / "published")
