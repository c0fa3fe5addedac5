"""Watches of custom resources: Kubernetes' test/e2e/apimachinery/crd_watch.go and crd_selectable_fields.go."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.endpoint import Endpoint, Refused, Watch
from tests.conformance.scenarios import scenario
from tests.patience import PATIENCE

pytestmark = [pytest.mark.clusters, pytest.mark.asyncio(loop_scope="module")]

# Within so many seconds a watch ends whose type is no longer what it was; a kube-apiserver takes about one.
END = 30.0
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ANYTHING = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}


class Definition:
    """A CustomResourceDefinition `noxus` in a group of its own, and where its objects are."""

    def __init__(self, scope: str, fields: tuple[str, ...]) -> None:
        self.group = f"conformance-{secrets.token_hex(4)}.example.com"
        self.path = f"{DEFINITIONS}/noxus.{self.group}"
        self.objects = f"/apis/{self.group}/v1beta1/noxus"
        properties = {name: {"type": "string"} for name in (*fields, "dummy")}
        schema = {"openAPIV3Schema": {"type": "object", "properties": properties}} if fields else ANYTHING
        version: dict[str, Any] = {"name": "v1beta1", "served": True, "storage": True, "schema": schema}
        if fields:
            version["selectableFields"] = [{"jsonPath": f".{name}"} for name in fields]
        self.spec: dict[str, Any] = {
            "group": self.group,
            "scope": scope,
            "names": {"plural": "noxus", "singular": "nonenglishnoxu", "kind": "WishIHadChosenNoxu"},
            "versions": [version],
        }
        self.body = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"noxus.{self.group}"},
            "spec": self.spec,
        }

    def instance(self, name: str, **fields: str) -> dict[str, Any]:
        return {
            "apiVersion": f"{self.group}/v1beta1",
            "kind": "WishIHadChosenNoxu",
            "metadata": {"name": name},
            **fields,
        }


@contextlib.asynccontextmanager
async def defined(endpoint: Endpoint, scope: str, fields: tuple[str, ...] = ()) -> AsyncIterator[Definition]:
    """A definition that is served; through kubebraid when its objects are read from memory, not from the cluster."""
    definition = Definition(scope, fields)
    await endpoint.create(DEFINITIONS, definition.body)
    try:
        async with asyncio.timeout(PATIENCE):
            while not await served(endpoint, definition):
                await asyncio.sleep(0.1)
        yield definition
    finally:
        await endpoint.delete(definition.path)


async def served(endpoint: Endpoint, definition: Definition) -> bool:
    try:
        listed = await endpoint.get(definition.objects)
    except Refused as refused:
        if refused.code not in (404, 429, 503):
            raise
        return False
    return endpoint.name == "member" or "." in listed["metadata"]["resourceVersion"]


@scenario("crd_watch.go", "watch on custom resource definition objects")
async def test_each_watch_has_its_object(endpoint: Endpoint) -> None:
    async with defined(endpoint, "Cluster") as definition, contextlib.AsyncExitStack() as stack:
        names = ("name1", "name2")
        watches: dict[str, Watch] = {}
        for name in names:
            query = {"fieldSelector": f"metadata.name={name}", "timeoutSeconds": "600"}
            watches[name] = await stack.enter_async_context(endpoint.watch(definition.objects, **query))
        made, changed = {}, {}
        for name in names:
            made[name] = await endpoint.create(definition.objects, definition.instance(name))
            assert made[name]["metadata"]["uid"]
            assert (made[name]["apiVersion"], made[name]["kind"]) == (
                f"{definition.group}/v1beta1",
                "WishIHadChosenNoxu",
            )
        for name in names:
            operations = [{"op": "add", "path": "/dummy", "value": "test"}]
            path = f"{definition.objects}/{name}"
            changed[name] = await endpoint.patch(path, operations, "application/json-patch+json")
        for name in names:
            await endpoint.delete(f"{definition.objects}/{name}")
        for name in names:
            await endpoint.create(definition.objects, definition.instance(name))
        for name in names:
            added, modified, deleted, again = await watches[name].take(4)
            assert (added.type, added.object) == ("ADDED", made[name])
            assert (modified.type, modified.object) == ("MODIFIED", changed[name])
            assert (deleted.type, deleted.object["dummy"], deleted.name) == ("DELETED", "test", name)
            assert (again.type, again.name) == ("ADDED", name)


@scenario(
    "crd_selectable_fields.go",
    "MUST list and watch custom resources matching the field selector",
    age="selectable fields",
)
async def test_selectable_fields(endpoint: Endpoint) -> None:
    """In one version; Kubernetes' test converts between two by a webhook."""
    async with (
        defined(endpoint, "Namespaced", ("host", "port")) as definition,
        endpoint.namespace() as namespace,
        contextlib.AsyncExitStack() as stack,
    ):
        objects = definition.objects.replace("noxus", f"namespaces/{namespace}/noxus")
        selectors = ("host=host1", "host=host1,port=80")
        watches = {
            selector: await stack.enter_async_context(endpoint.watch(objects, fieldSelector=selector))
            for selector in selectors
        }
        made = [
            await endpoint.create(objects, definition.instance(f"cr-{number}", **fields))
            for number, fields in enumerate(
                ({"host": "host1", "port": "80"}, {"host": "host1", "port": "8080"}, {"host": "host2"})
            )
        ]

        async def names(selector: str) -> list[str]:
            listed = await endpoint.get(objects, fieldSelector=selector)
            return [item["metadata"]["name"] for item in listed["items"]]

        assert [await names(selector) for selector in (*selectors, "host=host1,port=8080", "host!=host1")] == [
            ["cr-0", "cr-1"],
            ["cr-0"],
            ["cr-1"],
            ["cr-2"],
        ]
        await endpoint.delete(f"{objects}?fieldSelector=host%3Dhost1,port%3D80")
        await endpoint.patch(f"{objects}/cr-1", {"host": "host2"})
        assert [await names(selector) for selector in selectors] == [[], []]
        last = await endpoint.create(objects, definition.instance("zz-last", host="host1", port="80"))
        seen = {selector: await watches[selector].until("zz-last") for selector in selectors}
    first, second, _ = made
    assert last["metadata"]["name"] == "zz-last"
    whole = [(event.type, event.name) for event in seen["host=host1"]]
    assert whole == [("ADDED", "cr-0"), ("ADDED", "cr-1"), ("DELETED", "cr-0"), ("DELETED", "cr-1")]
    assert [event.object for event in seen["host=host1"][:2]] == [first, second]
    # What left is shown as it was selected last.
    assert seen["host=host1"][3].object["host"] == "host1"
    assert [(event.type, event.name) for event in seen["host=host1,port=80"]] == [
        ("ADDED", "cr-0"),
        ("DELETED", "cr-0"),
    ]


