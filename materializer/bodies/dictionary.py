"""Dictionary: what the bodies of a type have in common, under which each of them is packed by itself.

Frames are zstd's (RFC 8878) without magic number, checksum and dictionary id: whoever holds one knows its dictionary,
and nothing in it detects a changed bit. The package is `zstandard` (docs/decisions/0019).
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Final

import zstandard

from materializer.errors import MaterializerError

LEVEL: Final = 3
"""Of compression. Level 1 takes 7 % more and is no faster with a dictionary; 9 takes 3 % less and ten times as long."""

# zstd's own contexts, measured: one to read with, its tables for a dictionary, what a digested dictionary has beside
# its hash tables.
_READER_BYTES = 96 << 10
_DIGEST_BYTES = 41 << 10
# Readers of one dictionary that are kept: the event loop's and one of a thread.
_MOST_READERS = 2


class CorruptFrame(MaterializerError):
    """Bytes that are no frame of this dictionary. Not every wrong frame is noticed: see `Dictionary`."""


class Dictionary:
    """Packs and unpacks bodies under pieces that are frequent among them; without such pieces as `ALONE`.

    `content` is as zstd's trainer made it. `id` is a hash of it, the same in every process. Frames hold nothing of the
    dictionary: a frame is only read by the dictionary with the content that it was packed under, and with another one
    gives other bytes, or `CorruptFrame`. An entry therefore refers to its dictionary, which lives as long as one does.

    A dictionary has pieces of objects in it, Secrets among them if it is theirs: it is as secret as the objects are. It
    is in memory as they are, and in the snapshot, which only its owner can read (0600); it is shown nowhere else.

    Safe to be used by several threads at once. What zstd needs to work with it, up to 0.5 MB, is made at first use and
    kept as long as there is room for it (see `_Awake`): a dictionary at rest costs its content.
    """

    __slots__ = ("__weakref__", "_codec", "content", "id")

    def __init__(self, content: bytes) -> None:
        self.content: Final = content
        self.id: Final = hashlib.blake2b(content, digest_size=16).hexdigest()
        self._codec: _Codec | None = None

    def pack(self, rest: bytes) -> bytes:
        """One body's frame. 25 us for 5 KB; `pack_many` takes 8 for each of many."""
        return self.pack_many([rest])[0]

    def pack_many(self, rests: Sequence[bytes]) -> list[bytes]:
        """The frame of each body, in their order. Holds the GIL only before and after. O(bytes)."""
        if not any(rests):
            return [_EMPTY] * len(rests)
        packer = self._awake().packer
        # Copied one by one: what zstd returns for many is one block of memory, which the last of them would keep.
        packed = packer.multi_compress_to_buffer(list(rests))
        return [packed[at].tobytes() for at in range(len(packed))]

    def unpack(self, frame: bytes) -> bytes:
        """The body of a frame, as it was. 3 to 4 us for 5 KB. Raises CorruptFrame."""
        return self.unpack_many([frame])[0]

    def unpack_many(self, frames: Sequence[bytes]) -> list[bytes]:
        """The bodies of frames, in their order. O(bytes). Raises CorruptFrame."""
        readers = (codec := self._awake()).readers
        try:
            reader = readers.pop()
        except IndexError:
            reader = codec.reader()
        read = reader.decompress
        try:
            rests = [read(frame) for frame in frames]
        except (zstandard.ZstdError, MemoryError) as error:
            raise CorruptFrame(f"a stored body cannot be unpacked: {error}") from error
        readers.append(reader)
        return rests

    def _awake(self) -> _Codec:
        codec = self._codec
        if codec is None:
            return _all_awake.wake(self)
        codec.used = True
        return codec


class _Codec:
    """What zstd needs to work with a dictionary. `size`: about how many bytes that takes."""

    __slots__ = ("_data", "packer", "readers", "size", "used")

    def __init__(self, content: bytes) -> None:
        # Tables in proportion to what they index: by level 3 alone they would be 0.75 MB for every dictionary.
        hash_log = min(max((len(content) // 4).bit_length(), 12), 15)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            LEVEL,
            hash_log=hash_log,
            chain_log=hash_log - 1,
            format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            write_content_size=True,
            write_checksum=False,
            write_dict_id=False,
        )
        self._data = zstandard.ZstdCompressionDict(content) if content else None
        if self._data is not None:
            self._data.precompute_compress(compression_params=parameters)
        self.packer = zstandard.ZstdCompressor(dict_data=self._data, compression_params=parameters)
        self.readers: deque[zstandard.ZstdDecompressor] = deque(maxlen=_MOST_READERS)
        # Made here, under the lock of `_Awake`: with the first of them zstandard makes what all have in common.
        self.readers.append(self.reader())
        self.size = len(content) + (6 << hash_log) + _DIGEST_BYTES + _MOST_READERS * _READER_BYTES
        self.used = True

    def reader(self) -> zstandard.ZstdDecompressor:
        """Another decompressor: each serves one thread at a time."""
        return zstandard.ZstdDecompressor(dict_data=self._data, format=zstandard.FORMAT_ZSTD1_MAGICLESS)


class _Awake:
    """The dictionaries that can be worked with at once, of all there are; at most `limit` bytes for that.

    The one that goes is the first, in the order of waking, that was not used since it was last looked at (a clock).
    Waking takes some 0.3 ms for 112 KB.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        # Weak: a dictionary goes with the last entry under it, and its codec with it.
        self._turns: deque[weakref.ref[Dictionary]] = deque()

    def wake(self, dictionary: Dictionary) -> _Codec:
        with self._lock:
            codec = dictionary._codec
            if codec is None:
                codec = _Codec(dictionary.content)
                self._make_room(self._limit - codec.size)
                self._turns.append(weakref.ref(dictionary))
                dictionary._codec = codec
            return codec

    def _make_room(self, room: int) -> None:
        living = [(turn, found) for turn in self._turns if (found := turn()) is not None]
        size = sum(found._codec.size for _, found in living if found._codec is not None)
        self._turns = deque(turn for turn, _ in living)
        while self._turns and size > room:
            turn = self._turns.popleft()
            found = turn()
            codec = found._codec if found is not None else None
            if found is None or codec is None:
                continue
            if codec.used:
                codec.used = False
                self._turns.append(turn)
                continue
            # Whoever works with it just now has it in hand, and finishes.
            found._codec = None
            size -= codec.size


ALONE: Final = Dictionary(b"")
"""No dictionary: bodies packed by what they themselves repeat."""

_all_awake = _Awake(limit=16 << 20)
_EMPTY: Final = ALONE.pack_many([b"", b"-"])[0]
