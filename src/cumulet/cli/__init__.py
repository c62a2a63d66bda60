"""The command line. Commands are clients of the HTTP API; `up` and `agent` start processes and import them lazily."""
