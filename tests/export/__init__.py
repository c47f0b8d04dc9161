"""From an encoder to an artifact."""
