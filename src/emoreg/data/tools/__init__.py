"""Tools for image sets: list, verify, show, pack, and make diffused variants."""
