"""Reports: a run evaluated against the baselines, as JSON and as an HTML page with charts."""
