"""The house in a browser: one page, which reads /v1/actors."""