@scenario(
    "kube-apiserver 1.36",
    "a watch ends when its CustomResourceDefinition is deleted",
)
async def test_a_watch_ends_with_its_definition(endpoint: Endpoint) -> None:
    async with contextlib.AsyncExitStack() as stack:
        definition = await stack.enter_async_context(defined(endpoint, "Cluster"))
        made = await endpoint.create(definition.objects, definition.instance("a"))
        watch = await stack.enter_async_context(
            endpoint.watch(definition.objects, resourceVersion=made["metadata"]["resourceVersion"])
        )
        await endpoint.delete(definition.path)
        stack.push_async_callback(endpoint.create, DEFINITIONS, definition.body)
        async with asyncio.timeout(END):
            events = await watch.rest()
    assert [event.type for event in events if event.type != "MODIFIED"] == ["DELETED"]


@scenario(
    "kube-apiserver 1.36",
    "a watch ends when the versions of its CustomResourceDefinition change",
)
async def test_a_watch_ends_when_versions_change(endpoint: Endpoint) -> None:
    async with defined(endpoint, "Cluster") as definition:
        made = await endpoint.create(definition.objects, definition.instance("a"))
        version = made["metadata"]["resourceVersion"]
        async with endpoint.watch(definition.objects, resourceVersion=version) as watch:
            [known] = definition.spec["versions"]
            versions = [{**known, "name": "v1beta1", "storage": False}, {**known, "name": "v1"}]
            await endpoint.patch(definition.path, {"spec": {"versions": versions}})
            async with asyncio.timeout(END):
                events = await watch.rest()
        assert [event.type for event in events] == []
