"""Reports on studies: statistics, findings in words, tables and a page."""
