"""Authentication: principals and the credentials that prove them."""
