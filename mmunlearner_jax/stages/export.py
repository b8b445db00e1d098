"""Stage `export`: writes the unlearned model as a transformers checkpoint."""

from flax import nnx

from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.unlearn import load_unlearned
from mmunlearner_jax.weights.io import save_pretrained


def run(session: Session) -> bool:
    """Writes `export/`: weights, config, tokenizer and processor. Reads no vanilla weights."""
    folder = session.workdir / "export"
    if is_done(folder):
        return False
    params = load_unlearned(session.workdir, session.abstract)
    with writing(folder) as partial:
        save_pretrained(nnx.merge(session.graphdef, params), partial)
    return True
