"""Lists on the wire: in pieces, so that a large one does not hold up others, and compressed where that is worth it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Sequence

from aiohttp import web

from simulation.api.presentation import Presentation
from simulation.api.responses import JSON, NOT_KEPT, object_response, set_date
from simulation.faults import Faults
from simulation.storage import StoredObject

__all__ = ["ListSender"]

# Objects in a piece.
_SLICE = 256
# From how many bytes on a list is compressed, as k8s.io/apiserver (defaultGzipThresholdBytes) has it.
_GZIP_FROM = 128 * 1024


class ListSender:
    """Sends lists of one cluster. With `gzip`, large ones are compressed for clients that accept it."""

    def __init__(self, faults: Faults, *, gzip: bool) -> None:
        self._faults = faults
        self._gzip = gzip

    async def send(
        self,
        request: web.BaseRequest,
        presentation: Presentation,
        objects: Sequence[StoredObject],
        metadata: dict[str, object],
    ) -> web.StreamResponse:
        """Answer a request with a list of objects that has a ListMeta."""
        pieces = _pieces(presentation, objects, metadata)
        first = next(pieces)
        if len(objects) <= _SLICE:
            data = first + b"".join(pieces)
            if len(data) < _GZIP_FROM:
                return object_response(data)
            pieces, first = iter((data,)), b""
        response = web.StreamResponse(headers={"Content-Type": JSON, "Cache-Control": NOT_KEPT})
        compressor = None
        if self._gzip and "gzip" in request.headers.get("Accept-Encoding", ""):
            response.headers["Content-Encoding"] = "gzip"
            response.headers["Vary"] = "Accept-Encoding"
            # Level 1 as kube-apiserver has it; 31: with the header of gzip.
            compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
        response.enable_chunked_encoding()
        set_date(response, self._faults.clock)
        await response.prepare(request)
        if compressor is None:
            if first:
                await response.write(first)
            for piece in pieces:
                await response.write(piece)
        else:
            packed = compressor.compress(first)
            if packed:
                await response.write(packed)
            for piece in pieces:
                # zlib releases the interpreter's lock, so that watches go on meanwhile.
                packed = await asyncio.to_thread(compressor.compress, piece)
                if packed:
                    await response.write(packed)
            await response.write(compressor.flush())
        await response.write_eof()
        return response


def _pieces(
    presentation: Presentation, objects: Sequence[StoredObject], metadata: dict[str, object]
) -> Iterator[bytes]:
    opening, between, closing = presentation.list_frame(metadata)
    yield opening
    # The first item has no comma before it.
    lead = between[1:]
    for start in range(0, len(objects), _SLICE):
        chunk = objects[start : start + _SLICE]
        items = [stored.tail for stored in chunk] if presentation.plain else map(presentation.item, chunk)
        yield lead + between.join(items)
        lead = between
    yield closing
