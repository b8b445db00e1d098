"""Attacks that tell whether an unlearned model has erased what it knew, or only hides it."""
