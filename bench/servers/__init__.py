"""The servers that Persona is compared with; all but this file runs in their own environments."""
