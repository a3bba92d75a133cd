"""`kubectl hypermesh`: pre-flight, status, assets, proxy addresses, and use of what was allocated."""
