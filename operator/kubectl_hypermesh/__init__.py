"""`kubectl hypermesh`: pre-flight and health, status, assets, proxy addresses, and use of what was allocated.

main.py parses and dispatches; commands/ has one module a command (fetch objects, then a pure function renders them);
checks/ has the health checks by category; output.py renders tables, JSON and YAML; complete.py is kubectl's completion.
"""
