"""Eight fake CPU devices, set before JAX is imported; nothing here runs long enough for LLVM.

Compiling is most of the suite's time, and XLA's older emitters of fused loops compile faster than
its default ones.

Those of a GPU's kernels run with `TEST_PLATFORMS=cuda pytest -n0 tests/models -k cudnn`.
"""

import os

import pytest

pytest.register_assert_rewrite("tests.helpers")  # before anything of it is imported

from tests.helpers.flags import COMPILED_FAST  # noqa: E402

os.environ["JAX_PLATFORMS"] = os.environ.get("TEST_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count=8 {COMPILED_FAST}"
)
