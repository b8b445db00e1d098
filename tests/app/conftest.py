import pytest

from mmunlearner_jax.app.pair import Pair
from tests.helpers.small_run import finished_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("app") / "run")


@pytest.fixture(scope="session")
def pair(run):
    return Pair.opened(run)
