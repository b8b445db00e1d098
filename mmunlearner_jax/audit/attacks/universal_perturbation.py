"""A universal perturbation: one small change of all pictures, trained to bring answers back.

Source: Moosavi-Dezfooli et al. 2017 (arXiv 1610.08401), here by signed gradient steps.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from PIL import Image

from mmunlearner_jax.audit.attack import Attack, Cost, Target
from mmunlearner_jax.data.decode import as_png
from mmunlearner_jax.data.pipeline import Batches
from mmunlearner_jax.options import Section, option
from mmunlearner_jax.processes import to_host
from mmunlearner_jax.processing.pictures import OneSize
from mmunlearner_jax.sharding import process_rows, put_batch
from mmunlearner_jax.unlearn.steps import mean_loss

_LEVELS = 255  # of a channel


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniversalPerturbationConfig(Section):
    """Options of the attack `universal_perturbation`."""

    key: ClassVar[str] = "audit.universal_perturbation"

    epsilon: int = option(12, "Largest change of a channel.", unit="of 255", least=1)
    steps: int = option(40, "Signed gradient steps of 1 of 255.", unit="steps", least=1)
    people: float = option(
        0.5, "Fraction of the forgotten people whose pictures it is trained on.", above=0, below=1
    )
    batch: int = option(16, "Questions of a step.", unit="questions", least=1)


def signed_step(graphdef: nnx.GraphDef, epsilon: int) -> Callable[..., jax.Array]:
    """Returns the jitted step `(delta, params, batch, std) -> delta`.

    `delta` is the change of all pictures in levels of 255, float32 [C, H, W], and `std` what pixels
    are divided by, [C].
    """

    @jax.jit
    def step(delta: jax.Array, params: Any, batch: dict[str, Any], std: jax.Array) -> jax.Array:
        def loss(delta: jax.Array) -> jax.Array:
            change = delta / _LEVELS / std[:, None, None]
            return mean_loss(
                graphdef, params, [batch | {"pixel_values": batch["pixel_values"] + change}]
            )

        return jnp.clip(delta - jnp.sign(jax.grad(loss)(delta)), -epsilon, epsilon)

    return step


def perturbed(pixels: np.ndarray, delta: np.ndarray, mean: np.ndarray, std: np.ndarray) -> bytes:
    """Returns a processed picture with a change, as PNG.

    Args:
        pixels: What the processor makes of the picture, float32 [C, H, W].
        delta: The change in levels of 255, [C, H, W].
        mean: What the processor subtracts, [C].
        std: What the processor divides by, [C].
    """
    levels = (pixels * std[:, None, None] + mean[:, None, None]) * _LEVELS + delta
    picture = np.clip(np.rint(levels), 0, _LEVELS).astype(np.uint8)
    return as_png(Image.fromarray(picture.transpose(1, 2, 0)), level=1)


@functools.lru_cache(1)
def _compiled(session: Any, epsilon: int) -> Callable[..., jax.Array]:
    return signed_step(session.graphdef, epsilon)


def _attacked(
    target: Target, params: Any, options: UniversalPerturbationConfig
) -> Iterator[tuple[str, np.ndarray]]:
    session, encoder = target.session, target.session.encoder
    samples = session.pictures(session.forget)
    people = sorted({sample.person for sample in samples})
    count = max(1, int(options.people * len(people)))
    trained = {people[n] for n in target.rng().permutation(len(people))[:count]}
    taught = [sample for sample in samples if sample.person in trained]
    processor = encoder.processor.image_processor
    mean, std = (np.array(x, np.float32) for x in (processor.image_mean, processor.image_std))
    # Pixels in any case, where other stages may take features of a frozen tower.
    rows = process_rows(session.mesh, options.batch)
    batches = Batches(
        taught, encoder, batch_size=options.batch, seed=session.config.seed, rows=rows
    )
    step = _compiled(session, options.epsilon)
    nothing = np.zeros_like(encoder.image(taught[0].image)[0])
    delta = jax.device_put(nothing, NamedSharding(session.mesh, PartitionSpec()))
    for _, batch in zip(range(options.steps), batches, strict=False):
        delta = step(delta, params, put_batch(batch, session.mesh), std)
    change, used = to_host(delta), {sample.image for sample in taught}
    others = {q.image for q in target.questions if q.image is not None and q.image not in used}
    seen = {image: perturbed(encoder.image(image)[0], change, mean, std) for image in others}
    questions = [
        dataclasses.replace(q, image=seen[q.image]) if q.image in seen else None
        for q in target.questions
    ]
    yield f"{options.epsilon} of 255", target.answers(params, questions, "perturbed")


def _lacks(target: Target, _: UniversalPerturbationConfig) -> str:
    if not isinstance(target.session.encoder.pictures, OneSize):
        return "the model's pictures have many sizes, so one change does not fit all"
    taught = target.session.pictures(target.session.forget)
    unseen = {q.image for q in target.questions} - {sample.image for sample in taught}
    if len({sample.person for sample in taught}) == 1 and not unseen:
        return "one person was forgotten, and no unseen photograph is asked about"
    return ""


ATTACK = Attack(
    "Universal perturbation",
    "One small change of all pictures is trained on half of the forgotten people; the others'"
    " photographs and unseen ones are asked about.",
    _attacked,
    lambda o: Cost(1, o.steps * o.batch),
    UniversalPerturbationConfig,
    lacks=_lacks,
)
