"""CometBFT's side of the application: ABCI 2.0 over a unix socket, one file a method."""
