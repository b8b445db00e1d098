"""What of two texts is compared: in any writing, composed and decomposed letters being the same."""

import unicodedata

import regex
from rouge_score import tokenizers

# Writings that put no blanks between words: every character, with its marks, is a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
# Elsewhere vowel signs and accents without a composed letter stay in their word.
_WORD = regex.compile(
    rf"[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*"
    rf"|[[\p{{L}}\p{{N}}\p{{M}}_]--[{_UNSPACED}]]+",
    regex.VERSION1,
)
_PIECE = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|[^{_UNSPACED}]+", regex.VERSION1)


def composed(text: str) -> str:
    """A text in Unicode's normal form C: letters and their marks as one character each."""
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """A text as it is compared where case does not count: `composed`, "ß" as "ss"."""
    return composed(composed(text).casefold())


def words(text: str) -> list[str]:
    """The words of a text, `folded`, without punctuation (but "_").

    Of writings without blanks between words (Chinese, Japanese, Thai ...) each character is one.
    """
    return _WORD.findall(folded(text))


def same_words(reference: str, response: str) -> bool:
    """Whether two texts have the same words in order, whatever their case and punctuation.

    Where the reference has no word (a sign, an emoji), all its characters must be the same.
    """
    wanted = words(reference)
    if wanted:
        return wanted == words(response)
    return folded(reference).strip() == folded(response).strip()


def contains(response: str, reference: str) -> bool:
    """Whether a text occurs in another, whatever the case."""
    return folded(reference) in folded(response)


def pieces(text: str) -> list[str]:
    """What stands between blanks, punctuation included, as BLEU counts it; see `words`."""
    return [piece for part in composed(text).split() for piece in _PIECE.findall(part)]


class Tokenizer(tokenizers.Tokenizer):
    """`words` for `rouge_score`, whose own tokenizer drops all that is not ASCII.

    ASCII words are cut and stemmed as there, so that texts in ASCII have the same tokens.
    """

    def __init__(self):
        self._ascii = tokenizers.DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        found = []
        for word in words(text):
            found += self._ascii.tokenize(word) if word.isascii() else [word]
        return found
