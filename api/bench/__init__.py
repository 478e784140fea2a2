"""A load generator for OpenAI-compatible servers, and the benchmark made with it."""
