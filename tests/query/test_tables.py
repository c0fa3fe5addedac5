"""Tables as they are sent: lists, single objects and watch events, of every type that a simulated cluster has."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from aiohttp import test_utils, web

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.resource_type import ResourceType
from materializer.cursor import ShownChange
from materializer.entry import VERSION_OFFSET, Entry
from materializer.versions import Named, Numbered
from producers.follow.normalize import Normalizer
from query.http.accept import Form, Representation
from query.http.rendering import Rendering, send_list
from query.http.status import ApiError
from query.objects import representations
from query.objects.lists import slices
from query.objects.representations import Encoder
from query.tables import KeptRows, printer_for
from query.tables.kept import KeptRow
from simulation import SimulatedCluster
from tests.entries import made_entry

PREFIX = "abcdefgh"
TABLE = Representation(Form.TABLE, "meta.k8s.io/v1")
CERTIFICATES = ("certs.example.io", "certificates")
DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions")

# The first row of each type, as `kubectl get -o wide` shows it: by the documented columns, from the object's JSON.
# `*` stands for an age or a time, `#` for a name with something random in it.
ROWS: dict[tuple[str, str], tuple[str, list[Any]]] = {
    ("", "configmaps"): ("Name Data Age", ["catalog-api-2-config", 2, "*"]),
    ("", "endpoints"): (
        "Name Endpoints Age",
        ["catalog-api-2", "10.112.12.63:8080,10.109.215.166:8080,10.101.16.87:8080 + 3 more...", "*"],
    ),
    ("", "events"): (
        "Last-Seen Type Reason Object Subobject Source Message First-Seen Count Name",
        [
            *("*", "Normal", "Scheduled", "pod/checkout-api-1-ksc7gkgkpq-hw9gx", "", "default-scheduler"),
            "Successfully assigned checkout/checkout-api-1-ksc7gkgkpq-hw9gx to alpha-node-003",
            *("*", 1, "#"),
        ],
    ),
    ("", "namespaces"): ("Name Status Age", ["catalog", "Active", "*"]),
    ("", "nodes"): (
        "Name Status Roles Age Version Internal-IP External-IP OS-Image Kernel-Version Container-Runtime",
        [
            *("alpha-node-000", "Ready", "control-plane", "*", "v1.36.0", "10.20.0.10", "<none>"),
            *("Debian GNU/Linux 13 (trixie)", "6.12.30-cloud-amd64", "containerd://2.1.4"),
        ],
    ),
    ("", "persistentvolumeclaims"): (
        "Name Status Volume Capacity Access-Modes StorageClass VolumeAttributesClass Age VolumeMode",
        ["data-payments-db-0", "Bound", "#", "20Gi", "RWO", "standard", "<unset>", "*", "Filesystem"],
    ),
    ("", "persistentvolumes"): (
        "Name Capacity Access-Modes Reclaim-Policy Status Claim StorageClass VolumeAttributesClass Reason Age "
        "VolumeMode",
        [
            *("#", "20Gi", "RWO", "Delete", "Bound", "payments/data-payments-db-0", "standard", "<unset>", "", "*"),
            "Filesystem",
        ],
    ),
    ("", "pods"): (
        "Name Ready Status Restarts Age IP Node Nominated-Node Readiness-Gates",
        [
            *("catalog-api-2-mgm25km8rc-4h4rj", "1/1", "Running", "0", "*"),
            *("10.112.132.64", "alpha-node-003", "<none>", "<none>"),
        ],
    ),
    ("", "secrets"): ("Name Type Data Age", ["catalog-gateway-5-credentials", "Opaque", 2, "*"]),
    ("", "serviceaccounts"): ("Name Age", ["default", "*"]),
    ("", "services"): (
        "Name Type Cluster-IP External-IP Port(s) Age Selector",
        ["catalog-api-2", "ClusterIP", "10.96.147.151", "<none>", "80/TCP", "*", "app=catalog-api-2"],
    ),
    DEFINITIONS: ("Name Created-At", ["certificates.certs.example.io", "*"]),
    ("apps", "daemonsets"): (
        "Name Desired Current Ready Up-to-date Available Node-Selector Age Containers Images Selector",
        [
            *("node-agent", 5, 5, 5, 5, 5, "<none>", "*"),
            *("app", "registry.example.io/agent:2.7.1", "app=node-agent"),
        ],
    ),
    ("apps", "deployments"): (
        "Name Ready Up-to-date Available Age Containers Images Selector",
        [
            *("catalog-api-2", "6/6", 6, 6, "*"),
            *("app", "registry.example.io/catalog/catalog-api-2:v1.36.3", "app=catalog-api-2"),
        ],
    ),
    ("apps", "replicasets"): (
        "Name Desired Current Ready Age Containers Images Selector",
        [
            *("catalog-api-2-mgm25km8rc", 6, 6, 6, "*", "app", "registry.example.io/catalog/catalog-api-2:v1.36.3"),
            "app=catalog-api-2,pod-template-hash=mgm25km8rc",
        ],
    ),
    ("apps", "statefulsets"): (
        "Name Ready Age Containers Images",
        ["payments-db", "3/3", "*", "app", "registry.example.io/postgres:17.5"],
    ),
    ("batch", "cronjobs"): (
        "Name Schedule Timezone Suspend Active Last-Schedule Age Containers Images Selector",
        [
            *("payments-report", "15 3 * * *", "<none>", "False", 0, "*", "*"),
            *("app", "registry.example.io/payments/report:v3", "<none>"),
        ],
    ),
    ("batch", "jobs"): (
        "Name Status Completions Duration Age Containers Images Selector",
        [
            *("checkout-migrate-1", "Complete", "1/1", "90s", "*"),
            *("app", "registry.example.io/checkout/migrate:v2", "<none>"),
        ],
    ),
    ("coordination.k8s.io", "leases"): ("Name Holder Age", ["alpha-node-000", "alpha-node-000", "*"]),
    ("discovery.k8s.io", "endpointslices"): (
        "Name AddressType Ports Endpoints Age",
        ["catalog-api-2-qjckf", "IPv4", "8080", "10.112.12.63,10.109.215.166,10.101.16.87 + 3 more...", "*"],
    ),
    ("networking.k8s.io", "ingresses"): (
        "Name Class Hosts Address Ports Age",
        ["payments-api-0", "nginx", "payments-api-0.alpha.example.io", "203.0.113.10", "80, 443", "*"],
    ),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): (
        "Name Role Age Users Groups ServiceAccounts",
        ["cluster-admin", "ClusterRole/cluster-admin", "*", "", "system:masters", ""],
    ),
    ("rbac.authorization.k8s.io", "clusterroles"): ("Name Created-At", ["admin", "*"]),
    ("rbac.authorization.k8s.io", "rolebindings"): (
        "Name Role Age Users Groups ServiceAccounts",
        ["leader-election", "Role/leader-election", "*", "", "", "kube-system/default"],
    ),
    ("rbac.authorization.k8s.io", "roles"): ("Name Created-At", ["leader-election", "*"]),
    ("storage.k8s.io", "storageclasses"): (
        "Name Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age",
        ["standard (default)", "csi.example.io", "Delete", "WaitForFirstConsumer", True, "*"],
    ),
    CERTIFICATES: ("Name Ready Secret Issuer Age", ["catalog-2-tls", "True", "catalog-2-tls", "example-ca", "*"]),
}
AGE_OR_TIME = re.compile(r"\d+[smhdy](\d+[smhd])?|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture(scope="module")
def simulated() -> SimulatedCluster:
    return SimulatedCluster("alpha", seed=0, pods=60, variety="uniform", version=1000)


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> KeptRows:
    """Rows of no other test."""
    rows = KeptRows(1024 * 1024)
    monkeypatch.setattr(representations, "_KEPT_ROWS", rows)
    return rows


def info(key: tuple[str, str], kind: str, columns: Any = None) -> ResourceType:
    return ResourceType(group=key[0], resource=key[1], version="v1", kind=kind, columns=columns)


def entry(key: tuple[str, str], kind: str, body: bytes, index: int, cluster: str = "alpha") -> Entry:
    """The entry of an object's JSON as it is after its way through the log."""
    resource = ResourceType(
        group=key[0],
        resource=key[1],
        version="v1",
        kind=kind,
        singular="",
        namespaced=True,
        short_names=(),
        categories=(),
        verbs=(),
        versions=("v1",),
    )
    found = Normalizer(cluster, resource)(body)
    return made_entry(
        found.name,
        index,
        prefix=PREFIX,
        key=GroupResource(*key),
        cluster=cluster,
        namespace=found.namespace,
        uid=found.uid,
        member_version=found.member_version,
        labels=found.labels,
        fields=found.fields,
        controller_uid=found.controller_uid,
        created=found.created,
        type_meta=found.object[: found.version_offset - VERSION_OFFSET],
        rest=found.object[found.version_offset :],
        behind_metadata=len(found.object) - found.metadata_end,
    )


