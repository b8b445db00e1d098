"""Evaluation: batched greedy decoding, option likelihoods, and scores with their intervals."""
