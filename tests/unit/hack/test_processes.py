"""The pid guard: a process is itself, or it is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from local_cluster.processes import Process, start_time, wait_gone


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait(10)


def test_start_time_is_the_22nd_field_even_when_the_command_holds_parentheses() -> None:
    fields = [str(number) for number in range(3, 53)]
    assert start_time(f"42 (a ) (b c) {' '.join(fields)}") == 22


def test_this_process_is_alive_and_recognised() -> None:
    me = Process.of(os.getpid())
    assert me.alive()
    assert me == Process.of(os.getpid())


def test_a_stranger_with_a_used_pid_is_never_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    real = Process.of(sleeper.pid)
    former = Process(real.pid, real.start - 1)
    assert not former.alive()
    assert former.signal(signal.SIGKILL) is False
    assert real.alive()


def test_a_process_is_gone_after_its_signal(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid)
    assert process.signal(signal.SIGKILL) is True
    sleeper.wait(10)
    assert wait_gone([process], 5) == []
    assert process.signal(signal.SIGKILL) is False


def test_waiting_for_a_process_that_stays_answers_it(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid)
    assert wait_gone([process], 0) == [process]


def test_a_pid_nobody_has_is_an_error() -> None:
    with pytest.raises(ProcessLookupError):
        Process.of(2**22 + 1)
