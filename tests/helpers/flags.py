"""XLA's flags for programs that run once, where compilation takes most of the time."""

from jaxlib.version import __version_info__

# LLVM's optimisation does not pay off. Programs compile faster in one piece and, where jaxlib still
# has them, with the older emitters of fused loops; a flag that it does not know ends the process.
COMPILED_FAST = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
)
if __version_info__ < (0, 11):
    COMPILED_FAST += " --xla_cpu_use_fusion_emitters=false"
