"""What a comparison of unlearning methods found: its statistics, its figures and its report."""
