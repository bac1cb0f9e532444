"""What is built, and from what: the Dagster code location, and the `agentrl` command."""