def entries(simulated: SimulatedCluster, key: tuple[str, str], kind: str) -> list[Entry]:
    stored = simulated.storage.collections[key].in_order()
    return [entry(key, kind, b"{" + one.tail, index) for index, one in enumerate(stored, 100)]


def pods(simulated: SimulatedCluster) -> list[Entry]:
    return entries(simulated, ("", "pods"), "Pod")


def pod(content: dict[str, Any], index: int, name: str = "web", uid: str = "u", cluster: str = "alpha") -> Entry:
    metadata = {
        "name": name,
        "namespace": "shop",
        "uid": uid,
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-05T09:11:12Z",
    }
    body = json.dumps({"metadata": metadata, **content}).encode()
    return entry(("", "pods"), "Pod", body, index, cluster)


def encoder(
    of: ResourceType,
    *,
    across: bool = False,
    include: str = "Metadata",
    form: Representation = TABLE,
    numbered: bool = False,
) -> Encoder:
    versions = Numbered(PREFIX) if numbered else Named(PREFIX)
    return Encoder(of, "v1", form, versions, across=across, include=include)


POD = info(("", "pods"), "Pod")


def listed(encode: Encoder, found: list[Entry]) -> dict[str, Any]:
    head = encode.list_head("abcdefgh.9", "", None)
    table: dict[str, Any] = json.loads(head + b",".join(encode.items(found)) + b"]}")
    return table


