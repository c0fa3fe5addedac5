"""Dictionary: what the bodies of a type have in common, under which each of them is packed by itself.

Frames are zstd's (RFC 8878) without magic number, checksum and dictionary id: whoever holds one knows its dictionary,
and nothing in it detects a changed bit. The package is `zstandard` (docs/decisions/0019).
"""

from __future__ import annotations

import hashlib
import struct
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple, cast

import zstandard

from materializer.errors import MaterializerError

Body = bytes | memoryview
"""A body's JSON, or its frame."""

LEVEL: Final = 3
"""Of compression. Level 1 takes 15 % more and is no faster with a dictionary; 6 takes 11 % less, four times as long."""

# Measured of zstd: a context to read with, what it makes of a dictionary to read under it, and to pack under it beside
# hash tables.
_READER_BYTES = 96 << 10
_READING_BYTES = 27 << 10
_PACKING_BYTES = 14 << 10
# Readers of one dictionary that are kept: the event loop's and one of a thread.
_MOST_READERS = 2
# How other frames of zstd begin.
_MAGIC: Final = b"\x28\xb5\x2f\xfd"


class CorruptFrame(MaterializerError):
    """Bytes that are no frame of this dictionary. Not every wrong frame is noticed: see `Dictionary`."""

    seen: ClassVar[int] = 0
    """How often this was raised in this process."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        CorruptFrame.seen += 1


class Dictionary:
    """Packs and unpacks bodies under pieces that are frequent among them; without such pieces as `ALONE`.

    `content` is as zstd's trainer made it. `id` is a hash of it, the same in every process. Frames hold nothing of the
    dictionary: a frame is only read by the dictionary with the content that it was packed under, and with another one
    gives other bytes, or `CorruptFrame`. An entry therefore refers to its dictionary, which lives as long as one does.

    A dictionary has pieces of objects in it, Secrets among them if it is theirs: it is as secret as the objects are. It
    is in memory as they are, and in the snapshot, which only its owner can read (0600); it is shown nowhere else.

    Safe to be used by several threads at once. What zstd needs to work with it, up to 1.5 MB, is made at first use and
    kept as long as there is room for it (see `_Tools`): a dictionary at rest costs its content.
    """

    __slots__ = ("__weakref__", "_packing", "_reading", "content", "id")

    def __init__(self, content: bytes) -> None:
        self.content: Final = content
        self.id: Final = hashlib.blake2b(content, digest_size=16).hexdigest()
        self._reading: _ToolToRead | None = None
        self._packing: _ToolToPack | None = None

    def pack(self, rest: bytes) -> bytes:
        """One body's frame. 30 us for 5 KB; `pack_many` takes 11 for each of many."""
        return self.pack_many([rest])[0]

    def pack_many(self, rests: Sequence[Body]) -> list[bytes]:
        """The frame of each body, in their order. Holds the GIL only before and after. O(bytes)."""
        if not any(rests):
            return [_EMPTY] * len(rests)
        packing = self._packing or _tools.to_pack(self)
        packing.used = True
        packed = packing.packer.multi_compress_to_buffer(list(rests))
        # Copied one by one: what zstd returns for many is one block of memory, which the last of them would keep.
        return [packed[at].tobytes() for at in range(len(packed))]

    def unpack(self, frame: bytes) -> bytes:
        """The body of a frame, as it was. 3 to 4 us for 5 KB. Raises CorruptFrame."""
        return self.unpack_many([frame])[0]

    def unpack_many(self, frames: Sequence[Body]) -> list[bytes]:
        """The bodies of frames, in their order. O(bytes). Raises CorruptFrame."""
        reading = self._reading or _tools.to_read(self)
        reading.used = True
        try:
            reader = reading.readers.pop()
        except IndexError:
            reader = reading.reader()
        read = reader.decompress
        try:
            rests = [read(frame) for frame in frames]
        except (zstandard.ZstdError, MemoryError) as error:
            raise CorruptFrame(f"a stored body cannot be unpacked: {error}") from error
        reading.readers.append(reader)
        return rests

    def unpack_apart(self, frames: Sequence[bytes], sizes: Sequence[int]) -> list[memoryview]:
        """As `unpack_many`, for a thread beside the event loop: the GIL is held only before and after.

        `sizes`: of the bodies. They are parts of one block of memory, which each of them keeps: not to be kept long.
        20 us for what is needed to read, and 3 to 4 us for each 5 KB. Raises CorruptFrame.
        """
        reading = self._reading or _tools.to_read(self)
        reading.used = True
        whole = zstandard.ZstdDecompressor(dict_data=reading.data)
        try:
            # It reads frames with their magic number only.
            found = whole.multi_decompress_to_buffer(
                [_MAGIC + frame for frame in frames], decompressed_sizes=struct.pack(f"={len(sizes)}Q", *sizes)
            )
            return [memoryview(cast(bytes, found[at])) for at in range(len(found))]
        except (zstandard.ZstdError, MemoryError) as error:
            raise CorruptFrame(f"a stored body cannot be unpacked: {error}") from error


