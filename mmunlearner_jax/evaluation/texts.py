"""Comparison of texts in any writing system; composed and decomposed letters are equal."""

import unicodedata

import regex

# Writing systems without blanks between words: every character, with its marks, is a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
# In other systems, marks without a composed letter (vowel signs, accents) belong to their word.
_WORD = regex.compile(
    rf"[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*"
    rf"|[[\p{{L}}\p{{N}}\p{{M}}_]--[{_UNSPACED}]]+",
    regex.VERSION1,
)
_ACCENT = regex.compile(r"(?<=\p{Latin}\p{M}*)\p{M}")
_PIECE = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|[^{_UNSPACED}]+", regex.VERSION1)


def composed(text: str) -> str:
    """Returns a text in Unicode's normal form C: a letter and its marks are one character."""
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Returns a text for comparison without case: `composed`, with "ß" as "ss"."""
    return composed(composed(text).casefold())


def words(text: str) -> list[str]:
    """Returns the words of a text, `folded`, without punctuation other than "_".

    In writing systems without blanks between words (Chinese, Japanese, Thai ...) each character is
    a word.
    """
    return _WORD.findall(folded(text))


def same_words(reference: str, response: str) -> bool:
    """Returns whether two texts have the same words in order, in any case and punctuation.

    If the reference has no word (a sign, an emoji), all characters must be equal.
    """
    wanted = words(reference)
    if wanted:
        return wanted == words(response)
    return folded(reference).strip() == folded(response).strip()


def contains(response: str, reference: str) -> bool:
    """Returns whether the reference occurs in the response, in any case."""
    return folded(reference) in folded(response)


def has_words(response: str, reference: str) -> bool:
    """Returns whether the words of the reference stand in the response, one behind the other.

    Case, punctuation, blanks and the accents of Latin letters do not count, and only whole words
    do: "Sao Paulo!" has the words of "São Paulo", but "Romania" has not those of "Oman". If the
    reference has no word, see `contains`.
    """
    wanted = words(_without_accents(reference))
    if not wanted:
        return contains(response, reference)
    spoken = words(_without_accents(response))
    return any(spoken[n : n + len(wanted)] == wanted for n in range(len(spoken)))


def _without_accents(text: str) -> str:
    return _ACCENT.sub("", unicodedata.normalize("NFD", text))


def pieces(text: str) -> list[str]:
    """Returns the pieces between blanks, with punctuation, that BLEU counts; see `words`."""
    return [piece for part in composed(text).split() for piece in _PIECE.findall(part)]
