"""A local page that asks a model before and after unlearning: `mmu ask`."""
