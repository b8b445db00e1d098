"""LLaVA forgets four faces: real photographs, invented facts, trained from nothing.

    python -m mmunlearner_jax.main --config=configs/orl.py --workdir=runs/orl

A 2.2 M parameter LLaVA learns 40 people of the ORL faces (8 photographs each) with the facts of an
invented profile, then forgets the faces of 4 of them, and keeps what is written about them.
"""

from ml_collections import ConfigDict

from mmunlearner_jax.semantics import with_semantics

# `config.finetune` of before Muon, which the examples beside this one keep.
ADAMW = dict(optimizer="adamw", steps=600, learning_rate=2e-3, warmup=100, text_batch=16)


def get_config(semantics: str = "paper") -> ConfigDict:
    """The default example; `--config=configs/orl.py:released` for the published code's choices."""
    config = ConfigDict()
    config.seed = 0
    config.stages = (
        "prepare",
        "finetune",
        "evaluate",
        "importance",
        "mask",
        "unlearn",
        "evaluate",
        "export",
        "report",
    )
    config.mesh = (-1, 1, 1)  # data, fsdp, tensor
    config.checkpoint_every = 60
    config.profile = ConfigDict(dict(steps=0))  # traced in every stage, for TensorBoard; 0: none

    config.model = ConfigDict(
        dict(
            checkpoint="",  # empty: the untrained one that `prepare` writes
            param_dtype="float32",
            compute_dtype="float32",
            remat="dots",
            frozen=(),  # module groups that no step moves: vision, projector, language
            attention="xla",
        )
    )
    config.prepare = ConfigDict(
        dict(
            benchmark="mllmu",  # or "clear": configs/orl_clear.py
            architecture="llava",  # or "qwen2_vl": configs/orl_qwen.py
            vision=dict(
                image_size=60,
                patch_size=20,
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=5,
                num_attention_heads=4,
            ),
            text=dict(
                hidden_size=128,
                intermediate_size=344,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=256,
            ),
        )
    )
    config.data = ConfigDict(
        dict(
            benchmark="",  # empty: the one that `prepare` writes
            forget_ratio=10,
            text_source="ft_Data",
            labels="answer",
            supervise_end=True,
            max_bad_fraction=0.0,
        )
    )
    config.finetune = ConfigDict(
        dict(
            retain_only=False,  # True: nothing about the people to forget, for evaluate.reference
            steps=260,
            optimizer="muon",  # or "adamw"
            learning_rate=4e-3,
            warmup=30,
            weight_decay=0.05,
            clip=1.0,
            picture_batch=56,
            text_batch=24,
            pack=1,  # questions about one picture that share a row (docs/performance.md)
            text_pack=1,  # questions in words that do
            jitter=dict(shift=6, gain=0.1, offset=0.1, noise=0.05),
        )
    )
    config.importance = ConfigDict(
        dict(
            fisher="example",
            batch_size=16,
            pack=1,
            text_pack=1,
            examples=256,  # of every set at most, drawn by the seed; 0: all
            normalise="group",
            preserve=dict(
                vision=("pictures",), projector=("pictures",), language=("pictures", "text")
            ),
        )
    )
    config.mask = ConfigDict(
        dict(
            threshold=1.0,
            eps=0.0,
            cover=r"(proj|fc[12]|linear_[12])\.weight$",
            uncovered=False,
        )
    )
    config.unlearn = ConfigDict(
        dict(
            method="mmunlearner",  # or ga, ga_diff, kl_min, npo, simnpo, idk_nll
            learning_rate=2e-4,
            adam_eps=1e-6,
            weight_decay=0.0,
            decay="constant",  # of the learning rate; or "linear", "cosine": to 0 at the end
            warmup=0,  # steps
            clip=1.0,  # of the gradient's norm; 0: none
            alpha=1.0,
            mask_on="update",
            optimizers=1,  # 1: forget and retain steps share their state; 2: each its own
            epochs=0,  # passes over the retain pictures, as published; 0: `iterations` instead
            iterations=180,
            forget_every=3,
            forget_repeat=1,  # forget steps each time
            accumulate=1,  # batches of a step
            forget_batch=16,
            retain_batch=32,
            text_batch=16,
            pack=1,
            text_pack=1,
            forget_text=True,
            stop_remembered=0.1,
            stop_examples=224,  # of the forget set, drawn by the seed; 0: all
            stop_every=6,
            # Options of the methods of these names.
            kl_min=dict(weight=1.0, over="token"),
            npo=dict(beta=0.1, over="example"),
            simnpo=dict(beta=2.5, gamma=0.0),
            # Adapters instead of full weights (docs/lora.md); rank 0: none. Of each name the first
            # pattern that matches decides, "!..." says no.
            lora=dict(rank=0, alpha=16.0, targets=(r"^model\.",)),  # all but the head
        )
    )
    config.controls = ()  # of mmunlearner_jax/unlearn/controls.py, by the stage `controls`
    # `python -m mmunlearner_jax.compare`: methods by seeds by ratios.
    config.compare = ConfigDict(
        dict(
            seeds=(0, 1, 2),
            ratios=(5, 10, 15),
            # Each has every learning rate, and ends where enough is forgotten.
            methods=("mmunlearner", "ga", "ga_diff", "kl_min", "npo", "simnpo", "idk_nll"),
            learning_rates=(1e-4, 3e-4),
            iterations=90,
            stop_every=6,
            apart=0.25,  # of pictures and questions in words, to choose by; never scored
            forgotten=0.35,  # accuracy about the forget set's pictures; guessing gives 0.25
            # One change each of `unlearn.method`, at the learning rate that was chosen for it.
            controls=(
                "no_mask",
                "random_mask",
                "no_forget_text",
                "no_mask_no_forget_text",
                "vision_projector_no_mask",
                "mask_vision_projector",
                "mask_language",
                "separate_states",
                "plain_importances",
                "batch_fisher",
                "forget_top",
                "threshold_half",
                "threshold_double",
                "lora",
                "lora_no_mask",
            ),
            tasks=("classification", "generation"),  # that are scored
            retain_only="",  # checkpoint that was never taught the people to forget
        )
    )
    config.evaluate = ConfigDict(
        dict(
            # The question alone: the model knows no letters ("strict", "released").
            protocol="plain",
            shots=0,
            splits=(),  # all
            photos_per_person=2,
            reference="",
            decode=dict(batch_size=64, max_new_tokens=16),
        )
    )
    return with_semantics(config, semantics)
