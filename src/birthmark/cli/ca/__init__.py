"""`birthmark ca`: an operator's own certificate authority in a directory.

The directory holds the hierarchy (`birthmark.ca.directory`) and the inventory of what it issued (`inventory.db`).
"""
