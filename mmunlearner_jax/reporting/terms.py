"""Terms that the pages explain where they stand."""

TERMS = {
    "before, after": "The model before unlearning, which knows the people to forget, and after it.",
    "bar": "The score at which a row’s aim is just met (`config.report`).",
    "share left": "How much is left of what was known before beyond guessing: 100 % is as much as"
    " before, 0 % is guessing. Of blanks and free answers guessing counts as 0, so a lucky guess"
    " counts as left.",
    "guessing": "The score of a model that knows nothing of what is asked. For what is to be"
    " forgotten it is the better of two guessers: one takes any option, the other the fact of"
    " somebody else.",
    "95 % interval": "Where the score would probably be with other questions of the same kind: of"
    " Wilson for shares, by bootstrap for means.",
    "n": "Number of questions.",
    "multiple choice": "Right if the true option is the most likely of the options.",
    "fill in the blank": "Right if the answer holds the missing words.",
    "free answer": "Right if it holds the true words.",
    "ROUGE-L": "How much of the word order two texts share, 0 to 1. Texts about the same subject"
    " share some by chance, so there is no bar for what should fall.",
    "probability": "Of multiple choice: of the options among themselves. Of an answer: the mean"
    " over its tokens.",
    "forget step, retain step": "A step that raises the loss on what is to be forgotten (or lowers"
    " another, by the method); a step that lowers the loss on the rest.",
    "still remembered": "Share of the forget set’s training answers that the model still gives.",
    "mask": "The weights that forget steps may change; its density is their share.",
    "gold": "A model that was taught everything but the pictures of the people to forget.",
    "attack": "An attempt to bring back what was forgotten, as somebody with the model could make.",
    "perplexity": "How surprised a model is by a text; 1 is not at all, and less is better.",
    "seed": "Number that all random choices follow from.",
    "contrast": "A difference between two variants on one kind of question, named before the runs.",
    "p, Holm": "Probability of a difference at least as large if there were none; Holm’s rule makes"
    " it larger where several are tried.",
    "detectable": "The difference that so many seeds find in 80 of 100 such comparisons.",
    "variant, control": "A method, or a run with one thing changed.",
    "level": "How much is left of what was forgotten, where the variants are compared.",
}
