"""Files to run the service elsewhere: Kubernetes, TLS and observability."""
