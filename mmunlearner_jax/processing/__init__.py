"""The processor of a checkpoint: its small files, which are read with limits, and its pictures."""
