"""A real SLURM of two nodes on this machine, for tests: no systemd, no cgroups, all on loopback.

The nodes are two slurmd of one host. The second one, which is smaller, is in a partition ``pair`` alone.

``python -m tests.slurm.cluster start DIR | stop DIR | install`` does by hand what the fixture does. Whoever
starts it owns every process and file of it; only installing the packages needs root. DIR must have a short
path, since a socket's path ends at 107 characters.
"""

from __future__ import annotations

import getpass
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.slurm.configuration import SLURM_CONF, SLURMDBD_CONF

PROGRAMS = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "srun": "slurm-client",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
}
"""Program -> the Debian package that brings it."""

SBIN = "/usr/sbin:/sbin"
MAX_SOCKET = 107
DEADLINE_S = 60.0

POLICY = Path("/usr/sbin/policy-rc.d")
"""While this exits with 101, a package being installed starts no service of its own."""


class ClusterError(RuntimeError):
    """The cluster cannot run here; the message says why in one line."""


def missing_packages() -> list[str]:
    """The Debian packages that have to be installed first."""
    path = f"{os.environ['PATH']}:{SBIN}"
    return sorted({package for name, package in PROGRAMS.items() if shutil.which(name, path=path) is None})


def install() -> None:
    """Installs what is missing through apt. Raises ClusterError where that is not possible."""
    packages = missing_packages()
    if not packages:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise ClusterError(f"needs {' '.join(packages)}; as root: apt-get install {' '.join(packages)}")
    own_policy = not POLICY.exists()
    if own_policy:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
            done = subprocess.run(
                ["apt-get", *words], env=environment, capture_output=True, text=True, check=False, timeout=600
            )
            if done.returncode != 0:
                raise ClusterError(f"apt-get {words[0]} failed: {' '.join(done.stderr.split())[-300:]}")
    finally:
        if own_policy:
            POLICY.unlink()


