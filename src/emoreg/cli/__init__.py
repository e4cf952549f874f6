"""The command line: parsing and printing only. A command is a function of the library."""