def lines(events: bytes) -> Iterator[dict[str, Any]]:
    for line in events.splitlines():
        yield json.loads(line)


def test_there_is_a_row_of_each_type_that_a_cluster_has(simulated: SimulatedCluster) -> None:
    filled = {key for key, stored in simulated.storage.collections.items() if list(stored.in_order())}
    assert filled == set(ROWS)


@pytest.mark.parametrize("key", sorted(ROWS))
def test_the_first_row(simulated: SimulatedCluster, key: tuple[str, str]) -> None:
    columns = None
    if key == CERTIFICATES:
        [definition] = simulated.storage.collections[DEFINITIONS].in_order()
        columns = tuple(definition.body()["spec"]["versions"][0]["additionalPrinterColumns"])
    found = entries(simulated, key, "Any")
    table = listed(encoder(info(key, "Any", columns)), found)
    names, row = ROWS[key]
    assert [column["name"].replace(" ", "-") for column in table["columnDefinitions"]] == names.split()
    assert len(table["rows"]) == len(found)
    for cell, wanted in zip(table["rows"][0]["cells"], row, strict=True):
        if wanted == "*":
            assert AGE_OR_TIME.fullmatch(cell), cell
        elif wanted == "#":
            assert cell
        else:
            assert (cell, type(cell)) == (wanted, type(wanted))


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_list(simulated: SimulatedCluster, version: str) -> None:
    found = pods(simulated)[:3]
    encode = encoder(POD, form=Representation(Form.TABLE, f"meta.k8s.io/{version}"))
    head = json.loads(encode.list_head("abcdefgh.9", "token", 57) + b"]}")
    assert list(head) == ["kind", "apiVersion", "metadata", "columnDefinitions", "rows"]
    assert (head["kind"], head["apiVersion"]) == ("Table", f"meta.k8s.io/{version}")
    assert head["metadata"] == {"resourceVersion": "abcdefgh.9", "continue": "token", "remainingItemCount": 57}
    assert head["columnDefinitions"][0] | {"description": ""} == {
        "name": "Name", "type": "string", "format": "name", "description": "", "priority": 0,
    }  # fmt: skip
    assert [column["priority"] for column in head["columnDefinitions"]] == [0] * 5 + [1] * 4
    for row, one in zip(listed(encode, found)["rows"], found, strict=True):
        assert list(row) == ["cells", "object"]
        whole = json.loads(one.body)
        assert row["object"] == {
            "kind": "PartialObjectMetadata",
            "apiVersion": f"meta.k8s.io/{version}",
            "metadata": whole["metadata"],
        }
    assert listed(encode, [])["rows"] == []


