"""The works as in the published code: a model of transformers in a loop of torch.

Every question has a row of its own, with the picture, and logits of all tokens. Evaluation asks one
question at a time. Execution is eager, as published, with torch's fused AdamW, and with one thread
or all cores, whichever is faster for a work.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils import flop_counter

from benchmarks.vs_torch.generate import OneByOne, use_fastest_threads
from benchmarks.vs_torch.side import SIZE, Bench, Work, peak_flops
from benchmarks.vs_torch.workload import CLIP, EPSILON, LEARNING_RATE, Preset, Workload, chosen
from mmunlearner_jax.evaluation.scores import scored

Batch = dict[str, torch.Tensor]

# Torch's counter knows only the GPU kernels of attention; these are the CPU's.
_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ATTENTION_BACK = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_COUNTED = {
    _ATTENTION: lambda q, k, v, *_, **__: flop_counter.sdpa_flop_count(q, k, v),
    _ATTENTION_BACK: lambda g, q, k, v, *_, **__: flop_counter.sdpa_backward_flop_count(g, q, k, v),
}


class Theirs(Bench):
    """Torch's side.

    Args:
        preset: Sizes of the model and of the work.
        seed: Seed of the work.
        folder: Folder of the weights that our side wrote.
    """

    def __init__(self, preset: Preset, seed: int, folder: Path):
        torch.backends.cudnn.allow_tf32 = False  # as on our side; products use none by default
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.work, self._folder = Workload.make(preset, seed), folder
        self.threads: dict[str, int] = {}
        super().__init__(
            {
                "importance": self._importance,
                "unlearn": self._unlearn,
                "finetune": self._finetune,
                "evaluate": self.evaluate,
            }
        )

    def facts(self) -> dict[str, Any]:
        """See `Side`."""
        cuda = self.device.type == "cuda"
        torch.set_num_threads(cores())
        x = torch.ones((SIZE, SIZE), dtype=self.dtype(), device=self.device)

        def product() -> None:
            torch.matmul(x, x)
            self.wait()

        return {
            "kind": "gpu" if cuda else "cpu",
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "peak_flops": peak_flops(product),
        }

    def end(self, name: str) -> dict[str, Any]:
        """See `Side`; adds `threads`, the number of threads of the work."""
        return super().end(name) | {"threads": self.threads[name]}

    def forget_peak(self) -> None:
        """See `Bench`."""
        super().forget_peak()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int | None:
        """See `Bench`."""
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else super().peak()

    def dtype(self) -> torch.dtype:
        """Returns the dtype of weights and computation."""
        return getattr(torch, self.work.preset.dtype)

    def wait(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def load(self) -> Any:
        """Returns a new model with the weights that our side wrote."""
        model: Any = transformers.LlavaForConditionalGeneration.from_pretrained(
            self._folder, dtype=self.dtype()
        )
        return model.to(self.device)

    def batches(self) -> list[list[Batch]]:
        """Returns the batches of the forget and the retain set."""
        return [[self._inputs(b) for b in batches] for batches in self.work.batches(packed=False)]

    def _inputs(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """Returns the model's inputs for a host batch, in the form of its processor's output."""
        names = ("input_ids", "attention_mask", "labels")
        tokens = {k: torch.from_numpy(batch[k]).long().to(self.device) for k in names}
        pixels = torch.from_numpy(batch["pixel_values"])[:, 0]
        return tokens | {"pixel_values": pixels.to(self.device, self.dtype())}

    def work_of(
        self,
        name: str,
        threads: int,
        call: Callable[[], Any],
        numbers: Callable[[Any], dict[str, Any]],
    ) -> Work:
        """Returns a work that counts its operations in the first call."""
        self.threads[name] = threads
        counted: list[float] = []

        def first_counted() -> Any:
            if counted:
                result = call()
            else:
                counter = flop_counter.FlopCounterMode(display=False, custom_mapping=_COUNTED)
                with counter:
                    result = call()
                counted.append(counter.get_total_flops())
            self.wait()
            return result

        return Work(first_counted, numbers, lambda: counted[0])

    def _importance(self) -> Work:
        model, sets = self.load(), self.batches()
        named, loss_of = dict(model.named_parameters()), self.loss_of(model, sets[0][0])

        def add(sums: Batch, batch: Batch) -> None:
            model.zero_grad()
            loss_of(batch).backward()
            for name, parameter in named.items():
                if parameter.grad is not None:  # None: vision layers after the features
                    sums[name].addcmul_(parameter.grad, parameter.grad)

        def zeros() -> Batch:
            return {name: torch.zeros_like(p) for name, p in named.items()}

        def call() -> list[Batch]:
            both = []
            for batches in sets:
                both.append(zeros())
                for batch in batches:
                    add(both[-1], batch)
            return both

        def numbers(result: list[Batch]) -> dict[str, Any]:
            both = [{k: v.detach().cpu().numpy() for k, v in sums.items()} for sums in result]
            return dict(zip(("forget", "preserve"), both, strict=True))

        threads = use_fastest_threads(cores(), lambda: add(zeros(), sets[0][0]))
        return self.work_of("importance", threads, call, numbers)

    def loss_of(self, model: Any, batch: Batch) -> Callable[[Batch], torch.Tensor]:
        """Returns the mean loss of a batch's answers as a function of the batch.

        Args:
            model: The model.
            batch: A batch like those that will be given.
        """
        del batch
        return lambda batch: model(**batch).loss

    def _trainer(self, batch: Batch) -> Callable[[Batch, int], torch.Tensor]:
        """Returns a step of a new model: masked ascent if the sign is negative, else descent.

        Args:
            batch: A batch like those of the steps.
        """
        model = self.load()
        loss_of = self.loss_of(model, batch)
        mask = {name: chosen(p.detach()).float() for name, p in model.named_parameters()}
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, eps=EPSILON, weight_decay=0.0, fused=True
        )

        def step(batch: Batch, sign: int) -> torch.Tensor:
            loss = loss_of(batch)
            (sign * loss).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            if sign < 0:
                for name, parameter in model.named_parameters():
                    if parameter.grad is not None:
                        parameter.grad *= mask[name]
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        return step

    def _unlearn(self) -> Work:
        forget, retain = self.batches()
        pairs = list(zip(forget, retain, strict=True))
        steps = [(b, sign) for pair in pairs for b, sign in zip(pair, (-1, 1), strict=True)]
        return self._steps("unlearn", steps)

    def _finetune(self) -> Work:
        steps = [(batch, 1) for batches in self.batches() for batch in batches]
        return self._steps("finetune", steps)

    def _steps(self, name: str, steps: list[tuple[Batch, int]]) -> Work:
        step = self._trainer(steps[0][0])
        threads = use_fastest_threads(cores(), lambda: step(*steps[0]))
        step = self._trainer(steps[0][0])  # a new model, as the first one has taken steps

        def call() -> list[torch.Tensor]:
            return [step(batch, sign) for batch, sign in steps]

        def numbers(losses: list[torch.Tensor]) -> dict[str, Any]:
            return {"losses": [float(loss) for loss in losses]}

        return self.work_of(name, threads, call, numbers)

    def asked(self) -> Any:
        """Returns a model that ends its answers as the tokenizer does."""
        model, tokenizer = self.load(), self.work.encoder.tokenizer
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        return model

    def evaluate(self) -> Work:
        """Returns the evaluation of all questions."""
        work, questions = self.work, self.work.questions()
        asking = OneByOne(work.encoder.processor, self.asked(), work.prompt)
        # A random model does not end its answers, so each gets as many tokens as the sample's.
        new = [len(question.answer.split()) + 1 for question in questions]

        def call() -> list[str]:
            responses = [asking.answer(*each) for each in zip(questions, new, strict=True)]
            for question, response in zip(questions, responses, strict=True):
                scored({**vars(question), "response": response})  # as our side does
            return responses

        threads = use_fastest_threads(cores(), lambda: asking.answer(questions[0], new[0]))
        return self.work_of("evaluate", threads, call, lambda answers: {"answers": answers})


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
