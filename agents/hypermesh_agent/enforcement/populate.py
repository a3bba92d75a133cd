"""The process that makes pages: forks a child for each request, which joins a cgroup and allocates a file.

    stdin   one JSON object a line: {"path": ..., "size": bytes, "join": [files to write 0 into]}
    stdout  one JSON object a line, in the order in which they end: {"path": ..., "status": wait status}

A child's exit code is 0 or an errno. This file imports nothing but the standard library and is run by path with
`python -I -S`: a small process with one thread is safe to fork, the agent with its threads is not, and a forked copy
of the agent would charge the agent's own pages to the tenant. It ends when stdin does.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys


def populate(path: str, size: int, join: list[str]) -> int:
    """Runs in the child. Returns 0 or an errno; the file must not exist yet."""
    try:
        for file in join:
            group = os.open(file, os.O_WRONLY)
            os.write(group, b"0")
            os.close(group)
        made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(made, 0, size)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def main() -> None:
    """Serves requests until stdin ends and the last child has ended."""
    wake_read, wake_write = os.pipe()
    for descriptor in (wake_read, wake_write):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    children: dict[int, str] = {}
    rest, open_input = b"", True
    while open_input or children:
        ready, _, _ = select.select([wake_read, 0] if open_input else [wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
        if 0 in ready:
            data = os.read(0, 65536)
            open_input = bool(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                child = os.fork()
                if child == 0:
                    signal.set_wakeup_fd(-1)
                    os._exit(populate(request["path"], request["size"], request["join"]))
                children[child] = request["path"]
        while children:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                break
            answer = {"path": children.pop(child), "status": status}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
