"""One file a command: read its options, call a room, print the answer. No command imports another."""