def test_what_a_row_includes_of_the_object(simulated: SimulatedCluster) -> None:
    found = pods(simulated)[:2]
    whole = [json.loads(one.body) for one in found]
    assert [row["object"] for row in listed(encoder(POD, include="Object"), found)["rows"]] == whole
    assert [row["object"] for row in listed(encoder(POD, include="None"), found)["rows"]] == [None, None]


def test_including_something_else_is_an_error_of_tables_alone() -> None:
    with pytest.raises(ApiError) as problem:
        encoder(POD, include="All")
    assert problem.value.code == 400
    assert problem.value.status()["message"] == (
        'Unable to convert to Table as requested: includeObject: Invalid value: "All": '
        "must be 'Metadata', 'Object', 'None', or empty"
    )
    encoder(POD, include="All", form=Representation(Form.OBJECT))


def test_at_the_root_the_cluster_comes_first(simulated: SimulatedCluster) -> None:
    found = [pod({}, 100, uid="a"), pod({}, 101, uid="b", cluster='odd "name"')]
    table = listed(encoder(POD, across=True), found)
    assert table["columnDefinitions"][0]["name"] == "Cluster"
    assert [row["cells"][:2] for row in table["rows"]] == [["alpha", "web"], ['odd "name"', "web"]]


def test_a_single_object() -> None:
    table = json.loads(encoder(POD).one(pod({}, 100)))
    assert (table["kind"], table["metadata"]) == ("Table", {"resourceVersion": "abcdefgh.100.7"})
    assert len(table["columnDefinitions"]) == 9
    [row] = table["rows"]
    assert row["cells"][:4] == ["web", "0/0", "", "0"]
    assert row["object"]["metadata"]["resourceVersion"] == "abcdefgh.100.7"


@pytest.mark.parametrize(
    ("phase", "message"), [("Succeeded", "The pod has completed successfully."), ("Failed", "The pod failed.")]
)
def test_the_row_of_a_pod_that_has_ended_says_so(phase: str, message: str) -> None:
    [row] = listed(encoder(POD), [pod({"status": {"phase": phase}}, 100)])["rows"]
    assert list(row) == ["cells", "conditions", "object"]
    assert row["conditions"] == [{"type": "Completed", "status": "True", "reason": phase, "message": message}]
    assert len(row["cells"]) == 9


