"""LLaVA-1.5-7B forgets 1, 5 or 10 % of the authors of CLEAR.

    python -m mmunlearner_jax.main --config=configs/llava_clear.py:ratio=5 --workdir=runs/clear5 \
        --config.model.checkpoint=PATH

The checkpoint must have been trained on `full+tofu` (none is published). The benchmark is fetched
from the hub at the revision of `third_party/manifest.toml`, unless
`--config.data.benchmark=FOLDER` is given.

As published: batches of 4, learning rate 1e-5, one epoch, AdamW with eps 1e-6 and no decay,
zero-shot greedy answers of at most 50 tokens. The mask compares captions of the people to forget
with captions of the other people and TOFU's questions about all people.

Departures from the published scripts, as values here or described in `data/benchmarks/clear.py`:

* Statistics and master weights are float32 (D-09: published in half precision). Gradients are
  clipped at 1 in retain steps, too. Answer-only labels, per-example squares and the mask on the
  update are described in docs/method.md; `:semantics=released` undoes these three.
* Retain steps also learn TOFU's questions about the people to forget (`unlearn.forget_text`),
  because the model should keep them.
* The other people are recognised and captioned on `retain_perturbed`, which replaces a config that
  was never released. Every answer is scored against its own reference (D-24, D-25).

The whole job has not been run at this size; docs/pods.md lists the parts that have.
"""

from ml_collections import ConfigDict

from configs import llava
from mmunlearner_jax.semantics import read_arguments


def get_config(arguments: str = "") -> ConfigDict:
    """Returns the config of a forget ratio; `--config=FILE:ratio=5,semantics=paper`."""
    given = read_arguments(arguments, ratio=(5, 1, 10), semantics="paper")
    config = llava.get_config(given["semantics"])
    config.data.benchmark = "hf://datasets/therem/CLEAR"
    config.data.forget_ratio = given["ratio"]
    config.evaluate.splits = ()
    config.evaluate.photos_per_person = 0
    photographs = 3768 * given["ratio"] // 100
    config.plan.questions_per_picture = 1
    config.plan.forget, config.plan.pictures = photographs, 3768 - photographs
    config.plan.text = 4000
    # Captions and names of 583 photographs, pictures of nobody, TOFU's questions about everybody.
    config.plan.update(dict(questions=6800, asked_per_picture=3, asked_words=4000, weighed=583))
    return config
