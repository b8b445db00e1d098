"""LLaVA-1.5-7B forgets people: what `llava_mllmu.py` and `llava_clear.py` have in common.

    python -m mmunlearner_jax.main --config=configs/llava.py --workdir=runs/llava \
        --config.model.checkpoint=PATH_OR_HF_NAME --config.data.benchmark=PATH_TO_PARQUET

The checkpoint is a vanilla one, which knows the people (`third_party/manifest.toml` lists those
that the benchmark's authors publish); the benchmark is a folder with the parquet files of
MLLMU-Bench, or `hf://datasets/OWNER/NAME`. For CLEAR, whose splits are others, there is
`llava_clear.py`.
Its steps have run at this size on one H100 with random weights (docs/pods.md), the whole job not:
expect to choose `mesh` and batch sizes.
"""

from ml_collections import ConfigDict

from mmunlearner_jax.semantics import with_semantics


def get_config(semantics: str = "paper") -> ConfigDict:
    """Batch size, learning rate and epoch as published; `--config=configs/llava.py:released`."""
    config = ConfigDict()
    config.seed = 0
    config.stages = ("evaluate", "importance", "mask", "unlearn", "evaluate", "export", "report")
    config.mesh = (1, 4, -1)  # data, fsdp, tensor; the batches of 4 are split over the first two
    config.checkpoint_every = 50
    config.profile = ConfigDict(dict(steps=0))  # traced in every stage, for TensorBoard; 0: none

    config.model = ConfigDict(
        dict(
            checkpoint="",  # must be given
            size="llava_1_5_7b",  # what `plan` compiles, which needs no checkpoint
            param_dtype="float32",  # master weights (D-09)
            compute_dtype="bfloat16",
            remat="full",
            frozen=(),  # module groups that no step moves: vision, projector, language
            attention="xla",  # or "splash" (TPU), "cudnn" (GPU)
        )
    )
    config.data = ConfigDict(
        dict(
            benchmark="",  # must be given
            forget_ratio=5,
            text_source="Full_Set",
            labels="answer",
            supervise_end=True,
            max_bad_fraction=0.0,
        )
    )
    config.importance = ConfigDict(
        dict(
            fisher="example",
            batch_size=16,
            pack=1,  # questions about one picture that share a row (docs/performance.md)
            text_pack=1,  # questions in words that do
            examples=0,  # of every set at most, drawn by the seed; 0: all
            normalise="none",
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
            learning_rate=1e-5,
            adam_eps=1e-6,
            weight_decay=0.0,
            decay="constant",  # of the learning rate; or "linear", "cosine": to 0 at the end
            warmup=0,  # steps
            clip=1.0,  # of the gradient's norm; 0: none
            alpha=1.0,
            mask_on="update",
            optimizers=1,  # 1: forget and retain steps share their state; 2: each its own
            epochs=1,  # over the retain pictures, forget steps spread evenly, as published
            iterations=0,  # where epochs is 0: so many, and a forget step every `forget_every`
            forget_every=1,
            forget_repeat=1,  # forget steps each time
            accumulate=1,  # batches of a step
            forget_batch=4,
            retain_batch=4,
            text_batch=4,
            pack=1,
            text_pack=1,
            forget_text=True,
            stop_remembered=-1.0,  # never before the end
            stop_examples=0,  # of the forget set, drawn by the seed; 0: all
            stop_every=50,
            # Options of the methods of these names.
            kl_min=dict(weight=1.0, over="token"),
            npo=dict(beta=0.1, over="example"),
            simnpo=dict(beta=2.5, gamma=0.0),
            # Adapters instead of full weights (docs/lora.md); rank 0: none. Of each name the first
            # pattern that matches decides, "!..." says no.
            lora=dict(rank=0, alpha=16.0, targets=(r"^model\.",)),  # all but the head
        )
    )
    # What `plan` counts on, all assumed: tokens besides the picture's, and the questions of
    # MLLMU-Bench at 5 % (five text questions and 14 scored ones of each kind a person).
    config.plan = ConfigDict(
        dict(
            prompt_tokens=16,  # up to the picture
            question_tokens=96,
            answer_tokens=32,
            questions_per_picture=10,  # that are taught
            forget=250,
            pictures=4750,
            text=2500,
            questions=14000,
        )
    )
    config.controls = ()
    config.evaluate = ConfigDict(
        dict(
            protocol="strict",  # or "released", the published parser; "plain" as in configs/orl.py
            shots=0,  # 1: MLLMU-Bench's few-shot setting, which shows one person's questions solved
            splits=("forget", "test", "retain", "realworld"),  # (): all
            photos_per_person=1,  # of others, and unseen ones, at most; 0: all
            reference="",  # workdir of an evaluated retain-only run, for forget quality
            decode=dict(batch_size=16, max_new_tokens=50),
        )
    )
    return with_semantics(config, semantics)
