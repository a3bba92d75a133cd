"""`kubectl hypermesh ledger …`: reach finds and asks a ledger; one module a subcommand fetches, then renders purely."""
