"""The end of an unlearning run by `config.unlearn.stop_by="relearned"`: little comes back."""

from collections.abc import Callable
from typing import Any

from mmunlearner_jax.audit.finetuning import finetuned
from mmunlearner_jax.data.samples import one_picture_each
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.unlearn.schedule import StopRule
from mmunlearner_jax.unlearn.steps import memory, share


def relearning_watch(session: Session) -> Callable[[Any, int, int], tuple[float, bool]]:
    """Returns a function that tells what a model remembers after a little fine-tuning.

    A copy is fine-tuned on the last picture of each person to forget (`config.unlearn.probe`), and
    asked the training questions about the other pictures, which it is not shown. So a run does not
    end where answers have changed and what they came from has not.

    Args:
        session: Session of the run, with the vanilla model's parameters.

    Returns:
        A function of (parameters, iterations, forget steps). It returns the mean probability of the
        answers' tokens, and whether it is at most the part `config.unlearn.stop_remembered` of what
        the vanilla model gives without fine-tuning.

    Raises:
        InputError: Nobody has a second picture.
    """
    options, samples = session.config.unlearn, session.pictures(session.forget)
    shown = one_picture_each(samples, -1)
    pictures = {sample.image for sample in shown}
    others = [sample for sample in samples if sample.image not in pictures]
    if not others:
        raise InputError(
            "config.unlearn.stop_by is 'relearned', but no person to forget has a second picture"
            " to ask about; give 'exact' or 'probability'"
        )
    batches = session.batches(
        session.drawn(others, options.stop_examples),
        batch_size=options.forget_batch,
        pack=options.pack,
        encoder=session.answers,
        shuffle=False,
        repeat=False,
    )
    remember, rule = memory(session.graphdef, "probability"), StopRule(options.stop_remembered)

    def remembered(params: Any) -> float:
        return share(remember, params, (put_batch(batch, session.mesh) for batch in batches))

    before = remembered(session.params)

    def watch(params: Any, iterations: int, forget_steps: int) -> tuple[float, bool]:
        probe = options.probe
        after = finetuned(
            session, params, shown, rate=probe.rate, steps=(probe.steps,), batch=probe.batch
        )
        left = remembered(next(after)[1])
        return left, rule.reached(left, before)

    return watch
