"""One short script per stage: `run(config, workdir)` reads what the stages before it wrote.

It returns False where its result lay there already.
"""

from mmunlearner_jax.stages import (
    compare,
    controls,
    evaluate,
    export,
    finetune,
    importance,
    mask,
    prepare,
    report,
    rescore,
    unlearn,
)

ALL = {
    "prepare": prepare.run,
    "finetune": finetune.run,
    "importance": importance.run,
    "mask": mask.run,
    "unlearn": unlearn.run,
    "evaluate": evaluate.run,
    "controls": controls.run,
    "compare": compare.run,
    "export": export.run,
    "report": report.run,
    "rescore": rescore.run,
}
# They run on no mesh: with several processes the first runs them, and the others wait.
OF_ONE_PROCESS = ("prepare", "report", "rescore")
