"""What a comparison of unlearning methods found: its cells, measures, estimates and verdicts."""
