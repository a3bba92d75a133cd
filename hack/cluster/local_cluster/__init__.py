"""A real Kubernetes cluster on one machine, in namespaces: no virtual machines, no container engine, IPv6 only.

    addresses, services, manifests   what it consists of (pure)
    certificates, images             the files it needs, made by openssl and gcc
    machine (with mounts, cgroups, supervisor)   one "computer": a process that is PID 1 of its own namespaces
    network                          a switch in a namespace of its own, and a cable from each machine to it
    state, processes                 what was started, so that exactly that is stopped
    up, down, status                 the commands

Standard library only: this runs before any virtual environment exists.
"""