def test_only_the_first_event_of_a_watch_has_definitions() -> None:
    encode = encoder(POD, across=True)
    changes = [ShownChange("ADDED", pod({}, 100, uid="a"), 100), ShownChange("DELETED", pod({}, 101, uid="b"), 150)]
    added, deleted = lines(encode.events(changes, definitions=True))
    assert [added["type"], deleted["type"]] == ["ADDED", "DELETED"]
    assert len(added["object"]["columnDefinitions"]) == 10
    assert deleted["object"]["columnDefinitions"] is None
    assert deleted["object"]["metadata"] == {"resourceVersion": "abcdefgh.150.7"}
    [row] = deleted["object"]["rows"]
    assert row["object"]["metadata"]["resourceVersion"] == "abcdefgh.150.7"
    [later] = lines(encode.events(changes[:1]))
    assert later["object"]["columnDefinitions"] is None


def test_a_bookmark_is_the_row_of_an_object_without_anything() -> None:
    encode = encoder(POD, across=True)
    [first] = lines(encode.bookmark("abcdefgh.9", initial_events_end=True, definitions=True))
    assert first["type"] == "BOOKMARK"
    assert len(first["object"]["columnDefinitions"]) == 10
    assert first["object"]["metadata"] == {"resourceVersion": "abcdefgh.9"}
    [row] = first["object"]["rows"]
    assert row["cells"] == ["", "", "0/0", "", "0", "<unknown>", "<none>", "<none>", "<none>", "<none>"]
    assert row["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    [second] = lines(encode.bookmark("abcdefgh.10"))
    assert second["object"]["columnDefinitions"] is None


def test_flow_schemas_are_sorted_as_the_server_sorts_them() -> None:
    key = ("flowcontrol.apiserver.k8s.io", "flowschemas")
    found = [
        entry(
            key,
            "FlowSchema",
            json.dumps({"metadata": {"name": name, "uid": name}, "spec": {"matchingPrecedence": precedence}}).encode(),
            100,
            cluster,
        )
        for cluster in ("alpha", "bravo")
        for name, precedence in (("a", 9000), ("b", 100), ("c", 100), ("exempt", 1))
    ]
    rows = listed(encoder(info(key, "FlowSchema"), across=True), found)["rows"]
    names = ["exempt", "b", "c", "a"]
    assert [row["cells"][:2] for row in rows] == [["alpha", name] for name in names] + [["bravo", n] for n in names]
    assert [row["object"]["metadata"]["name"] for row in rows] == names * 2


# -- rows that are kept ------------------------------------------------------------------------------------------------


def running(restarts: int) -> dict[str, Any]:
    last = {"terminated": {"exitCode": 1, "finishedAt": "2026-01-05T10:06:12Z"}} if restarts else {}
    status = {"name": "c", "ready": True, "restartCount": restarts, "state": {"running": {}}, "lastState": last}
    return {"spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running", "containerStatuses": [status]}}


