"""Tokens written back: whatever a kubeconfig looks like, two values of it change, and the rest of it stays."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.credentials.identity_provider import Tokens
from producers.credentials.kubeconfig_tokens import (
    NotWritten,
    RefreshLock,
    read_tokens,
    with_tokens,
    write_tokens,
)
from producers.kubeconfig.yaml_values import dump, parse

NEW = Tokens("h.new.s", "re'fresh\"new")

BLOCK = """\
# mine
kind: Config
users:
- name: other   # first
  user: {auth-provider: {name: oidc, config: {id-token: h.other.s, refresh-token: other}}}
- name: "no"
  user:
    auth-provider:
      config:
        client-id: mine
        id-token: h.old.s # expired
        idp-issuer-url: https://idp.example.test
        refresh-token: old
      name: oidc
unknown: {keys: [stay, 0x1f, 1:20, yes]}
"""
FLOW = '{"users": [{"name": "no", "user": {"auth-provider": {"name": "oidc", "config": %s}}}]}'
FORMS = {
    "block": BLOCK,
    "CRLF": BLOCK.replace("\n", "\r\n"),
    "quoted": BLOCK.replace("id-token: h.old.s", '"id-token": "h.\\x6fld.s"').replace(
        "refresh-token", "'refresh-token'"
    ),
    "JSON": FLOW % '{"id-token":"h.old.s","refresh-token":"old"}',
    "tabs": FLOW % '{"refresh-token" :\t"old"}\n\t\t',
    "no id-token": BLOCK.replace("        id-token: h.old.s # expired\n", ""),
    "null": BLOCK.replace("id-token: h.old.s # expired", "id-token:"),
    "null with a comment": BLOCK.replace("id-token: h.old.s # expired", "id-token: # none"),
    "tilde": BLOCK.replace("h.old.s", "~"),
    "empty": BLOCK.replace("h.old.s", "''"),
    "last": BLOCK[: BLOCK.index("      name: oidc\nunknown")].rstrip(),
    "literal": BLOCK.replace("id-token: h.old.s # expired", "id-token: |-\n          h.old.s"),
    "folded": BLOCK.replace("refresh-token: old", "refresh-token: >\n          old"),
    "flow on its own lines": BLOCK.replace("id-token: h.old.s # expired", "id-token:\n          h.old.s"),
    "tagged": BLOCK.replace("id-token: h.old.s", "id-token: !!str h.old.s"),
    "twice": BLOCK.replace("        client-id: mine\n", "        client-id: mine\n        id-token: h.before.s\n"),
    "anchor": BLOCK.replace("id-token: h.old.s", "id-token: &t h.old.s").replace("unknown:", "again: *t\nunknown:"),
    "alias": BLOCK.replace("kind: Config", "kind: Config\nt: &t h.old.s").replace("id-token: h.old.s", "id-token: *t"),
    "merge": "base: &b {id-token: h.old.s, refresh-token: old}\n"
    + "users: [{name: 'no', user: {auth-provider: {config: {<<: *b, client-id: mine}}}}]",
    "second document": f"{BLOCK}---\nusers: []\n",
    "after the end": f"{BLOCK}...\n{{ not: yaml\n",
    "null item": BLOCK.replace("users:\n", "users:\n- null\n"),
}
CHANGED_WHOLE = {"anchor", "alias", "merge"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_kubeconfigs(form: str, encoding: str) -> None:
    before = FORMS[form].encode(encoding)
    after = with_tokens(before, "no", NEW)
    expected = parse(before)
    config = next(one for one in expected["users"] if one and one["name"] == "no")["user"]["auth-provider"]["config"]
    config.update({"id-token": NEW.id_token, "refresh-token": NEW.refresh_token})
    found = parse(after)
    if form == "merge":
        expected = parse(dump(expected).encode())
    assert found == expected
    if form == "block":
        old, new = (text.decode(encoding).splitlines() for text in (before, after))
        assert [line for line in new if line not in old] == [
            '        id-token: "h.new.s" # expired',
            '        refresh-token: "re\'fresh\\"new"',
        ]
        assert after[:3] == before[:3]
    if form not in CHANGED_WHOLE and "# mine" in FORMS[form]:
        assert "# mine" in after.decode(encoding), "comments stay"
    assert with_tokens(after, "no", NEW) == after
    assert with_tokens(before, "no", Tokens()) == before


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))), st.sampled_from(sorted(FORMS)))
def test_tokens_of_all_letters(token: str, form: str) -> None:
    found = parse(with_tokens(FORMS[form].encode(), "no", Tokens(token, token)))
    config = next(one for one in found["users"] if one and one["name"] == "no")["user"]["auth-provider"]["config"]
    if token:
        assert (config["id-token"], config["refresh-token"]) == (token, token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "users: {}",
        "users: [{name: other}]",
        "users: [{name: 'no'}]",
        "\0",
        "a: [",
        "users: [{name: 'no', user: {auth-provider: {config: x}}}]",
    ],
)
def test_files_without_the_entry(text: str) -> None:
    with pytest.raises(NotWritten):
        with_tokens(text.encode(), "no", NEW)


def test_a_file_keeps_its_mode_its_owner_and_the_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "config"
    real.write_text(BLOCK)
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 12, 34)
    owner = (real.stat().st_uid, real.stat().st_gid)
    link = tmp_path / "config"
    link.symlink_to(real)
    write_tokens(str(link), "no", NEW, 0.0)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert (real.stat().st_uid, real.stat().st_gid) == owner
    assert read_tokens(str(link), "no") == NEW
    assert read_tokens(str(link), "other") == Tokens("h.other.s", "other")
    assert read_tokens(str(link), "nobody") is None
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config", "config", "real"], "no lock, no copy stays"


def test_under_kubectls_lock(tmp_path: Path) -> None:
    file, lock = tmp_path / "config", tmp_path / "config.lock"
    file.write_text(BLOCK)
    lock.touch()
    with pytest.raises(NotWritten, match=r"is locked: remove .*config\.lock if no kubectl is running"):
        write_tokens(str(file), "no", NEW, 0.0)
    assert file.read_text() == BLOCK
    assert lock.exists()
    threading.Timer(0.2, lock.unlink).start()
    write_tokens(str(file), "no", NEW, 60.0)
    assert read_tokens(str(file), "no") == NEW
    assert not lock.exists()


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    for file in (tmp_path / "missing", tmp_path, tmp_path / "no" / "folder", tmp_path / "config"):
        if file.name == "config":
            file.write_text("users: []")
        with pytest.raises(NotWritten) as refused:
            write_tokens(str(file), "no", NEW, 0.0)
        assert "new" not in str(refused.value)
    assert not list(tmp_path.glob("*.lock"))
    assert read_tokens(str(tmp_path / "missing"), "no") is None
    assert read_tokens("a\0b", "no") is None


def test_a_file_that_cannot_be_replaced_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is mounted alone into a container."""
    file = tmp_path / "config"
    file.write_text(BLOCK)
    inode = file.stat().st_ino

    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    write_tokens(str(file), "no", Tokens("a", "b"), 0.0)
    assert read_tokens(str(file), "no") == Tokens("a", "b")
    assert file.stat().st_ino == inode
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_one_process_refreshes_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(BLOCK)
    first, second, third = (RefreshLock(str(file), patience) for patience in (60.0, 0.3, 60.0))
    first.take()
    assert first.held
    second.take()
    assert not second.held, "it goes on without"
    waiting = threading.Thread(target=third.take)
    waiting.start()
    write_tokens(str(file), "no", NEW, 0.0)
    first.release()
    waiting.join()
    assert third.held, "of the file that took its place"
    third.release()
    third.release()
    nowhere = RefreshLock(str(tmp_path / "missing"), 60.0)
    nowhere.take()
    assert not nowhere.held
