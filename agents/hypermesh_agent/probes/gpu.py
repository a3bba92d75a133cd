"""GPUs: one Asset for each GPU, or for each MIG device of a split one.

Unit: bytes of device memory. NVIDIA GPUs are known by NVML; others by OpenCL, where pyopencl is installed. A GPU that
both show is one Asset, with OpenCL's facts added (matched by PCI address, else by name). OpenCL devices that
are no GPUs (a CPU runtime) are not published: the CPU has its own Asset.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hypermesh.quantities import render

from ..hardware import Hardware, Json, Kind, Unreadable, hardware_id, printable

OPENCL_DEVICE: Final = "openclDevice"
"""Attribute: the name under which the provers find the device."""
_NVIDIA: Final = "nvidia"


def parse(answer: str) -> tuple[tuple[Hardware, ...], str | None]:
    """(GPUs, why there are none) from what `gpu_reader` printed.

    Raises Unreadable when the driver is there but does not work, or the answer has another form: the agent then keeps
    the GPUs it knew.
    """
    try:
        document = json.loads(answer)
        nvml, opencl = _section(document, "nvml"), _section(document, "opencl")
        if failed := nvml.get("failed"):
            raise Unreadable(f"{failed}; check the NVIDIA driver with nvidia-smi")
        shown = [device for device in opencl.get("devices", []) if device["gpu"]]
        working = [device for device in nvml.get("devices", []) if "failed" not in device]
        hardware = [_nvidia(device, nvml, _take(shown, device)) for device in working]
        hardware += [_other(device, index) for index, device in enumerate(shown)]
        broken = [device["failed"] for device in nvml.get("devices", []) if "failed" in device]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"the GPU reader's answer has another form than it should: {error!r}") from error
    if hardware:
        return tuple(_distinct(hardware)), None
    reasons = [section["absent"] for section in (nvml, opencl) if "absent" in section] or ["no driver shows a GPU"]
    return (), "; ".join(map(str, reasons + broken))


def _section(document: Any, name: str) -> Mapping[str, Any]:
    section = document[name]
    if not isinstance(section, dict):
        raise Unreadable(f"the GPU reader's answer has no {name!r} object")
    return section


def _nvidia(device: Mapping[str, Any], nvml: Mapping[str, Any], opencl: Mapping[str, Any] | None) -> Hardware:
    memory = _amount(device["memory"])
    detail: dict[str, Json] = {
        "vendor": "NVIDIA",
        "memory": render("gpuMemory", memory),
        "health": printable(device["health"], 1024),
    }
    texts = {
        "model": (device["name"], 253),
        "uuid": (device["uuid"], 128),
        "pciAddress": (device["pci"], 64),
        "driverVersion": (nvml["driver"], 128),
        "cudaVersion": (nvml["cuda"], 64),
    }
    detail |= {key: text for key, (value, length) in texts.items() if (text := printable(value, length))}
    units = device.get("computeUnits") or (opencl or {}).get("computeUnits")
    if units:
        detail["computeUnits"] = _amount(units)
    if "parent" in device:
        profile = {"profile": printable(device["profile"], 64)} if device.get("profile") else {}
        detail["mig"] = {"enabled": True, "parentUUID": printable(device["parent"], 128), **profile}
    if opencl is not None:
        detail["openCL"] = _opencl(opencl)
    attributes = {OPENCL_DEVICE: printable(opencl["id"], 1024)} if opencl is not None else {}
    return Hardware(Kind.GPU, hardware_id(device["uuid"]), memory, memory, detail, attributes=attributes)


def _other(device: Mapping[str, Any], index: int) -> Hardware:
    memory = _amount(device["memory"])
    place = device["pci"] or str(index)
    detail: dict[str, Json] = {
        "vendor": printable(device["vendor"]),
        "model": printable(device["name"]),
        "memory": render("gpuMemory", memory),
        "driverVersion": printable(device["driver"], 128),
        "computeUnits": _amount(device["computeUnits"]),
        "openCL": _opencl(device),
        "health": "Healthy",
    }
    if device["pci"]:
        detail["pciAddress"] = printable(device["pci"], 64)
    identity = hardware_id("opencl", device["vendor"], device["name"], place)
    return Hardware(
        Kind.GPU, identity, memory, memory, detail, attributes={OPENCL_DEVICE: printable(device["id"], 1024)}
    )


def _opencl(device: Mapping[str, Any]) -> dict[str, Json]:
    return {
        "platform": printable(device["platform"]),
        "device": printable(device["name"]),
        "version": printable(device["version"], 128),
    }


def _take(shown: list[dict[str, Any]], device: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Removes and returns OpenCL's view of an NVIDIA device."""
    ours = [other for other in shown if _NVIDIA in other["vendor"].lower()]
    found = next((other for other in ours if other["pci"] and other["pci"] == device["pci"]), None)
    found = found or next((other for other in ours if other["name"] == device["name"]), None)
    if found is not None:
        shown.remove(found)
    return found


def _amount(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise Unreadable(f"the GPU reader's answer has {value!r} where a count belongs")
    return value


def _distinct(hardware: Sequence[Hardware]) -> list[Hardware]:
    """The first of each identity: drivers may show one device on two platforms."""
    return list({item.hardware_id: item for item in reversed(hardware)}.values())[::-1]
