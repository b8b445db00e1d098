"""Samples, benchmarks in MLLMU-Bench's schema, prompts and labels, and the Grain pipeline."""
