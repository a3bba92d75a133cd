"""A DOUBLE of the NVML binding, because this machine has no NVIDIA GPU: it answers as pynvml does for made-up GPUs.

Names and return forms are those of nvidia-ml-py (pynvml.py); what it answers is invented. Nothing outside the tests
imports it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


NOT_SUPPORTED, NOT_FOUND, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, GPU_IS_LOST, MISMATCH = 3, 6, 9, 12, 15, 18


@dataclass
class FakeGpu:
    uuid: str
    name: str = "NVIDIA H200"
    memory: int = 150_754_820_096
    bus: str = "00000000:65:00.0"
    remapped: tuple[int, int, int, int] = (0, 0, 0, 0)
    ecc_errors: int | None = 0
    lost: bool = False
    slices: list[FakeGpu] = field(default_factory=list)
    mig: bool = False


@dataclass
class FakeNvml:
    gpus: list[FakeGpu]
    start: int = 0
    NVMLError: type[NVMLError] = NVMLError

    def nvmlInit(self) -> None:
        if self.start:
            raise NVMLError(self.start)

    def nvmlShutdown(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        if self.gpus[index].lost:
            raise NVMLError(GPU_IS_LOST)
        return self.gpus[index]

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.86.15"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12080

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> bytes:
        return gpu.uuid.encode()

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return gpu.name

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        return SimpleNamespace(total=gpu.memory, free=gpu.memory, used=0)

    def nvmlDeviceGetPciInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        if gpu.name.find(" MIG ") >= 0:
            raise NVMLError(NOT_SUPPORTED)
        return SimpleNamespace(busId=gpu.bus.encode())

    def nvmlDeviceGetRemappedRows(self, gpu: FakeGpu) -> tuple[int, int, int, int]:
        return gpu.remapped

    def nvmlDeviceGetTotalEccErrors(self, gpu: FakeGpu, kind: int, counter: int) -> int:
        if gpu.ecc_errors is None:
            raise NVMLError(NOT_SUPPORTED)
        assert (kind, counter) == (1, 0)  # uncorrected, volatile
        return gpu.ecc_errors

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> tuple[int, int]:
        if not gpu.slices and not gpu.mig:
            raise NVMLError(NOT_SUPPORTED)
        return (1 if gpu.mig else 0, 1)

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, index: int) -> FakeGpu:
        if index >= len(gpu.slices):
            raise NVMLError(NOT_FOUND)
        return gpu.slices[index]

    def nvmlDeviceGetAttributes_v2(self, gpu: FakeGpu) -> SimpleNamespace:
        return SimpleNamespace(multiprocessorCount=16)
