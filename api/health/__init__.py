"""GET /health/diagnostics: five checks of how a server does, each a pure function of facts."""
