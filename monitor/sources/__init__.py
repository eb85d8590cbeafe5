"""Where records come from: one protocol, one module per kind of log."""
