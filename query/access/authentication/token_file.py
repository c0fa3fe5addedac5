"""A file of tokens: hashes of them, never they themselves, and whose they are.

Kubernetes has a file of tokens in clear (`--token-auth-file`, pkg/authentication/token/tokenfile); this one has its
columns, with a hash in the place of the token, and is read anew when it changes.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from query.access.documents import Strict, parsed, shaped
from query.access.errors import BadAccessFile
from query.access.files import WatchedFile
from query.identity import Identity

_HASH = re.compile(r"(?:sha256:)?(?:(?P<salt>[A-Za-z0-9._~+/=-]{1,128}):)?(?P<hex>[0-9A-Fa-f]{64})")
_MEND = 'write sha256:<hex>, of `printf %s "$token" | sha256sum`, or sha256:<salt>:<hex>, of the salt and the token'
# Each is a hash more for each request.
_MOST_SALTS = 1000


class _Token(Strict, frozen=True):
    hash: str
    user: str
    uid: str = ""
    groups: tuple[str, ...] = ()


class _File(Strict, frozen=True):
    tokens: list[_Token]


@dataclass(frozen=True)
class TokenOwners:
    """What a file says: users by the hashes of their tokens, those hashes by their salts."""

    by_salt: dict[bytes, dict[bytes, Identity]]

    def owner(self, token: str) -> Identity | None:
        """Whose a token is. O(salts) hashes of it."""
        presented = token.encode("utf-8", "surrogateescape")
        found = None
        for salt, users in self.by_salt.items():
            digest = hashlib.sha256(salt + presented).digest()
            # The look-up finds by a hash which whoever asks cannot choose byte by byte; the comparison that decides
            # takes the same time whatever differs.
            for known in (digest,) if digest in users else ():
                if hmac.compare_digest(known, digest):
                    found = found or users[known]
        return found


class HashedTokens:
    """Users by tokens whose hashes stand in a file.

    By the file's ending it is YAML or JSON (`.yaml`, `.yml`, `.json`), or lines of comma-separated values:

        sha256:9f86d081…0f00a08,jane,1001,"dev,ops"
        sha256:pepper:2c26b46b…e886266e7ae,robot,,

        tokens:
        - {hash: "sha256:9f86d081…0f00a08", user: jane, uid: "1001", groups: [dev, ops]}
    """

    def __init__(self, path: Path, *, look_every: float = 1.0) -> None:
        """Reads the file. Blocking. Raises BadAccessFile."""
        read = _of_yaml if path.suffix in (".yaml", ".yml", ".json") else _of_lines
        self._file = WatchedFile(path, read, look_every=look_every)

    async def authenticate_token(self, token: str) -> Identity | None:
        """See `TokenAuthenticator`."""
        return (await self._file.current()).owner(token)


def _of_yaml(content: bytes) -> TokenOwners:
    file = shaped(parsed(content), _File)
    return _tokens((f"tokens[{number}]", one) for number, one in enumerate(file.tokens))


def _of_lines(content: bytes) -> TokenOwners:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise BadAccessFile("no text in UTF-8") from None
    read = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    found = []
    try:
        for columns in read:
            if not columns or columns[0].startswith("#"):
                continue
            where = f"line {read.line_num}"
            if not 3 <= len(columns) <= 4:
                raise BadAccessFile(f'{where}: write hash,user,uid or hash,user,uid,"group,group"')
            groups = tuple(one for one in columns[3].split(",") if one) if len(columns) == 4 else ()
            found.append((where, _Token(columns[0], columns[1], columns[2], groups)))
    except csv.Error as cause:
        raise BadAccessFile(f"line {read.line_num}: {cause}") from None
    return _tokens(found)


def _tokens(lines: Iterable[tuple[str, _Token]]) -> TokenOwners:
    by_salt: dict[bytes, dict[bytes, Identity]] = {}
    for where, line in lines:
        written = _HASH.fullmatch(line.hash)
        if written is None:
            # Not what stands there: it may be a token.
            raise BadAccessFile(f"{where}: no hash; {_MEND}")
        if not line.user:
            raise BadAccessFile(f"{where}: no user; write whose the token is")
        users = by_salt.setdefault((written["salt"] or "").encode(), {})
        digest = bytes.fromhex(written["hex"])
        if digest in users:
            raise BadAccessFile(f"{where}: the same hash stands above; a token has one user")
        users[digest] = Identity(line.user, line.uid, line.groups)
    if len(by_salt) > _MOST_SALTS:
        raise BadAccessFile(f"more than {_MOST_SALTS} salts; let tokens share them")
    return TokenOwners(by_salt)