def test_a_kept_row_has_the_ages_of_its_moment(kept: KeptRows, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [pod(running(0), 100, uid="a"), pod(running(3), 101, uid="b")]
    for now, age, since in ((1767607872.0, "60m", "5m"), (1767608000.9, "62m", "7m8s"), (1767694272.0, "25h", "24h")):
        monkeypatch.setattr(time, "time", lambda at=now: at)
        first, second = (row["cells"] for row in listed(encoder(POD), found)["rows"])
        assert first[1:5] == ["1/1", "Running", "0", age]
        assert second[1:5] == ["1/1", "Running", f"3 ({since} ago)", age]
    assert len(kept) == 2


def test_another_state_of_an_object_has_another_row(kept: KeptRows) -> None:
    encode = encoder(POD)
    states = [pod({"status": {"phase": phase}}, index) for index, phase in ((100, "Pending"), (101, "Running"))]
    # Another history may have an object by the same uid at the same index.
    other = pod({"status": {"phase": "Unknown"}}, 101)
    other.envelope = msgspec.structs.replace(other.envelope, prefix="another")
    states.append(other)
    for _ in range(2):
        cells = [listed(encode, [state])["rows"][0]["cells"][2] for state in states]
        assert cells == ["Pending", "Running", "Unknown"]
    assert len(kept) == 1


def test_objects_without_uid_are_never_taken_for_each_other(kept: KeptRows) -> None:
    found = [pod({}, 100, name=name, uid="") for name in "ab"]
    assert [row["cells"][0] for row in listed(encoder(POD), found)["rows"]] == ["a", "b"]
    assert len(kept) == 0


def test_other_columns_make_another_row_of_the_same_object() -> None:
    columns = tuple(({"name": name, "type": "string", "jsonPath": path},) for name, path in [("A", ".a"), ("B", ".b")])
    one = pod({"a": "x", "b": "y"}, 100)
    key = ("example.io", "things")
    for _ in range(2):
        found = [listed(encoder(info(key, "Thing", each)), [one])["rows"][0]["cells"] for each in columns]
        assert found == [["web", "x"], ["web", "y"]]


def test_a_column_may_show_the_version_which_is_a_number_to_some() -> None:
    columns = ({"name": "V", "type": "string", "jsonPath": ".metadata.resourceVersion"},)
    of, one = info(("example.io", "things"), "Thing", columns), pod({}, 100)
    for numbered, version in ((False, "abcdefgh.100.7"), (True, "100"), (False, "abcdefgh.100.7")):
        encode = encoder(of, numbered=numbered)
        [row] = listed(encode, [one])["rows"]
        assert row["cells"] == ["web", version]
        assert row["object"]["metadata"]["resourceVersion"] == version
        [event] = lines(encode.events([ShownChange("MODIFIED", one, 120)]))
        assert event["object"]["rows"][0]["cells"] == ["web", version.replace("100", "120")]


def test_versions_that_are_numbers_share_the_rows_of_built_in_types(kept: KeptRows) -> None:
    one = pod(running(0), 100)
    rows = [listed(encoder(POD, numbered=numbered), [one])["rows"][0] for numbered in (False, True)]
    assert rows[0]["cells"] == rows[1]["cells"]
    assert rows[1]["object"]["metadata"]["resourceVersion"] == "100"
    assert len(kept) == 1


def test_kept_rows_are_bounded_and_a_longer_list_finds_most_of_them(kept: KeptRows) -> None:
    rows = KeptRows(100_000)
    printer = printer_for("", "pods")
    found = [pod(running(0), index, name=f"web-{index}", uid=f"u{index}") for index in range(1000)]
    made: dict[str, KeptRow] = {}
    for _ in range(3):
        before = {id(row) for row in made.values()}
        made = {one.uid: rows.find(printer, one) for one in found}
        assert 90_000 < rows.size <= 100_000
        again = sum(id(row) in before for row in made.values())
    assert 150 < len(rows) < 400
    assert again > len(rows) * 0.6
    assert msgspec.json.decode(b"[" + made["u999"].at(0.0))[0] == "web-999"


async def test_others_get_their_turn_between_the_slices_of_a_long_table() -> None:
    padding = {"spec": {"containers": [{"name": "c", "image": "x" * 4000}]}}
    found = [pod(padding, index, name=f"web-{index}", uid=f"u{index}") for index in range(1000)]
    encode, turns, at = encoder(POD), 0, []

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def made() -> Iterator[list[bytes]]:
        for part in slices(found):
            at.append((turns, len(part)))
            yield encode.items(part)

    async def answer(http: web.Request) -> web.StreamResponse:
        head = encode.list_head("v", "", None)
        return await send_list(http, Rendering(), [], head, made(), encode.opening, None, lambda: None, asyncio.Lock())

    application = web.Application()
    application.router.add_get("/", answer)
    waiting = asyncio.create_task(others())
    async with test_utils.TestClient(test_utils.TestServer(application)) as client:
        async with client.get("/") as response:
            rows = (await response.json())["rows"]
    waiting.cancel()
    assert [row["cells"][0] for row in rows] == [f"web-{index}" for index in range(1000)]
    # Also while it is not known yet whether the table is long.
    assert all(later > earlier for (earlier, _), (later, _) in itertools.pairwise(at))
    assert len(at) > 10
    assert max(size for _, size in at) < 100
