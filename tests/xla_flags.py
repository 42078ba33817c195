"""XLA flags of test processes. Imports nothing: they are set before the first import of jax."""

# A third of the compile time, for programs that run once: LLVM optimises nothing, loops are emitted
# directly instead of by way of MLIR, and a program is one LLVM module instead of up to 32.
QUICK_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
