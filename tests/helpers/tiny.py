"""A session of the stages with a tiny LLaVA and a benchmark of a few questions."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
from flax import nnx

from configs import orl
from mmunlearner_jax.config import typed
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.weights.io import from_pretrained, save_pretrained
from tests.helpers.questions import PHOTOS, PICTURES, QUESTIONS, TEXTS, llava

FORGET = [sample for sample in PICTURES if sample.image == PHOTOS[0]]
RETAIN = [sample for sample in PICTURES if sample.image != PHOTOS[0]]
OTHERS = [Sample("t", None, question, "Oslo.") for question in QUESTIONS]


def config(semantics: str = "paper", **unlearn: Any) -> Any:
    """Returns the config of the example with small batches, because there are few questions."""
    made = orl.get_config(semantics)
    made.unlearn.update(
        dict(iterations=4, forget_every=1, forget_batch=2, retain_batch=2, text_batch=2)
    )
    made.unlearn.update(dict(stop_remembered=-1.0, stop_every=1, stop_examples=0))
    made.unlearn.update(dict(forget_text=True) | unlearn)
    made.data.retain_others = False
    made.checkpoint_every = 2
    return made


def session(workdir: Path, **labels: Any) -> Session:
    """Returns a session with the vanilla model in `workdir/vanilla`, on one device.

    Args:
        workdir: Folder of the run.
        **labels: Options of the `Encoder`.
    """
    folder = workdir / "vanilla"
    if not folder.exists():
        model, encoder = llava()
        save_pretrained(model, folder, processor=encoder.processor)
    made = Session(typed(config()), workdir, str(folder))
    made.mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    model = from_pretrained(folder, mesh=made.mesh)
    made.graphdef, made.params = nnx.split(model)
    made.model, made.abstract = model, made.params
    bench: Any = SimpleNamespace(
        everyone="everyone",
        training={"forget": FORGET, "retain": RETAIN}.__getitem__,
        text_training={"everyone": [*TEXTS, *OTHERS], "retain": OTHERS}.__getitem__,
    )
    made.encoder, made.bench = Encoder(llava()[1].processor, **labels), bench
    made.forget, made.retain = "forget", "retain"
    return made


def varied(session: Session, folder: Path | None = None, **unlearn: Any) -> Session:
    """Returns a session with the same model and data, but another folder and other options."""
    other = copy.copy(session)
    other.workdir, other.config = folder or session.workdir, typed(config(**unlearn))
    return other
