"""The processor of a checkpoint: its small files, read with limits, and its pictures."""
