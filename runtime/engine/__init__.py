"""The engine seam: commands in, results out, and the hosts an engine can live in."""
