"""What free memory is filled with: the raw working memory of Argon2d, one block after the other.

Block i of a key is the memory of Argon2d (version 1.3, one lane, password = key, salt = i as 8 bytes big-endian,
32-byte tag) after its last pass, not its tag: it can't be made shorter, and any part of it costs nearly all of it.
Argon2d because its reads depend on the data, which allows the least trade of memory for time; nothing here is secret.

The reference implementation (argon2-cffi-bindings carries it) takes callbacks for its memory: ours point into the
buffer to be filled. It wipes that memory before it gives it back, unless its global FLAG_clear_internal_memory is 0;
the library exports the flag, its Python binding doesn't name it, so it is set through ctypes. The flag concerns this
copy of the library and the whole process: no process that fills or verifies hashes passwords.

Source: RFC 9106, sections 3.2 and 3.4.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

from hypermesh.digests import u64

LABEL_BYTES: Final = 64
_TAG_BYTES: Final = 32
_PASSWORD_BYTES: Final = 32


class FillFailed(RuntimeError):
    """Argon2 answered with an error, or this build of it can't show its memory; a fault of the installation."""


def fill_block(key: bytes, number: int, kib: int, passes: int, into: memoryview) -> None:
    """Write block `number` (u64) of `key` (32 bytes) to `into`, a writable view of exactly kib · 1024 bytes.

    kib is a multiple of 4, at least 8; passes at least 1. Raises FillFailed, or ValueError for a view of another size.
    """
    if len(key) != _PASSWORD_BYTES or into.nbytes != kib * 1024 or into.readonly:
        raise ValueError(f"a block needs a key of 32 bytes and a writable view of {kib * 1024}, not {into.nbytes}")
    ffi, lib = _library()
    target = ffi.from_buffer(into, require_writable=True)

    @ffi.callback("int(uint8_t **, size_t)")  # type: ignore[untyped-decorator]
    def allocate(memory: Any, size: int) -> int:
        if size != into.nbytes:
            return int(lib.ARGON2_MEMORY_ALLOCATION_ERROR)
        memory[0] = ffi.cast("uint8_t *", target)
        return 0

    @ffi.callback("void(uint8_t *, size_t)")  # type: ignore[untyped-decorator]
    def free(memory: Any, size: int) -> None:
        return

    tag, password, salt = ffi.new("uint8_t[]", _TAG_BYTES), ffi.from_buffer(key), ffi.from_buffer(u64(number))
    context = ffi.new("argon2_context *")
    context.out, context.outlen = tag, _TAG_BYTES
    context.pwd, context.pwdlen = ffi.cast("uint8_t *", password), len(password)
    context.salt, context.saltlen = ffi.cast("uint8_t *", salt), len(salt)
    context.t_cost, context.m_cost, context.lanes, context.threads = passes, kib, 1, 1
    context.version = lib.ARGON2_VERSION_13
    context.allocate_cbk, context.free_cbk, context.flags = allocate, free, 0
    answer = lib.argon2_ctx(context, lib.Argon2_d)
    if answer != lib.ARGON2_OK:
        reason = ffi.string(lib.argon2_error_message(answer)).decode()
        raise FillFailed(f"Argon2d of {kib} KiB and {passes} passes: {reason}")


def block(key: bytes, number: int, kib: int, passes: int) -> bytes:
    """Block `number` of `key`, kib · 1024 bytes; see fill_block."""
    made = bytearray(kib * 1024)
    fill_block(key, number, kib, passes, memoryview(made))
    return bytes(made)


@cache
def _library() -> tuple[Any, Any]:
    """cffi's (ffi, lib) of the Argon2 library, told to leave its memory as it is."""
    from _argon2_cffi_bindings import _ffi

    try:
        flag = ctypes.c_int.in_dll(ctypes.CDLL(_ffi.__file__), "FLAG_clear_internal_memory")
    except ValueError as error:
        raise FillFailed(f"{_ffi.__file__} doesn't export its wipe flag: install the pinned package") from error
    flag.value = 0
    return _ffi.ffi, _ffi.lib
