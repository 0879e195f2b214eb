"""Identity and access management: users, their roles and scopes, and access tokens.

A user is invited and receives a token by redeeming the invitation. Roles are kept in memory and reloaded by every
worker after each change, so that a removed right takes effect at once. Browser sessions and sign-in at external
providers (OIDC) are handled in separate modules.
"""
