"""The batches that forget and retain steps combine, with what the vanilla model says of them."""

from collections.abc import Callable

from mmunlearner_jax.data.pipeline import Batches
from mmunlearner_jax.data.refusals import refused
from mmunlearner_jax.data.relabelling import of_strangers
from mmunlearner_jax.data.samples import Sample, one_picture_each
from mmunlearner_jax.reference_model import ask_vanilla
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages.own_answers import own_answers
from mmunlearner_jax.unlearn.losses import Reference
from mmunlearner_jax.unlearn.method import Loss

_ANSWERS = {"refusals": refused, "strangers": of_strangers}


def forget_batches(session: Session) -> dict[str, Batches]:
    """Returns the batches that each forget step combines, by name, in the order of the step."""
    options = session.config.unlearn
    made = {"forget": _answered(session, session.pictures, options.forget_batch, options.pack, 1)}
    if session.config.data.forget_words:
        made["forget_words"] = _answered(
            session, session.words, options.text_batch, options.text_pack, 4
        )
    if options.looks_ahead:
        # The last picture of each person: the comparison's relearning shows the first.
        shown = one_picture_each(session.pictures(session.forget), -1)
        made["forget_shown"] = _batches(session, None, shown, options.ahead.batch, 1, 6)
    return made


def retain_batches(session: Session, loss: Loss) -> dict[str, Batches]:
    """Returns the batches that each retain step combines, by name, in the order of the step.

    Args:
        session: Session of the run.
        loss: Loss of the retain steps.
    """
    options, asked = session.config.unlearn, loss.reference
    pictures, anchor = session.retained_pictures(), options.chosen_anchor
    made = {"pictures": _batches(session, asked, pictures, options.retain_batch, options.pack, 2)}
    if options.learns_text:
        forgotten = options.forget_text and not session.config.data.forget_words
        text = session.retained_words(forgotten=forgotten)
        made["text"] = _batches(session, asked, text, options.text_batch, options.text_pack, 3)
    if anchor and anchor.samples:
        own = own_answers(session, anchor.samples)
        made["anchor"] = _batches(session, anchor.reference, own, options.retain_batch, 1, 7)
    return made


def _answered(
    session: Session, read: Callable[[str], list[Sample]], size: int, pack: int, stream: int
) -> Batches:
    """Returns batches of the people to forget, with the answers that the method teaches."""
    method, samples = session.config.unlearn.forgetting, read(session.forget)
    if method.answers != "own":
        others = read(session.retain)
        samples = _ANSWERS[method.answers](samples, others, session.config.seed)
    return _batches(session, method.forget.reference, samples, size, pack, stream)


def _batches(
    session: Session,
    reference: Reference | None,
    samples: list[Sample],
    size: int,
    pack: int,
    stream: int,
) -> Batches:
    """Returns batches, with what the vanilla model is asked."""
    references = None
    if reference is not None:
        references = ask_vanilla(session, reference, samples, batch_size=size)
    return session.batches(
        samples, batch_size=size, pack=pack, stream=stream, references=references
    )