class _ToolToRead:
    """What zstd needs to read under a dictionary. `size`: about how many bytes that takes."""

    __slots__ = ("data", "readers", "size", "used")

    def __init__(self, content: bytes) -> None:
        self.data = zstandard.ZstdCompressionDict(content) if content else None
        self.readers: deque[zstandard.ZstdDecompressor] = deque(maxlen=_MOST_READERS)
        # Made here, under a lock: with the first of them zstandard makes what all of them share.
        self.readers.append(self.reader())
        self.size = len(content) + _READING_BYTES + _MOST_READERS * _READER_BYTES
        self.used = False

    def reader(self) -> zstandard.ZstdDecompressor:
        """Another one: each serves one thread at a time."""
        return zstandard.ZstdDecompressor(dict_data=self.data, format=zstandard.FORMAT_ZSTD1_MAGICLESS)


class _ToolToPack:
    """What zstd needs to pack under a dictionary. `size`: about how many bytes that takes."""

    __slots__ = ("packer", "size", "used")

    def __init__(self, content: bytes) -> None:
        # Tables in proportion to what they index: by level 3 alone they would be 0.75 MB for every dictionary.
        hash_log = min(max((len(content) // 4).bit_length(), 12), 16)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            LEVEL,
            hash_log=hash_log,
            chain_log=hash_log - 1,
            format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            write_content_size=True,
            write_checksum=False,
            write_dict_id=False,
        )
        data = None
        if content:
            data = zstandard.ZstdCompressionDict(content)
            data.precompute_compress(compression_params=parameters)
        # Only its parameters are used (`multi_compress_to_buffer` makes a context of its own): by any thread.
        self.packer = zstandard.ZstdCompressor(dict_data=data, compression_params=parameters)
        self.size = len(content) + (6 << hash_log) + _PACKING_BYTES
        self.used = False


class _Tools:
    """What zstd needs for the dictionaries in use, of all there are: at most `limit` bytes of it.

    What goes first is what was made first and not used since it was last looked at (a clock). Made again it takes 50 us
    to read and 0.3 ms to pack, for a dictionary of 112 KB.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._turns: deque[_Turn] = deque()

    def to_read(self, dictionary: Dictionary) -> _ToolToRead:
        with self._lock:
            if dictionary._reading is None:
                made = _ToolToRead(dictionary.content)
                self._take_turn(_Turn(weakref.ref(dictionary), "_reading"), made)
                dictionary._reading = made
            return dictionary._reading

    def to_pack(self, dictionary: Dictionary) -> _ToolToPack:
        with self._lock:
            if dictionary._packing is None:
                made = _ToolToPack(dictionary.content)
                self._take_turn(_Turn(weakref.ref(dictionary), "_packing"), made)
                dictionary._packing = made
            return dictionary._packing

    def _take_turn(self, newest: _Turn, made: _ToolToRead | _ToolToPack) -> None:
        sizes = [(turn, tool.size) for turn in self._turns if (tool := turn.tool()) is not None]
        size = made.size + sum(size for _, size in sizes)
        turns = self._turns = deque(turn for turn, _ in sizes)
        while turns and size > self._limit:
            turn = turns.popleft()
            tool = turn.tool()
            if tool is None:
                continue
            if tool.used:
                tool.used = False
                turns.append(turn)
                continue
            turn.end()
            size -= tool.size
        turns.append(newest)


class _Turn(NamedTuple):
    """Which tool of which dictionary. Weak: a dictionary goes with the last entry under it, and its tools with it."""

    dictionary: weakref.ref[Dictionary]
    slot: str

    def tool(self) -> _ToolToRead | _ToolToPack | None:
        tool: _ToolToRead | _ToolToPack | None = getattr(self.dictionary(), self.slot, None)
        return tool

    def end(self) -> None:
        """Whoever works with it just now has it in hand, and finishes."""
        dictionary = self.dictionary()
        if dictionary is not None:
            setattr(dictionary, self.slot, None)


ALONE: Final = Dictionary(b"")
"""No dictionary: bodies packed by what they themselves repeat."""

_tools = _Tools(limit=16 << 20)
_EMPTY: Final = ALONE.pack_many([b"", b"-"])[0]
