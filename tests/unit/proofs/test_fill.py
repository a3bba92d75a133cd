"""The raw memory of Argon2d: a second implementation in plain Python, and the tags that it must give, agree with it."""

from __future__ import annotations

import hashlib
import struct

import pytest

from hypermesh.proofs import fill

KEY = bytes(range(32))
WORDS = 128
MASK = 2**64 - 1


def blake2b(*parts: bytes, size: int = 64) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=size).digest()


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def long_hash(data: bytes, size: int) -> bytes:
    """H' of RFC 9106, section 3.3, for sizes above 64."""
    digest = blake2b(u32(size), data)
    out = digest[:32]
    while size - len(out) > 64:
        digest = blake2b(digest)
        out += digest[:32]
    return out + blake2b(digest, size=size - len(out))


def quarter(v: list[int], a: int, b: int, c: int, d: int) -> None:
    for first, second, third, turn in ((a, b, d, 32), (c, d, b, 24), (a, b, d, 16), (c, d, b, 63)):
        product = 2 * (v[first] & 0xFFFFFFFF) * (v[second] & 0xFFFFFFFF)
        v[first] = (v[first] + v[second] + product) & MASK
        mixed = v[third] ^ v[first]
        v[third] = (mixed >> turn | mixed << (64 - turn)) & MASK


def permute(words: list[int], places: list[int]) -> None:
    v = [words[place] for place in places]
    for each in range(4):
        quarter(v, each, each + 4, each + 8, each + 12)
    for each in range(4):
        quarter(v, each, 4 + (each + 1) % 4, 8 + (each + 2) % 4, 12 + (each + 3) % 4)
    for place, word in zip(places, v, strict=True):
        words[place] = word


def compress(x: list[int], y: list[int]) -> list[int]:
    mixed = [a ^ b for a, b in zip(x, y, strict=True)]
    words = list(mixed)
    for row in range(8):
        permute(words, [16 * row + each for each in range(16)])
    for column in range(8):
        permute(words, [2 * column + 16 * (each // 2) + each % 2 for each in range(16)])
    return [a ^ b for a, b in zip(words, mixed, strict=True)]


def plain(key: bytes, number: int, kib: int, passes: int) -> bytes:
    """RFC 9106, section 3.2, for one lane and type d, with all of its memory as the result."""
    salt = number.to_bytes(8, "big")
    numbers = b"".join(map(u32, (1, 32, kib, passes, 0x13, 0)))
    h0 = blake2b(numbers, u32(32), key, u32(8), salt, u32(0), u32(0))
    memory = [[0] * WORDS for _ in range(kib)]
    for index in range(2):
        memory[index] = list(struct.unpack("<128Q", long_hash(h0 + u32(index) + u32(0), 1024)))
    segment = kib // 4
    for turn in range(passes):
        for index in range(2 if turn == 0 else 0, kib):
            part, within = divmod(index, segment)
            previous = memory[index - 1]
            area = index - 1 if turn == 0 else kib - segment + within - 1
            x = (previous[0] & 0xFFFFFFFF) ** 2 >> 32
            start = 0 if turn == 0 or part == 3 else (part + 1) * segment
            chosen = memory[(start + area - 1 - (area * x >> 32)) % kib]
            made = compress(previous, chosen)
            memory[index] = [a ^ b for a, b in zip(made, memory[index], strict=True)] if turn else made
    return b"".join(struct.pack("<128Q", *words) for words in memory)


@pytest.mark.parametrize(("number", "kib", "passes"), [(0, 8, 1), (7, 16, 3), (2**40, 12, 6)])
def test_a_second_implementation_gives_the_same_memory(number: int, kib: int, passes: int) -> None:
    assert fill.block(KEY, number, kib, passes) == plain(KEY, number, kib, passes)


def test_the_memory_gives_the_tag_of_the_whole_hash() -> None:
    """The tag follows from the last KiB, so that nothing was wiped, and no pass is missing, at the real size."""
    from _argon2_cffi_bindings import ffi, lib

    tag = ffi.new("uint8_t[]", 32)
    salt = (5).to_bytes(8, "big")
    arguments = (6, 256, 1, KEY, 32, salt, 8, tag, 32, ffi.NULL, 0, lib.Argon2_d, lib.ARGON2_VERSION_13)
    assert lib.argon2_hash(*arguments) == lib.ARGON2_OK
    memory = fill.block(KEY, 5, 256, 6)
    assert blake2b(u32(32), memory[-1024:], size=32) == bytes(ffi.buffer(tag))


def test_a_block_is_fixed_forever() -> None:
    digest = hashlib.sha256(fill.block(KEY, 1, 256, 6)).hexdigest()
    assert digest == "c30c5f681f55e5d440f94d7aeb7c4d530c23e6bbab0b667414ab0383d6b2790e"


def test_a_block_is_written_where_it_belongs_and_nowhere_else() -> None:
    room = bytearray(b"\xaa" * (3 << 18))
    fill.fill_block(KEY, 1, 256, 6, memoryview(room)[1 << 18 : 2 << 18])
    assert room[1 << 18 : 2 << 18] == fill.block(KEY, 1, 256, 6)
    assert set(room[: 1 << 18]) == set(room[2 << 18 :]) == {0xAA}


@pytest.mark.parametrize(
    ("key", "room"),
    [(KEY[1:], memoryview(bytearray(8192))), (KEY, memoryview(bytearray(8191))), (KEY, memoryview(bytes(8192)))],
)
def test_a_wrong_key_or_room_is_an_error_of_the_caller(key: bytes, room: memoryview) -> None:
    with pytest.raises(ValueError, match="a block needs"):
        fill.fill_block(key, 0, 8, 1, room)


def test_parameters_that_argon2_does_not_take_are_told() -> None:
    with pytest.raises(fill.FillFailed, match="Argon2d of 4 KiB"):
        fill.block(KEY, 0, 4, 1)
