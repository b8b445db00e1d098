"""ROUGE and BLEU: how much of the words of two texts is the same.

Imported where an open answer is scored: nltk, which both libraries load, takes two seconds.
"""

from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score import rouge_scorer, tokenizers

from mmunlearner_jax.evaluation import texts


class Tokenizer(tokenizers.Tokenizer):
    """`texts.words` for `rouge_score`, whose own tokenizer drops all characters outside ASCII.

    ASCII words are split and stemmed by that tokenizer, so ASCII texts have the same tokens.
    """

    def __init__(self):
        self._ascii = tokenizers.DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """Returns the tokens of a text."""
        tokens = []
        for word in texts.words(text):
            tokens += self._ascii.tokenize(word) if word.isascii() else [word]
        return tokens


_MEASURES = ("rouge1", "rouge2", "rougeL")
_PUBLISHED = rouge_scorer.RougeScorer(_MEASURES, use_stemmer=True)
_UNICODE = rouge_scorer.RougeScorer(_MEASURES, tokenizer=Tokenizer())
_SMOOTHING = SmoothingFunction().method1


def rouge(reference: str, response: str, *, published: bool = False) -> dict[str, float]:
    """Returns ROUGE with stemming.

    Args:
        reference: The true text.
        response: The model's text.
        published: True: the published scorer splits words, and drops characters outside ASCII.
            False: `Tokenizer` splits words; ASCII texts have the same scores.

    Returns:
        The F-measures `rouge1`, `rouge2`, `rougeL`, as MLLMU-Bench's and MMUnlearner's evaluators
        compute them, and `rougeL_recall`, which CLEAR's and TOFU's model utility uses.
    """
    scores = (_PUBLISHED if published else _UNICODE).score(reference, response)
    measures = {name: float(score.fmeasure) for name, score in scores.items()}
    return {**measures, "rougeL_recall": float(scores["rougeL"].recall)}


def bleu(reference: str, response: str, *, published: bool = False) -> float:
    """Returns BLEU-4 of one sentence, with smoothing 1.

    Args:
        reference: The true text.
        response: The model's text.
        published: True: blanks separate words, as in MMUnlearner's `compute_bleu`. False:
            `texts.pieces`, which gives the same words in ASCII.
    """
    cut = str.split if published else texts.pieces
    return float(sentence_bleu([cut(reference)], cut(response), smoothing_function=_SMOOTHING))
