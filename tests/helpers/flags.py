"""XLA's flags for programs that run once: compiling is most of what they take."""

# Nothing runs long enough for LLVM, and the older emitters of fused loops compile faster.
COMPILED_FAST = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
