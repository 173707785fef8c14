"""GPUs as XLA's compiler wants to be told of them where there are none: their makers' figures."""

from __future__ import annotations

_HOPPER = """
gpu_device_info {{
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  l2_cache_size: 52428800
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: 9 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""

GPU_TARGETS = {
    "h100": _HOPPER.format(name="NVIDIA H100 80GB HBM3", bandwidth=3_350_000_000_000, memory=80_000_000_000),
    "h200": _HOPPER.format(name="NVIDIA H200", bandwidth=4_800_000_000_000, memory=141_000_000_000),
}
"""Target configurations of XLA (GpuTargetConfigProto, as text) by the name in a topology."""
