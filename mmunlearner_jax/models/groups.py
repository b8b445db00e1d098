"""The module groups of every architecture, by which options say what moves."""

GROUPS = ("vision", "projector", "language")
