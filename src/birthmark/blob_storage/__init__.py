"""Files behind an endpoint that is compatible with Azure Blob Storage: block blobs in containers of an account.

Specification: "Blob service REST API" and "Create a service SAS". An account belongs to a hub. Its URL is
`https://HUB/storage/CONTAINER/BLOB?SAS`, the form of Azure's clients for hosts that are addresses.

| operation | request |
|---|---|
| Create Container | `PUT /storage/CONTAINER?restype=container` |
| List Blobs | `GET /storage/CONTAINER?restype=container&comp=list` |
| Put Blob | `PUT /storage/CONTAINER/BLOB` |
| Put Block, Put Block List | `PUT …?comp=block`, `PUT …?comp=blocklist` |
| Set Blob Metadata | `PUT …?comp=metadata` |
| Get Blob, Get Blob Properties, Delete Blob | `GET`, `HEAD`, `DELETE` |

A file on disk has a random name and is complete and synced before its row is committed. Names from clients are never
paths. Not here: leases, snapshots, tiers, tags, append and page blobs, copies from a URL, account keys.
"""
