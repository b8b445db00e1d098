"""Where the weights lie that answer questions, and their dtype."""

from flax import nnx
from jax.sharding import Mesh

from mmunlearner_jax.config import Config
from mmunlearner_jax.models.vision_language import VisionLanguageConfig, abstract_model
from mmunlearner_jax.sharding import decoding_mesh


def to_answer(
    config: Config, model: VisionLanguageConfig, mesh: Mesh
) -> tuple[Mesh, nnx.GraphDef, nnx.State]:
    """Returns the model that answers, without its arrays.

    Its weights have the dtype of the computation. Every module rounds its weights to that dtype
    before it uses them, so the answers are the same, and each decoded token reads fewer bytes.

    Args:
        config: Config of the run.
        model: Config of the model.
        mesh: Mesh of the run.

    Returns:
        The mesh of the answers, the graph definition, and the parameters as
        `jax.ShapeDtypeStruct` with shardings.
    """
    mesh = decoding_mesh(mesh, config.evaluate.decode.weights, model.text.kv_heads)
    return mesh, *abstract_model(model, mesh, model.dtype or config.model.param_dtype)
