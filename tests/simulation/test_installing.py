"""Installing: the production wheel has no simulation, and the demo says how to get it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.patience import PATIENCE

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION = {"deltalog", "producers", "materializer", "query", "kubebraid"}
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def build(source: Path, wheels: Path) -> zipfile.ZipFile:
    """The wheel of a source tree. Built without a download: what build-system asks for is in the extra `dev`."""
    wheels.mkdir()
    # -P: in simulation/ there are modules with names of the standard library's.
    command = [sys.executable, "-P", "-c", BUILD, str(wheels)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = wheels.glob("*.whl")
    return zipfile.ZipFile(wheel)


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    [path] = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[zipfile.ZipFile, zipfile.ZipFile]:
    """The wheels of kubebraid and of kubebraid-simulation, from a copy of the tree: building leaves files behind."""
    place = tmp_path_factory.mktemp("built")
    source = place / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in (*PRODUCTION, "simulation"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    return build(source, place / "kubebraid"), build(source / "simulation", place / "simulation")


@pytest.fixture
def installed(built: tuple[zipfile.ZipFile, zipfile.ZipFile], tmp_path: Path) -> Path:
    """A directory with kubebraid as its wheel has it, and the packages of this environment, of which none is ours."""
    for found in Path(sysconfig.get_path("purelib")).iterdir():
        if not found.name.startswith(("kubebraid", "__editable__")):
            (tmp_path / found.name).symlink_to(found)
    built[0].extractall(tmp_path)
    return tmp_path


async def start(installed: Path, *arguments: str) -> asyncio.subprocess.Process:
    # -S: without the site-packages of this environment, which has the simulation.
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-m", "kubebraid", *arguments),
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


def test_what_the_wheels_have(built: tuple[zipfile.ZipFile, zipfile.ZipFile]) -> None:
    kubebraid, simulation = built
    top = {path.partition("/")[0] for path in kubebraid.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == PRODUCTION
    assert 'Requires-Dist: kubebraid-simulation; extra == "demo"' in metadata(kubebraid, "METADATA")
    files = {path for path in simulation.namelist() if ".dist-info/" not in path}
    own = (ROOT / "simulation").rglob("*.py")
    assert files == {"simulation/py.typed", *(path.relative_to(ROOT).as_posix() for path in own)}
    assert "kubebraid.demo" in metadata(simulation, "entry_points.txt")
    versions = [
        line
        for wheel in built
        for line in metadata(wheel, "METADATA").splitlines()
        if line.startswith(("Version:", "Requires-Python:"))
    ]
    assert len(set(versions)) == 2


@pytest.mark.parametrize("arguments", [("demo", "--listen", "127.0.0.1:0"), ("simulate", "--write-kubeconfig", "k")])
async def test_without_the_extra_the_demo_says_what_to_install(installed: Path, arguments: tuple[str, ...]) -> None:
    process = await start(installed, *arguments)
    output, _ = await process.communicate()
    assert process.returncode == 2
    assert output.decode() == (
        "kubebraid: the simulated clusters are not installed; pip install 'kubebraid[demo]', "
        "or in a checkout: make install\n"
    )


async def test_with_the_extra_clusters_are_simulated(
    built: tuple[zipfile.ZipFile, zipfile.ZipFile], installed: Path
) -> None:
    built[1].extractall(installed)
    process = await start(
        installed, *("simulate", "--clusters", "1", "--pods", "3", "--write-kubeconfig", "k", "--log-json")
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while b"simulated cluster started" not in (line := await process.stdout.readline()):
                assert line, "it ended"
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert (installed / "k").exists()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
