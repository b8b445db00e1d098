"""XLA's flags for programs that run once, where compilation takes most of the time."""

# LLVM's optimisation does not pay off, and the older emitters of fused loops compile faster.
COMPILED_FAST = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
