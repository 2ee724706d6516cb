"""The supervisor: starts, restarts, adopts, stops; told with plain processes, no cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pervade.cluster.node.programs import SUPERVISOR
from pervade.host import processes


class House:
    """One supervisor with its list in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, *programs: dict[str, Any]) -> None:
        for program in programs:
            program.setdefault("log", str(self.folder / f"{program['name']}.log"))
        listing = {"pids": str(self.folder / "pids"), "programs": programs}
        (self.folder / "programs.json").write_text(json.dumps(listing))

    def start(self) -> None:
        command = ["/usr/bin/python3", "-IS", str(SUPERVISOR), str(self.folder / "programs.json")]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def known(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / "pids" / f"{name}.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def wait(self, what: Callable[[], Any]) -> Any:
        """The first true answer of `what`."""
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            if answer := what():
                return answer
            time.sleep(0.02)
        raise AssertionError("it never came")

    def running(self, name: str) -> dict[str, Any]:
        """Wait until `name` runs; its pid file."""

        def ask() -> dict[str, Any] | None:
            found = self.known(name)
            return found if found and processes.alive(found["pid"], found["started"]) else None

        return dict(self.wait(ask))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()
    for file in (tmp_path / "pids").glob("*.json"):
        found = json.loads(file.read_text())
        if processes.alive(found["pid"], found["started"]):
            processes.stop(found["pid"], grace=0)


def sleeper(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "argv": ["sleep", "600"], **more}


def test_what_dies_is_started_again_and_counted(house: House) -> None:
    house.write(sleeper("a"))
    house.start()
    first = house.running("a")
    os.kill(first["pid"], signal.SIGKILL)
    second = house.wait(lambda: (found := house.known("a")).get("pid") != first["pid"] and found)
    assert second["restarts"] == 1


def test_a_killed_supervisor_leaves_its_children_and_the_next_one_adopts_them(house: House) -> None:
    house.write(sleeper("a"), sleeper("b"))
    house.start()
    before = {n: house.running(n)["pid"] for n in "ab"}
    assert house.process is not None
    house.process.kill()
    house.process.wait()
    assert all(processes.alive(p) for p in before.values())
    os.kill(before["b"], signal.SIGKILL)
    house.start()
    after = house.wait(lambda: house.known("b").get("pid") != before["b"] and house.known("b"))
    assert house.running("a")["pid"] == before["a"]
    assert after["restarts"] == 1


def test_an_adopted_child_is_watched_like_an_own_one(house: House) -> None:
    house.write(sleeper("a"))
    house.start()
    first = house.running("a")["pid"]
    assert house.process is not None
    house.process.kill()
    house.process.wait()
    house.start()
    house.wait(lambda: (house.folder / "supervisor.lock").read_text().startswith(f"{house.process.pid} "))
    os.kill(first, signal.SIGKILL)
    house.wait(lambda: house.known("a").get("pid") != first)
    assert house.running("a")


def test_a_changed_list_starts_stops_and_replaces(house: House) -> None:
    house.write(sleeper("a"), sleeper("b"), sleeper("c"))
    house.start()
    before = {n: house.running(n)["pid"] for n in "abc"}
    house.write(sleeper("a"), sleeper("b", env={"MORE": "1"}), sleeper("d"))
    assert house.process is not None
    house.process.send_signal(signal.SIGHUP)
    house.running("d")
    house.wait(lambda: not processes.alive(before["c"]))
    house.wait(lambda: house.known("b").get("pid") != before["b"])
    house.wait(lambda: not house.known("c"))
    assert house.running("a")["pid"] == before["a"]


def test_sigterm_stops_the_highest_stage_first_and_kills_what_does_not_listen(house: House) -> None:
    deaf = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 600; done"]
    late = ["/bin/sh", "-c", f"trap 'echo late >> {house.folder}/order; exit 0' TERM; sleep 600 & wait"]
    early = ["/bin/sh", "-c", f"trap 'echo early >> {house.folder}/order; exit 0' TERM; sleep 600 & wait"]
    house.write(
        {"name": "late", "argv": late, "stage": 0},
        {"name": "early", "argv": early, "stage": 1},
        {"name": "deaf", "argv": deaf, "stage": 1, "grace": 0.3},
    )
    house.start()
    pids = [house.running(n)["pid"] for n in ("late", "early", "deaf")]
    assert house.process is not None
    house.wait(lambda: all(processes.children(p) for p in pids))
    house.process.terminate()
    assert house.process.wait(30) == 0
    assert not any(processes.alive(p) for p in pids)
    assert (house.folder / "order").read_text().split() == ["early", "late"]
    assert not list((house.folder / "pids").glob("*.json"))
    for child in (p for p in Path("/proc").glob("[0-9]*") if p.name.isdigit()):
        # The shells' own `sleep` children lose their parents here; they are ours to end.
        words = (child / "cmdline").read_bytes() if (child / "cmdline").exists() else b""
        if words == b"sleep\x00600\x00" and str(house.folder) in _folder(child):
            os.kill(int(child.name), signal.SIGKILL)


def _folder(process: Path) -> str:
    try:
        return str((process / "fd" / "1").readlink())
    except OSError:
        return ""


def test_there_is_one_supervisor_only(house: House) -> None:
    house.write(sleeper("a"))
    house.start()
    house.running("a")
    second = subprocess.run(
        ["/usr/bin/python3", "-IS", str(SUPERVISOR), str(house.folder / "programs.json")],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == 1
    assert "another one runs" in second.stderr


def test_what_cannot_be_started_is_tried_again_more_and_more_rarely(house: House) -> None:
    house.write({"name": "a", "argv": ["/no/such/program"]}, sleeper("b"))
    house.start()
    house.running("b")
    house.wait(lambda: house.known("a").get("restarts", 0) >= 3)
    assert "could not be started" in (house.folder / "a.log").read_text()
    assert house.known("a")["restarts"] < 10
