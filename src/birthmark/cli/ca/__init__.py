"""`birthmark ca`: your own certificate authority in a directory.

The directory holds the hierarchy (`birthmark.ca.ca_directory`) and the inventory of its certificates (`inventory.db`).
"""