def some_port() -> int:
    """The first of four ports that are most likely free."""
    return random.randrange(20000, 32000, 10)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Configuration and daemons below ``folder``; ``port`` is the first of four on the loopback address.

    The first node claims ``cpus`` processors, the second two, and 2 GiB for each, whatever the machine has;
    nothing is enforced.
    """

    folder: Path
    cpus: int = 4
    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What a client of this cluster needs."""
        return {
            **os.environ,
            "PATH": f"{os.environ['PATH']}:{SBIN}",
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(self.folder / "run/db.sock"),
        }

    def start(self) -> None:
        """Returns when the node is idle. Raises ClusterError with the end of a log where that fails."""
        if len(str(self.folder / "run/munge.socket")) > MAX_SOCKET:
            raise ClusterError(f"{self.folder} is too long for a socket's path; give a shorter one")
        for name in ("run", "log", "spool", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for path in (self.folder, self.folder / "run"):
            path.chmod(0o755)
        self._configure()
        self._start_munge()
        self._start_database()
        self._daemon("slurmdbd", ["slurmdbd"])
        self._until("slurmdbd", lambda: self._succeeds(["sacctmgr", "-n", "list", "cluster"]))
        self.start_controller()
        for node in self.nodes:
            self._daemon(f"slurmd.{node}", ["slurmd", "-N", node, "-f", str(self.folder / "slurm.conf")])
        self._until(
            f"slurmd.{self.nodes[1]}", lambda: self.client("sinfo", "-h", "-N", "-o", "%T").count("idle") >= 3
        )

    @property
    def nodes(self) -> tuple[str, str]:
        """The names of the nodes; the first is the host's own, which resolves."""
        host = platform.node().partition(".")[0]
        return host, f"{host}-second"

    def start_controller(self, *, forgetful: bool = False) -> None:
        """Returns when the controller answers; a ``forgetful`` one has lost its state, with all jobs."""
        words = ["slurmctld", "-f", str(self.folder / "slurm.conf"), *(["-c"] if forgetful else [])]
        self._daemon("slurmctld", words)
        self._until("slurmctld", lambda: "is UP" in self.client("scontrol", "ping"))

    def send(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a daemon: ``slurmctld``, ``slurmd.NODE``."""
        pid = self._pid(name)
        assert pid is not None
        os.kill(pid, number)

    def stop_controller(self) -> None:
        """Returns when the controller has ended; jobs that run go on."""
        self.send("slurmctld", signal.SIGTERM)
        self._until("slurmctld", lambda: self._pid("slurmctld") is None)

    def stop(self) -> None:
        """Cancels the cluster's jobs and ends its daemons, each by its own process id."""
        if self._pid("slurmctld") is not None:
            jobs = self.client("squeue", "-h", "-o", "%A").split()
            if jobs:
                self.client("scancel", *jobs)
                self._wait(lambda: not self.client("squeue", "-h", "-o", "%A").split(), seconds=40.0)
        nodes = [f"slurmd.{node}" for node in self.nodes]
        for name in (*nodes, "slurmctld", "slurmdbd", "mariadbd", "munged"):
            pid = self._pid(name)
            if pid is None:
                continue
            os.kill(pid, signal.SIGTERM)
            if not self._wait(lambda name=name: self._pid(name) is None, seconds=20.0):  # type: ignore[misc]
                os.kill(pid, signal.SIGKILL)

    def client(self, *words: str) -> str:
        """The standard output of a SLURM command; empty where it fails."""
        done = subprocess.run(
            list(words), env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout if done.returncode == 0 else ""

    def _start_munge(self) -> None:
        run, key = self.folder / "run", self.folder / "run/munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        files = [f"--{name}-file={self.folder}/{place}" for name, place in (
            ("key", "run/munge.key"), ("pid", "run/munged.pid"), ("log", "log/munged.log"),
            ("seed", "run/munged.seed"),
        )]  # fmt: skip
        self._daemon("munged", ["munged", "--force", f"--socket={run}/munge.socket", *files])

    def _start_database(self) -> None:
        data, user = self.folder / "db", getpass.getuser()
        common = ["--no-defaults", f"--datadir={data}", f"--user={user}"]
        if not (data / "mysql").is_dir():
            root = ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}"]
            self._daemon("mariadb-install-db", ["mariadb-install-db", *common, "--skip-test-db", *root])
        options = ["--skip-networking", "--innodb-buffer-pool-size=32M", "--innodb-lock-wait-timeout=900"]
        files = [f"--socket={self.folder}/run/db.sock", f"--pid-file={self.folder}/run/mariadbd.pid"]
        with (self.folder / "log/mariadbd.log").open("ab") as log:
            subprocess.Popen(
                ["mariadbd", *common, *options, *files],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        words = ["mariadb", "--no-defaults", "-S", str(self.folder / "run/db.sock"), "-e", "select 1"]
        self._until("mariadbd", lambda: self._succeeds(words))

    def _configure(self) -> None:
        user, folder, (host, second) = getpass.getuser(), self.folder, self.nodes
        values = {
            "user": user, "host": host, "second": second, "folder": folder,
            "port": self.port, "slurmd_port": self.port + 1,
            "dbd_port": self.port + 2, "second_port": self.port + 3, "cpus": self.cpus,
            "memory": 2048 * self.cpus,
            # job numbers differ from cluster to cluster: submitit takes an old job's result for a new one's
            "first": random.randrange(1000, 60_000_000, 1000),
        }  # fmt: skip
        (folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
        (folder / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(**values))
        (folder / "slurmdbd.conf").chmod(0o600)
        (folder / "cgroup.conf").write_text(f"CgroupPlugin={self._cgroup_plugin()}\n")

    def _cgroup_plugin(self) -> str:
        """``disabled`` from 23.11 on; earlier ones do not know it, and only load cgroup/v1 here."""
        found = re.search(r"(\d+)\.(\d+)", self.client("slurmd", "-V"))
        assert found is not None
        return "disabled" if (int(found[1]), int(found[2])) >= (23, 11) else "cgroup/v1"

    def _daemon(self, name: str, words: Sequence[str]) -> None:
        """Runs what goes into the background by itself."""
        with (self.folder / f"log/{name}.log").open("ab") as log:
            done = subprocess.run(
                list(words), env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                check=False, timeout=120,
            )  # fmt: skip
        if done.returncode != 0:
            raise ClusterError(f"{name} did not start: {self._tail(name)}")

    def _until(self, name: str, ready: Callable[[], bool]) -> None:
        if not self._wait(ready, seconds=DEADLINE_S):
            raise ClusterError(f"{name} was not ready in {DEADLINE_S:.0f} s: {self._tail(name)}")

    def _wait(self, ready: Callable[[], bool], *, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def _succeeds(self, words: Sequence[str]) -> bool:
        done = subprocess.run(list(words), env=self.environment, capture_output=True, check=False, timeout=60)
        return done.returncode == 0

    def _tail(self, name: str) -> str:
        log = self.folder / f"log/{name}.log"
        return " ".join(log.read_text(errors="replace").split())[-400:] if log.exists() else "it left no log"

    def _pid(self, name: str) -> int | None:
        """The daemon's process, None where it does not run: a number may be another's by now, or a zombie.

        What follows a point in its name tells those of one program apart.
        """
        try:
            number = int((self.folder / f"run/{name}.pid").read_text())
            stat = Path(f"/proc/{number}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        before, _, after = stat.rpartition(")")
        return (
            number if before.partition("(")[2] == name.partition(".")[0] and after.split()[0] != "Z" else None
        )


def main(words: Sequence[str]) -> int:
    """0 once done; 1 with one line where it cannot be done."""
    try:
        if words[:1] == ["install"]:
            install()
        elif words[:1] == ["start"] and len(words) == 2:
            install()
            cluster = Cluster(folder=Path(words[1]).absolute(), port=some_port())
            cluster.start()
            print(f"export SLURM_CONF={cluster.folder / 'slurm.conf'}")
        elif words[:1] == ["stop"] and len(words) == 2:
            Cluster(folder=Path(words[1]).absolute(), port=0).stop()
        else:
            print("usage: python -m tests.slurm.cluster install | start DIR | stop DIR", file=sys.stderr)
            return 2
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
