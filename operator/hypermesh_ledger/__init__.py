"""The ledger: a CometBFT ABCI application, its state on disk, its service, and the supervisor of both processes."""
