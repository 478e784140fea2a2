"""TOKENS: who comes in, who runs, what is kept, what is watched. Never sees text, never sees an array."""
