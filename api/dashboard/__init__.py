"""The dashboard for terminals: reads a server's snapshots over HTTP, in a process of its own."""
