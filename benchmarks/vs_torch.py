"""Times the method in JAX against the same work written with transformers and torch.

    python benchmarks/vs_torch.py --preset=orl --batch=16 --rounds=5 --out=vs_torch.json

One random LLaVA is written by transformers and read by both sides; both get the same batches, in
float32, with one thread per available core (fewer: `taskset -c 0 python benchmarks/vs_torch.py`).
Measured are a squared-gradient pass per example (torch: a loop of backward passes, and
`torch.func.vmap` of the gradient), a squared-gradient pass per batch as published, and an
unlearning iteration (masked ascent on one batch, descent on another). Torch runs eagerly, as the
published code does, with its fused AdamW. First calls, which compile, are timed apart.

The two sides take turns within a round, and the ratio is taken pair by pair. A busy machine slows
torch's OpenMP threads more than XLA's: look at the load average, and at the ratio of the fastest
calls beside it. Nothing is timed before both sides have given the same numbers.
"""

import importlib.metadata
import json
import math
import os
import platform
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import transformers
from absl import app, flags
from flax import nnx
from ml_collections import ConfigDict
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.steps import TrainState, ascent_step, descent_step
from mmunlearner_jax.unlearn.transforms import masked_ascent
from mmunlearner_jax.weights.io import from_hf_names, from_pretrained, to_hf_names

_PRESET = flags.DEFINE_enum(
    "preset", "orl", ["orl", "small"], "Sizes: those of configs/orl.py, or a toy's."
)
_BATCH = flags.DEFINE_integer("batch", 16, "Examples in a batch.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed calls of each side.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of weights, pictures, tokens and mask.")
_JSON = flags.DEFINE_string("out", None, "File for everything measured, every call's seconds too.")

Batch = dict[str, np.ndarray]
Numbers = Mapping[str, np.ndarray]


class Comparison(NamedTuple):
    """One line of the result.

    Attributes:
        title: what is done.
        ours: name of the JAX side's call.
        theirs: name of the torch side's call.
        batches: how many batches a call works through.
        tolerance: relative difference between the two sides' numbers that is still agreement.
    """

    title: str
    ours: str
    theirs: str
    batches: int
    tolerance: float


COMPARISONS = (
    Comparison("squares, per example", "example", "loop", 1, 1e-3),
    Comparison("squares, per example", "example", "vmap", 1, 1e-3),
    Comparison("squares, per batch", "batch", "batch", 1, 1e-3),
    Comparison("forget + retain step", "iteration", "iteration", 2, 1e-4),
)
# Tokens of a row, and how many of the last ones are supervised: what the example's longest have.
LENGTH, ANSWER = 40, 8
# Where a row's picture starts: after the token that opens the prompt.
PICTURE = 1


def sizes(preset: str, config: ConfigDict) -> dict[str, dict[str, Any]]:
    """Sizes of the vision and the text part; the vocabulary is that of the example's tokenizer."""
    vision, text = config.prepare.vision.to_dict(), config.prepare.text.to_dict()
    text |= dict(vocab_size=784, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    if preset == "small":
        small = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2)
        vision, text = vision | small, text | small
    return {"vision_config": vision, "text_config": text}


