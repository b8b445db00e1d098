import pytest

from mmunlearner_jax.comparison.findings import Comparison
from mmunlearner_jax.examples.orl import write_orl_benchmark
from tests.helpers import synthetic


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory):
    """The photographs and questions that the cells are about."""
    out = tmp_path_factory.mktemp("comparison") / "benchmark"
    write_orl_benchmark(out, seed=0, ratios=synthetic.RATIOS)
    return out


@pytest.fixture(scope="session")
def workdir(benchmark, tmp_path_factory):
    """Three seeds at two ratios, of which one lacks a variant."""
    out = tmp_path_factory.mktemp("compared")
    synthetic.write(out, benchmark, lacks={(2, 10, "no_forget_text")})
    return out


@pytest.fixture(scope="session")
def found(workdir):
    return Comparison(workdir)
