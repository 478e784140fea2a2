"""From the text that a model writes to what it means: thinking, content, and calls of tools."""
