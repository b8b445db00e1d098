"""Stage `export`: the unlearned model as a transformers checkpoint."""

from pathlib import Path

from flax import nnx
from ml_collections import ConfigDict

from mmunlearner_jax.artefacts import is_done, writing
from mmunlearner_jax.stages import setup
from mmunlearner_jax.stages.unlearn import load_unlearned
from mmunlearner_jax.weights.io import save_pretrained


def run(config: ConfigDict, workdir: Path) -> bool:
    """Writes `export/`: weights, config, tokenizer and processor."""
    if is_done(workdir / "export"):
        return False
    at = setup.load(config, workdir, setup.vanilla_checkpoint(config, workdir))
    params = load_unlearned(workdir, at.params)
    with writing(workdir / "export") as partial:
        save_pretrained(nnx.merge(at.graphdef, params), partial)
    return True
