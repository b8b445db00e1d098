"""A tiny LLaVA and a benchmark of a few questions, as the stages have them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
from flax import nnx
from mmunlearner_jax.stages.setup import Setup

from configs import orl
from mmunlearner_jax.data.prompts import Encoder
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.weights.io import from_pretrained, save_pretrained
from tests.helpers.questions import PHOTOS, PICTURES, QUESTIONS, TEXTS, llava

FORGET = [sample for sample in PICTURES if sample.image == PHOTOS[0]]
RETAIN = [sample for sample in PICTURES if sample.image != PHOTOS[0]]
OTHERS = [Sample("t", None, question, "Oslo.") for question in QUESTIONS]


def config(semantics: str = "paper", **unlearn: Any) -> Any:
    """The example's, with batches as small as its questions are few."""
    made = orl.get_config(semantics)
    made.unlearn.update(
        dict(iterations=4, forget_every=1, forget_batch=2, retain_batch=2, text_batch=2)
    )
    made.unlearn.update(dict(stop_remembered=-1.0, stop_every=1, stop_examples=0))
    made.unlearn.update(unlearn)
    made.checkpoint_every = 2
    return made


def at(workdir: Path, **labels: Any) -> Setup:
    """The vanilla model in `workdir/vanilla`, on one device.

    Args:
        workdir: of the run.
        **labels: options of the `Encoder`.
    """
    folder = workdir / "vanilla"
    if not folder.exists():
        model, encoder = llava()
        save_pretrained(model, folder, processor=encoder.processor)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    model = from_pretrained(folder, mesh=mesh)
    graphdef, params = nnx.split(model)
    bench: Any = SimpleNamespace(
        everyone="everyone",
        training={"forget": FORGET, "retain": RETAIN}.__getitem__,
        text_training={"everyone": [*TEXTS, *OTHERS], "retain": OTHERS}.__getitem__,
    )
    return Setup(
        mesh=mesh,
        model=model,
        graphdef=graphdef,
        params=params,
        encoder=Encoder(llava()[1].processor, **labels),
        bench=bench,
        forget="forget",
        retain="retain",
        seed=0,
        frozen_groups=(),
        targets=(),
        workdir=workdir,
    )
