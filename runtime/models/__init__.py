"""Models on disk: where they are kept, how they are found, fetched and converted."""
