"""GPUs: NVML (through a double that says it is one), MIG, health, OpenCL beside and without NVML, broken drivers."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import nvml_double
import pynvml
import pytest
from nvml_double import FakeGpu, FakeNvml

from hypermesh_agent.hardware import Hardware, Unreadable
from hypermesh_agent.probes import gpu, gpu_reader

NO_OPENCL: dict[str, Any] = {"absent": "pyopencl is not installed"}


def parsed(nvml: FakeNvml, opencl: dict[str, Any] = NO_OPENCL) -> tuple[tuple[Hardware, ...], str | None]:
    return gpu.parse(json.dumps({"nvml": gpu_reader.read_nvml(nvml), "opencl": opencl}))


def opencl_device(**changed: Any) -> dict[str, Any]:
    device = {
        "id": "pci:0000:65:00.0",
        "pci": "0000:65:00.0",
        "platform": "NVIDIA CUDA",
        "name": "NVIDIA H200",
        "vendor": "NVIDIA Corporation",
        "version": "OpenCL 3.0 CUDA",
        "driver": "570.86.15",
        "gpu": True,
        "memory": 150_754_820_096,
        "computeUnits": 132,
    }
    return {**device, **changed}


def test_the_double_has_only_names_that_the_binding_has() -> None:
    names = [name for name in dir(FakeNvml) if name.startswith("nvml")]
    assert names
    assert [name for name in names if not hasattr(pynvml, name)] == []


def test_error_codes_are_the_bindings() -> None:
    assert pynvml.NVML_ERROR_DRIVER_NOT_LOADED == nvml_double.DRIVER_NOT_LOADED
    assert pynvml.NVML_ERROR_LIBRARY_NOT_FOUND == nvml_double.LIBRARY_NOT_FOUND
    assert pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED == 1
    assert pynvml.NVML_VOLATILE_ECC == 0


def test_a_whole_gpu() -> None:
    (item,), reason = parsed(FakeNvml([FakeGpu("GPU-11111111-2222")]))
    assert reason is None
    assert item.hardware_id == "GPU-11111111-2222"
    assert item.size == item.capacity == 150_754_820_096
    assert item.detail["pciAddress"] == "0000:65:00.0"
    assert item.detail["driverVersion"] == "570.86.15"
    assert item.detail["cudaVersion"] == "12.8"
    assert item.detail["health"] == "Healthy"
    assert "mig" not in item.detail


def test_mig_instances_stand_for_the_split_gpu() -> None:
    slices = [FakeGpu(f"MIG-{n}", "NVIDIA H200 MIG 1g.18gb", 18 << 30) for n in range(2)]
    whole = FakeGpu("GPU-1", slices=slices, mig=True)
    instances, _ = parsed(FakeNvml([whole, FakeGpu("GPU-2", bus="00000000:75:00.0")]))
    assert [item.hardware_id for item in instances] == ["MIG-0", "MIG-1", "GPU-2"]
    first = instances[0]
    assert first.size == 18 << 30
    assert first.detail["mig"] == {"enabled": True, "parentUUID": "GPU-1", "profile": "1g.18gb"}
    assert first.detail["computeUnits"] == 16
    assert first.detail["pciAddress"] == "0000:65:00.0"


def test_mig_mode_off_is_a_whole_gpu() -> None:
    (item,), _ = parsed(FakeNvml([FakeGpu("GPU-1", slices=[FakeGpu("MIG-0")])]))
    assert item.hardware_id == "GPU-1"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"remapped": (0, 1, 0, 1)}, "replace the GPU"),
        ({"remapped": (0, 1, 1, 0)}, "reset the GPU"),
        ({"ecc_errors": 3}, "uncorrected memory errors"),
    ],
)
def test_health_says_what_the_driver_holds_against_it(changes: dict[str, Any], complaint: str) -> None:
    (item,), _ = parsed(FakeNvml([FakeGpu("GPU-1", **changes)]))
    assert complaint in str(item.detail["health"])


def test_without_ecc_the_gpu_is_healthy() -> None:
    (item,), _ = parsed(FakeNvml([FakeGpu("GPU-1", ecc_errors=None)]))
    assert item.detail["health"] == "Healthy"


def test_one_lost_gpu_leaves_the_others() -> None:
    found, _ = parsed(FakeNvml([FakeGpu("GPU-1", lost=True), FakeGpu("GPU-2")]))
    assert [item.hardware_id for item in found] == ["GPU-2"]


@pytest.mark.parametrize("code", [nvml_double.DRIVER_NOT_LOADED, nvml_double.LIBRARY_NOT_FOUND])
def test_no_driver_is_no_gpu_and_says_why(code: int) -> None:
    found, reason = parsed(FakeNvml([], start=code))
    assert found == ()
    assert reason is not None
    assert "NVML" in reason
    assert "pyopencl is not installed" in reason


def test_a_driver_that_does_not_work_is_a_failure_not_an_absence() -> None:
    with pytest.raises(Unreadable, match="nvidia-smi"):
        parsed(FakeNvml([], start=nvml_double.MISMATCH))


def test_opencl_adds_to_the_nvidia_gpu_and_is_not_a_second_one() -> None:
    (item,), _ = parsed(FakeNvml([FakeGpu("GPU-1")]), {"devices": [opencl_device()]})
    assert item.detail["openCL"] == {
        "platform": "NVIDIA CUDA",
        "device": "NVIDIA H200",
        "version": "OpenCL 3.0 CUDA",
    }
    assert item.detail["computeUnits"] == 132
    assert item.attributes == {"openclDevice": "pci:0000:65:00.0"}


def test_opencl_alone_gives_gpus_but_never_a_cpu() -> None:
    amd = opencl_device(vendor="Advanced Micro Devices, Inc.", name="gfx942", id="pci:0000:05:00.0", pci="0000:05:00.0")
    processor = opencl_device(vendor="GenuineIntel", name="pthread", gpu=False)
    (item,), _ = parsed(FakeNvml([], start=nvml_double.LIBRARY_NOT_FOUND), {"devices": [amd, processor]})
    assert item.hardware_id.startswith("opencl:Advanced_Micro_Devices")
    assert item.detail["model"] == "gfx942"


def test_one_device_on_two_platforms_is_one_asset() -> None:
    device = opencl_device(vendor="Intel", name="Arc", pci="", id="A/0")
    found, _ = parsed(FakeNvml([], start=12), {"devices": [device, {**device}]})
    assert len(found) == 2  # two cards of one model without an address: told apart by their order
    addressed = opencl_device(vendor="Intel", name="Arc", pci="0000:03:00.0", id="A/0")
    found, _ = parsed(FakeNvml([], start=12), {"devices": [addressed, {**addressed, "platform": "other"}]})
    assert len(found) == 1


def test_opencl_devices_are_read_by_their_attributes() -> None:
    device = SimpleNamespace(
        platform=SimpleNamespace(name="P "),
        name=" N",
        vendor="V",
        version="OpenCL 3.0",
        driver_version="1",
        type=1 << 2,
        global_mem_size=5,
        max_compute_units=7,
    )
    answer = gpu_reader.read_opencl([("pci:0000:01:00.0", device)])["devices"][0]
    assert answer["gpu"] is True
    assert answer["pci"] == "0000:01:00.0"
    assert (answer["platform"], answer["name"]) == ("P", "N")
