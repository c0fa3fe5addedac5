"""Whatever is sent, the answer is a Status of the right code, never a 500, and the connection goes on.

KUBEBRAID_SOAK_STEPS makes it longer, KUBEBRAID_FUZZ_SEED another one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import yaml

from tests.e2e.conftest import Members, Service
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEPS = int(os.environ.get("KUBEBRAID_SOAK_STEPS", "1500"))
SEED = int(os.environ.get("KUBEBRAID_FUZZ_SEED", "11"))

REASONS = {
    400: {"BadRequest"},
    401: {"Unauthorized"},
    403: {"Forbidden"},
    404: {"NotFound"},
    405: {"MethodNotAllowed"},
    406: {"NotAcceptable"},
    409: {"Conflict", "AlreadyExists"},
    410: {"Expired"},
    413: {"RequestEntityTooLarge"},
    415: {"UnsupportedMediaType"},
    422: {"Invalid"},
    429: {"TooManyRequests"},
    503: {"ServiceUnavailable"},
    504: {"Timeout"},
}
SEGMENTS = (
    *("api", "apis", "v1", "apps", "int", "clusters", "alpha", "bravo", "namespaces", "default", "kube-system", "pods"),
    *("deployments", "nodes", "configmaps", "events", "status", "log", "scale", "exec", "proxy", "openapi", "v2", "v3"),
    *("version", "readyz", "livez", "healthz", "metrics", "authorization.k8s.io", "selfsubjectaccessreviews", "watch"),
    *("certs.example.io", "certificates", "", ".", "..", "%2e%2e", "%00", "%ff", "%", "a" * 300, "é", "%F0%9F%98%80"),
    *("a%2Fb", "a b", "*", ";", "?", "[", "'", '"', "\\", "~", "$(x)", "{}", "+"),
)
PATHS = (
    *("/api/v1/pods", "/api/v1/namespaces/default/pods", "/api/v1/namespaces/kube-system/pods", "/api/v1/nodes"),
    *("/apis/apps/v1/deployments", "/api/v1/events", "/apis/certs.example.io/v1/certificates", "/api/v1/configmaps"),
    *("/api/v1/namespaces/default/pods/nobody", "/api", "/apis", "/api/v1", "/apis/apps/v1", "/version", "/clusters"),
    *("/readyz", "/openapi/v3", "/openapi/v2", "/", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
)
NUMBERS = ("0", "1", "-1", "3", "500", "x", "", "1e3", "9" * 30, "²", "٣", "0x10", " 1", "1.5", "+1", "\x00")
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
ACCEPTS = (
    *(
        "application/json",
        "*/*",
        "",
        "application/yaml",
        "text/html",
        ";;;",
        "application/json;q=0",
        "a/b;q=x,*/*;q=0.1",
    ),
    *(TABLE, TABLE.replace("v1;", "v1beta1;"), "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"),
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
    *("application/vnd.kubernetes.protobuf", "application/json;as", "é/é", "application/json;as=Table;v=v9;g=x"),
)
LABELS = (
    *(
        "app=web",
        "app",
        "!app",
        "app in (a,b)",
        "app notin (a",
        "a=b,",
        "((",
        "=",
        "a>1",
        "a>x",
        "tier!=backend",
        "é=1",
    ),
    *("a in ()", ",", "x" * 80, "x/y/z", "a==b==c", "app=web,tier=backend,!nope", "a=" + "b" * 70, "\x00", "a\n=b"),
)
FIELDS = (
    *(
        "metadata.name=x",
        "status.phase=Running",
        "spec.nodeName!=",
        "x=y",
        "=",
        "a=b=c",
        "metadata.name",
        "a\\",
        "\\,=\\=",
    ),
    *(
        "metadata.namespace=default,status.phase!=Failed",
        ",,,",
        "metadata.name!=a\\,b",
        "spec.unschedulable=true",
        "\x00",
    ),
)


class Fuzz:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.versions = ["0", "", "x", "1", "abcdefgh.1", "-1", "a.b.c", ".", "..", "p." + "9" * 40]
        self.tokens = ["x", "e30", "", "é", "A" * 5000]

    def path(self) -> str:
        pick = self.random.random()
        if pick < 0.2:
            return "/" + "/".join(self.random.choices(SEGMENTS, k=self.random.randint(1, 8)))
        path = self.random.choice(PATHS)
        if self.random.random() < 0.4:
            path = self.random.choice(("/clusters/alpha", "/clusters/bravo", "/clusters/nobody", "/int")) + path
        if pick < 0.35:
            segments = path.split("/")
            at = self.random.randrange(len(segments))
            segments[at : at + self.random.randint(0, 1)] = [self.random.choice(SEGMENTS)]
            path = "/".join(segments)
        return path if path.startswith("/") else "/" + path

    def version(self) -> str:
        pick = self.random.random()
        if pick < 0.2:
            originals = {self.random.choice(("alpha", "bravo", "é")): self.random.choice((*NUMBERS, "100"))}
            text = json.dumps(originals)
            if pick < 0.05:
                return base64.b64encode(text.encode()).decode()
            return self.broken(text) if pick < 0.1 else text
        return self.broken(self.random.choice(self.versions)) if pick < 0.4 else self.random.choice(self.versions)

    def broken(self, text: str) -> str:
        characters = list(text)
        for _ in range(self.random.randint(1, 3)):
            at = self.random.randint(0, len(characters))
            characters[at : at + self.random.randint(0, 2)] = [self.random.choice('0.9-a{"}=%²\x00é')]
        return "".join(characters)

    def query(self) -> dict[str, str]:
        choice = self.random.choice
        makers: dict[str, Any] = {
            "resourceVersion": self.version,
            "resourceVersionMatch": lambda: choice(("Exact", "NotOlderThan", "x", "")),
            "limit": lambda: choice(NUMBERS),
            "continue": lambda: self.broken(choice(self.tokens)) if self.random.random() < 0.5 else choice(self.tokens),
            "labelSelector": lambda: choice(LABELS),
            "fieldSelector": lambda: choice(FIELDS),
            "allowWatchBookmarks": lambda: choice(("true", "x", "")),
            "sendInitialEvents": lambda: choice(("true", "false", "x")),
            "includeObject": lambda: choice(("None", "Object", "Metadata", "x")),
            "pretty": lambda: choice(("true", "0", "é")),
            "clusters": lambda: choice(("alpha", "alpha,bravo", "nobody", ",", "é")),
            "namespaces": lambda: choice(("default", "default,kube-system", ",")),
            "names": lambda: choice(("a", "a,b", "\x00")),
            "since": lambda: choice(("2020-01-01", "2020-01-01T00:00:00Z", "1600000000", "x", "9" * 13, "0001-01-01")),
            "before": lambda: choice(("2030-01-01", "yesterday", "9999-12-31T23:59:59+00:00")),
            "ownerUID": lambda: choice(("u", "", "x" * 500)),
            "ownerSeniority": lambda: choice(NUMBERS),
        }
        found = {name: makers[name]() for name in self.random.sample(list(makers), self.random.randint(0, 4))}
        if self.random.random() < 0.2:
            found |= {"watch": choice(("1", "true", "x")), "timeoutSeconds": choice(("1", "1", "1", "x", "-1"))}
        return found

    def body(self) -> bytes:
        pick = self.random.random()
        if pick < 0.3:
            return self.random.randbytes(self.random.randint(0, 200))
        if pick < 0.4:
            return b"[" * 20_000
        spec = {"resourceAttributes": {"verb": self.random.choice(("list", 3, None)), "resource": "pods"}}
        return json.dumps(
            {"kind": self.random.choice(("", "Pod", 3)), "spec": self.random.choice((spec, {}, 1))}
        ).encode()

    def request(self) -> tuple[str, str, dict[str, str], bytes]:
        method, body = "GET", b""
        if self.random.random() < 0.15:
            # Writes go to the root only: the clusters' own answers are their own affair.
            method = self.random.choice(("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"))
            body = self.body()
        headers = {"Accept": self.random.choice(ACCEPTS)} if self.random.random() < 0.5 else {}
        if self.random.random() < 0.2:
            headers["Accept-Encoding"] = self.random.choice(("gzip", "gzip;q=0", "br", "x;q=", "*"))
        if body:
            kinds = ("application/json", "application/yaml", "text/x", "", "application/vnd.kubernetes.protobuf")
            headers["Content-Type"] = self.random.choice(kinds)
        return method, self.path(), {**headers, "If-None-Match": '"x"'}, body


class Client:
    """HTTP/1.1 as it is on the wire, so that nothing mends what is sent."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.connections = 0

    async def ask(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if self.reader is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
            self.connections += 1
        lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        code = int(head[0].split(" ")[1])
        answered = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        found = b""
        if "content-length" in answered:
            found = await self.reader.readexactly(int(answered["content-length"]))
        elif answered.get("transfer-encoding") == "chunked":
            while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
                found += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readuntil(b"\r\n")
        if answered.get("connection") == "close" or head[0].startswith("HTTP/1.0"):
            self.writer.close()
            self.reader = None
        return code, answered, found


def check_failure(code: int, headers: dict[str, str], body: bytes) -> None:
    status = yaml.safe_load(body) if "yaml" in headers["content-type"] else json.loads(body)
    assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", code)
    assert status["reason"] in REASONS[code], status
    assert status["message"]


async def test_nothing_makes_a_500(shared_service: Service) -> None:
    fuzz, client, seen = Fuzz(SEED), Client(shared_service.port), set()
    async with asyncio.timeout(60 + STEPS):
        for number in range(STEPS):
            method, path, headers, body = fuzz.request()
            if method != "GET" and "/clusters/" in path:
                continue
            query = "&".join(f"{name}={quote(value, safe='')}" for name, value in fuzz.query().items())
            target = path.replace(" ", "%20") + (f"?{query}" if query else "")
            what = (number, method, target, headers, body)
            try:
                async with asyncio.timeout(PATIENCE):
                    code, answered, found = await client.ask(method, target, headers, body)
            except (TimeoutError, EOFError) as cause:
                raise AssertionError(what) from cause
            seen.add(code)
            assert code < 500 or code in (503, 504), (what, code, found)
            if code >= 400:
                try:
                    check_failure(code, answered, found)
                except (AssertionError, KeyError, ValueError) as cause:
                    raise AssertionError((what, code, found[:500])) from cause
            elif answered.get("content-type", "").startswith("application/json") and "content-encoding" not in answered:
                for line in found.splitlines() if b"watch=" in target.encode() and b"\n{" in found else (found,):
                    if line.strip():
                        document = json.loads(line)
                        metadata = document.get("metadata") or {}
                        if "resourceVersion" in metadata:
                            fuzz.versions.append(metadata["resourceVersion"])
                        if metadata.get("continue"):
                            fuzz.tokens.append(metadata["continue"])
    assert {200, 400, 404, 405, 406, 410, 422} <= seen
    # Only what is no HTTP at all ends a connection.
    assert client.connections < STEPS / 10
    assert "Traceback" not in shared_service.output()
    assert "request failed" not in shared_service.output()


async def test_selectors_choose_what_the_cluster_itself_chooses(
    shared_service: Service, shared_members: Members
) -> None:
    chance = random.Random(SEED)
    own = shared_members["alpha"].url

    async def names(session: aiohttp.ClientSession, url: str, query: dict[str, str]) -> Any:
        async with session.get(url, params=query) as answer:
            found = await answer.json()
            if answer.status != 200:
                return answer.status
            return sorted((one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in found["items"])

    async with aiohttp.ClientSession() as session:
        async with session.get(f"{own}/api/v1/pods") as answer:
            pods = (await answer.json())["items"]
        labels = sorted({pair for pod in pods for pair in (pod["metadata"].get("labels") or {}).items()})
        keys = sorted({key for key, _ in labels})
        values = {
            "metadata.name": [pod["metadata"]["name"] for pod in pods],
            "metadata.namespace": [pod["metadata"]["namespace"] for pod in pods],
            "status.phase": ["Running", "Pending", "Failed", "Succeeded", ""],
            "spec.nodeName": [pod["spec"].get("nodeName", "") for pod in pods],
            "spec.restartPolicy": ["Always", "Never"],
            "spec.serviceAccountName": ["default", ""],
        }
        chosen = 0
        for _ in range(min(STEPS // 6, 2000)):
            terms = []
            for _ in range(chance.randint(0, 2)):
                key, value = chance.choice(labels)
                other = chance.choice(labels)[1]
                negated = chance.choice(keys)
                forms = (f"{key}={value}", f"{key}!={value}", key, f"!{negated}", f"{key} in ({value},{other})")
                terms.append(chance.choice((*forms, f"{key} notin ({value},{other})", f"{key}>1")))
            fields = [
                f"{name}{chance.choice(('=', '==', '!='))}{chance.choice(values[name])}"
                for name in chance.sample(list(values), chance.randint(0, 2))
            ]
            query = {"labelSelector": ",".join(terms), "fieldSelector": ",".join(fields)}
            theirs = await names(session, f"{own}/api/v1/pods", query)
            assert await names(session, f"{shared_service.url}/clusters/alpha/api/v1/pods", query) == theirs, query
            chosen += bool(theirs) and theirs != 400
        assert chosen > 30
