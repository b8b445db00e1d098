"""Plain text as one batch."""

from types import SimpleNamespace

from mmunlearner_jax.evaluation.plain_text import TEXTS, plain_batch


def test_every_word_of_the_texts_is_supervised_and_no_padding():
    def tokenizer(text):
        return SimpleNamespace(input_ids=[len(word) for word in text.split()])

    batch = plain_batch(tokenizer, 5)
    assert {array.shape for array in batch.values()} == {(35, batch["labels"].shape[1])}
    assert (batch["labels"][len(TEXTS) :] == -100).all()
    for row, text in enumerate(TEXTS):
        lengths = [len(word) for word in text.split()]
        n = len(lengths)
        assert batch["labels"][row].tolist() == lengths + [-100] * (len(batch["labels"][row]) - n)
        assert batch["attention_mask"][row].sum() == n
