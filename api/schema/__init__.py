"""What clients send, field by field, checked before anything else looks at it."""
