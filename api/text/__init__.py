"""Text to token ids and back; nothing in here knows of HTTP but the errors it raises."""

import os

# transformers prints on import that PyTorch is missing; it is meant to be.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
