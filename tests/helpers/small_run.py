"""Workdirs of the ORL example with few people and a tiny model, made without training."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs import orl
from mmunlearner_jax.checkpoint import save_tree
from mmunlearner_jax.config import Config, typed
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import prepare
from tests.helpers.commands import SMALL

STAGES = "prepare finetune evaluate importance mask unlearn evaluate controls export report"


def small_config() -> Config:
    """Returns the config: all devices share the `tensor` axis, so any batch divides."""
    changes = {"mesh": (1, 1, -1), "controls": ("ga",), "stages": tuple(STAGES.split())}
    return typed(orl.get_config()).with_values(SMALL["orl"] | changes)


def prepared_run(workdir: Path) -> Path:
    """Runs the stage `prepare`."""
    workdir.mkdir(parents=True)
    prepare.run(Session(small_config(), workdir))
    return workdir


def finished_run(workdir: Path) -> Path:
    """Makes what a finished run leaves: `unlearned/` differs in the decoder's head alone.

    Each split has two predictions: the first answer became wrong, the second one stayed.
    """
    config = small_config()
    prepared_run(workdir)
    shutil.copytree(workdir / "initial", workdir / "vanilla")
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    session = Session(config, workdir)
    rng = np.random.default_rng(0)

    def moved(path: tuple, leaf: Any) -> Any:
        noise = rng.normal(0, 0.05, leaf.shape).astype(leaf.dtype)
        return leaf + noise if "lm_head" in jax.tree_util.keystr(path) else leaf

    save_tree(workdir / "unlearned", jax.tree_util.tree_map_with_path(moved, session.params))
    (workdir / "predictions").mkdir()
    answerer = session.answerer()
    for split, questions in session.questions().items():
        lines = answerer.answer(session.params, questions[:2], split=split, label="before")
        for label in ("before", "after"):
            right = (label == "before", True)
            made = [line | {"correct": x} for line, x in zip(lines, right, strict=True)]
            text = "".join(json.dumps(line) + "\n" for line in made)
            (workdir / "predictions" / f"{label}-{split}.jsonl").write_text(text)
    return workdir