def write_model(
    folder: Path, parts: Mapping[str, dict[str, Any]], seed: int
) -> dict[str, tuple[int, ...]]:
    """Writes a random LLaVA as transformers does; returns the shapes of its parameters."""
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**parts["vision_config"]),
        text_config=transformers.LlamaConfig(**parts["text_config"]),
        image_token_index=parts["text_config"]["vocab_size"] - 1,
    )
    torch.manual_seed(seed)
    model = transformers.LlavaForConditionalGeneration(config)
    model.save_pretrained(folder)
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def random_batch(
    parts: Mapping[str, dict[str, Any]], batch: int, rng: np.random.Generator
) -> Batch:
    """One random picture and random tokens a row, in transformers' conventions, no padding."""
    vision, image_token = parts["vision_config"], parts["text_config"]["vocab_size"] - 1
    side = vision["image_size"]
    tokens = rng.integers(3, image_token, size=(batch, LENGTH))
    tokens[:, PICTURE : PICTURE + (side // vision["patch_size"]) ** 2] = image_token
    labels = tokens.copy()
    labels[:, :-ANSWER] = -100
    return {
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
        "labels": labels,
        "pixel_values": rng.normal(size=(batch, 3, side, side)).astype(np.float32),
    }


class JaxSide:
    """The work by this package.

    Attributes:
        calls: each does its work once, to its end, and returns arrays on the device.
        kind: `cpu`, `gpu` or `tpu`.
        device: the device in words.
    """

    def __init__(self, folder: Path, forget: Batch, retain: Batch, mask: Numbers, options: Any):
        self._model = from_pretrained(folder)
        self._graphdef, self._params = nnx.split(self._model)
        self._device = jax.local_devices()[0]
        self._forget, self._retain = (
            jax.device_put(self._model.group_pictures(batch)) for batch in (forget, retain)
        )
        self._mask = jax.device_put(from_hf_names(self._model, mask))
        adam = optax.adamw(
            options.learning_rate, eps=options.adam_eps, weight_decay=options.weight_decay
        )
        clip = optax.clip_by_global_norm(options.clip)
        ascend = optax.chain(clip, masked_ascent(adam, mask_on="gradient"))
        self._forget_step = ascent_step(self._graphdef, ascend)
        descend = optax.chain(clip, adam)
        self._retain_step = descent_step(self._graphdef, descend)
        state = TrainState.create(jax.tree.map(jnp.copy, self._params), descend)
        # Placed by hand: a counter that is on no device for sure makes the second call compile too.
        self._state = jax.device_put(state, self._device)
        self.calls = {
            "example": self._fisher("example"),
            "batch": self._fisher("batch"),
            "iteration": self._iteration,
        }
        self.kind, self.device = self._device.platform, self._device.device_kind

    def numbers(self, result: Any) -> Numbers:
        """What a call returned, on the host, by transformers' names."""
        tree = result if isinstance(result, dict) else to_hf_names(self._model, result)
        return jax.device_get(tree)

    def _fisher(self, fisher: Any) -> Callable[[], Any]:
        add = accumulator(self._graphdef, fisher=fisher)
        sums = jax.device_put(FisherSums.zeros(self._params), self._device)

        def call():
            nonlocal sums
            sums = jax.block_until_ready(add(sums, self._params, self._forget))
            return sums.squares

        return call

    def _iteration(self):
        self._state, forget = self._forget_step(self._state, [self._forget], self._mask)
        self._state, retain = self._retain_step(self._state, [self._retain])
        jax.block_until_ready(self._state)
        return {"forget": forget, "retain": retain}


class TorchSide:
    """The same work with transformers' model and torch; attributes as in `JaxSide`."""

    def __init__(self, folder: Path, forget: Batch, retain: Batch, mask: Numbers, options: Any):
        cuda = torch.cuda.is_available()
        self._device = torch.device("cuda" if cuda else "cpu")
        self.kind = "gpu" if cuda else "cpu"
        self.device = torch.cuda.get_device_name() if cuda else "cpu"
        self._folder, self._clip = folder, options.clip
        self._model = self._load()
        self._forget, self._retain = (
            {k: self._put(v) for k, v in batch.items()} for batch in (forget, retain)
        )
        self._mask = {k: self._put(v).float() for k, v in mask.items()}
        # Squares are taken of the weights as read; the iteration moves a copy.
        self._moving = self._load()
        self._optimizer = torch.optim.AdamW(
            self._moving.parameters(),
            lr=options.learning_rate,
            eps=options.adam_eps,
            weight_decay=options.weight_decay,
            fused=True,
        )
        size = len(forget["input_ids"])
        rows = [{k: v[i : i + 1] for k, v in self._forget.items()} for i in range(size)]
        self.calls = {
            "loop": self._fisher(rows),
            "vmap": self._vmapped(),
            "batch": self._fisher([self._forget]),
            "iteration": self._iteration,
        }

    def numbers(self, result: Mapping[str, torch.Tensor]) -> Numbers:
        """What a call returned, on the host."""
        return {k: v.detach().cpu().numpy().copy() for k, v in result.items()}

    def _load(self, **options: Any) -> Any:
        model: Any = transformers.LlavaForConditionalGeneration.from_pretrained(
            self._folder, dtype=torch.float32, **options
        )
        return model.to(self._device)

    def _put(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _fisher(self, batches: list[dict[str, torch.Tensor]]) -> Callable[[], Any]:
        """A backward pass for every batch; `loss` is the mean over its supervised tokens."""
        named = dict(self._model.named_parameters())
        sums = {k: torch.zeros_like(p) for k, p in named.items()}

        def call():
            for batch in batches:
                self._model.zero_grad()
                self._model(**batch).loss.backward()
                for name, parameter in named.items():
                    if parameter.grad is not None:  # the vision layers behind the features
                        sums[name].addcmul_(parameter.grad, parameter.grad)
            self._wait()
            return {k: v.detach() for k, v in sums.items()}

        return call

    def _vmapped(self) -> Callable[[], Any]:
        """Gradients of all examples at once.

        `LlavaForConditionalGeneration.forward` looks at values and cannot be vmapped, nor has
        torch's fused attention a batching rule on a CPU: the model's own parts are called one by
        one, with transformers' "eager" attention. Pictures stand at the same place in all rows.
        """
        one = OneExample(self._load(attn_implementation="eager"))
        parameters = {k: p.detach() for k, p in one.named_parameters()}
        sums = {k: torch.zeros_like(p) for k, p in parameters.items()}
        inputs = [self._forget[k] for k in ("input_ids", "labels", "pixel_values")]

        def loss(parameters, *example):
            return torch.func.functional_call(one, parameters, example)

        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))

        def call():
            for name, gradient in gradients(parameters, *inputs).items():
                sums[name] += gradient.square().sum(0)
            self._wait()
            return {k.removeprefix("llava."): v for k, v in sums.items()}

        return call

    def _iteration(self):
        forget = self._step(self._forget, -1, self._mask)
        retain = self._step(self._retain, 1, None)
        self._wait()
        return {"forget": forget, "retain": retain}

    def _step(self, batch, sign, mask):
        loss = self._moving(**batch).loss
        (sign * loss).backward()
        torch.nn.utils.clip_grad_norm_(self._moving.parameters(), self._clip)
        if mask is not None:
            for name, parameter in self._moving.named_parameters():
                if parameter.grad is not None:
                    parameter.grad *= mask[name]
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss


class OneExample(torch.nn.Module):
    """The answer loss of one example, without a look at any value."""

    def __init__(self, llava: Any):
        super().__init__()
        self.llava = llava

    def forward(
        self, input_ids: torch.Tensor, labels: torch.Tensor, pixel_values: torch.Tensor
    ) -> torch.Tensor:
        """Mean over the supervised tokens of ids [T], labels [T] and a picture [C, H, W]."""
        config, model = self.llava.config, self.llava.model
        features = model.get_image_features(
            pixel_values[None],
            vision_feature_layer=config.vision_feature_layer,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
        ).pooler_output[0]
        before, _, after = model.get_input_embeddings()(input_ids).split(
            [PICTURE, len(features), len(input_ids) - PICTURE - len(features)]
        )
        merged = torch.cat([before, features, after])[None]
        hidden = model.language_model(inputs_embeds=merged).last_hidden_state
        logits = self.llava.lm_head(hidden)[0, :-1]
        return torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100)


