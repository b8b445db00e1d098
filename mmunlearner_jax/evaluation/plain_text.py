"""Plain English text, whose perplexity shows what unlearning does to language as such.

The texts were written for this package. They name no person and no country.
"""

from typing import Any

import numpy as np

from mmunlearner_jax.data.pipeline import rounded
from mmunlearner_jax.models.packing import IGNORE

TEXTS = (
    "The rain had stopped before noon, but water still dripped from the leaves of the old oak.",
    "She put the kettle on the stove, opened the window, and waited for the morning to begin.",
    "Bread needs flour, water, salt and yeast. The dough must rest for an hour before it is baked.",
    "A bicycle is easier to balance when it moves, because small turns of the wheel correct it.",
    "The library closes at six. Books that are returned later count as returned the next day.",
    "Plants take in carbon dioxide from the air and use the light of the sun to make sugar.",
    "He had read the letter three times, and each time he understood it a little less.",
    "The engine was cold, so the mechanic let it run for a few minutes before he listened to it.",
    "Most of the houses in the village were built of stone, with small windows and heavy doors.",
    "If you mix red paint with yellow paint, you get orange. Blue and yellow make green.",
    "The children ran across the field to see the balloon, which was already above the trees.",
    "Sound travels faster in water than in air, and faster still in a bar of steel.",
    "The train was late again. Nobody on the platform seemed to be surprised, or even annoyed.",
    "Before the invention of printing, every copy of a book had to be written by hand.",
    "My grandmother kept her buttons in a tin box, sorted by colour, and never threw one away.",
    "A good knife should be washed by hand and dried at once, or the edge will become dull.",
    "The dog slept beside the fire, and its paws moved as if it were running in a dream.",
    "Salt lowers the temperature at which water freezes, which is why it is put on icy roads.",
    "They walked along the beach until it was dark, and then turned back towards the lights.",
    "The teacher drew a triangle on the board and asked which of its sides was the longest.",
    "In winter the lake is frozen, and people cross it on foot to save the longer way around.",
    "Cotton is cool in summer because it lets air through and takes up water from the skin.",
    "The old clock in the hall struck ten, although everybody knew that it was half past nine.",
    "Bees find their way by the position of the sun, and tell each other where flowers are.",
    "The soup was too hot to eat, so they talked about the journey until it had cooled.",
    "A map shows the shape of the land from above, at a scale that is written in its corner.",
    "When the music ended, there was a moment of silence before anybody began to clap.",
    "Iron rusts when it is wet. A thin layer of paint or oil keeps water and air away from it.",
    "The cat had hidden under the bed, and no amount of kind words would bring it out.",
    "You can tell the age of a tree by counting the rings in its trunk, one for each year.",
    "He locked the door, put the key under the flower pot, and went down to the river to fish.",
    "The moon has no light of its own. What we see is the light of the sun that falls on it.",
)


def plain_batch(tokenizer: Any, parts: int) -> dict[str, np.ndarray]:
    """Returns the texts as one batch without a chat template.

    Args:
        tokenizer: Tokenizer of transformers.
        parts: Number of devices' groups that share a batch; empty rows fill the last part.

    Returns:
        `input_ids`, `attention_mask` and `labels`, int32 [rows, tokens]; every token but the first
        of a text is supervised.
    """
    texts = [tokenizer(text).input_ids for text in TEXTS]
    shape = rounded(len(texts), parts), rounded(max(map(len, texts)))
    ids, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, tokens in enumerate(texts):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    return {"input_ids": ids, "attention_mask": mask, "labels": np.where(mask, ids, IGNORE)}
