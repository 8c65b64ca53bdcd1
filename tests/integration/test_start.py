# SPDX-License-Identifier: LGPL-2.1-or-later
"""Start and stop: refusals that say what to do, and an end that leaves every namespace where it is."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.buses import PrivateBus
from support.client import NAME, Client
from support.daemon import REPOSITORY, Daemon, copy_program
from support.ground import contained
from support.identity import NOBODY

pytestmark = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)


def start(
    directory: Path, *arguments: str, uid: int = 0, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Start one that ends soon; gives its exit status and what it said."""
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "mountnsd",
            "--log-target=stderr",
            f"--runtime-directory={directory / 'run'}",
            f"--config-directory={directory / 'etc'}",
            *arguments,
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(copy_program(directory)), **(environment or {})},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        user=uid,
        timeout=20,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


def one_error(said: str) -> str:
    """The one line that is an error; there is no traceback."""
    errors = [line for line in said.splitlines() if line.startswith("ERROR: ")]
    assert len(errors) == 1, said
    assert "Traceback" not in said
    return errors[0]


def test_it_loads_no_library_that_it_does_not_use(daemon: Daemon) -> None:
    """Also what the libraries of others would bring along: each is memory, and code in a root daemon."""
    maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    assert "libsystemd" in maps
    for library in ("libssl", "libcrypto", "libglib", "libgirepository", "_bz2", "_hashlib"):
        assert library not in maps, library


class TestRefused:
    """It does not start, and says why."""

    def test_in_another_mount_namespace(self, bus: PrivateBus, directory: Path) -> None:
        """Also where the namespace of PID 1 cannot be read, even by root."""
        status, said = contained(
            lambda: start(directory, environment={"DBUS_SYSTEM_BUS_ADDRESS": bus.address})
        )
        assert status == 1
        error = one_error(said)
        assert "Not in PID 1's mount namespace" in error
        assert "PrivateTmp=" in error
        assert "--allow-foreign-namespace" in error
        assert not (directory / "run").exists()

    def test_not_root(self, bus: PrivateBus, directory: Path) -> None:
        status, said = start(directory, uid=NOBODY, environment={"DBUS_SYSTEM_BUS_ADDRESS": bus.address})
        assert status == 1
        assert "needs root" in one_error(said)

    def test_no_bus(self, bus: PrivateBus, directory: Path) -> None:
        where = f"unix:path={directory}/nowhere"

        def story() -> tuple[int, str]:
            return start(
                directory, "--allow-foreign-namespace", environment={"DBUS_SYSTEM_BUS_ADDRESS": where}
            )

        status, said = contained(story)
        assert bus.address != where
        assert status == 1
        assert "DBUS_SYSTEM_BUS_ADDRESS" in one_error(said)

    @pytest.mark.parametrize("file", ["mountnsd.toml", "mountnsd.toml.d/50-site.toml"])
    @pytest.mark.parametrize(
        ("text", "named"), [("max_namespace = 1", "max_namespace"), ("max_namespaces = = 1", "line 1")]
    )
    def test_bad_configuration(
        self, bus: PrivateBus, directory: Path, file: str, text: str, named: str
    ) -> None:
        path = directory / "etc" / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
        status, said = start(
            directory, "--allow-foreign-namespace", environment={"DBUS_SYSTEM_BUS_ADDRESS": bus.address}
        )
        assert status == 1
        assert f"{path}: " in one_error(said)
        assert named in one_error(said)
        assert not (directory / "run").exists()

    def test_a_runtime_directory_that_others_can_write(self, bus: PrivateBus, directory: Path) -> None:
        (directory / "run").mkdir()
        (directory / "run").chmod(0o777)
        status, said = start(
            directory, "--allow-foreign-namespace", environment={"DBUS_SYSTEM_BUS_ADDRESS": bus.address}
        )
        assert status == 1
        assert "must belong to root" in one_error(said)

    def test_a_second_one_of_the_same_name(self, bus: PrivateBus, directory: Path, daemon: Daemon) -> None:
        (directory / "second").mkdir()
        with pytest.raises(RuntimeError, match="Another mountnsd owns"), Daemon(bus, directory / "second"):
            pass
        assert daemon.process is not None
        assert daemon.process.poll() is None

    def test_version_needs_nothing(self, bus: PrivateBus, directory: Path) -> None:
        bus.stop()
        status, said = start(directory, "--version", uid=NOBODY)
        assert status == 0
        assert said.startswith("mountnsd ")


class TestEnd:
    """However it ends, the namespaces stay."""

    def test_told_to(self, daemon: Daemon, root: Client) -> None:
        root.manager("Create", "sa{sv}", "a", {})
        before = root.manager("List")[0]
        assert daemon.stop() == 0
        assert daemon.pinned() == {before[0][2]}
        root.wait_for_name(NAME, present=False)
        daemon.start()
        assert root.manager("List")[0] == before
        assert "Traceback" not in daemon.log()

    def test_without_taking_the_interpreter_down(self, bus: PrivateBus, directory: Path) -> None:
        """Threads of it may be inside; the module is one that Python imports first, and atexit comes first then."""
        marker = directory / "taken-down"
        (directory / "sitecustomize.py").write_text(
            f"import atexit, pathlib\natexit.register(pathlib.Path({str(marker)!r}).touch)\n"
        )
        place = directory / "daemon"
        place.mkdir()
        path = f"{directory}:{REPOSITORY}"
        with Daemon(bus, place, env={"PYTHONPATH": path}) as running:
            os.kill(running.pid, signal.SIGTERM)
            assert running.wait() == 0
        assert not marker.exists()
        subprocess.run([sys.executable, "-c", ""], env={"PYTHONPATH": path}, check=True, timeout=20)
        assert marker.exists(), "it would have been seen"

    def test_interrupted(self, daemon: Daemon) -> None:
        assert daemon.kill(signal.SIGINT) == 0

    def test_told_to_in_the_midst_of_work(self, daemon: Daemon, root: Client) -> None:
        for number in range(100):
            root.send("/org/mountnsd1", "org.mountnsd1.Manager", "Create", "sa{sv}", f"n{number}", {})
        root.manager("List")
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log()
        daemon.start()
        names = {row[0] for row in root.manager("List")[0]}
        assert set(os.listdir(daemon.pins)) == names
        assert set(os.listdir(daemon.runtime / "meta")) == {f"{name}.json" for name in names}

    def test_idle(self, bus: PrivateBus, directory: Path, root: Client) -> None:
        (directory / "daemon").mkdir()
        with Daemon(bus, directory / "daemon", "idle_timeout_sec = 1\n") as daemon:
            root.manager("Create", "sa{sv}", "a", {})
            (row,) = root.manager("List")[0]
            root.wait_for_name(NAME, present=False)
            assert daemon.wait() == 0, daemon.log()
            assert daemon.pinned() == {row[2]}
            daemon.start()
            assert root.manager("List")[0] == [row]

    def test_the_bus_ends(self, bus: PrivateBus, daemon: Daemon) -> None:
        with Client(bus.address) as client:
            client.manager("Create", "sa{sv}", "a", {})
        bus.stop()
        assert daemon.wait() == 1
        assert len(daemon.pinned()) == 1
        assert "Traceback" not in daemon.log()
        bus.start()
        daemon.start()
        with Client(bus.address) as client:
            assert [row[0] for row in client.manager("List")[0]] == ["a"]