def difference(ours: Numbers, theirs: Numbers) -> float:
    """The largest relative difference of any tensor, in norm; infinite if the names differ.

    Some gradients are nothing but rounding (a key's bias cannot change a softmax): tensors below
    1e-8 of the largest are held against that.
    """
    if ours.keys() != theirs.keys():
        return float("inf")
    names = list(theirs)
    norms = np.array([np.linalg.norm(theirs[k]) for k in names])
    gaps = np.array([np.linalg.norm(ours[k] - theirs[k]) for k in names])
    return float(np.max(gaps / np.maximum(norms, 1e-8 * norms.max())))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call took, and its result."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def warm_up(side: JaxSide | TorchSide) -> tuple[dict[str, float], dict[str, list[Numbers]]]:
    """Every call twice: seconds of the first one, and the numbers after each."""
    seconds, numbers = {}, {}
    for name, call in side.calls.items():
        seconds[name], result = timed(call)
        numbers[name] = [side.numbers(result)]
        numbers[name].append(side.numbers(call()))
    return seconds, numbers


def compare(ours: JaxSide, theirs: TorchSide, rounds: int) -> list[dict[str, Any]]:
    """Checks that both sides agree, then times them in turns.

    Returns:
        For every comparison its title, the two calls' names, seconds of the first call and of every
        timed one, the relative difference found, the ratios torch / JAX, pair by pair, and that of
        the fastest calls; both None where the sides ran on different kinds of device.

    Raises:
        SystemExit: the sides disagree; no round has been timed.
    """
    first_ours, our_numbers = warm_up(ours)
    first_theirs, their_numbers = warm_up(theirs)
    results = []
    for title, our_name, their_name, batches, tolerance in COMPARISONS:
        pairs = zip(our_numbers[our_name], their_numbers[their_name], strict=True)
        apart = float(np.max([difference(*pair) for pair in pairs]))
        if not apart <= tolerance:
            sys.exit(
                f"error: {title}: JAX and torch ({their_name}) differ by {apart:.1e}, more than"
                f" {tolerance:.0e}: nothing was timed"
            )
        results.append(
            {
                "title": title,
                "batches": batches,
                "difference": apart,
                "jax": {"call": our_name, "first": first_ours[our_name], "seconds": []},
                "torch": {"call": their_name, "first": first_theirs[their_name], "seconds": []},
            }
        )
    for _ in track(range(rounds), "rounds", console=Console(stderr=True), transient=True):
        for result in results:
            for key, side in (("jax", ours), ("torch", theirs)):
                seconds, _ = timed(side.calls[result[key]["call"]])
                result[key]["seconds"].append(seconds)
    for result in results:
        torch_s, jax_s = (np.array(result[key]["seconds"]) for key in ("torch", "jax"))
        comparable = ours.kind == theirs.kind
        result["ratios"] = (torch_s / jax_s).tolist() if comparable else None
        result["ratio_of_fastest"] = float(torch_s.min() / jax_s.min()) if comparable else None
    return results


