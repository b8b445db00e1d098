"""The check that a gold model never saw the pictures of the people to forget."""

from mmunlearner_jax.errors import InputError

MEND = "train it with config.finetune.retain_only='gold', the same seed and forget ratio"


def refuse_if_known(
    key: str, checkpoint: str, *, gold: float, before: float, chance: float
) -> None:
    """Refuses a gold model that answers questions about the pictures to forget.

    Args:
        key: The option that names the model, e.g. "config.compare.gold".
        checkpoint: The model.
        gold: Its accuracy about the pictures, 0 to 1.
        before: Accuracy of the model before unlearning.
        chance: What guessing gives.

    Raises:
        InputError: It knows more than half of what the model before unlearning does.
    """
    if gold > (chance + before) / 2 and before > chance:
        raise InputError(
            f"{key}: {checkpoint} knows the faces to forget ({100 * gold:.0f} % right, the model"
            f" before unlearning {100 * before:.0f} %, chance {100 * chance:.0f} %): {MEND}"
        )
