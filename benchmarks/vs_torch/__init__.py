"""Times the method in JAX against the published loop in transformers and torch."""
