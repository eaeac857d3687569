"""The cache of binaries, with a compiler that merely notes what it was asked."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.cluster import BuildError, binaries

COMPILER = """#!/bin/sh
[ "$1" = version ] && { echo go version fake; exit; }
for word; do [ "$last" = -o ] && out=$word; last=$word; done
echo "$last" >> "$BERTH_CACHE/asked"
[ -e "$BERTH_CACHE/broken" ] && { echo half > "$out"; echo 'undefined: x' >&2; exit 1; }
sleep 0.05; echo binary > "$out"
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a `go` in front of the real one."""
    folder = tmp_path / "cache"
    folder.mkdir()
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(COMPILER)
    go.chmod(go.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("BERTH_CACHE", str(folder))
    monkeypatch.setenv("PATH", str(go.parent), prepend=":")
    return folder


def asked(cache: Path) -> list[str]:
    return (cache / "asked").read_text().split()


def test_a_binary_is_built_once_and_found_the_second_time(cache: Path) -> None:
    first = binaries.ensure("etcd", "macvlan")
    assert binaries.ensure("etcd", "macvlan") == first
    assert (first / "etcd").read_text() == "binary\n"
    assert asked(cache) == [
        "go.etcd.io/etcd/server/v3",
        "github.com/containernetworking/plugins/plugins/main/macvlan",
    ]


def test_two_builders_at_once_share_the_work(cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: binaries.ensure("etcd"), range(4)))
    assert len(folders) == 1
    assert len(asked(cache)) == 1


def test_a_failed_build_says_what_the_compiler_said_and_leaves_nothing_to_be_found(cache: Path) -> None:
    (cache / "broken").touch()
    with pytest.raises(BuildError, match="undefined: x"):
        binaries.ensure("etcd")
    assert not list(cache.rglob("etcd"))
    (cache / "broken").unlink()
    assert (binaries.ensure("etcd") / "etcd").exists()


def test_another_version_never_meets_an_old_binary(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = binaries.KNOWN["etcd"]
    old = binaries.ensure("etcd")
    newer = tmp_path / "modules" / "etcd"
    newer.mkdir(parents=True)
    (newer / "go.mod").write_text(known.text().replace(known.version("etcd"), "v3.99.0"))
    (newer / "go.sum").write_text((known.folder / "go.sum").read_text())
    monkeypatch.setitem(binaries.KNOWN, "etcd", binaries.Module(newer))
    assert binaries.ensure("etcd") != old
    assert len(asked(cache)) == 2


def test_an_unknown_tool_is_refused_with_those_that_are_known(cache: Path) -> None:
    with pytest.raises(BuildError, match="no module has the tool kubeadm; known are kube-apiserver"):
        binaries.ensure("kubeadm")


def test_kubernetes_is_stamped_with_its_version_since_clients_parse_it() -> None:
    kubernetes = binaries.KNOWN["kubernetes"]
    assert f"gitVersion={kubernetes.version('kubelet')}" in kubernetes.ldflags()
    assert "gitMajor=1" in kubernetes.ldflags()
