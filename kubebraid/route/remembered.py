"""Remembered documents: what groups answered to each caller last, for when one of them is down."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import NamedTuple

# What is remembered at most: answers, and bytes of all distinct documents.
_ANSWERS = 16 * 1024
_BYTES = 64 * 1024 * 1024


class DocumentKey(NamedTuple):
    """Whose document it is, and which; see `kubebraid.route.callers.ProxiedCaller.key`."""

    caller: bytes
    group: str
    path: str
    accept: str


class RememberedDocuments:
    """The least recently used go first. Documents that several callers got are kept once."""

    def __init__(self, answers: int = _ANSWERS, size: int = _BYTES) -> None:
        self._most, self._largest = answers, size
        self._answers: OrderedDict[DocumentKey, tuple[int, bytes]] = OrderedDict()
        # By hash: a document, and by how many answers it is held.
        self._bodies: dict[bytes, tuple[bytes, int]] = {}
        self._size = 0

    def note(self, key: DocumentKey, status: int, body: bytes) -> None:
        """Remembers an answer. O(size of the document)."""
        digest = hashlib.sha256(body).digest()
        if (held := self._bodies.get(digest)) is None:
            self._bodies[digest] = (body, 1)
            self._size += len(body)
        else:
            self._bodies[digest] = (held[0], held[1] + 1)
        self._forget(key)
        self._answers[key] = (status, digest)
        while self._answers and (len(self._answers) > self._most or self._size > self._largest):
            self._forget(next(iter(self._answers)))

    def of(self, key: DocumentKey) -> tuple[int, bytes] | None:
        """The answer that a caller got last; None: none is remembered."""
        if (answer := self._answers.get(key)) is None:
            return None
        self._answers.move_to_end(key)
        return answer[0], self._bodies[answer[1]][0]

    def _forget(self, key: DocumentKey) -> None:
        if (answer := self._answers.pop(key, None)) is None:
            return
        body, holders = self._bodies[answer[1]]
        if holders > 1:
            self._bodies[answer[1]] = (body, holders - 1)
        else:
            del self._bodies[answer[1]]
            self._size -= len(body)
