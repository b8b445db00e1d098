"""LLaVA-1.5-7B forgets 5, 10 or 15 % of the people of MLLMU-Bench.

    python -m mmunlearner_jax.main --config=configs/llava_mllmu.py:ratio=5 --workdir=runs/mllmu5 \
        --config.model.checkpoint=PATH_OR_HF_NAME

`:ratio=10,semantics=released` selects another ratio, and the published code's choices. The
benchmark is fetched from the hub at the revision of `third_party/manifest.toml`, unless
`--config.data.benchmark=FOLDER` is given.

As published: batches of 4, learning rate 1e-5, one epoch over the retain pictures with forget steps
spread evenly, AdamW with eps 1e-6 and no decay, gradients clipped at 1, greedy answers of at most
50 tokens, one photograph of `Test_Set` a person.

Departures from the published scripts, as values here:

* All weights are trained, in float32. The scripts train LoRA factors, which their mask never
  touches (D-01), in half precision (D-09). `--config.unlearn.lora.rank=16` trains adapters on which
  the mask acts (docs/lora.md). Answer-only labels, per-example squares and the mask on the update
  are described in docs/method.md; `:semantics=released` undoes these three.
* Retain steps learn text questions in addition to pictures (`unlearn.text_batch`, `forget_text`);
  the scripts' retain set has pictures only.
* Rows are packed. A step has the published four questions, so the learning rate means the same and
  an epoch has as many steps. But they are about two pictures, two questions each, where the scripts
  draw four at random. On the ORL example rows of two end as rows of one do, within the noise;
  rows of ten lose much of what should stay (docs/results/packing.md). Squares are of each question,
  so their rows hold five and change nothing. On several devices batches are rounded up to two
  questions a part of `config.mesh`.
* Questions are asked zero-shot, and scored by the likelihoods of the letters and by the published
  parser (`evaluate.shots`, `evaluate.protocol`).

The whole job has not been run at this size; docs/pods.md lists the parts that have.
"""

from ml_collections import ConfigDict

from configs import llava
from mmunlearner_jax.semantics import read_arguments, with_semantics


def get_config(arguments: str = "") -> ConfigDict:
    """Returns the config of a forget ratio; `--config=FILE:ratio=5,semantics=paper`."""
    given = read_arguments(arguments, ratio=(5, 10, 15), semantics="paper")
    config = llava.get_config()
    config.data.benchmark = "hf://datasets/MLLMMU/MLLMU-Bench"
    config.data.forget_ratio = given["ratio"]
    people = 5 * given["ratio"]  # of 500
    config.plan.forget, config.plan.pictures = 10 * people, 10 * (500 - people)
    config.model.remat = "dots"  # rows of two questions leave room for the products
    config.unlearn.update(dict(pack=2, text_pack=2))
    config.importance.update(dict(pack=5, batch_size=80))
    config.evaluate.decode.batch_size = 320
    return with_semantics(config, given["semantics"])
