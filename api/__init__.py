"""The text floor: HTTP, schemas, chat templates, tokenising and detokenising. Decides nothing about inference."""
