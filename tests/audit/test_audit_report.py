"""How an audit is shown, and the command that audits any pair of checkpoints."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from mmunlearner_jax.audit.__main__ import SHORT
from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.audit.audit_file import read_audit
from mmunlearner_jax.audit.recovery import entry
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.reporting.audit_figure import recovered, relearning
from mmunlearner_jax.reporting.audit_table import print_audit
from mmunlearner_jax.reporting.figures import svg
from mmunlearner_jax.short_flags import translated

PEOPLE = [f"p{n // 8}" for n in range(32)]


def audit(*models):
    rng = np.random.default_rng(0)
    shares = {"before": 0.9, "after": 0.3, "gold": 0.3}
    clean = {m: (rng.random(32) < shares[m]).astype(float) for m in models}
    trials = {m: {"a trial": (rng.random(32) < 0.6).astype(float)} for m in models}
    entries = {"pressing_prompts": entry(PEOPLE, clean, trials, ATTACKS["pressing_prompts"])}
    entries["relearn_others"] = {"verdict": "not tried: only one person was forgotten"}
    return {"attacks": entries, "settings": {}}


def printed(content):
    console = Console(width=160, file=io.StringIO())
    with console.capture() as capture:
        print_audit(console, content)
    return capture.get()


def test_the_table_has_gold_where_there_is_one():
    content = audit("before", "after", "gold")
    text = printed(content)
    assert "gold, attacked" in text and "only one person" in text
    assert content["attacks"]["pressing_prompts"]["verdict"] in " ".join(
        text.replace("│", " ").split()
    )
    assert "gold, attacked" not in printed(audit("before", "after"))


def test_curves_of_relearning_begin_without_a_step_and_share_a_rate():
    trials = {"1 steps at 0.1": 0.4, "5 steps at 0.1": 0.6, "1 steps at 0.2": 0.3}
    model = {"clean": 0.25, "trial": "5 steps at 0.1", "trials": trials}
    figure = relearning({"before": model, "after": model, "gold": None})
    assert figure is not None
    before, after = figure.axes[0].lines
    for line in (before, after):
        assert list(line.get_xdata()) == [0, 1, 5]
        assert list(line.get_ydata()) == pytest.approx([25, 40, 60])
    assert relearning({"after": {"trials": {"8 bits": 0.5}}}) is None


def test_the_figure_has_a_row_for_each_attack():
    shares = {"pressing_prompts": audit("before", "after", "gold")["attacks"]["pressing_prompts"]}
    axes = recovered(shares).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        ATTACKS["pressing_prompts"].label
    ]
    drawn = [line.get_xdata()[0] for line in axes.lines if line.get_marker() in ("o", "D")]
    result = shares["pressing_prompts"]
    assert drawn == pytest.approx([100 * result["recovered"], 100 * result["recovered_gold"]])
    assert svg(recovered(shares)) == svg(recovered(shares))


def test_a_damaged_file_is_refused_by_name(tmp_path):
    assert read_audit(tmp_path / "audit.json") == {}
    content = audit("before", "after")
    (tmp_path / "audit.json").write_text(json.dumps(content))
    assert read_audit(tmp_path / "audit.json") == content
    content["attacks"]["pressing_prompts"]["after"].pop("clean")
    (tmp_path / "audit.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"audit\.json.*clean.*remove it"):
        read_audit(tmp_path / "audit.json")


def test_flags_of_the_command_stand_for_options():
    argv = ["audit", "--config=configs/llava.py", "--before=a", "--after=b", "--gold=c=d"]
    assert translated(argv, SHORT, "audit") == [
        *("audit", "--config=configs/llava.py", "--config.model.checkpoint=a"),
        *("--config.audit.after=b", "--config.audit.gold=c=d", "--config.stages=('audit',)"),
    ]
    with pytest.raises(SystemExit, match="--after is missing"):
        translated(argv[:3], SHORT, "audit")
    with pytest.raises(SystemExit, match="--gold has no value: write --gold=FOLDER"):
        translated([*argv[:4], "--gold", "c"], SHORT, "audit")
    assert translated(["audit", "--help"], SHORT, "audit") == ["audit", "--help"]
