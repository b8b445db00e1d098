"""XLA's flags for programs that run once, where compilation takes most of the time."""

# LLVM's optimisation does not pay off. Programs compile faster with the older emitters of fused
# loops, and in one piece.
COMPILED_FAST = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
