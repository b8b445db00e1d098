"""LLaVA-1.5-7B forgets 5, 10 or 15 % of the people of MLLMU-Bench.

    python -m mmunlearner_jax.main --config=configs/llava_mllmu.py:ratio=5 --workdir=runs/mllmu5 \
        --config.model.checkpoint=PATH_OR_HF_NAME

`:ratio=10,semantics=released` gives another ratio, and the published code's choices. The benchmark
is fetched from the hub at the revision of `third_party/manifest.toml`, unless
`--config.data.benchmark=FOLDER` is given.

Published, and kept: batches of 4, learning rate 1e-5, one epoch over the retain pictures with
forget steps spread evenly, AdamW with eps 1e-6 and no decay, gradients clipped at 1, greedy answers
of at most 50 tokens, one photograph of `Test_Set` a person.

Departures from the published scripts, each a value here:

* Full fine-tuning in float32, where the scripts train LoRA factors that their mask never touches
  (D-01, D-09); with `--config.unlearn.lora.rank=16` adapters that it does (docs/lora.md).
  Answer-only labels, per-example squares, the mask on the update: docs/method.md;
  `:semantics=released` undoes these three.
* Retain steps learn text questions beside the pictures (`unlearn.text_batch`, `forget_text`); the
  scripts' retain set is pictures alone.
* Zero-shot, scored by the letters' likelihood and by the published parser (`evaluate.shots`,
  `evaluate.protocol`).

The whole job has not been run at this size; docs/pods.md says what was.
"""

from ml_collections import ConfigDict

from configs import llava
from mmunlearner_jax.semantics import read_arguments


def get_config(arguments: str = "") -> ConfigDict:
    """The config of a forget ratio; `--config=FILE:ratio=5,semantics=paper`."""
    given = read_arguments(arguments, ratio=(5, 10, 15), semantics="paper")
    config = llava.get_config(given["semantics"])
    config.data.benchmark = "hf://datasets/MLLMMU/MLLMU-Bench"
    config.data.forget_ratio = given["ratio"]
    people = 5 * given["ratio"]  # of 500
    config.plan.forget, config.plan.pictures = 10 * people, 10 * (500 - people)
    return config