def run(preset: str, batch: int, rounds: int, seed: int) -> dict[str, Any]:
    """Builds both sides and compares them; everything that was measured, ready for JSON."""
    config_file = Path(__file__).parents[1] / "configs" / "orl.py"
    config = runpy.run_path(str(config_file))["get_config"]()
    parts = sizes(preset, config)
    threads = available_cores()  # what XLA takes by itself
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False  # as on the JAX side; products are exact by default
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, jax.default_matmul_precision("highest"):
        shapes = write_model(Path(folder), parts, seed)
        rng = np.random.default_rng(seed)
        forget, retain = random_batch(parts, batch, rng), random_batch(parts, batch, rng)
        mask = {name: rng.random(shape) < 0.5 for name, shape in shapes.items()}
        args = (Path(folder), forget, retain, mask, config.unlearn)
        ours, theirs = JaxSide(*args), TorchSide(*args)
        results = compare(ours, theirs, rounds)
    return {
        "preset": preset,
        "parameters": sum(map(math.prod, shapes.values())),
        "batch": batch,
        "tokens": LENGTH,
        "rounds": rounds,
        "seed": seed,
        "threads": threads,
        "load_average": load,
        "devices": {
            side: {"kind": it.kind, "name": it.device}
            for side, it in (("jax", ours), ("torch", theirs))
        },
        "versions": {"python": platform.python_version()}
        | {
            name: importlib.metadata.version(name)
            for name in ("jax", "flax", "optax", "torch", "transformers")
        },
        "comparisons": results,
    }


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def show(report: Mapping[str, Any], console: Console) -> None:
    """Prints a report of `run`."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, title="Seconds a call, float32")
    table.add_column("work", no_wrap=True)
    for header in ("median", "min-max", "ex/s", "torch / JAX", "fastest", "first"):
        table.add_column(header, justify="right")
    for result in report["comparisons"]:
        table.add_row(result["title"])
        for side in ("jax", "torch"):
            seconds, call = result[side]["seconds"], result[side]["call"]
            median = float(np.median(seconds))
            table.add_row(
                "  JAX" if side == "jax" else f"  torch, {call}",
                f"{median:.3g}",
                f"{min(seconds):.3g}-{max(seconds):.3g}",
                f"{report['batch'] * result['batches'] / median:.3g}",
                *(_ratios(result) if side == "torch" else ("", "")),
                f"{result[side]['first']:.3g}",
            )
    console.print(table)
    devices = report["devices"]
    lines = [
        ", ".join(f"{k} {v}" for k, v in report["versions"].items()),
        f"JAX on {devices['jax']['kind']} ({devices['jax']['name']}), torch on"
        f" {devices['torch']['kind']} ({devices['torch']['name']}), {report['threads']}"
        f" threads each, load average at the start {report['load_average']:.1f}",
        f"preset {report['preset']}: {report['parameters']:,} parameters, batches of"
        f" {report['batch']} x {report['tokens']} tokens with a picture each,"
        f" {report['rounds']} rounds, seed {report['seed']}",
        f"ex/s: examples a second; torch / JAX: median [min, max] of the {report['rounds']} pairs"
        " of neighbouring calls, above 1 JAX is faster; fastest: torch's fastest call over"
        " JAX's; first: the first call, with compilation, in none of the others",
        "largest relative difference between the sides' numbers: "
        f"{max(r['difference'] for r in report['comparisons']):.1e}",
    ]
    if report["load_average"] > report["threads"] / 2:
        lines.append("the machine was busy with something else: measure again when it is idle")
    if report["comparisons"][0]["ratios"] is None:
        lines.append("no ratio: the two sides ran on different kinds of device")
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _ratios(result: Mapping[str, Any]) -> tuple[str, str]:
    ratios = result["ratios"]
    if ratios is None:
        return "none", "none"
    spread = f"{np.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
    return escape(spread), f"{result['ratio_of_fastest']:.2f}"


def main(argv: list[str]) -> None:
    """Entry point of absl."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected argument {argv[1]!r}: flags are written --name=value")
    report = run(_PRESET.value, _BATCH.value, _ROUNDS.value, _SEED.value)
    if _JSON.value:
        path = Path(_JSON.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")
    show(report, Console())


if __name__ == "__main__":
    app.run(main)
