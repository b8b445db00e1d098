"""Evaluation as in the published scripts: `generate` with one question at a time."""

import io
import time
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from mmunlearner_jax.data.samples import Question


class OneByOne:
    """Answers questions greedily with a model of transformers.

    Args:
        processor: A processor of transformers.
        model: A model of transformers.
        prompt: Renders a question.
    """

    def __init__(self, processor: Any, model: Any, prompt: Callable[[Question], str]):
        self.processor, self.model, self.prompt = processor, model.eval(), prompt

    @torch.no_grad()
    def answer(self, question: Question, new: int) -> str:
        """Returns the answer's text, of at most `new` tokens."""
        shown = [*(shot.image for shot in question.shots), question.image]
        pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in shown if image]
        inputs = self.processor(
            text=[self.prompt(question)], images=pictures or None, return_tensors="pt"
        ).to(self.model.device)
        out = self.model.generate(**inputs, do_sample=False, max_new_tokens=new)
        tokens = out[0, inputs["input_ids"].shape[1] :]
        return self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def use_fastest_threads(cores: int, call: Callable[[], Any]) -> int:
    """Sets torch's number of threads to the faster for a call, 1 or `cores`, and returns it."""
    call()
    seconds = {}
    for count in {1, cores}:
        torch.set_num_threads(count)
        begin = time.perf_counter()
        call()
        seconds[count] = time.perf_counter() - begin
    best = min(seconds, key=seconds.__getitem__)
    torch.set_num_threads(best)
    return best
