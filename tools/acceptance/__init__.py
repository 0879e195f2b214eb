"""What `scripts/acceptance` plays, asks, undoes and keeps."""
