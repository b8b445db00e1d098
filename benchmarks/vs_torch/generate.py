"""What the published evaluation scripts do: a prompt, a picture, `generate`, one by one."""

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
        processor: of transformers.
        model: likewise.
        prompt: renders a question.
    """

    def __init__(self, processor: Any, model: Any, prompt: Callable[[Question], str]):
        self.processor, self.model, self.prompt = processor, model.eval(), prompt

    @torch.no_grad()
    def answer(self, question: Question, new: int) -> str:
        """The answer's text, of so many tokens at most."""
        shown = [*(shot.image for shot in question.shots), question.image]
        pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in shown if image]
        inputs = self.processor(
            text=[self.prompt(question)], images=pictures or None, return_tensors="pt"
        ).to(self.model.device)
        out = self.model.generate(**inputs, do_sample=False, max_new_tokens=new)
        said = out[0, inputs["input_ids"].shape[1] :]
        return self.processor.tokenizer.decode(said, skip_special_tokens=True).strip()


def use_fastest_threads(cores: int, call: Callable[[], Any]) -> int:
    """Sets and returns torch's number of threads, one or all cores, that serves a call best."""
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
