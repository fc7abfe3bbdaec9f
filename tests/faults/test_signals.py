"""Row 6 of the faults: the first signal unwinds and says so in the exit code, the second ends the process at once."""

import os
import pty
import signal
import subprocess
import sys

import pytest

import raymix.__main__ as start

STUCK = """
import sys, time
from raymix import cli

def busy():  # not signal.pause(): a signal just before it is handled after the next one, which may never come
    while True:
        time.sleep(0.01)

def app():
    try:
        print("running", flush=True)
        busy()
    finally:
        print("unwinding", flush=True)
        if "for ever" in sys.argv:
            busy()

cli.app = app
cli.main()
"""


def interrupted(signum: signal.Signals, *words: str) -> subprocess.Popen[str]:
    """A command that has received one signal, and is about to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signum)
    assert process.stdout.readline() == "unwinding\n"
    return process


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_unwinds_and_the_second_kills(signum: signal.Signals, code: int) -> None:
    once = interrupted(signum)
    _, said = once.communicate(timeout=60)
    assert once.returncode == code and said == "raymix: interrupted; the same command goes on with what is saved\n"
    twice = interrupted(signum, "for ever")
    twice.send_signal(signum)
    twice.communicate(timeout=60)
    assert twice.returncode == -signum


@pytest.mark.usefixtures("terminal")
def test_a_terminal_that_closes_ends_a_command_like_any_signal() -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", STUCK])
    assert os.read(terminal, 100).startswith(b"running")
    os.close(terminal)  # from here on every word is an error
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP


def test_what_nohup_began_outlives_its_terminal() -> None:
    process = subprocess.Popen(["nohup", sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_signal_while_modules_are_imported_leaves_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pressed:
        def find_spec(self, name: str, *about: object) -> None:
            if name == "raymix.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "raymix.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Pressed(), *sys.meta_path])
    with pytest.raises(SystemExit, match="130"):
        start.main()
