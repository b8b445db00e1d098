"""What is counted of steps grows as it must; one setting, on two fake devices."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_costs_are_counted(tmp_path):
    out, plot = tmp_path / "scaling.json", tmp_path / "scaling.svg"
    command = [sys.executable, "-m", "benchmarks.scaling", f"--out={out}", f"--plot={plot}"]
    command += ["--questions=10", "--widths=512", "--devices=2", "--people=80,160"]
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    axes = json.loads(out.read_text())["axes"]
    assert all(f"against {axis}" in done.stdout for axis in ("questions", "width", "devices"))

    shared, own = ([r for r in axes["questions"] if r["packed"] == way] for way in (True, False))
    assert [r["program"] for r in shared] == [r["program"] for r in own]
    for ours, theirs in zip(shared, own, strict=True):
        assert ours["questions_of_batch"] == theirs["questions_of_batch"] == 80
        # 592 tokens once and ten times 128, against ten times 720; the head costs both the same.
        assert 0.2 < ours["flops_per_question"] / theirs["flops_per_question"] < 0.4
        assert ours["temporaries"] < theirs["temporaries"]
        assert ours["collectives"]["all-gather"][0] > 0

    # Twice the people are twice the batches.
    for few, many in zip(axes["people"][:2], axes["people"][2:], strict=True):
        assert few["packed"] == many["packed"]
        assert many["importance"] == pytest.approx(2 * few["importance"], rel=0.2)
    groups = ElementTree.parse(plot).findall(".//{http://www.w3.org/2000/svg}g")
    assert len([group for group in groups if group.get("id", "").startswith("curve-")]) == 12
