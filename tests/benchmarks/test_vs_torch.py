"""The benchmark against torch: equal numbers, honest ratios."""

import importlib.util
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

FILE = Path(__file__).parents[2] / "benchmarks" / "vs_torch.py"


@pytest.fixture(scope="module")
def vs_torch():
    spec = importlib.util.spec_from_file_location("vs_torch", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake(module, side, kind, value=1.0):
    """A side whose every call gives one number at once."""
    names = {getattr(comparison, side) for comparison in module.COMPARISONS}

    def call():
        return {"weight": np.full(3, value)}

    return SimpleNamespace(kind=kind, calls=dict.fromkeys(names, call), numbers=lambda x: x)


def printed(module, report):
    console = Console(width=100, file=io.StringIO())
    with console.capture() as capture:
        module.show(report, console)
    return capture.get()


@pytest.fixture(scope="module")
def report(vs_torch):
    return vs_torch.run("small", batch=2, rounds=2, seed=0)


def test_both_sides_compute_the_same(report):
    results = report["comparisons"]
    assert [r["torch"]["call"] for r in results] == ["loop", "vmap", "batch", "iteration"]
    for result in results:
        assert result["difference"] < (1e-4 if result["jax"]["call"] == "iteration" else 1e-3)


def test_ratios_are_those_of_the_pairs(vs_torch, report):
    text = printed(vs_torch, report)
    for result in report["comparisons"]:
        pairs = zip(result["torch"]["seconds"], result["jax"]["seconds"], strict=True)
        ratios = [theirs / ours for theirs, ours in pairs]
        assert len(ratios) == 2
        assert f"{np.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" in text


def test_nothing_is_timed_where_they_disagree(vs_torch):
    ours, theirs = fake(vs_torch, "ours", "cpu"), fake(vs_torch, "theirs", "cpu", 1.01)
    with pytest.raises(SystemExit, match=r"loop.*differ by 9\.9e-03.*nothing was timed"):
        vs_torch.compare(ours, theirs, rounds=1)


def test_not_a_number_is_no_agreement(vs_torch):
    ours, theirs = fake(vs_torch, "ours", "cpu", np.nan), fake(vs_torch, "theirs", "cpu", np.nan)
    with pytest.raises(SystemExit, match="nothing was timed"):
        vs_torch.compare(ours, theirs, rounds=1)


def test_no_ratio_between_kinds_of_device(vs_torch, report):
    ours, theirs = fake(vs_torch, "ours", "gpu"), fake(vs_torch, "theirs", "cpu")
    results = vs_torch.compare(ours, theirs, rounds=1)
    assert [r["ratios"] for r in results] == [None] * 4
    assert "no ratio" in printed(vs_torch, report | {"comparisons": results})


def test_rounding_is_no_disagreement_but_a_missing_tensor_is(vs_torch):
    theirs = {"kernel": np.ones(4), "key.bias": np.full(4, 1e-20)}
    assert vs_torch.difference(theirs | {"key.bias": np.zeros(4)}, theirs) < 1e-10
    assert vs_torch.difference(theirs | {"kernel": np.array([1, 1, 1, 1.1])}, theirs) > 0.04
    assert vs_torch.difference({"kernel": np.ones(4)}, theirs) == np.inf
