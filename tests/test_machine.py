"""What programs tell XLA of a CPU."""

import os

import pytest

from mmunlearner_jax.machine import compile_quickly

OPTION = "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling"
OWN = "--xla_backend_extra_options=xla_cpu_use_vmlog"


@pytest.mark.parametrize(
    ("before", "after"),
    [("", OPTION), ("--xla_x=1", f"--xla_x=1 {OPTION}"), (OWN, OWN), ("a.txt", "a.txt")],
)
def test_loops_are_not_unrolled_unless_the_user_has_options_or_a_file(monkeypatch, before, after):
    monkeypatch.setenv("XLA_FLAGS", before)
    for _ in range(2):
        compile_quickly()
        assert os.environ["XLA_FLAGS"] == after
