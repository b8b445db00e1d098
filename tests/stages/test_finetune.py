"""What a retain-only model is taught."""

import io
from types import SimpleNamespace

import pytest
from PIL import Image

from mmunlearner_jax.data.clear import ClearBench
from mmunlearner_jax.data.mllmu import MLLMUBench
from mmunlearner_jax.data.orl import WRITERS
from mmunlearner_jax.stages.finetune import lessons
from tests.data.conftest import Clear


def encoded_anew(image: dict) -> dict:
    """The same pixels in other bytes."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(image["bytes"])).save(buffer, "bmp")
    return image | {"bytes": buffer.getvalue()}


def test_clear_retain_only_is_told_by_people_not_by_bytes(tmp_path):
    clear = Clear(tmp_path / "clear")
    clear.tables["forget10"] = [
        row | {"image": encoded_anew(row["image"])} for row in clear.tables["forget10"]
    ]
    bench = ClearBench(clear.write())
    at = SimpleNamespace(bench=bench, forget="forget10", retain="retain90")
    pictures, text = lessons(at, True)  # pyright: ignore[reportArgumentType]
    assert {sample.person for sample in pictures} == {"Cy Dee", "Eve Fay"}
    assert text == bench.text_training("retain90")
    pictures, text = lessons(at, False)  # pyright: ignore[reportArgumentType]
    assert len(pictures) == len(text) == 6


@pytest.mark.parametrize("kind", ["mllmu", "clear"])
def test_retain_only_keeps_the_world(tmp_path, kind):
    WRITERS[kind](tmp_path / kind, seed=0)
    bench = (MLLMUBench if kind == "mllmu" else ClearBench)(tmp_path / kind)
    forget, retain = bench.split(10)
    at = SimpleNamespace(bench=bench, forget=forget, retain=retain)
    every, kept = lessons(at, False), lessons(at, True)  # pyright: ignore[reportArgumentType]
    gone = bench.training(forget), bench.text_training(forget)
    for whole, rest, forgotten in zip(every, kept, gone, strict=True):
        assert len(rest) == len(whole) - len(forgotten)
        assert set(rest) == set(whole) - set(forgotten)
