"""Samples, benchmarks, prompts and labels, and the Grain pipeline."""
