"""What `mmu forget` starts from; it adds checkpoint, benchmark and stages.

    mmu forget --model=CHECKPOINT --person=photos/PERSON --name="NAME" --out=runs/request

Unsee moves the vision tower and the projector alone, so that text-only answers stay the same bit
by bit. The learning rate rises from 0 step by step, and the run ends as soon as the person is
hardly named any more: so no rate has to be chosen for a model. It was tried on the small models of
the examples; `--config.unlearn.learning_rate` is where it would end.
"""

from ml_collections import ConfigDict

from mmunlearner_jax.config import defaults

# Not those that train for long, or say nothing without a gold model.
ATTACKS = ("pressing_prompts", "picture_changes", "quantisation", "relearn_same")
_STEPS = 120


def get_config() -> ConfigDict:
    """Returns the config."""
    config = defaults(mesh=(1, -1, 1), round_batches=True, checkpoint_every=20)
    config.data.update(dict(forget_ratio=1, text_source="ft_Data", retain_others=True))
    config.unlearn.update(dict(method="unsee", epochs=0, iterations=_STEPS))
    # One step to forget and one to retain, in each of which the rate rises.
    config.unlearn.update(dict(learning_rate=5e-4, warmup=2 * _STEPS - 1))
    config.unlearn.update(dict(forget_batch=8, retain_batch=16, text_batch=8))
    config.unlearn.update(dict(stop_by="named", stop_remembered=0.1, stop_every=2))
    config.unlearn.stop_examples = 24
    config.evaluate.update(dict(protocol="plain", photos_per_person=2))
    config.evaluate.decode.update(dict(batch_size=32, max_new_tokens=32))
    config.audit.attacks = ATTACKS
    config.audit.relearn_same.update(dict(steps=(1, 5, 10), rates=(1e-4,), choices=1))
    return config
