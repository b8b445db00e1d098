"""The works as a good user of torch does them: the same method, without the published waste.

The questions about a picture share a row and the picture, by a 4-D attention mask. Logits are
computed at answers only. The loss is compiled (`torch.compile`) where that is faster. Evaluation
asks all questions together: pictures are read once, their keys and values are kept for all their
questions, and `generate` gets these, padded on the left.
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.vs_torch.generate import use_fastest_threads
from benchmarks.vs_torch.side import Work
from benchmarks.vs_torch.theirs import Batch, Theirs, cores
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation.scores import scored
from mmunlearner_jax.models.packing import IGNORE


class Best(Theirs):
    """Torch's side at its best; the arguments are those of `Theirs`."""

    def batches(self) -> list[list[Batch]]:
        """See `Theirs`; rows are packed."""
        packed = self.work.batches(packed=True)
        return [[self._packed(batch) for batch in batches] for batches in packed]

    def _packed(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """Returns the inputs of packed rows: masks [B, 1, T, T], positions, answers' places."""
        valid = torch.from_numpy(batch["attention_mask"]).bool()
        own = torch.from_numpy(batch["segments"]).long()
        same = (own[:, :, None] == own[:, None, :]) & valid[:, None, :]
        prefix = (own == 0) & valid
        seen = (same | prefix[:, None, :]).tril()
        seen |= torch.eye(own.shape[1], dtype=torch.bool)  # padding sees itself, or it would be NaN
        mask = torch.zeros(seen.shape, dtype=self.dtype())
        mask = mask.masked_fill(~seen, torch.finfo(self.dtype()).min)
        # A question's positions go on from the prefix, whatever questions stand before it.
        positions = same.tril(-1).sum(2) + (own > 0) * prefix.sum(1, keepdim=True)
        places = torch.from_numpy(batch["answer_places"]).long()
        labels = functional.pad(
            torch.from_numpy(batch["labels"]).long()[:, 1:], (0, 1), value=IGNORE
        )
        arrays = {
            "input_ids": torch.from_numpy(batch["input_ids"]).long(),
            "attention_mask": mask[:, None],
            "position_ids": positions,
            "places": places,
            "targets": labels.gather(1, places),
            "pixel_values": torch.from_numpy(batch["pixel_values"])[:, 0].to(self.dtype()),
        }
        return {name: array.to(self.device) for name, array in arrays.items()}

    def loss_of(self, model: Any, batch: Batch) -> Callable[[Batch], torch.Tensor]:
        """See `Theirs`; compiled where forward and backward are faster then."""

        def eager(batch: Batch) -> torch.Tensor:
            inputs = {k: v for k, v in batch.items() if k not in ("places", "targets")}
            hidden = model.model(**inputs, use_cache=False)[0]
            places = batch["places"][..., None].expand(-1, -1, hidden.shape[-1])
            logits = model.lm_head(hidden.gather(1, places)).flatten(0, 1).float()
            targets = batch["targets"].flatten()
            return functional.cross_entropy(logits, targets, ignore_index=IGNORE)

        if not self.work.preset.compiled:
            return eager
        ways = (eager, torch.compile(eager))
        fastest = min(ways, key=lambda way: self._seconds(model, way, batch))
        model.zero_grad()
        return fastest

    def _seconds(self, model: Any, loss: Callable[[Batch], torch.Tensor], batch: Batch) -> float:
        def call() -> None:
            model.zero_grad()
            loss(batch).backward()
            self.wait()

        call()
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    def evaluate(self) -> Work:
        """See `Theirs`; all questions are asked together."""
        questions, asking = self.work.questions(), Together(self.work, self.asked(), self.device)

        def call() -> list[str]:
            responses = asking.answers(questions)
            for question, response in zip(questions, responses, strict=True):
                scored({**vars(question), "response": response})  # as our side does
            return responses

        threads = use_fastest_threads(cores(), call)
        return self.work_of("evaluate", threads, call, lambda answers: {"answers": answers})


class Together:
    """Answers questions greedily, all in one batch, each picture computed once.

    Args:
        work: The workload.
        model: A model of transformers.
        device: Where it is.
    """

    def __init__(self, work: Any, model: Any, device: torch.device):
        self._work, self._model, self._device = work, model.eval(), device
        self._pad = work.encoder.tokenizer.pad_token_id

    @torch.no_grad()
    def answers(self, questions: Sequence[Question]) -> list[str]:
        """Returns the answers' texts, each of as many tokens as the sample's answer."""
        pictures = list(dict.fromkeys(question.image for question in questions))
        shown = [Image.open(io.BytesIO(image)).convert("RGB") for image in pictures if image]
        inputs = self._work.encoder.processor(
            text=[self._work.prompt(question) for question in questions],
            images=[shown[pictures.index(question.image)] for question in questions],
        )
        ids = inputs["input_ids"]
        image_token = self._work.encoder.processor.image_token_id
        length = 1 + max(n for n, token in enumerate(ids[0]) if token == image_token)
        cache = self._prefixes(ids[0][:length], shown)
        order = [pictures.index(question.image) for question in questions]
        cache.batch_select_indices(torch.tensor(order, device=self._device))
        most = max(map(len, ids))
        rows = [[*row[:length], *[self._pad] * (most - len(row)), *row[length:]] for row in ids]
        tokens = torch.tensor(rows, device=self._device)
        new = [len(question.answer.split()) + 1 for question in questions]
        out = self._model.generate(
            input_ids=tokens,
            attention_mask=(tokens != self._pad).long(),
            cache=cache,
            do_sample=False,
            max_new_tokens=max(new),
        )
        decode = self._work.encoder.tokenizer.decode
        return [
            decode(row[most : most + count], skip_special_tokens=True).strip()
            for row, count in zip(out, new, strict=True)
        ]

    def _prefixes(self, prefix: Sequence[int], shown: Sequence[Image.Image]) -> Any:
        """Returns the keys and values of all pictures, after the tokens that stand before them."""
        pixels = self._work.encoder.processor.image_processor(shown, return_tensors="pt")
        tokens = torch.tensor([[*prefix]] * len(shown), device=self._device)
        pixels = pixels["pixel_values"].to(self._device, self._model.dtype)
        out = self._model.model(input_ids=tokens, pixel_values=pixels, use_cache=True)
        return out.cache
