"""Prometheus and Grafana: what they scrape, show and alert on."""
