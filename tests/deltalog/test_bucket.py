"""A bucket that its process cannot do without says in the connection's append health what it refuses."""

from __future__ import annotations

import pytest

from deltalog import Connection, JetStreamRefused
from deltalog.jetstream.bucket import Bucket
from deltalog.jetstream.making import change_stream


@pytest.fixture
async def bucket(connection: Connection) -> Bucket:
    return await Bucket.open(connection, "test", "test")


@pytest.mark.parametrize("reports", [True, False])
async def test_what_a_full_bucket_refuses(connection: Connection, bucket: Bucket, reports: bool) -> None:
    bucket.reports = reports
    assert await bucket.put("a", b"1", 0) is not None
    await change_stream(bucket.stream, {"max_msgs": 1})
    with pytest.raises(JetStreamRefused, match="maximum messages exceeded"):
        await bucket.put("b", b"1", 0)
    assert list(connection.append_health.refusals) == (["KV_test"] if reports else [])
    if reports:
        assert "maximum messages exceeded" in connection.append_health.refusals["KV_test"].reason
    await change_stream(bucket.stream, {"max_msgs": -1})
    assert await bucket.put("b", b"1", 0) is not None
    assert not connection.append_health.refusals


async def test_another_sequence_than_expected_is_no_refusal(connection: Connection, bucket: Bucket) -> None:
    bucket.reports = True
    assert await bucket.put("a", b"1", 0) is not None
    assert await bucket.put("a", b"2", 0) is None
    assert not connection.append_health.refusals
