"""LLaVA forgets four faces: real photographs, invented facts, trained from scratch.

    python -m mmunlearner_jax.main --config=configs/orl.py --workdir=runs/orl

A LLaVA of 2.2 M parameters learns 40 people of the ORL faces with the facts of invented profiles.
Then it forgets the faces of 4. The text about them is at risk: the language model learns it first,
and is then frozen while vision and projector learn to lead to it. Retain steps do not repeat it.
"""

from ml_collections import ConfigDict

from mmunlearner_jax.config import defaults
from mmunlearner_jax.semantics import with_semantics

STAGES = "prepare finetune evaluate importance mask unlearn evaluate export report"
VISION = dict(image_size=60, patch_size=20, hidden_size=128, intermediate_size=512)
VISION |= dict(num_hidden_layers=5, num_attention_heads=4)
TEXT = dict(hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4)
TEXT |= dict(num_key_value_heads=4, max_position_embeddings=256)
# Variants with a grid of learning rates, others at MMUnlearner's, and contrasts named beforehand.
METHODS = ("mmunlearner", "ga", "ga_diff", "idk_nll", "kl_min", "npo", "simnpo")
TUNED = (*METHODS, "random_mask", "cover_only", "plain_importances", "sgd")
CONTROLS = """no_mask global_random_mask random_layers other_people_mask retain_only_steps
forget_text vision_projector_no_mask mask_vision_projector mask_language separate_states
batch_fisher forget_top threshold_half threshold_double lora lora_no_mask"""
SECONDARY = """random_mask,test/vqa random_mask,forget/qa random_mask,test/qa ga_diff,forget/qa
random_mask,realworld/vqa cover_only,test_retain/vqa other_people_mask,test_retain/vqa
plain_importances,test_retain/vqa ga_diff,test_retain/vqa"""

# What the examples beside this one change: text and pictures are taught together, as once here.
TOGETHER = {"data.retain_others": False, "unlearn.forget_text": True, "finetune.text_first": 0}
TOGETHER |= {"finetune.optimizer": "adamw", "finetune.learning_rate": 2e-3, "finetune.steps": 600}
TOGETHER |= {"finetune.warmup": 100, "finetune.weight_decay": 0.05, "finetune.frozen": ()}
TOGETHER |= {"finetune.picture_batch": 56, "compare.controls": ("no_mask", "forget_top", "lora")}
TOGETHER |= {"compare.secondary": ()}


def get_config(semantics: str = "paper") -> ConfigDict:
    """Returns the default example; `--config=configs/orl.py:released`: the published choices."""
    config = defaults(stages=tuple(STAGES.split()), checkpoint_every=60)
    config.model.update(dict(compute_dtype="float32", remat="dots"))
    config.prepare.update(dict(vision=VISION, text=TEXT))
    config.data.update(dict(forget_ratio=10, text_source="ft_Data", retain_others=True))
    config.finetune.update(dict(optimizer="muon", text_first=240, steps=320, warmup=30))
    config.finetune.update(dict(learning_rate=4e-3, weight_decay=0.5, picture_batch=64))
    config.finetune.update(dict(text_batch=64, frozen=("language",)))
    config.finetune.jitter.update(dict(shift=6, gain=0.1, offset=0.1, noise=0.05))
    config.importance.update(dict(examples=256, normalise="group"))
    config.unlearn.update(dict(learning_rate=2e-4, epochs=0, iterations=180, forget_every=3))
    config.unlearn.update(dict(forget_batch=16, retain_batch=32, text_batch=16, forget_text=False))
    config.unlearn.update(dict(stop_remembered=0.1, stop_examples=224, stop_every=6))
    config.compare.update(dict(ratios=(10,), methods=TUNED, controls=tuple(CONTROLS.split())))
    config.compare.secondary = tuple(f"mmunlearner,{rest}" for rest in SECONDARY.split())
    config.compare.update(dict(learning_rates=(1e-4, 2e-4, 4e-4), extensions=1, apart=0.5))
    config.compare.update(dict(forget_steps=24, look_questions=12, share_every=4, control_seeds=5))
    # Prompts hold the question alone, because the model does not answer with letters.
    config.evaluate.update(dict(protocol="plain", photos_per_person=2))
    config.evaluate.decode.update(dict(batch_size=64, max_new_tokens=16))
    return with_semantics(config, semantics)
