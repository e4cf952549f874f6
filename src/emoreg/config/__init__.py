"""All settings, typed, each defined once; recipes read from YAML and the command line."""
