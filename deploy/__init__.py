"""How the service is run elsewhere: Kubernetes, and what watches it."""
