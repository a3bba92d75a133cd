"""Asks the GPU drivers, in a process of its own: `python -m hypermesh_agent.probes.gpu_reader` prints one JSON object.

Why apart: the NVML binding costs 15 MB and pyopencl brings numpy, which the agent's own process must not hold; and a
driver that hangs or crashes takes this process down, not the agent. `gpu.parse` reads the answer.
Answer: {"nvml": {"driver", "cuda", "devices": [...]} | {"absent": why} | {"failed": why}, "opencl": the same}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from typing import Any

from ..children import die_with_parent
from ..proofs import opencl

# NVML return codes (nvml.h) that mean "no NVIDIA GPU can be here", not "it is broken".
_ABSENT = frozenset({9, 12})  # DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND
_OPENCL_GPU = 1 << 2  # CL_DEVICE_TYPE_GPU
_UNCORRECTED, _VOLATILE = 1, 0  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC


def read_nvml(nvml: Any) -> dict[str, Any]:
    """Every GPU, or every MIG device of a split one. `nvml` is the pynvml module or what has its functions."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        kind = "absent" if getattr(error, "value", None) in _ABSENT else "failed"
        return {kind: f"NVML does not start: {error}"}
    try:
        devices: list[dict[str, Any]] = []
        for index in range(int(nvml.nvmlDeviceGetCount())):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                devices.extend(_nvml_devices(nvml, handle))
            except nvml.NVMLError as error:
                devices.append({"index": index, "failed": str(error)})
        cuda = _optional(nvml, lambda: int(nvml.nvmlSystemGetCudaDriverVersion_v2()))
        return {
            "driver": _text(nvml.nvmlSystemGetDriverVersion()),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
            "devices": devices,
        }
    except nvml.NVMLError as error:
        return {"failed": f"NVML: {error}"}
    finally:
        _optional(nvml, nvml.nvmlShutdown)


def _nvml_devices(nvml: Any, handle: Any) -> list[dict[str, Any]]:
    whole = _nvml_device(nvml, handle)
    mode = _optional(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))
    if not mode or mode[0] != 1:
        return [whole]
    instances = []
    for index in range(int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))):
        instance = _optional(nvml, partial(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index))
        if instance is None:
            continue  # fewer instances than there is room for
        found = _nvml_device(nvml, instance)
        attributes = _optional(nvml, partial(nvml.nvmlDeviceGetAttributes_v2, instance))
        if attributes is not None:
            found["computeUnits"] = int(attributes.multiprocessorCount)
        found["pci"], found["health"], found["parent"] = whole["pci"], whole["health"], whole["uuid"]
        found["profile"] = found["name"].rpartition(" MIG ")[2] if " MIG " in found["name"] else ""
        instances.append(found)
    return instances


def _nvml_device(nvml: Any, handle: Any) -> dict[str, Any]:
    pci = _optional(nvml, lambda: _text(nvml.nvmlDeviceGetPciInfo(handle).busId)) or ""
    return {
        "uuid": _text(nvml.nvmlDeviceGetUUID(handle)),
        "name": _text(nvml.nvmlDeviceGetName(handle)),
        "memory": int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        "pci": pci.lower().removeprefix("0000") if len(pci) > len("0000:00:00.0") else pci.lower(),
        "health": _nvml_health(nvml, handle),
    }


def _nvml_health(nvml: Any, handle: Any) -> str:
    """Healthy, or what the driver holds against the device: memory rows that cannot be remapped, uncorrected errors."""
    complaints = []
    rows = _optional(nvml, lambda: nvml.nvmlDeviceGetRemappedRows(handle))
    if rows and rows[3]:
        complaints.append("row remapping failed; replace the GPU")
    if rows and rows[2]:
        complaints.append("row remapping is pending; reset the GPU")
    errors = _optional(nvml, lambda: int(nvml.nvmlDeviceGetTotalEccErrors(handle, _UNCORRECTED, _VOLATILE)))
    if errors:
        complaints.append("uncorrected memory errors since the driver was loaded")
    return "; ".join(complaints) or "Healthy"


def _optional(nvml: Any, call: Callable[[], Any]) -> Any:
    """The answer, or None where this GPU or driver does not support the question."""
    try:
        return call()
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def read_opencl(devices: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Every OpenCL device, of all types: (name that the provers use, pyopencl device) in, facts out."""
    return {
        "devices": [
            {
                "id": name,
                "pci": name.removeprefix("pci:") if name.startswith("pci:") else "",
                "platform": device.platform.name.strip(),
                "name": device.name.strip(),
                "vendor": device.vendor.strip(),
                "version": device.version.strip(),
                "driver": device.driver_version.strip(),
                "gpu": bool(device.type & _OPENCL_GPU),
                "memory": int(device.global_mem_size),
                "computeUnits": int(device.max_compute_units),
            }
            for name, device in devices
        ]
    }


def _nvml() -> dict[str, Any]:
    try:
        import pynvml
    except ImportError:
        return {"absent": "nvidia-ml-py is not installed"}
    return read_nvml(pynvml)


def _opencl() -> dict[str, Any]:
    if find_spec("pyopencl") is None:
        return {"absent": "pyopencl is not installed"}
    return read_opencl(opencl.devices())


def main() -> None:
    die_with_parent()
    json.dump({"nvml": _nvml(), "opencl": _opencl()}, sys.stdout)


if __name__ == "__main__":
    main()
