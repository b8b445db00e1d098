from typing import Any

import pytest

from mmunlearner_jax.models.qwen2_vl.tiny import build_chatml_processor
from tests.helpers.lessons import lessons, word_processor


@pytest.fixture(scope="session")
def processor() -> Any:
    """LLaVA's; every word has a token of its own."""
    return word_processor()


@pytest.fixture(scope="session")
def chat_processor() -> Any:
    """Qwen2-VL's."""
    return build_chatml_processor(lessons(), patch_size=8, min_pixels=256, max_pixels=4096)
