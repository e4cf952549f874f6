"""Settings: every one typed and in one place; recipes read from YAML and the command line."""
