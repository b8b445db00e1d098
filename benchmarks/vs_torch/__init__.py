"""Times the method in JAX against the published loop, written with transformers and torch."""
