"""YAML plans: their text, their structure, errors with a line; curves of sensitivity."""
