"""Eight fake CPU devices, set before JAX is imported; nothing here runs long enough for LLVM.

Compiling is most of the suite's time. XLA's older emitters of fused loops compile faster than its
default ones, and all processes of a session share what they have compiled.

Those of a GPU's kernels run with `TEST_PLATFORMS=cuda pytest -n0 tests/models -k cudnn`.
"""

import gc
import os
import shutil
import tempfile

import pytest

pytest.register_assert_rewrite("tests.helpers")  # before anything of it is imported

from tests.helpers.flags import COMPILED_FAST  # noqa: E402

gc.set_threshold(50_000, 20, 20)  # tracing makes many objects and few cycles

os.environ["JAX_PLATFORMS"] = os.environ.get("TEST_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count=8 {COMPILED_FAST}"
)
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers and the programs of tests inherit it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"


def pytest_unconfigure():
    """Removes the shared programs at the end of a session."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
