"""The whole example, a few steps of everything: artefacts, `results.json`, resuming, the export."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

import mmunlearner_jax as mmu
from mmunlearner_jax import artefacts, preemption
from tests.helpers.commands import FLAGS, FOREIGN, ROOT, SHORT, command, loaded, run, signalled
from tests.helpers.launchers import free_port


def kill_at(workdir: Path, stage: str, step: int, how: int = signal.SIGKILL) -> int:
    """Runs until a step of a stage is saved, then sends a signal; returns the exit code."""
    there = workdir / "checkpoints" / stage / str(step)
    return signalled(command(workdir), there, how)[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("orl") / "run"
    done = run(workdir, **{"profile.steps": 2})
    assert "stage report" in done.stderr
    # No terminal: no bars; and what libraries say of themselves is no news.
    assert not any(x in done.stderr for x in ("\r", "PyTorch was not found", "WARNING:absl"))
    imported = loaded(done)
    assert {"transformers", "tensorboardX"} <= imported and not FOREIGN & imported
    return workdir


def test_artefacts(finished):
    for name in (
        *("config.json", "metrics.jsonl", "tensorboard", "benchmark", "vanilla", "checkpoints"),
        *("importance", "mask", "mask.safetensors", "predictions", "results.json", "report.html"),
        "export",
    ):
        assert (finished / name).exists(), name
    assert not list(finished.rglob("*partial*"))


def test_results(finished):
    results = json.loads((finished / "results.json").read_text())
    for scores in (results["before"], results["after"], results["controls"]["ga"]):
        assert {"forget", "test", "retain", "test_retain", "realworld"} <= scores.keys()
        assert scores["forget"].keys() == {"vqa", "qa"}
        cell = scores["forget"]["vqa"]["classification"]
        assert cell["n"] == 8 * 7
        assert 0 <= cell["ci95"][0] <= cell["value"] <= cell["ci95"][1] <= 1
    assert results["before"]["forget"]["qa"].keys() == {
        *("classification", "cloze", "cloze_exact", "words"),
        *("rouge1", "rouge2", "rougeL", "rougeL_recall", "bleu"),
    }
    assert results["unlearn"]["forget_steps"] == 3 and results["unlearn"]["retain_steps"] == 8
    assert results["controls"]["ga"]["unlearn"]["retain_steps"] == 0
    assert results["mask"]["by_module"].keys() == {"vision", "projector", "language"}
    assert results["seed"] == 0
    metrics = [json.loads(r) for r in (finished / "metrics.jsonl").read_text().splitlines()]
    for stage, steps in (("finetune_text", 4), ("finetune", 6)):
        assert [r["step"] for r in metrics if r["stage"] == stage] == list(range(1, steps + 1))
    measured = [r["count"] for r in metrics if r["stage"] == "importance/forget"]
    assert measured[0] > 0 and measured == sorted(measured) and measured[-1] == 32


def test_every_long_stage_is_profiled(finished):
    found = finished.glob("tensorboard/**/plugins/profile/*/perfetto_trace.json.gz")
    folder = finished / "tensorboard"
    assert {str(path.relative_to(folder)).split("/plugins")[0] for path in found} == {
        *("finetune_text", "finetune", "unlearn", "controls/ga"),
        *("evaluate/before", "evaluate/after"),
        *(f"importance/{name}" for name in ("forget", "pictures", "text")),
    }


def test_scoring_again_without_the_model_gives_the_same_bytes(finished):
    path = finished / "results.json"
    kept = path.read_bytes()
    wrong = json.loads(kept)
    wrong["after"]["forget"]["vqa"]["classification"]["value"] = 0.5
    wrong["controls"]["ga"]["forget"]["qa"] = {}
    path.write_text(json.dumps(wrong))
    run(finished, stages='("rescore",)')
    assert path.read_bytes() == kept


def test_predictions_can_be_scored_again(finished):
    lines = (finished / "predictions/before-forget.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        if line["task"] == "classification":
            best = line["options"][int(np.argmax(line["scores"]))]
            assert (line["choice"], line["correct"]) == (best, best == line["answer"])


def test_the_mask_is_readable_by_name_and_has_the_density_reported(finished):
    mask = load_file(finished / "mask.safetensors")
    weights = LlavaForConditionalGeneration.from_pretrained(finished / "vanilla")
    named = dict(weights.named_parameters())
    assert {k: v.shape for k, v in mask.items()} == {k: tuple(v.shape) for k, v in named.items()}
    ones, size = (sum(f(m) for m in mask.values()) for f in (np.sum, np.size))
    results = json.loads((finished / "results.json").read_text())
    assert results["mask"]["density"] == pytest.approx(ones / size)


def test_a_finished_run_does_nothing_again(finished):
    kept = {p: p.stat().st_mtime_ns for p in finished.rglob("*.safetensors")}
    run(finished)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*.safetensors")} == kept


def test_killed_and_rerun_gives_the_same_bits(finished, tmp_path):
    workdir = tmp_path / "run"
    kill_at(workdir, "finetune_text", 2)
    assert not (workdir / "checkpoints/finetune").exists()
    kill_at(workdir, "finetune", 4)
    assert not (workdir / "vanilla").exists()
    kill_at(workdir, "importance/pictures", 2)
    assert kill_at(workdir, "unlearn", 4, signal.SIGTERM) == preemption.STATUS
    assert not (workdir / "unlearned").exists()
    said = run(workdir).stderr
    assert "stage finetune: skipped, what it writes is there" in said
    assert re.search(r"^unlearn: goes on after step \d", said, re.MULTILINE)
    for name in ("vanilla/model.safetensors", "mask.safetensors", "export/model.safetensors"):
        assert (workdir / name).read_bytes() == (finished / name).read_bytes(), name
    for path in (finished / "predictions").iterdir():
        assert (workdir / "predictions" / path.name).read_text() == path.read_text()


def test_evaluate_scores_one_checkpoint(finished, tmp_path):
    line = [sys.executable, "-m", "mmunlearner_jax", "evaluate", "--config=orl", "--quiet"]
    line += [f"--model={finished / 'export'}", f"--benchmark={finished / 'benchmark'}"]
    line += [f"--config.{k}={v}" for k, v in SHORT.items() if k.startswith("evaluate.")]
    env = os.environ | FLAGS
    line += ["--config.evaluate.splits=('forget', 'realworld')"]
    done = subprocess.run(
        [*line, f"--workdir={tmp_path}"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Multiple choice" in done.stdout and "realworld" in done.stdout
    for split in ("forget", "realworld"):
        answers = (finished / f"predictions/after-{split}.jsonl").read_text()
        assert (tmp_path / f"predictions/before-{split}.jsonl").read_text() == answers
    refused = subprocess.run(
        [*line, f"--workdir={finished}"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "holds a run (vanilla/)" in refused.stderr and refused.stderr.count("\n") == 1


def test_the_export_answers_the_same_in_transformers(finished):
    theirs = LlavaForConditionalGeneration.from_pretrained(finished / "export").eval()
    processor = AutoProcessor.from_pretrained(finished / "export")
    ours = mmu.from_pretrained(finished / "export")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (112, 92), np.uint8))
    turn = [{"type": "image"}, {"type": "text", "text": "Who is this person?"}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": turn}], add_generation_prompt=True
    )
    inputs = processor(text=prompt, images=picture.convert("RGB"), return_tensors="np")
    given = {k: inputs[k] for k in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        batch = {k: torch.from_numpy(np.asarray(v)) for k, v in given.items()}
        logits = theirs(**batch).logits.numpy()
        tokens = theirs.generate(**batch, max_new_tokens=8, do_sample=False)
    np.testing.assert_allclose(ours(**given), logits, rtol=1e-4, atol=1e-4)

    cache = ours.init_cache(1, given["input_ids"].shape[1] + 8)
    out, cache = ours.decode(
        given["input_ids"],
        given["attention_mask"],
        cache,
        pixel_values=given["pixel_values"],
    )
    answer = []
    for _ in range(8):
        answer.append(int(np.argmax(out[0, -1])))
        out, cache = ours.decode(np.array([[answer[-1]]]), None, cache)
    end = processor.tokenizer.eos_token_id
    expected = tokens[0, given["input_ids"].shape[1] :].tolist()
    answer = answer[: answer.index(end) + 1] if end in answer else answer
    assert answer == expected[: len(answer)] and len(answer) == len(expected)


AUDITED = {
    "stages": '("audit","report")',
    "audit.attacks": ("pressing_prompts", "quantisation", "membership"),
}


def test_an_audit_gives_the_same_bits_after_a_kill_and_with_two_processes(finished, tmp_path):
    """Like the next test at the end of this file, as both add files to the run."""
    copies = [shutil.copytree(finished, tmp_path / name) for name in ("killed", "two")]
    run(finished, **AUDITED)
    path = finished / "audit.json"
    audit = json.loads(path.read_text())
    assert tuple(audit["attacks"]) == AUDITED["audit.attacks"]
    result = audit["attacks"]["quantisation"]
    assert result["after"]["trials"].keys() == {"8 bits", "4 bits"} and result["gold"] is None
    assert result["n"] == 63 and result["people"] == 1
    results = json.loads((finished / "results.json").read_text())
    splits = [results["before"][split]["vqa"]["classification"] for split in ("forget", "test")]
    right = sum(score["value"] * score["n"] for score in splits)
    assert result["before"]["clean"] == pytest.approx(right / sum(s["n"] for s in splits))
    assert "Erased or hidden?" in (finished / "report.html").read_text()
    killed, two = copies
    answered = killed / "predictions/audit-quantisation-before.jsonl"
    signalled(command(killed, **AUDITED), answered, signal.SIGKILL)
    assert answered.exists() and not (killed / "audit.json").exists()
    run(killed, **AUDITED)
    assert (killed / "audit.json").read_bytes() == path.read_bytes()
    arguments = [x for x in command(two, **AUDITED)[3:] if not x.startswith("--config.stages")]
    line = [str(ROOT / "launch/local.sh"), "2", *arguments, '--config.stages=("audit",)']
    env = {
        **os.environ,
        **FLAGS,
        "PYTHON": sys.executable,
        "PORT": str(free_port()),
        "DEVICES": "1",
    }
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    by_two = json.loads((two / "audit.json").read_text())
    for name, attack in audit["attacks"].items():
        ours, theirs = (x["after"]["trials"] for x in (attack, by_two["attacks"][name]))
        assert theirs == pytest.approx(ours, abs=0.02), name  # a near tie may fall the other way


def test_any_pair_of_checkpoints_is_audited_even_if_torch_wrote_them(finished, tmp_path):
    for name in ("vanilla", "export"):
        model = LlavaForConditionalGeneration.from_pretrained(finished / name)
        shutil.copytree(
            finished / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns("*.safetensors*", artefacts.LIST),
        )
        model.save_pretrained(tmp_path / name)
    workdir = tmp_path / "audit"
    options = dict(x.split("=", 1) for x in command(finished, **AUDITED)[5:])
    kept = ("--config.evaluate", "--config.audit.attacks")
    line = [
        *(sys.executable, "-m", "mmunlearner_jax.audit", "--config=configs/orl.py"),
        *(f"--workdir={workdir}", f"--before={tmp_path / 'vanilla'}"),
        *(f"--after={tmp_path / 'export'}", f"--benchmark={finished / 'benchmark'}"),
        *(f"{key}={value}" for key, value in options.items() if key.startswith(kept)),
    ]
    done = subprocess.run(
        line, cwd=ROOT, env={**os.environ, **FLAGS}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Erased or hidden?" in done.stdout
    ours, theirs = (json.loads((x / "audit.json").read_text()) for x in (finished, workdir))
    assert theirs["attacks"] == ours["attacks"]
