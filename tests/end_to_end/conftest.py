"""What the runs of all modules have in common: programs that were compiled before."""

import os

import pytest


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """A folder of all workers, as `JAX_COMPILATION_CACHE_DIR` of the runs."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(shared / "compiled"))
        yield
