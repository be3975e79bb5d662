"""What adapters of venues share: requests with limits and back-off, sockets that come back."""
