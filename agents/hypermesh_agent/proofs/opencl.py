"""The matrix product on an OpenCL device (GPU, or a CPU through pocl), bit-exact with numpy. Worker only.

Each work-item computes a 4×4 block of C from int8 rows in int32; nothing rounds, so every device agrees.
Devices are named by PCI address where the driver tells it (NVIDIA, AMD: ``pci:0000:65:00.0``), else by platform
and position (``Portable Computing Language/0``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypermesh.proofs.products import Int8, Int32, Multiply

_KERNEL = """
#define SUM(v) (v.s0 + v.s1 + v.s2 + v.s3 + v.s4 + v.s5 + v.s6 + v.s7)
__kernel void product(__global const char *left, __global const char *right, __global int *out, const int n)
{
    const int column = get_global_id(0) * 4, row = get_global_id(1) * 4;
    int8 sums[4][4];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            sums[i][j] = (int8)(0);
    for (int k = 0; k < n; k += 8) {
        int8 a[4], b[4];
        for (int i = 0; i < 4; i++) {
            a[i] = convert_int8(vload8(0, left + (size_t)(row + i) * n + k));
            b[i] = convert_int8(vload8(0, right + (size_t)(column + i) * n + k));
        }
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++)
                sums[i][j] += a[i] * b[j];
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            out[(size_t)(row + i) * n + column + j] = SUM(sums[i][j]);
}
"""


class DeviceMissing(Exception):
    """No OpenCL device of that name; the message lists those that are there."""


def devices() -> Iterator[tuple[str, Any]]:
    """(name, pyopencl device) of every OpenCL device here; nothing when pyopencl or a driver is missing."""
    try:
        import pyopencl
    except ImportError:
        return
    try:
        platforms = pyopencl.get_platforms()
    except pyopencl.Error:  # no driver (ICD) is installed
        return
    for platform in platforms:
        try:
            found = platform.get_devices()
        except pyopencl.Error:  # a driver without a device
            continue
        for position, device in enumerate(found):
            yield _pci_address(device) or f"{platform.name}/{position}", device


def multiplier(name: str) -> Multiply:
    """A bit-exact `Multiply` on the device called `name`; raises DeviceMissing."""
    found = dict(devices())
    if name not in found:
        raise DeviceMissing(
            f"OpenCL device {name!r} isn't here (found: {', '.join(found) or 'none'}): install its OpenCL driver "
            "and the opencl extra, or leave this GPU unshared"
        )
    import numpy
    import pyopencl

    context = pyopencl.Context([found[name]])
    queue = pyopencl.CommandQueue(context)
    kernel = pyopencl.Kernel(pyopencl.Program(context, _KERNEL).build(), "product")
    flags = pyopencl.mem_flags

    def multiply(left: Int8, right_transposed: Int8) -> Int32:
        rows, n = left.shape
        out = numpy.empty((rows, n), numpy.int32)
        buffers = [
            pyopencl.Buffer(context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=left),
            pyopencl.Buffer(context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=right_transposed),
            pyopencl.Buffer(context, flags.WRITE_ONLY, out.nbytes),
        ]
        kernel.set_args(*buffers, numpy.int32(n))
        pyopencl.enqueue_nd_range_kernel(queue, kernel, (n // 4, rows // 4), None)
        pyopencl.enqueue_copy(queue, out, buffers[2]).wait()
        for buffer in buffers:
            buffer.release()
        return out

    return multiply


def _pci_address(device: Any) -> str:
    """``pci:<domain>:<bus>:<slot>.<function>`` by the vendor extensions; empty where there is none."""
    import pyopencl

    try:
        domain, bus, slot = device.pci_domain_id_nv, device.pci_bus_id_nv, device.pci_slot_id_nv
    except (pyopencl.Error, AttributeError):
        pass
    else:
        return f"pci:{domain:04x}:{bus:02x}:{slot >> 3:02x}.{slot & 7}"  # slot holds device and function
    try:
        pcie = device.topology_amd.pcie
    except (pyopencl.Error, AttributeError):
        return ""
    return f"pci:0000:{pcie.bus:02x}:{pcie.device:02x}.{pcie.function}"
