"""LLaVA's decoders by the `model_type` of `text_config`: Llama, and two that are nearly Llama.

Source: Yang et al. 2024 (Qwen2), Jiang et al. 2023 (Mistral); parity with transformers'
`Qwen2ForCausalLM` and `MistralForCausalLM` inside of `LlavaForConditionalGeneration`.
"""

from dataclasses import dataclass
from typing import ClassVar

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.fields import Count, Length, Token, Width
from mmunlearner_jax.models.llama import LlamaConfig


@dataclass(frozen=True)
class Qwen2Config(LlamaConfig):
    """Sizes of a Qwen2 decoder; names and defaults of `transformers.Qwen2Config`."""

    model_type: ClassVar[str] = "qwen2"
    absent: ClassVar[tuple[str, ...]] = ("head_dim", "attention_bias", "mlp_bias")

    vocab_size: Width = 151936
    intermediate_size: Width = 22016
    num_key_value_heads: Count | None = 32
    max_position_embeddings: Length = 32768
    bos_token_id: Token | None = None
    eos_token_id: Token | tuple[Token, ...] | None = None
    use_sliding_window: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.use_sliding_window:
            raise InputError("text_config.use_sliding_window=True is not supported; only false is")

    @property
    def qkv_bias(self) -> bool:
        """True: the projections to queries, keys and values always have a bias."""
        return True


@dataclass(frozen=True)
class MistralConfig(LlamaConfig):
    """Sizes of a Mistral decoder; names and defaults of `transformers.MistralConfig`.

    Attributes:
        sliding_window: How many tokens a token attends to, itself included; None: all before it.
    """

    model_type: ClassVar[str] = "mistral"
    absent: ClassVar[tuple[str, ...]] = ("attention_bias", "mlp_bias")

    intermediate_size: Width = 14336
    num_key_value_heads: Count | None = 8
    max_position_embeddings: Length = 131072
    sliding_window: Length | None = 4096

    @property
    def window(self) -> int | None:
        """The window of every layer."""
        return self.sliding_window


DECODERS = {config.model_type: config for config in (LlamaConfig, Qwen2Config, MistralConfig)}
