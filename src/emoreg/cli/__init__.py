"""The command line. Commands are typed functions that call the library and print; options come from signatures."""
