"""Tiny random checkpoints of LLaVA, written by transformers, beside our reading of them."""

import jax
import pytest

from mmunlearner_jax.weights.io import from_pretrained
from tests.helpers import torch_llava
from tests.helpers import torch_qwen2_vl as qwen2_vl


@pytest.fixture(scope="session")
def torch_model():
    return torch_llava.make_torch_model


@pytest.fixture(scope="session", params=torch_llava.CASES)
def case(request, tmp_path_factory) -> torch_llava.Case:
    path = tmp_path_factory.mktemp(request.param)
    model = torch_llava.make_torch_model(request.param)
    model.save_pretrained(path)
    return torch_llava.Case(model, from_pretrained(path), path)


@pytest.fixture(scope="session", params=[*qwen2_vl.CASES, *qwen2_vl.WINDOWED])
def qwen(request, tmp_path_factory) -> qwen2_vl.Case:
    path = tmp_path_factory.mktemp(request.param)
    model = qwen2_vl.make_torch_model(request.param)
    model.save_pretrained(path)
    return qwen2_vl.Case(model, from_pretrained(path), path)


@pytest.fixture(params=["left", "right"])
def padding(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def highest_precision():
    with jax.default_matmul_precision("highest"):
        yield
