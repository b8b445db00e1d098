"""LLaVA forgets four faces: real photographs, invented facts, trained from nothing.

    python -m mmunlearner_jax.main --config=configs/orl.py --workdir=runs/orl

A 2.2 M parameter LLaVA learns 40 people of the ORL faces (8 photographs each) with the facts of an
invented profile, then forgets the faces of 4 of them, and keeps what is written about them.

What is written about the people to forget is at risk here. The language model first learns the
text alone. Then it is frozen, and vision tower and projector learn to lead from a photograph to the
name, and so to the facts that the text taught: as a description in words does, and in its place.
Retain steps hold no text about the people to forget, so nothing repairs what forget steps do to it.
"""

from ml_collections import ConfigDict

from mmunlearner_jax.config import defaults
from mmunlearner_jax.semantics import with_semantics

STAGES = "prepare finetune evaluate importance mask unlearn evaluate export report"
VISION = dict(image_size=60, patch_size=20, hidden_size=128, intermediate_size=512)
VISION |= dict(num_hidden_layers=5, num_attention_heads=4)
TEXT = dict(hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4)
TEXT |= dict(num_key_value_heads=4, max_position_embeddings=256)
CONTROLS = """no_mask random_mask no_forget_text no_mask_no_forget_text vision_projector_no_mask
mask_vision_projector mask_language separate_states plain_importances batch_fisher forget_top
threshold_half threshold_double lora lora_no_mask"""


def get_config(semantics: str = "paper") -> ConfigDict:
    """The default example; `--config=configs/orl.py:released` for the published code's choices."""
    config = defaults(stages=tuple(STAGES.split()), checkpoint_every=60)
    config.model.update(dict(compute_dtype="float32", remat="dots"))
    config.prepare.update(dict(vision=VISION, text=TEXT))
    config.data.update(dict(forget_ratio=10, text_source="ft_Data", retain_others=True))
    config.finetune.update(dict(optimizer="muon", text_first=240, steps=320, warmup=30))
    config.finetune.update(dict(learning_rate=4e-3, weight_decay=0.5, picture_batch=60))
    config.finetune.update(dict(text_batch=64, frozen=("language",)))
    config.finetune.jitter.update(dict(shift=6, gain=0.1, offset=0.1, noise=0.05))
    config.importance.update(dict(examples=256, normalise="group"))
    config.unlearn.update(dict(learning_rate=2e-4, epochs=0, iterations=180, forget_every=3))
    config.unlearn.update(dict(forget_batch=16, retain_batch=32, text_batch=16))
    config.unlearn.forget_text = False
    config.unlearn.update(dict(stop_remembered=0.1, stop_examples=224, stop_every=6))
    # Retain steps hold no forgotten text in any case.
    controls = tuple(name for name in CONTROLS.split() if not name.endswith("no_forget_text"))
    config.compare.update(dict(learning_rates=(1e-4, 3e-4), controls=controls))
    # The question alone: the model knows no letters.
    config.evaluate.update(dict(protocol="plain", photos_per_person=2))
    config.evaluate.decode.update(dict(batch_size=64, max_new_tokens=16))
    return with_semantics(config, semantics)


def taught_together(config: ConfigDict) -> None:
    """Gives the examples beside this one what they were tried with: one training of everything."""
    config.data.retain_others = False
    config.finetune.update(dict(optimizer="adamw", text_first=0, steps=600, frozen=()))
    config.finetune.update(dict(learning_rate=2e-3, warmup=100, weight_decay=0.05))
    config.finetune.update(dict(picture_batch=56, text_batch=16))
    config.unlearn.forget_text = True
    config.compare.controls = tuple(CONTROLS.split())
